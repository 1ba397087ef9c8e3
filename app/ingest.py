"""Use case: record events, each exactly once, whatever order and however often they come.

A batch is one transaction. It locks its customers in sorted order, which makes it the only writer of them; reads
which of its events and orders are known; decides a verdict for each event in the batch's order; and writes what is
new together with the summaries it changes. What the receipt acknowledges is committed.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.events import (
    BaseEvent,
    CustomerProfileData,
    Event,
    EventData,
    OrderCancelledData,
    OrderPlaced,
    OrderPlacedData,
    OrderRefunded,
    OrderRefundedData,
    any_event,
)
from app.rejections import Rejection, reject_invalid
from app.scalars import MONEY_LIMIT, MONEY_PLACES
from app.store import customers as customer_store
from app.store import events as event_store
from app.store.customers import SummaryChange
from app.store.engine import plan_anew
from app.store.events import EventRow
from app.store.workspaces import Workspace
from app.transactions import committed

FUTURE_TOLERANCE = timedelta(hours=24)
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
ORDER_EVENTS = frozenset(("order.placed", "order.cancelled", "order.refunded"))
ZERO = Decimal(0)
SUMMARISED = frozenset(("customer.created", "customer.updated", "order.placed", "order.cancelled", "order.refunded"))
"""Events that profile and figures are made of; all others are interactions, which speak of churn."""

INLINE_BYTES = 50_000
"""Larger batches are validated in a thread, so that other requests are answered meanwhile."""

_ORDER_COLUMNS = {"order_id", "amount", "currency", "exchange_rate", "cost"}


class Unreadable:
    """Stands where an event should be that could not even be parsed; ``detail`` says why."""

    def __init__(self, detail: str) -> None:
        self.detail = detail


@dataclass(slots=True)
class Receipt:
    accepted: int = 0
    duplicates: int = 0
    errors: list[Rejection] = field(default_factory=list)

    @property
    def rejected(self) -> int:
        return len(self.errors)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A valid event with the row that stores it, at its place in the batch."""

    index: int
    event: BaseEvent
    row: EventRow


async def record_events(
    engine: AsyncEngine, workspace: Workspace, items: Sequence[Any], received_at: datetime, size_bytes: int = 0
) -> Receipt:
    """Record a batch of events as they came off the wire, in so many bytes; see the module's text for what is promised.

    ``items`` are JSON values (``Unreadable`` for one that is none). Invalid ones are named in the receipt and hurt
    no other.
    """
    if size_bytes <= INLINE_BYTES:
        candidates, rejections = prepare(workspace, items, received_at)
    else:
        candidates, rejections = await asyncio.to_thread(prepare, workspace, items, received_at)
    receipt = await record_candidates(engine, workspace, candidates, received_at)
    receipt.errors = sorted(rejections + receipt.errors, key=lambda rejection: rejection.index)
    return receipt


def prepare(
    workspace: Workspace, items: Sequence[Any], received_at: datetime
) -> tuple[list[Candidate], list[Rejection]]:
    """Validate a batch and make the rows of its valid events; pure but for the time it takes."""
    events, rejections = _validate(items)
    candidates = []
    latest = received_at + FUTURE_TOLERANCE
    for index, event in events:
        rejection = _inadmissible(workspace, index, event, latest)
        if rejection is None:
            candidates.append(Candidate(index, event, _row(workspace, event, received_at)))
        else:
            rejections.append(rejection)
    return candidates, rejections


def _validate(items: Sequence[Any]) -> tuple[list[tuple[int, Event]], list[Rejection]]:
    """Validate one by one: a call for all would let nothing else happen meanwhile, not even in other threads."""
    events: list[tuple[int, Event]] = []
    rejections: list[Rejection] = []
    validate = any_event.validate_python
    for index, item in enumerate(items):
        try:
            events.append((index, validate(item)))
        except ValidationError as error:
            rejections.append(reject_invalid(index, item, error))
    return events, rejections


def _inadmissible(workspace: Workspace, index: int, event: Event, latest: datetime) -> Rejection | None:
    """What can't be told from the event alone: the clock and the workspace's currency have a say."""

    def reject(code: str, detail: str, pointer: str) -> Rejection:
        return Rejection(index, event.id, code, detail, pointer)

    if not EARLIEST <= event.occurred_at <= latest:
        return reject(
            "occurred_at_out_of_range",
            "occurred_at must not be before 1970 nor more than 24 hours ahead.",
            "/occurred_at",
        )
    if isinstance(event, OrderPlaced | OrderRefunded):
        data = event.data
        if isinstance(event, OrderRefunded) and data.order_id is not None:
            return None
        if data.currency != workspace.currency and data.exchange_rate is None:
            return reject(
                "exchange_rate_required",
                "exchange_rate is required where currency is not the workspace's.",
                "/data/exchange_rate",
            )
        if data.currency == workspace.currency and data.exchange_rate not in (None, 1):
            return reject(
                "exchange_rate_not_one",
                "exchange_rate must be left out, or 1, in the workspace's own currency.",
                "/data/exchange_rate",
            )
        if data.exchange_rate is not None:
            for name in ("amount", "cost"):
                money = getattr(data, name, None)
                if money is not None and money * data.exchange_rate >= MONEY_LIMIT:
                    return reject(
                        "invalid_value",
                        f"{name} must be below 100000000000 in the workspace's currency.",
                        f"/data/{name}",
                    )
    return None


