"""The summary that live scores read is exact at all times, however the events come."""

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.analytics.summary import summarise
from app.ingest import EventRecorder
from app.store.figures import LIFETIME_COLUMNS
from app.store.workspaces import Workspace
from tests.conftest import make_workspace
from tests.histories import Delivery, History, deliveries, histories

END_OF_TIME = datetime(2100, 1, 1, tzinfo=UTC)


async def deliver(engine: AsyncEngine, workspace: Workspace, delivery: Delivery) -> tuple[int, int]:
    """Send all batches; how many events were accepted, and how many were known. None may be rejected."""
    now = datetime.now(UTC)
    # Of two recorders, as of two processes: batches of one share transactions, those of both compete.
    recorders = [EventRecorder(engine, turns=4) for _ in range(2)]
    sending = [recorders[number % 2].record(workspace, batch, now) for number, batch in enumerate(delivery.batches)]
    if delivery.concurrent:
        receipts = await asyncio.gather(*sending)
    else:
        receipts = [await batch for batch in sending]
    assert [receipt.errors for receipt in receipts if receipt.errors] == []
    return sum(receipt.accepted for receipt in receipts), sum(receipt.duplicates for receipt in receipts)


async def summaries(engine: AsyncEngine, workspace: Workspace) -> dict[str, dict[str, Any]]:
    async with engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT * FROM customer_summary WHERE workspace_id = :id"), {"id": workspace.id}
        )
        return {row["customer_id"]: dict(row) for row in rows.mappings()}


def expected_summary(history: History, customer_id: str) -> dict[str, Any]:
    events = history.reference(customer_id)
    moments = [event.occurred_at for event in events]
    lifetime = asdict(summarise(events, END_OF_TIME, END_OF_TIME.date()))
    return {name: lifetime[name] for name in LIFETIME_COLUMNS} | {
        "event_count": len(events),
        "adjustment_count": sum(event.kind != "placed" for event in events),
        "latest_order_event_at": max(moments),
        "first_event_at": min(moments),
        "last_event_at": max(moments),
    }


@given(data=st.data())
async def test_summaries_equal_the_reference_whatever_way_the_events_come(engine: AsyncEngine, data: Any) -> None:
    history = data.draw(histories())
    delivery = data.draw(deliveries(history))
    workspace, _ = await make_workspace(engine, time_zone=history.time_zone.key)
    accepted, duplicates = await deliver(engine, workspace, delivery)
    assert accepted == len(history.events)
    assert accepted + duplicates == sum(len(batch) for batch in delivery.batches)
    found = await summaries(engine, workspace)
    assert sorted(found) == history.customer_ids
    for customer_id, row in found.items():
        expected = expected_summary(history, customer_id)
        assert {name: row[name] for name in expected} == expected, customer_id
        # Also in form: money adds up in different ways, and none may leave decimals that another does not.
        assert all(-row[name].as_tuple().exponent <= 4 for name in LIFETIME_COLUMNS if "spend" in name), customer_id
