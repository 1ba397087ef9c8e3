"""A customer who is erased is gone from everywhere, for good, whatever happens at the same time."""

import asyncio
import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import erasure, recording, run_fitting
from app.fits import Fits
from app.live import live_values
from app.run_execution import execute_run
from app.runs import add_run
from app.store import interactions as interaction_store
from app.store import scores as score_store
from app.store.engine import DriverStatement
from app.store.workspaces import KeyHolder
from app.workspaces import authenticate
from tests.conftest import Client, event, make_client, order
from tests.erasure_traces import hits_in_tables


async def erase(client: Client, customer_id: str = "c-1", status: int = 204) -> Any:
    response = await client.http.delete(f"/v1/customers/{customer_id}")
    assert response.status_code == status, response.text
    return response.json() if response.content else None


async def do_run(client: Client, engine: AsyncEngine, **settings: Any) -> dict[str, Any]:
    async with engine.begin() as connection:
        run = await add_run(connection, client.workspace, settings={"clv": {"model": "textbook"}} | settings)
    await execute_run(engine, str(run.number).encode(), asyncio.Event())
    done = await client.get(f"/v1/runs/{run.id}")
    assert done["status"] == "succeeded", done
    return done


async def fetch(engine: AsyncEngine, statement: str, **values: Any) -> Sequence[Any]:
    async with engine.connect() as connection:
        return (await connection.execute(text(statement), values)).all()


def codes(receipt: dict[str, Any]) -> list[str]:
    return [error["code"] for error in receipt["errors"]]


# ---- What an erasure does -------------------------------------------------------------------------------------------


async def test_an_erased_customer_is_not_found_and_totals_fall(client: Client, engine: AsyncEngine) -> None:
    await client.record(
        order("o-1", "10.00"),
        order("o-2", "5.00", customer_id="c-2"),
        event("customer.created", name="Ada", email="ada@example.com", kind="consumer"),
    )
    await do_run(client, engine)
    before = await client.get("/v1/reports/overview")
    assert (before["customers"], before["orders"], before["revenue"]) == (2, 2, "15.00")
    await erase(client)
    after = await client.get("/v1/reports/overview")
    assert (after["customers"], after["buyers"], after["orders"], after["revenue"]) == (1, 1, 1, "5.00")
    assert [one["customer_id"] for one in (await client.get("/v1/customers"))["data"]] == ["c-2"]
    assert (await client.get("/v1/customers", q="ada"))["data"] == []
    assert [one["customer_id"] for one in (await client.get("/v1/values"))["data"]] == ["c-2"]
    assert sum(one["customers"] for one in (await client.get("/v1/reports/rfm"))["segments"]) == 1
    for path in ("", "/events", "/value", "/value?source=cached", "/rfm", "/churn", "/export"):
        assert (await client.http.get(f"/v1/customers/c-1{path}")).status_code == 404, path
    found = await client.http.post("/v1/values/query", json={"customer_ids": ["c-1", "c-2"]})
    assert found.json()["not_found"] == ["c-1"]


async def test_erasing_again_is_answered_alike_and_an_unknown_customer_is_not_found(client: Client) -> None:
    await client.record(order("o-1"))
    await erase(client)
    await erase(client)
    assert (await erase(client, "c-never", 404))["code"] == "customer_not_found"


async def holder_of(client: Client, engine: AsyncEngine) -> KeyHolder:
    """The caller as the service sees it now."""
    holder = await authenticate(engine, client.key)
    assert holder is not None
    return holder


async def test_late_events_of_an_erased_customer_are_rejected_and_hurt_no_other(client: Client) -> None:
    await client.record(order("o-1", id="e-1"))
    await erase(client)
    receipt = await client.record(
        order("o-1", id="e-1"),
        order("o-9", customer_id="c-2"),
        event("customer.updated", name="Ada"),
        event("support.contacted", customer_id="c-1", channel="email")
        | {"type": "order.cancelled", "data": {"order_id": "o-1"}},
    )
    assert (receipt["accepted"], receipt["rejected"]) == (1, 3)
    assert codes(receipt) == ["customer_erased"] * 3
    assert receipt["errors"][0]["pointer"] == "/customer_id"
    assert "c-1" not in json.dumps(receipt["errors"])
    assert (await client.http.get("/v1/customers/c-1")).status_code == 404
    # The batch sent again tells the same.
    assert (await client.record(order("o-1", id="e-1")))["rejected"] == 1


