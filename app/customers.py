"""Use cases of reading customers: one, a list, and the events of one."""

import json
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import NotFound
from app.scalars import show_decimal
from app.store import customers as customer_store
from app.store import events as event_store
from app.store.customers import CustomerFilter
from app.store.engine import autocommit
from app.store.workspaces import Workspace


@dataclass(frozen=True, slots=True)
class CustomerRecord:
    """A customer's profile, and their summary over all events that are known."""

    customer_id: str
    profile: dict[str, Any]
    event_count: int
    order_count: int
    purchase_days: int
    first_purchase_day: date | None
    last_purchase_day: date | None
    net_spend: Decimal
    first_event_at: datetime
    last_event_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event as it is stored: its content in normal form."""

    id: str
    type: str
    occurred_at: datetime
    received_at: datetime
    data: dict[str, Any]


def unknown_customer() -> NotFound:
    return NotFound("There is no such customer in this workspace.", code="customer_not_found")


def _customer(row: Row[Any]) -> CustomerRecord:
    profile = json.loads(row.profile) if row.profile else {}
    return CustomerRecord(
        customer_id=row.customer_id,
        profile=profile,
        event_count=row.event_count,
        order_count=row.order_count,
        purchase_days=row.purchase_days,
        first_purchase_day=row.first_purchase_day,
        last_purchase_day=row.last_purchase_day,
        net_spend=row.net_spend,
        first_event_at=row.first_event_at,
        last_event_at=row.last_event_at,
        updated_at=row.updated_at,
    )


async def get_customer(engine: AsyncEngine, workspace: Workspace, customer_id: str) -> CustomerRecord:
    """Raises ``NotFound`` where the workspace has no such customer."""
    async with autocommit(engine).connect() as connection:
        row = await customer_store.find_customer(connection, workspace.id, customer_id)
    if row is None:
        raise unknown_customer()
    return _customer(row)


async def list_customers(
    engine: AsyncEngine, workspace: Workspace, filters: CustomerFilter, after: str | None, limit: int
) -> list[CustomerRecord]:
    """Customers by id, after the id ``after``."""
    async with autocommit(engine).connect() as connection:
        rows = await customer_store.list_customers(connection, workspace.id, filters, after, limit)
    return [_customer(row) for row in rows]


async def list_events(
    engine: AsyncEngine, workspace: Workspace, customer_id: str, before: tuple[datetime, str] | None, limit: int
) -> list[EventRecord]:
    """A customer's events, newest first. Raises ``NotFound`` where there is no such customer."""
    async with autocommit(engine).connect() as connection:
        rows = await event_store.list_customer_events(connection, workspace.id, customer_id, before, limit)
        if not rows and await customer_store.find_customer(connection, workspace.id, customer_id) is None:
            raise unknown_customer()
    return [_event(row) for row in rows]


def _event(row: Row[Any]) -> EventRecord:
    columns: dict[str, Any] = {"order_id": row.order_id, "amount": row.amount, "currency": row.currency}
    columns |= {"exchange_rate": row.exchange_rate, "cost": row.cost}
    data = {
        name: show_decimal(value) if isinstance(value, Decimal) else value
        for name, value in columns.items()
        if value is not None
    }
    return EventRecord(
        row.event_id, row.type, row.occurred_at, row.received_at, data | (json.loads(row.data) if row.data else {})
    )
