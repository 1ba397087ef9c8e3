"""One workspace can't take what others need: rates, turns, and a pool that is not waited for."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from app import customers, live, workspaces
from app.api import limits
from app.api.limits import Limits, Turns
from app.errors import RateLimited
from app.main import create_app
from app.settings import Settings
from app.store.workspaces import Workspace
from tests.conftest import Client, make_client, order
from tests.test_keys import bearer

BURST = 6


@pytest_asyncio.fixture
async def narrow(database_url: str) -> AsyncIterator[FastAPI]:
    """An app that takes three requests a second of a workspace, six at first, and four at once."""
    app = create_app(
        Settings(database_url=database_url, throwaway_database=True, requests_per_second=BURST / 2, pool_size=8)
    )
    async with app.router.lifespan_context(app):
        yield app


async def flood(client: Client, count: int, **headers: str) -> list[httpx.Response]:
    """The answers to requests one after another; the first makes the key known."""
    return [await client.http.get("/v1/customers", headers=headers) for _ in range(count)]


async def together(client: Client, count: int, path: str = "/v1/customers", **headers: str) -> list[httpx.Response]:
    """The answers to requests that come together."""
    return await asyncio.gather(*(client.http.get(path, headers=headers) for _ in range(count)))


async def test_beyond_its_rate_a_workspace_is_told_to_come_back(narrow: FastAPI) -> None:
    greedy, other = await make_client(narrow), await make_client(narrow)
    async with greedy.http, other.http:
        await flood(greedy, 1)
        await flood(other, 1)
        refused = [answer for answer in await flood(greedy, 3 * BURST) if answer.status_code != 200]
        assert len(refused) > BURST
        for answer in refused:
            assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["content-type"] == "application/problem+json"
        assert [answer.status_code for answer in await flood(other, 3)] == [200] * 3
        await asyncio.sleep(int(refused[-1].headers["retry-after"]))
        assert (await flood(greedy, 1))[0].status_code == 200


async def test_the_test_of_rates_catches_an_account_for_all(narrow: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    count = limits.Rates.count
    monkeypatch.setattr(limits.Rates, "count", lambda self, _number, now: count(self, 0, now))
    with pytest.raises(AssertionError):
        await test_beyond_its_rate_a_workspace_is_told_to_come_back(narrow)


async def test_all_keys_of_a_workspace_count_together(narrow: FastAPI) -> None:
    client = await make_client(narrow)
    async with client.http:
        second = (await client.http.post("/v1/keys", json={"scopes": ["customers:read"]})).json()["key"]
        await flood(client, 1, **bearer(second))
        await together(client, 2 * BURST)
        assert 429 in [answer.status_code for answer in await together(client, BURST, **bearer(second))]


async def test_a_flood_that_is_refused_costs_the_database_nothing(
    narrow: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await make_client(narrow)
    authenticate, looked_up = workspaces.authenticate, 0

    async def counted(*arguments: Any) -> Any:
        nonlocal looked_up
        looked_up += 1
        return await authenticate(*arguments)

    async with client.http:
        await flood(client, 1)
        monkeypatch.setattr(workspaces, "authenticate", counted)
        statuses = [answer.status_code for answer in await together(client, 4 * BURST)]
        assert statuses.count(429) > BURST
        assert looked_up == statuses.count(200) > 0


async def test_unknown_keys_use_up_no_workspaces_rate(narrow: FastAPI) -> None:
    client = await make_client(narrow)
    async with client.http:
        await flood(client, 1)
        answers = [(await flood(client, 1, **bearer(workspaces.make_key())))[0].status_code for _ in range(3 * BURST)]
        assert set(answers) == {401, 429}
        assert (await flood(client, 1))[0].status_code == 200


async def test_a_revoked_key_uses_up_nobodys_rate(narrow: FastAPI) -> None:
    client = await make_client(narrow)
    async with client.http:
        made = (await client.http.post("/v1/keys", json={"scopes": ["customers:read"]})).json()
        await flood(client, 1, **bearer(made["key"]))
        await client.http.delete(f"/v1/keys/{made['id']}")
        await asyncio.sleep(1)
        await flood(client, 2 * BURST, **bearer(made["key"]))
        assert (await flood(client, 1))[0].status_code == 200


async def test_a_refusal_is_held_back_for_a_moment(narrow: FastAPI) -> None:
    client = await make_client(narrow)
    async with client.http:
        await flood(client, 1)
        begin = time.monotonic()
        statuses = [answer.status_code for answer in await together(client, 4 * BURST)]
        assert statuses.count(429) > BURST
        assert limits.HELD_BACK_S[0] < time.monotonic() - begin < 1


async def test_health_is_told_whatever_the_rate(narrow: FastAPI) -> None:
    client = await make_client(narrow)
    async with client.http:
        for _ in range(3 * BURST):
            for path in ("/health/live", "/health/ready"):
                assert (await client.http.get(path, headers=bearer(workspaces.make_key()))).status_code == 200


class Gate:
    """Stands for slow work: requests for the customer ``slow`` wait here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = asyncio.Event()
        self.inside = 0
        get_customer = customers.get_customer

        async def slow(engine: Any, workspace: Workspace, customer_id: str) -> Any:
            if customer_id == "slow":
                self.inside += 1
                await self.open.wait()
            return await get_customer(engine, workspace, customer_id)

        monkeypatch.setattr(customers, "get_customer", slow)


async def answered_in_time(request: Any) -> httpx.Response:
    begin = time.monotonic()
    answer: httpx.Response = await request
    assert time.monotonic() - begin < 1
    return answer


