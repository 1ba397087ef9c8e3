"""What recording costs, counted: statements, transactions, and rows read and written. Counts do not flicker."""

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import ingest, recording, transactions
from app.candidates import prepare
from app.ingest import EventRecorder
from app.recording import record_rows
from app.store.engine import driver_connection
from app.store.workspaces import Workspace
from tests.conftest import make_workspace

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def orders(customer_id: str, days: Sequence[int], name: str = "o") -> list[dict[str, Any]]:
    """An order on each of the days before NOW."""
    return [
        {
            "id": f"e-{name}-{day}",
            "type": "order.placed",
            "customer_id": customer_id,
            "occurred_at": (NOW - timedelta(days=day)).isoformat(),
            "data": {"order_id": f"{name}-{day}", "amount": "10.00", "currency": "USD"},
        }
        for day in days
    ]


async def record(connection: AsyncConnection, workspace: Workspace, events: list[dict[str, Any]]) -> None:
    candidates, rejections = prepare(workspace, events, NOW)
    assert not rejections
    verdicts = await record_rows(connection, workspace, candidates.rows, NOW, tries=0)
    assert verdicts == ["accepted"] * len(events)


async def counters(connection: AsyncConnection) -> Counter[tuple[str, str]]:
    rows = await connection.execute(
        text(
            "SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) AS read, n_tup_ins + n_tup_upd + n_tup_del"
            " AS written FROM pg_stat_xact_user_tables WHERE relname IN ('events', 'customer_summary')"
        )
    )
    return Counter({(row.relname, what): getattr(row, what) for row in rows for what in ("read", "written")})


async def rows_touched(
    engine: AsyncEngine, workspace: Workspace, events: list[dict[str, Any]]
) -> Counter[tuple[str, str]]:
    """Rows of each table that recording the events reads and writes."""
    async with engine.begin() as connection:
        before = await counters(connection)
        await record(connection, workspace, events)
        after = await counters(connection)
        return after - before


@pytest_asyncio.fixture
async def workspace(engine: AsyncEngine) -> Workspace:
    found, _ = await make_workspace(engine)
    async with engine.begin() as connection:
        await record(connection, found, orders("c-short", range(1, 4)))
        await record(connection, found, orders("c-long", range(1, 400)))
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("ANALYZE events, customer_summary"))
    return found


@pytest.mark.one_server
@pytest.mark.parametrize("day", [0, 1, 2], ids=["next", "same-day", "late"])
async def test_an_order_touches_no_more_rows_after_a_long_history(
    engine: AsyncEngine, workspace: Workspace, day: int
) -> None:
    after_short = await rows_touched(engine, workspace, orders("c-short", [day], "new"))
    after_long = await rows_touched(engine, workspace, orders("c-long", [day], "new"))
    assert after_long == after_short
    assert after_long["events", "written"] == 1
    assert after_long["events", "read"] <= 3  # a late order looks at the days around its own
    assert after_long["customer_summary", "written"] == 1


async def test_a_batch_is_as_many_statements_as_an_event(engine: AsyncEngine) -> None:
    workspace, _ = await make_workspace(engine)
    statements: list[str] = []
    async with engine.begin() as connection:
        driver = await driver_connection(connection)
        driver.add_query_logger(lambda record: statements.append(record.query))
        await record(connection, workspace, orders("c-1", [9]))
        for_one = len(statements)
        await record(connection, workspace, [event for n in range(300) for event in orders(f"c-{n}", [5, 4], f"n{n}")])
        driver.remove_query_logger(statements.append)
    # The driver tells of a statement a moment after it, so of the commit too, sooner or later.
    for_many = len([statement for statement in statements if statement != "COMMIT;"]) - for_one
    # How to plan, the summaries, and of new customers whether anyone was erased; the events themselves go by COPY,
    # which is not logged. Beginning is.
    assert for_one <= 3 + 1
    assert for_many <= 3 + 1