async def test_a_customer_of_the_same_id_elsewhere_is_another_one(app: FastAPI, client: Client) -> None:
    other = await make_client(app)
    async with other.http:
        await client.record(order("o-1"))
        await other.record(order("o-1"))
        await erase(client)
        assert (await other.get("/v1/customers/c-1"))["summary"]["order_count"] == 1
        assert (await other.record(order("o-2")))["accepted"] == 1
        await erase(other)
        hashes = {erasure.customer_hash(workspace, "c-1") for workspace in (client.workspace, other.workspace)}
        stored = await fetch(
            app.state.engine,
            "SELECT customer_hash FROM erased_customers WHERE workspace_id = ANY(:ids)",
            ids=[client.workspace.id, other.workspace.id],
        )
        assert len(hashes) == 2
        assert {row.customer_hash for row in stored} == hashes


async def test_a_workspace_never_shows_its_erasure_key(client: Client) -> None:
    assert len(client.workspace.erasure_key) == 32
    assert "erasure_key" not in repr(client.workspace)


async def test_an_erased_customer_takes_no_churn_label(client: Client) -> None:
    await client.record(order("o-1"))
    await erase(client)
    answer = await client.http.post("/v1/customers/c-1/churn-label", json={"type": "natural"})
    assert (answer.status_code, answer.json()["code"]) == (404, "customer_not_found")


# ---- Whom others name -----------------------------------------------------------------------------------------------


async def test_nobody_is_said_to_be_referred_by_an_erased_customer(client: Client) -> None:
    friend = event("customer.created", "c-2", name="Bob", referred_by="c-1")
    older = event("customer.created", "c-3", "2024-01-01T00:00:00Z", referred_by="c-1")
    newer = event("customer.updated", "c-3", "2024-02-01T00:00:00Z", referred_by="c-2", city="Rome")
    await client.record(order("o-1"), friend, older, newer)
    await erase(client)
    assert (await client.get("/v1/customers/c-2"))["profile"]["referred_by"] is None
    assert (await client.get("/v1/customers/c-2"))["profile"]["name"] == "Bob"
    assert (await client.get("/v1/customers/c-3"))["profile"]["referred_by"] == "c-2"
    for customer_id in ("c-2", "c-3"):
        told = (await client.get(f"/v1/customers/{customer_id}/events"))["data"]
        assert "c-1" not in json.dumps(told)
    # What was acknowledged is still known, and a new word of the kind is not taken.
    assert (await client.record(friend, older, newer))["duplicates"] == 3
    receipt = await client.record(
        event("customer.updated", "c-2", referred_by="c-1"), event("customer.updated", "c-2", city="Oslo")
    )
    assert (receipt["accepted"], codes(receipt)) == (1, ["customer_erased"])
    assert receipt["errors"][0]["pointer"] == "/data/referred_by"


async def test_a_referrer_who_is_erased_meanwhile_is_never_named(client: Client, engine: AsyncEngine) -> None:
    for number in range(15):
        referrer = f"canary-{client.workspace.id}-{number}"
        await client.record(order("o-1", customer_id=referrer))
        named = [event("customer.updated", f"c-{one}", referred_by=referrer) for one in range(4)]
        receipts = await asyncio.gather(*(client.record(one) for one in named), erase(client, referrer))
        assert {code for receipt in receipts[:-1] for code in codes(receipt)} <= {"customer_erased"}
        assert await hits_in_tables(engine, referrer) == []


# ---- Stored fits ----------------------------------------------------------------------------------------------------


def _boundaries(fitted: dict[str, Any]) -> set[str]:
    pairs = (fitted["rfm"]["f_pairs"] or []) + [fitted["abc"]["last_a"], fitted["abc"]["last_b"]]
    return {pair["customer_id"] for pair in pairs if pair and pair["customer_id"]}