def _row(workspace: Workspace, event: Event, received_at: datetime) -> EventRow:
    """The row that stores an event. Content that compares equal has equal fingerprints."""
    data = event.data
    order_id = getattr(data, "order_id", None)
    amount = getattr(data, "amount", None)
    currency = getattr(data, "currency", None)
    rate = getattr(data, "exchange_rate", None)
    if rate == 1 and currency == workspace.currency:
        rate = None
    cost = getattr(data, "cost", None)
    rest = _without_column(data)
    # No two contents make the same text: of these fields none can have a line break but the last.
    content = [event.type, event.occurred_at.isoformat()]
    content += ["" if value is None else str(value) for value in (order_id, amount, currency, rate, cost, rest)]
    return EventRow(
        workspace.id,
        event.customer_id,
        event.id,
        event.type,
        event.occurred_at,
        received_at,
        hashlib.blake2b("\n".join(content).encode(), digest_size=16).digest(),
        workspace.local_day(event.occurred_at),
        order_id,
        amount,
        currency,
        rate,
        cost,
        rest,
    )


def _without_column(data: EventData) -> str | None:
    """The fields that have no column of their own, as JSON; None where there is none."""
    if isinstance(data, OrderPlacedData) and data.channel is None and data.campaign_id is None and data.items is None:
        return None
    if isinstance(data, OrderCancelledData | OrderRefundedData):
        return None
    if isinstance(data, CustomerProfileData):
        # Null takes a field away, so it is content here.
        rest = data.model_dump_json(exclude_unset=True)
    else:
        rest = data.model_dump_json(exclude_none=True, exclude=_ORDER_COLUMNS)
    return None if rest == "{}" else rest


async def record_candidates(
    engine: AsyncEngine, workspace: Workspace, candidates: Sequence[Candidate], received_at: datetime
) -> Receipt:
    """Store what is new among valid events, in one transaction, tried again where the database asks for it."""
    if not candidates:
        return Receipt()
    return await committed(engine, lambda connection: store_candidates(connection, workspace, candidates, received_at))


async def store_candidates(
    connection: AsyncConnection, workspace: Workspace, candidates: Sequence[Candidate], received_at: datetime
) -> Receipt:
    """The transaction's body: lock, look, decide, write."""
    await plan_anew(connection)
    customer_ids = sorted({candidate.row.customer_id for candidate in candidates})
    locked = await customer_store.lock_customers(connection, workspace.id, customer_ids, received_at)
    known_events, known_orders = await _find_known(connection, workspace, candidates, locked)
    receipt, new = _decide(candidates, known_events, known_orders)
    if new:
        await event_store.insert_events(connection, new)
        await _update_summaries(connection, workspace, new, locked, received_at)
    return receipt


async def _find_known(
    connection: AsyncConnection, workspace: Workspace, candidates: Iterable[Candidate], locked: dict[str, Any]
) -> tuple[dict[tuple[str, str], bytes], dict[tuple[str, str], Any]]:
    """What is stored already of the events and orders that the batch speaks of. New customers have nothing."""
    rows = [candidate.row for candidate in candidates if locked[candidate.row.customer_id].event_count]
    if not rows:
        return {}, {}
    known_events = await event_store.find_events(
        connection, workspace.id, [row.customer_id for row in rows], [row.event_id for row in rows]
    )
    about_orders = sorted({(row.customer_id, row.order_id) for row in rows if row.order_id and _needs_order(row)})
    if not about_orders:
        return known_events, {}
    known_orders = await event_store.find_orders(
        connection, workspace.id, [customer for customer, _ in about_orders], [order for _, order in about_orders]
    )
    return known_events, known_orders


def _needs_order(row: EventRow) -> bool:
    if row.type == "order.placed":
        return True
    return row.type == "order.refunded" and (row.currency is not None or row.exchange_rate is not None)