async def test_single_events_that_come_together_share_transactions(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, _ = await make_workspace(engine)
    count = read = 0
    committed = transactions.committed

    async def counted(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return await committed(*arguments)

    def counted_read(*arguments: Any) -> Any:
        nonlocal read
        read += 1
        return prepare(*arguments)

    monkeypatch.setattr(ingest, "committed", counted)
    monkeypatch.setattr(ingest, "prepare", counted_read)
    recorder = EventRecorder(engine, turns=4)
    receipts = await asyncio.gather(
        *(recorder.record(workspace, orders(f"c-{number}", [1]), NOW) for number in range(200))
    )
    assert all(receipt.accepted == 1 for receipt in receipts)
    assert count <= 3
    assert read <= 3
    async with engine.connect() as connection:
        stored = await connection.execute(
            text("SELECT count(*) FROM events WHERE workspace_id = :id"), {"id": workspace.id}
        )
        assert stored.scalar_one() == 200


@pytest.mark.parametrize(("size_bytes", "apart"), [(100, False), (ingest.INLINE_BYTES // 2, True)])
async def test_small_batches_that_are_large_together_are_read_beside_the_loop(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, size_bytes: int, apart: bool
) -> None:
    workspace, _ = await make_workspace(engine)
    threads = []

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return prepare(*arguments)

    monkeypatch.setattr(ingest, "prepare", noted)
    recorder = EventRecorder(engine, turns=4)
    await asyncio.gather(
        *(recorder.record(workspace, orders(f"c-{number}", [1]), NOW, size_bytes) for number in range(3))
    )
    assert [thread is not threading.current_thread() for thread in threads] == [apart]


async def test_each_of_the_batches_that_share_a_transaction_learns_of_its_own_events(engine: AsyncEngine) -> None:
    workspace, _ = await make_workspace(engine)
    recorder = EventRecorder(engine, turns=4)
    [known] = orders("c-1", [1])
    await recorder.record(workspace, [known], NOW)
    changed = {**known, "data": {**known["data"], "amount": "11.00"}}
    nameless = {**known, "customer_id": ""}
    receipts = await asyncio.gather(
        *(
            recorder.record(workspace, items, NOW)
            for items in (
                orders("c-2", [1, 2]),
                [],
                [*orders("c-3", [1]), nameless, changed, known],
                [nameless],
                [known, *orders("c-4", [1, 2, 3])],
            )
        )
    )
    assert [
        (one.accepted, one.duplicates, [(error.index, error.code) for error in one.errors]) for one in receipts
    ] == [
        (2, 0, []),
        (0, 0, []),
        (1, 1, [(1, "invalid_value"), (2, "event_conflict")]),
        (0, 0, [(0, "invalid_value")]),
        (3, 1, []),
    ]


async def test_an_event_that_fails_hurts_none_of_those_it_shares_a_transaction_with(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faults of ours: one of the shared events can't be read, and one that validation let through makes it fail."""
    workspace, _ = await make_workspace(engine)
    recorder = EventRecorder(engine, turns=4)
    record_rows = recording.record_rows

    async def fail(connection: AsyncConnection, workspace: Workspace, rows: Any, *arguments: Any) -> Any:
        if any(row.customer_id == "c-13" for row in rows):
            await connection.execute(text("SELECT 1 / 0"))
        return await record_rows(connection, workspace, rows, *arguments)

    def fail_to_read(workspace: Workspace, items: Any, received_at: datetime) -> Any:
        if any(item["customer_id"] == "c-7" for item in items):
            raise RuntimeError
        return prepare(workspace, items, received_at)

    monkeypatch.setattr(ingest, "record_rows", fail)
    monkeypatch.setattr(ingest, "prepare", fail_to_read)
    outcomes = await asyncio.gather(
        *(recorder.record(workspace, orders(f"c-{number}", [1]), NOW) for number in range(20)), return_exceptions=True
    )
    failed = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, BaseException)]
    assert failed == [7, 13]