async def test_a_workspace_that_keeps_its_turns_keeps_them_from_itself_alone(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy, other = await make_client(app), await make_client(app)
    gate = Gate(monkeypatch)
    async with greedy.http, other.http:
        await other.record(order("o-1"))
        await flood(greedy, 1)
        share = app.state.settings.pool_size // 2
        slow = [asyncio.create_task(greedy.http.get("/v1/customers/slow")) for _ in range(share)]
        try:
            while gate.inside < share:  # noqa: ASYNC110 - it is not told
                await asyncio.sleep(0.01)
            more = asyncio.create_task(answered_in_time(greedy.http.get("/v1/customers/slow")))
            slow.append(more)
            for _ in range(20):
                assert (await answered_in_time(other.http.get("/v1/customers/c-1"))).status_code == 200
            refused = await more
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert refused.headers["retry-after"] == "1"
            assert gate.inside == share
        finally:
            gate.open.set()
            answers = await asyncio.gather(*slow, return_exceptions=True)
        assert [answer.status_code for answer in answers if isinstance(answer, httpx.Response)] == [404] * share + [429]
        assert (await flood(greedy, 1))[0].status_code == 200


async def test_the_test_of_turns_catches_a_service_without_them(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(*_: Any) -> None:
        return None

    monkeypatch.setattr(Turns, "begin", at_once)
    monkeypatch.setattr(Turns, "end", lambda *_: None)
    with pytest.raises((AssertionError, TimeoutError)):
        async with asyncio.timeout(5):
            await test_a_workspace_that_keeps_its_turns_keeps_them_from_itself_alone(app, monkeypatch)


async def test_plain_reads_take_turns_while_others_call_and_only_then(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy, other = await make_client(app), await make_client(app)
    path = "/v1/customers/c-1/value"
    read, inside, most, gate = live.live_value, 0, 0, asyncio.Event()

    async def slow(engine: Any, fits: Any, workspace: Workspace, *asked: Any, **how: Any) -> Any:
        nonlocal inside, most
        if workspace.id == greedy.workspace.id:
            inside += 1
            most = max(most, inside)
            await gate.wait()
            inside -= 1
        return await read(engine, fits, workspace, *asked, **how)

    async def read_many() -> tuple[int, list[int]]:
        """How many of twelve reads were worked on at once, and how they were answered."""
        nonlocal most
        most = 0
        gate.clear()
        reads = asyncio.ensure_future(together(greedy, 12, path))
        await asyncio.sleep(0.2)
        gate.set()
        return most, [answer.status_code for answer in await reads]

    async with greedy.http, other.http:
        for client in (greedy, other):
            await client.record(order("o-1"))
            await client.get(path)
        await asyncio.sleep(2 * limits.COMPANY_S)
        await greedy.get("/v1/customers")
        monkeypatch.setattr(live, "live_value", slow)
        assert await read_many() == (12, [200] * 12)
        await other.get(path)
        assert await read_many() == (limits.READS_BESIDE_OTHERS, [200] * 12)
        await asyncio.sleep(2 * limits.COMPANY_S)
        assert await read_many() == (12, [200] * 12)


async def test_when_all_connections_are_taken_callers_are_told_within_a_second(app: FastAPI, client: Client) -> None:
    await flood(client, 1)
    async with AsyncExitStack() as taken:
        for _ in range(app.state.settings.pool_size):
            await taken.enter_async_context(app.state.engine.connect())
        answers = await asyncio.gather(*(answered_in_time(client.http.get("/v1/customers")) for _ in range(5)))
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert answer.headers["retry-after"]
    assert (await flood(client, 1))[0].status_code == 200


@given(
    at_once=st.integers(1, 3),
    requests=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 4)), max_size=25),
)
async def test_turns_are_never_more_than_allowed_and_never_lost(
    at_once: int, requests: list[tuple[int, int, int]]
) -> None:
    """However requests work, give up and overlap."""
    turns = Turns(at_once, longest_wait_s=None, most_waiting=1_000)
    working = [0, 0, 0]

    async def request(number: int, steps: int) -> None:
        await turns.begin(number)
        try:
            working[number] += 1
            assert working[number] <= at_once
            for _ in range(steps):
                await asyncio.sleep(0)
        finally:
            working[number] -= 1
            turns.end(number)

    tasks = []
    for number, steps, patience in requests:
        task = asyncio.create_task(request(number, steps))
        tasks.append(task)
        if patience < 4:
            asyncio.get_running_loop().call_soon(task.cancel) if patience == 0 else None
            for _ in range(patience):
                await asyncio.sleep(0)
            if patience == 3:
                task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [result for result in results if isinstance(result, AssertionError)]
    for number in range(3):
        for _ in range(at_once):
            await asyncio.wait_for(turns.begin(number), 1)


async def test_waiting_for_turns_is_bounded_in_time_and_number() -> None:
    turns = Turns(1, longest_wait_s=0.05, most_waiting=2)
    await turns.begin(1)
    waiting = [asyncio.create_task(turns.begin(1)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(RateLimited):
        await turns.begin(1)
    assert [type(result) for result in await asyncio.gather(*waiting, return_exceptions=True)] == [RateLimited] * 2
    turns.end(1)
    await turns.begin(1)


def test_what_is_remembered_of_keys_is_bounded_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MOST_KEYS", 10)
    kept = Limits(1.0, 1)
    workspace = Workspace(1, "w", "USD", None, b"")  # type: ignore[arg-type]
    for number in range(100):
        kept.learn(f"Bearer cAnArY-{number}", workspace)
    assert 9 <= len(kept._workspaces) <= 10
    assert kept.workspace_of("Bearer cAnArY-99") is workspace
    assert b"cAnArY" not in b"".join(kept._workspaces)