def _decide(
    candidates: Iterable[Candidate],
    known_events: dict[tuple[str, str], bytes],
    known_orders: dict[tuple[str, str], Any],
) -> tuple[Receipt, list[EventRow]]:
    """A verdict for each event in the batch's order; the first of two that disagree wins."""
    receipt = Receipt()
    new: list[EventRow] = []
    for candidate in candidates:
        row = candidate.row
        identity = (row.customer_id, row.event_id)
        stored = known_events.get(identity)
        order = known_orders.get((row.customer_id, row.order_id)) if row.order_id is not None else None
        if stored is None and row.type == "order.placed" and order is not None:
            stored = order.fingerprint
            conflict = ("order_conflict", "This order is recorded already with other content.", "/data/order_id")
        else:
            conflict = ("event_conflict", "This event id is recorded already with other content.", "/id")
        if stored == row.fingerprint:
            receipt.duplicates += 1
        elif stored is not None:
            receipt.errors.append(Rejection(candidate.index, row.event_id, *conflict))
        elif row.type == "order.refunded" and order is not None and not _same_currency(row, order):
            receipt.errors.append(
                Rejection(
                    candidate.index,
                    row.event_id,
                    "currency_mismatch",
                    "A refund that names an order is in that order's currency and rate: leave currency out.",
                    "/data/currency",
                )
            )
        else:
            new.append(row)
            known_events[identity] = row.fingerprint
            if row.type == "order.placed":
                known_orders[(row.customer_id, row.order_id or "")] = row
    receipt.accepted = len(new)
    return receipt, new


def _same_currency(refund: EventRow, order: Any) -> bool:
    return refund.currency in (None, order.currency) and (
        refund.exchange_rate is None or refund.exchange_rate == (order.exchange_rate or 1)
    )


def _adds_up(placed: Sequence[EventRow], before: Any) -> bool:
    """Whether new orders just add to a summary: nothing adjusts them, and none is before the last purchase day."""
    last_day = before.last_purchase_day
    return not before.adjustment_count and (last_day is None or min(row.local_day for row in placed) >= last_day)


def _change(customer_id: str, batch: Sequence[EventRow], adjusting: int, placed: Sequence[EventRow]) -> SummaryChange:
    """What a customer's new events add to the summary; ``placed`` are the orders among them that just add up."""
    moments = [row.occurred_at for row in batch]
    order_moments = [row.occurred_at for row in batch if row.type in ORDER_EVENTS]
    booked = [(row.local_day, _converted(row.amount, row), _converted(row.cost, row)) for row in placed]
    days = {day for day, _, _ in booked}
    first_day = min(days, default=None)
    return SummaryChange(
        customer_id=customer_id,
        event_count=len(batch),
        adjustment_count=adjusting,
        interaction_count=sum(row.type not in SUMMARISED for row in batch),
        latest_order_event_at=max(order_moments, default=None),
        first_event_at=min(moments),
        last_event_at=max(moments),
        order_count=len(booked),
        purchase_days=len(days),
        first_day=first_day,
        last_day=max(days, default=None),
        net=sum((net for _, net, _ in booked), ZERO),
        cost=sum((cost for _, _, cost in booked), ZERO),
        first_day_net=sum((net for day, net, _ in booked if day == first_day), ZERO),
        first_day_cost=sum((cost for day, _, cost in booked if day == first_day), ZERO),
    )


def _converted(money: Decimal | None, row: EventRow) -> Decimal:
    """An order's money in the workspace's currency, rounded half to even at the fourth decimal."""
    if money is None:
        return ZERO
    rate = row.exchange_rate
    return money if rate is None else (money * rate).quantize(MONEY_PLACES)


async def _update_summaries(
    connection: AsyncConnection,
    workspace: Workspace,
    rows: Sequence[EventRow],
    locked: dict[str, Any],
    received_at: datetime,
) -> None:
    """Add the orders that can simply be added; recompute the customers whose change is no sum."""
    by_customer: dict[str, list[EventRow]] = {}
    for row in rows:
        by_customer.setdefault(row.customer_id, []).append(row)
    changes: list[SummaryChange] = []
    recomputed: list[str] = []
    profiled: list[str] = []
    for customer_id, batch in by_customer.items():
        placed = [row for row in batch if row.type == "order.placed"]
        adjusting = sum(row.type in ("order.cancelled", "order.refunded") for row in batch)
        if adjusting or (placed and not _adds_up(placed, locked[customer_id])):
            recomputed.append(customer_id)
            placed = []
        if any(row.type in ("customer.created", "customer.updated") for row in batch):
            profiled.append(customer_id)
        changes.append(_change(customer_id, batch, adjusting, placed))
    await customer_store.apply_changes(connection, workspace.id, changes, received_at)
    if recomputed:
        await customer_store.recompute_summaries(connection, workspace.id, recomputed)
    if profiled:
        await customer_store.recompute_profiles(connection, workspace.id, profiled)
