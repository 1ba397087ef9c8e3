"""A POST that carries an Idempotency-Key has its effect once, however often and however concurrently it is sent.

`TORTURE=1` (`make torture`) races 10,000 requests; otherwise a few hundred.
"""

import asyncio
import itertools
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import idempotency
from app.store import idempotency as store
from tests.conftest import Client, ndjson, order
from tests.test_keys import bearer

RACES = 10_000 if os.environ.get("TORTURE") else 300
AT_ONCE = 32
_numbers = itertools.count()


@dataclass(frozen=True)
class Operation:
    """A POST that may be repeated: how it is sent, and what counts its effects."""

    path: str
    status: int
    request: Callable[[Client, int], dict[str, Any]]
    effects: str


def as_json(body: dict[str, Any]) -> dict[str, Any]:
    return {"json": body}


OPERATIONS = {
    "runs": Operation(
        "/v1/runs",
        202,
        lambda _client, number: as_json({"settings": {"rfm": {"k": 2 + number % 9}}}),
        "SELECT count(*) FROM runs WHERE workspace_id = :workspace_id",
    ),
    "keys": Operation(
        "/v1/keys",
        201,
        lambda _client, number: as_json({"scopes": ["customers:read", "scores:read"][: 1 + number % 2]}),
        "SELECT count(*) - 1 FROM api_keys WHERE workspace_id = :workspace_id",
    ),
    "imports": Operation(
        "/v1/imports",
        202,
        lambda _client, number: {
            "content": ndjson(order(f"o-{number}", id=f"e-{number}")),
            "headers": {"Content-Type": "application/x-ndjson"},
        },
        "SELECT count(*) FROM imports WHERE workspace_id = :workspace_id",
    ),
    "workspaces": Operation(
        "/v1/workspaces",
        201,
        lambda client, number: as_json(
            {"id": f"{client.workspace.name}-{number}", "currency": "USD", "time_zone": "UTC"}
        ),
        "SELECT count(*) FROM admin_acts WHERE workspace_id = :workspace_id AND action = 'workspace.created'",
    ),
}


async def send(client: Client, operation: Operation, number: int, key: str | None = None) -> httpx.Response:
    request = operation.request(client, number)
    headers = request.pop("headers", {}) | ({"Idempotency-Key": key} if key else {})
    return await client.http.post(operation.path, headers=headers, **request)


async def effects(client: Client, engine: AsyncEngine, operation: Operation) -> int:
    async with engine.connect() as connection:
        count = await connection.execute(text(operation.effects), {"workspace_id": client.workspace.id})
    found: int = count.scalar_one()
    return found


