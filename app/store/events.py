"""Events: what was acknowledged, once and for ever."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import wall
from app.store.engine import copy_in
from app.store.lists import join_list, listed


class EventRow(NamedTuple):
    """One row of ``events``, in the order of its columns. Fields without a column are in ``data``, as JSON text."""

    workspace_id: int
    customer_id: str
    event_id: str
    type: str
    occurred_at: datetime
    received_at: datetime
    fingerprint: bytes
    local_day: date
    order_id: str | None
    amount: Decimal | None
    currency: str | None
    exchange_rate: Decimal | None
    cost: Decimal | None
    data: str | None


@dataclass(frozen=True, slots=True)
class EncodedEvents:
    """Rows of ``events`` as a stream of binary COPY, and the workspaces that they are of."""

    workspace_ids: frozenset[int]
    stream: bytes


_RECORDING = 7_307  # the first of the two keys of the advisory locks on recording


async def begin_recording(connection: AsyncConnection, workspace_id: int, alone: bool) -> None:
    """Record events of the workspace, beside others or ``alone``, until the transaction ends.

    Who records alone waits for the others to end, and lets none begin: what they look up then stays as it is.

    The statements of the transaction are planned for the tables as they are now. A plan that is kept from the time when
    a table was nearly empty reads all of it, and goes on doing so while the table grows, until the server next gathers
    statistics: batches would take seconds on a new database.
    """
    lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
    await connection.execute(
        text(f"SELECT set_config('plan_cache_mode', 'force_custom_plan', true), {lock}(:space, :workspace_id)"),
        {"space": _RECORDING, "workspace_id": workspace_id},
    )


async def find_events(
    connection: AsyncConnection, workspace_id: int, customer_ids: Sequence[str], event_ids: Sequence[str]
) -> dict[tuple[str, str], bytes]:
    """Fingerprints of the events that are stored already, by (customer id, event id)."""
    rows = await connection.execute(
        text(
            "SELECT customer_id, event_id, fingerprint FROM events"
            f" JOIN unnest({listed('customer_ids', 'text')}, {listed('event_ids', 'text')})"
            " AS asked (customer_id, event_id) USING (customer_id, event_id)"
            " WHERE workspace_id = :workspace_id"
        ),
        {"workspace_id": workspace_id, "customer_ids": join_list(customer_ids), "event_ids": join_list(event_ids)},
    )
    return {(row.customer_id, row.event_id): row.fingerprint for row in rows}


async def find_orders(
    connection: AsyncConnection, workspace_id: int, customer_ids: Sequence[str], order_ids: Sequence[str]
) -> dict[tuple[str, str], Row[Any]]:
    """Fingerprint, currency and rate of the orders that are stored already, by (customer id, order id)."""
    rows = await connection.execute(
        text(
            "SELECT customer_id, order_id, fingerprint, currency, exchange_rate FROM events"
            f" JOIN unnest({listed('customer_ids', 'text')}, {listed('order_ids', 'text')})"
            " AS asked (customer_id, order_id) USING (customer_id, order_id)"
            " WHERE workspace_id = :workspace_id AND type = 'order.placed'"
        ),
        {"workspace_id": workspace_id, "customer_ids": join_list(customer_ids), "order_ids": join_list(order_ids)},
    )
    return {(row.customer_id, row.order_id): row for row in rows}


async def insert_events(connection: AsyncConnection, events: EncodedEvents) -> None:
    """Store new events by COPY. One that is stored already is a unique violation, and none is stored."""
    wall.guard_rows(events.workspace_ids)
    await copy_in(connection, "events", EventRow._fields, [events.stream])


async def list_customer_events(
    connection: AsyncConnection,
    workspace_id: int,
    customer_id: str,
    before: tuple[datetime, str] | None,
    limit: int,
) -> Sequence[Row[Any]]:
    """A customer's events, newest first; ``before`` is the (occurred_at, event id) of the last one seen."""
    occurred_at, event_id = before or (None, None)
    return (
        await connection.execute(
            text(
                "SELECT event_id, type, occurred_at, received_at, order_id, amount, currency, exchange_rate, cost,"
                " CAST(data AS text) AS data FROM events"
                " WHERE workspace_id = :workspace_id AND customer_id = :customer_id"
                + (" AND (occurred_at, event_id) < (:occurred_at, :event_id)" if before else "")
                + " ORDER BY occurred_at DESC, event_id DESC LIMIT :limit"
            ),
            {
                "workspace_id": workspace_id,
                "customer_id": customer_id,
                "limit": limit,
                **({"occurred_at": occurred_at, "event_id": event_id} if before else {}),
            },
        )
    ).all()