@pytest.mark.parametrize("seed", range(4))
async def test_grades_of_all_others_stay_when_the_last_of_a_grade_is_erased(
    client: Client, engine: AsyncEngine, seed: int
) -> None:
    choose = random.Random(seed)
    ids = [f"c-{number:02}" for number in range(40)]
    # Few figures, so that ids decide.
    await client.record(
        *(
            order(f"o-{number}", choose.choice(["5.00", "10.00"]), customer_id=customer_id)
            for customer_id in ids
            for number in range(choose.choice([1, 1, 2]))
        )
    )
    run = await do_run(client, engine, rfm={"ties": "first"})
    # Since the run some have come to figures that were others' before.
    await client.record(*(order("late", "5.00", customer_id=choose.choice(ids)) for _ in range(1)))
    now = await grades(client, engine, ids)
    left = set(ids)
    for _ in range(12):
        named = _boundaries((await client.get(f"/v1/runs/{run['id']}"))["fitted"])
        # At last those who come first of all, so that nobody is before them.
        gone = choose.choice(sorted(named)) if named else min(left)
        await erase(client, gone)
        left.discard(gone)
        fitted = (await client.get(f"/v1/runs/{run['id']}"))["fitted"]
        assert gone not in json.dumps(fitted)
        assert await grades(client, engine, sorted(left)) == {one: now[one] for one in left}


async def test_the_first_customer_of_all_may_be_the_last_of_a_grade(client: Client, engine: AsyncEngine) -> None:
    await client.record(*(order("o-1", "10.00", customer_id=one) for one in ("a", "b")))
    run = await do_run(client, engine, abc={"a_share": 0.4, "b_share": 0.45})
    assert run["fitted"]["abc"]["last_a"]["customer_id"] == "a"
    before = await grades(client, engine, ["b"])
    await erase(client, "a")
    assert await grades(client, engine, ["b"]) == before
    assert (await client.get("/v1/runs/latest"))["fitted"]["abc"]["last_a"]["customer_id"] == ""


async def grades(client: Client, engine: AsyncEngine, ids: Sequence[str]) -> dict[str, Any]:
    """Live grades by the fit as it is stored now, in a process that never read it before."""
    workspace = (await holder_of(client, engine)).workspace
    found = await live_values(engine, Fits(), workspace, ids, datetime.now(UTC))
    return {value.customer_id: (value.rfm.f, value.abc.grade) for value in found.values}