async def race(client: Client, engine: AsyncEngine, operation: Operation, races: int) -> None:
    """Send as many requests, 32 at a time and each key many times: every key has one effect and one answer."""
    answers: defaultdict[int, set[bytes]] = defaultdict(set)
    statuses: defaultdict[int, int] = defaultdict(int)
    keys = races // 10
    requests = iter([number // 10 for number in range(keys * 10)])

    async def sender() -> None:
        for number in requests:
            while True:
                response = await send(client, operation, number, f"k-{number}")
                statuses[response.status_code] += 1
                # Busy machines say 429 and 503 too; whoever repeats then is raced even more.
                if response.status_code not in (409, 429, 503):
                    break
                assert response.status_code != 409 or response.json()["code"] == "idempotency_in_flight", response.text
                await asyncio.sleep(0.002)
            assert response.status_code == operation.status, response.text
            answers[number].add(response.content)

    await asyncio.gather(*(sender() for _ in range(AT_ONCE)))
    assert len(answers) == keys
    assert {len(told) for told in answers.values()} == {1}
    assert await effects(client, engine, operation) == keys
    assert statuses[409] > 0, "nothing raced"


@pytest.mark.parametrize("name", OPERATIONS)
async def test_races_have_one_effect_a_key(client: Client, engine: AsyncEngine, name: str) -> None:
    await race(client, engine, OPERATIONS[name], RACES // len(OPERATIONS))


async def test_the_race_catches_a_service_without_the_lock(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def always(*_: Any) -> bool:
        return True

    monkeypatch.setattr(store, "try_lock", always)
    with pytest.raises(AssertionError):
        await race(client, engine, OPERATIONS["keys"], 100)


async def test_the_race_catches_an_answer_that_is_not_kept_with_its_effect(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = store.insert_answer

    async def kept_later(connection: Any, *rest: Any) -> None:
        async def later() -> None:
            async with engine.begin() as other:
                await kept(other, *rest)

        tasks.append(asyncio.create_task(later()))

    tasks: list[asyncio.Task[None]] = []
    monkeypatch.setattr(store, "insert_answer", kept_later)
    try:
        with pytest.raises(AssertionError):
            await race(client, engine, OPERATIONS["keys"], 100)
    finally:
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_repetition_gets_the_first_answer(client: Client, engine: AsyncEngine, name: str) -> None:
    operation = OPERATIONS[name]
    first = await send(client, operation, 1, "again")
    again = await send(client, operation, 1, "again")
    assert first.status_code == again.status_code == operation.status
    assert again.content == first.content
    assert again.headers.get("location") == first.headers.get("location")
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    assert await effects(client, engine, operation) == 1


@pytest.mark.parametrize("name", OPERATIONS)
async def test_another_request_with_the_same_key_is_refused(client: Client, engine: AsyncEngine, name: str) -> None:
    operation = OPERATIONS[name]
    assert (await send(client, operation, 1, "same")).status_code == operation.status
    other = await send(client, operation, 2, "same")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    elsewhere = await send(client, OPERATIONS["keys" if name != "keys" else "runs"], 1, "same")
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (422, "idempotency_key_reused")
    assert await effects(client, engine, operation) == 1


@pytest.mark.parametrize("name", ["runs", "keys", "imports"])
async def test_without_a_key_every_request_counts(client: Client, engine: AsyncEngine, name: str) -> None:
    for _ in range(2):
        assert (await send(client, OPERATIONS[name], 1)).status_code == OPERATIONS[name].status
    assert await effects(client, engine, OPERATIONS[name]) == 2


async def test_a_rotation_can_be_asked_for_again(client: Client) -> None:
    made = (await client.http.post("/v1/keys", json={"scopes": ["customers:read"]})).json()
    answers = [
        await client.http.post(f"/v1/keys/{made['id']}/rotate", headers={"Idempotency-Key": "r"}) for _ in range(3)
    ]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert len({answer.content for answer in answers}) == 1
    assert (await client.http.get("/v1/customers", headers=bearer(answers[2].json()["key"]))).status_code == 200


async def test_keys_of_the_api_keep_their_repetitions_apart(client: Client) -> None:
    other = (await client.http.post("/v1/keys", json={"scopes": ["admin"]})).json()["key"]
    body = {"scopes": ["admin"]}
    mine = await client.http.post("/v1/keys", json=body, headers={"Idempotency-Key": "k"})
    theirs = await client.http.post("/v1/keys", json=body, headers={"Idempotency-Key": "k"} | bearer(other))
    assert (mine.status_code, theirs.status_code) == (201, 201)
    assert mine.json()["id"] != theirs.json()["id"]


async def test_a_refused_request_may_be_tried_again_in_another_form(client: Client, engine: AsyncEngine) -> None:
    headers = {"Idempotency-Key": "mended"}
    refused = await client.http.post("/v1/runs", json={"settings": {"rfm": {"k": 99}}}, headers=headers)
    assert refused.status_code == 422
    assert (await client.http.post("/v1/runs", json={"settings": {"rfm": {"k": 3}}}, headers=headers)).is_success
    assert await effects(client, engine, OPERATIONS["runs"]) == 1


async def test_while_the_first_is_in_flight_a_repetition_is_told_so(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    keep = store.insert_answer

    async def slow(*arguments: Any) -> None:
        begun.set()
        await go_on.wait()
        await keep(*arguments)

    monkeypatch.setattr(store, "insert_answer", slow)
    first = asyncio.create_task(send(client, OPERATIONS["keys"], 1, "slow"))
    await begun.wait()
    second = await send(client, OPERATIONS["keys"], 1, "slow")
    assert (second.status_code, second.json()["code"]) == (409, "idempotency_in_flight")
    go_on.set()
    answer = await first
    assert (await send(client, OPERATIONS["keys"], 1, "slow")).content == answer.content
    assert await effects(client, engine, OPERATIONS["keys"]) == 1


async def test_a_request_that_died_is_not_in_flight_for_ever(
    client: Client, engine: AsyncEngine, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, died = asyncio.Event(), asyncio.Event()
    keep = store.insert_answer

    async def dying(*arguments: Any) -> None:
        begun.set()
        await died.wait()
        await keep(*arguments)

    monkeypatch.setattr(store, "insert_answer", dying)
    first = asyncio.create_task(send(client, OPERATIONS["keys"], 1, "dead"))
    await begun.wait()
    # What the kernel does to the connections of a process that was killed.
    killer = await asyncpg.connect(database_url)
    await killer.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE application_name = 'perennial' AND state = 'idle in transaction'"
    )
    await killer.close()
    died.set()
    assert (await first).status_code == 503
    assert await effects(client, engine, OPERATIONS["keys"]) == 0
    monkeypatch.setattr(store, "insert_answer", keep)
    again = await send(client, OPERATIONS["keys"], 1, "dead")
    assert again.status_code == 201
    assert await effects(client, engine, OPERATIONS["keys"]) == 1


async def stored(engine: AsyncEngine) -> list[Any]:
    async with engine.connect() as connection:
        return list((await connection.execute(text("SELECT * FROM idempotent_answers"))).all())


async def test_no_secret_is_stored_in_the_clear(client: Client, engine: AsyncEngine) -> None:
    made = await send(client, OPERATIONS["keys"], 1, "cAnArY-key")
    for row in await stored(engine):
        for part in (made.json()["key"], made.json()["id"], client.key, "cAnArY"):
            assert part.encode() not in row.sealed + row.digest + row.fingerprint + row.key_id.encode()


async def test_the_test_of_secrets_catches_answers_that_are_not_sealed(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "_sealed", lambda _attempt, answer: answer.body)
    with pytest.raises(AssertionError):
        await test_no_secret_is_stored_in_the_clear(client, engine)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM idempotent_answers"))


async def test_answers_are_kept_for_a_day_and_then_pruned(client: Client, engine: AsyncEngine) -> None:
    async def age(hours: float) -> None:
        async with engine.begin() as connection:
            await connection.execute(
                text("UPDATE idempotent_answers SET at = now() - make_interval(secs => :seconds)"),
                {"seconds": hours * 3600},
            )

    first = await send(client, OPERATIONS["keys"], 1, "old")
    await age(23.9)
    await idempotency.prune_answers(engine)
    assert (await send(client, OPERATIONS["keys"], 1, "old")).content == first.content
    await age(24.1)
    # Too old counts as forgotten, also before it is pruned, and even for another body.
    second = await send(client, OPERATIONS["keys"], 2, "old")
    assert second.status_code == 201
    assert second.json()["id"] != first.json()["id"]
    assert (await send(client, OPERATIONS["keys"], 2, "old")).content == second.content
    await age(24.1)
    await idempotency.prune_answers(engine)
    assert await stored(engine) == []


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ключ", "\x7f"])
async def test_a_key_that_is_none_is_refused(client: Client, key: str) -> None:
    response = await client.http.post("/v1/runs", headers={b"Idempotency-Key": key.encode()})
    assert response.status_code == 422
    assert "dempotency" in response.json()["errors"][0]["pointer"]
    assert await client.get("/v1/runs") == {"data": [], "next_cursor": None}


async def test_an_import_that_is_repeated_leaves_no_second_upload(client: Client, engine: AsyncEngine) -> None:
    for number in (1, 1, 2):
        await send(client, OPERATIONS["imports"], number, "file")
    async with engine.connect() as connection:
        chunks = await connection.execute(
            text(
                "SELECT count(*) FROM import_chunks WHERE import_id IN"
                " (SELECT id FROM imports WHERE workspace_id = :workspace_id)"
            ),
            {"workspace_id": client.workspace.id},
        )
        assert chunks.scalar_one() == 1
