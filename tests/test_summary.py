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
from tests.histories import OTHER_CURRENCY, Delivery, History, deliveries, histories

END_OF_TIME = datetime(2100, 1, 1, tzinfo=UTC)


async def deliver(engine: AsyncEngine, workspace: Workspace, history: History, delivery: Delivery) -> History:
    """Send all batches; the history as it is stored: refunds in another currency than their order may be refused."""
    now = datetime.now(UTC)
    # Of two recorders, as of two processes: batches of one share transactions, those of both compete.
    recorders = [EventRecorder(engine, turns=4) for _ in range(2)]
    sending = [recorders[number % 2].record(workspace, batch, now) for number, batch in enumerate(delivery.batches)]
    if delivery.concurrent:
        receipts = await asyncio.gather(*sending)
    else:
        receipts = [await batch for batch in sending]
    async with engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT customer_id, event_id FROM events WHERE workspace_id = :id"), {"id": workspace.id}
        )
        identities = {(row.customer_id, row.event_id) for row in rows}
    refused = [event for event in history.events if (event.customer_id, event.wire["id"]) not in identities]
    assert all(event.reference.currency == OTHER_CURRENCY for event in refused)
    assert {error.code for receipt in receipts for error in receipt.errors} <= {"currency_mismatch"}
    answered = [(receipt.accepted, receipt.duplicates, receipt.rejected) for receipt in receipts]
    accepted, duplicates, rejected = map(sum, zip(*answered, strict=True)) if answered else (0, 0, 0)
    assert accepted == len(identities)
    assert accepted + duplicates + rejected == sum(len(batch) for batch in delivery.batches)
    assert rejected >= len(refused)
    return history.stored(identities)


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
    sent = data.draw(histories(others=True))
    workspace, _ = await make_workspace(engine, time_zone=sent.time_zone.key)
    history = await deliver(engine, workspace, sent, data.draw(deliveries(sent)))
    found = await summaries(engine, workspace)
    assert sorted(found) == history.customer_ids
    for customer_id, row in found.items():
        expected = expected_summary(history, customer_id)
        # What is refused because its order is known counts as little where the order comes later.
        assert expected["net_spend"] == expected_summary(sent, customer_id)["net_spend"]
        assert {name: row[name] for name in expected} == expected, customer_id
        # Also in form: money adds up in different ways, and none may leave decimals that another does not.
        assert all(-row[name].as_tuple().exponent <= 4 for name in LIFETIME_COLUMNS if "spend" in name), customer_id