# ---- At the same time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before it writes", "before it ends"])
async def test_a_run_leaves_out_who_is_erased_while_it_is_at_work(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    canary = f"canary-run-{client.workspace.id}"
    await client.record(
        *(order("o-1", customer_id=one) for one in ("a", "b", canary)), order("o-2", "500.00", customer_id=canary)
    )
    name = "copy_scores" if moment == "before it writes" else "copy_to_history"
    step = getattr(score_store, name)

    async def erase_first(*arguments: Any) -> None:
        await erase(client, canary)
        await step(*arguments)

    monkeypatch.setattr(score_store, name, erase_first)
    monkeypatch.setattr(run_fitting, "LARGE_RUN_CUSTOMERS", 1 if moment == "before it ends" else 20_000)
    run = await do_run(client, engine, rfm={"ties": "first"})
    assert await hits_in_tables(engine, canary) == []
    assert run["fitted"]["abc"]["last_a"] is not None
    assert [one["customer_id"] for one in (await client.get("/v1/values"))["data"]] == ["a", "b"]


async def erased_while_recorded(client: Client, engine: AsyncEngine, rounds: int) -> list[Any]:
    """Erase customers while batches that have their events are recorded; answers what is left of them."""
    left: list[Any] = []
    for number in range(rounds):
        canary = f"canary-{client.workspace.id}-{number}"
        await client.record(order("o-first", customer_id=canary))

        async def record(batch: int, canary: str = canary, number: int = number) -> dict[str, Any]:
            await asyncio.sleep(0.002 * (batch % 4))
            others = [order(f"o-{number}-{batch}", customer_id=f"other-{one}") for one in range(3)]
            return await client.record(
                *others,
                order(f"o-{batch}", customer_id=canary),
                event("customer.updated", canary, name=canary),
                event("customer.updated", f"new-{number}-{batch}", name="New"),
            )

        async def label(canary: str = canary) -> None:
            answer = await client.http.post(f"/v1/customers/{canary}/churn-label", json={"type": "natural"})
            assert answer.status_code in (201, 404)

        *receipts, _, _ = await asyncio.gather(*(record(batch) for batch in range(6)), label(), erase(client, canary))
        for receipt in receipts:
            assert receipt["accepted"] in (4, 6)
            assert codes(receipt) == ["customer_erased"] * (6 - receipt["accepted"])
        later = await client.record(order("o-later", customer_id=canary))
        if codes(later) != ["customer_erased"]:
            left.append(later)
        left += await hits_in_tables(engine, canary)
    for one in range(3):
        summary = (await client.get(f"/v1/customers/other-{one}"))["summary"]
        assert summary["order_count"] == 6 * rounds
    return left


async def test_an_erasure_and_batches_at_the_same_time_leave_nothing_behind(
    client: Client, engine: AsyncEngine
) -> None:
    assert await erased_while_recorded(client, engine, 25) == []


async def test_that_test_sees_a_customer_who_comes_back(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(*_: Any) -> frozenset[str]:
        return frozenset()

    monkeypatch.setattr(recording, "erased_among", nobody)
    with pytest.raises(AssertionError):
        assert await erased_while_recorded(client, engine, 5) == []


async def test_a_label_and_an_erasure_at_the_same_time_leave_nothing_behind(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = f"canary-label-{client.workspace.id}"
    await client.record(order("o-1", customer_id=canary))
    write_label = interaction_store.write_label
    erasing: list[asyncio.Task[Any]] = []

    async def erase_first(*arguments: Any) -> None:
        erasing.append(asyncio.create_task(erase(client, canary)))
        # It waits for the label, unless nothing holds the customer.
        await asyncio.wait(erasing, timeout=1)
        await write_label(*arguments)

    monkeypatch.setattr(interaction_store, "write_label", erase_first)
    answer = await client.http.post(f"/v1/customers/{canary}/churn-label", json={"type": "natural"})
    assert answer.status_code == 201
    await erasing[0]
    assert await hits_in_tables(engine, canary) == []


# ---- What it costs those who erase nobody ---------------------------------------------------------------------------


async def statements_of(client: Client, engine: AsyncEngine, *events: dict[str, Any]) -> list[str]:
    """What a batch asks of the database, in the order of asking."""
    said: list[str] = []

    def heard(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    fetch_driver = DriverStatement.fetch

    async def fetch_and_tell(self: DriverStatement, *arguments: Any) -> list[Any]:
        said.append(self._sql)
        return await fetch_driver(self, *arguments)

    sqlalchemy_event.listen(engine.sync_engine, "before_cursor_execute", heard)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DriverStatement, "fetch", fetch_and_tell)
            receipt = await client.record(*events)
    finally:
        sqlalchemy_event.remove(engine.sync_engine, "before_cursor_execute", heard)
    assert receipt["accepted"] == len(events)
    return [one for one in said if "api_keys" not in one]


async def test_only_batches_with_new_customers_ask_for_erased_ones(client: Client, engine: AsyncEngine) -> None:
    def about(said: list[str]) -> int:
        return sum("erased_customers" in one for one in said)

    new = await statements_of(client, engine, order("o-1"), order("o-1", customer_id="c-2"))
    known = await statements_of(client, engine, order("o-2"), order("o-2", customer_id="c-2"))
    assert (about(new), about(known)) == (1, 0)
    # The plans' setting and the summaries; events come by COPY, which is not counted here.
    assert len(known) == 2
    assert len(new) == 3
    await erase(client, "c-2")
    known = await statements_of(client, engine, order("o-3"))
    new = await statements_of(client, engine, order("o-1", customer_id="c-3"))
    assert (len(known), len(new), about(new)) == (2, 4, 2)
