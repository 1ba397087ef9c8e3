"""The transaction that records events, each exactly once, whatever order and however often they come.

It locks its customers in sorted order, which makes it the only writer of them; knows which of its events and orders
are stored already; decides a verdict for each event in their order; and writes what is new together with the
summaries it changes.

Nearly all batches bring only what is new, so a batch is first written as if all of it were: the unique keys of events
and orders tell where it is not, and then everything is undone and looked up under the locks.
"""

import asyncio
import json
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.erasure import erased_among
from app.events import ADJUSTING_TYPES, PROFILE_TYPES
from app.rejections import Reason
from app.scalars import MONEY_PLACES
from app.store import customers as customer_store
from app.store import erasure as erasure_store
from app.store import events as event_store
from app.store.customers import SummaryChange
from app.store.engine import is_unique_violation, plan_anew
from app.store.event_format import encode_events
from app.store.events import EncodedEvents, EventRow
from app.store.workspaces import Workspace
from app.transactions import BeginAgain

Verdict: TypeAlias = Literal["accepted", "duplicate"] | Reason
"""What became of an event: stored now, stored before with the same content, or not taken and why."""

EVENT_CONFLICT = Reason("event_conflict", "This event id is recorded already with other content.", "/id")
ORDER_CONFLICT = Reason("order_conflict", "This order is recorded already with other content.", "/data/order_id")
CURRENCY_MISMATCH = Reason(
    "currency_mismatch",
    "A refund that names an order is in that order's currency and rate: leave currency out.",
    "/data/currency",
)
CUSTOMER_ERASED = Reason(
    "customer_erased", "This customer was erased; nothing about them is stored any more.", "/customer_id"
)
REFERRER_ERASED = Reason("customer_erased", "This customer was erased: leave referred_by out.", "/data/referred_by")
ZERO = Decimal(0)
INLINE_ROWS = 200

Thing = TypeVar("Thing")
Result = TypeVar("Result")

_resent: set[int] = set()
"""Workspaces whose last batch had known events in it: whoever sends one batch again tends to send the next again."""


@dataclass(frozen=True, slots=True)
class StoredForm:
    """What is written for rows that are all new: what they add to the summaries, by customer and as the store takes
    it, and they themselves as it takes them."""

    changes: dict[str, SummaryChange]
    joined_changes: dict[str, str]
    events: EncodedEvents


def form_ahead(workspace: Workspace, rows: Sequence[EventRow]) -> StoredForm | None:
    """The form of rows that are likely to be new, for ``record_rows``; None where it would be made in vain.

    Pure, and about 7 µs a row, so it is best made while the database is at work on something else.
    """
    # Whoever sends one batch again tends to send the next again.
    return _form(rows) if rows and workspace.id not in _resent else None


def _form(rows: Sequence[EventRow]) -> StoredForm:
    return StoredForm(*_changes_by(rows), encode_events(rows))


async def record_rows(
    connection: AsyncConnection,
    workspace: Workspace,
    rows: Sequence[EventRow],
    received_at: datetime,
    again: bool,
    form: StoredForm | None = None,
) -> list[Verdict]:
    """Store what is new among valid events and answer a verdict for each; the step of a transaction.

    ``form`` is that of all the rows, where it was made before. Raises ``BeginAgain`` where events that were taken for
    new are not.
    """
    await plan_anew(connection)
    # Most batches are of orders alone, and then need no second look for anything else.
    types = {row.type for row in rows}
    referrers = _referrers(rows) if types & PROFILE_TYPES else set()
    if referrers:
        # They need not be customers at all, so there is no summary to lock.
        await erasure_store.hold_off_erasing(connection, workspace.id)
    if (
        not again
        and workspace.id not in _resent
        and not ("order.refunded" in types and any(map(_must_fit_its_order, rows)))
    ):
        verdicts, new = _decide(rows, {}, {})
        try:
            fresh = await _write(connection, workspace, new, received_at, form if len(new) == len(rows) else None)
        except DBAPIError as error:
            if is_unique_violation(error):
                raise BeginAgain from error
            raise
        if await erased_among(connection, workspace, fresh | referrers):
            raise BeginAgain
        return verdicts
    erased: frozenset[str] = frozenset()
    if again:
        erased = await erased_among(connection, workspace, {row.customer_id for row in rows} | referrers)
    customer_ids = sorted({row.customer_id for row in rows} - erased)
    await customer_store.lock_customers(connection, workspace.id, customer_ids, received_at)
    known_events, known_orders = await _find_known(connection, workspace, rows)
    if known_events or known_orders:
        _resent.add(workspace.id)
    else:
        _resent.discard(workspace.id)
    verdicts, new = _decide(rows, known_events, known_orders, erased)
    if new:
        fresh = await _write(connection, workspace, new, received_at, form if len(new) == len(rows) else None)
        # Also those who were erased after they were looked for above, and before their locks were held.
        if await erased_among(connection, workspace, (fresh | _referrers(new)) - erased):
            raise BeginAgain
    return verdicts


def _referrers(rows: Sequence[EventRow]) -> set[str]:
    """Whom the profiles among the rows name as referrers."""
    return {name for row in rows if row.type in PROFILE_TYPES and (name := _referrer(row)) is not None}


def _referrer(row: EventRow) -> str | None:
    if row.data is None or '"referred_by"' not in row.data:
        return None
    name: str | None = json.loads(row.data).get("referred_by")
    return name


async def _find_known(
    connection: AsyncConnection, workspace: Workspace, rows: Sequence[EventRow]
) -> tuple[dict[tuple[str, str], bytes], dict[tuple[str, str], Any]]:
    """What is stored already of the events and orders that the batch speaks of."""
    known_events = await event_store.find_events(
        connection, workspace.id, [row.customer_id for row in rows], [row.event_id for row in rows]
    )
    about_orders = {
        (row.customer_id, row.order_id) for row in rows if row.type == "order.placed" or _must_fit_its_order(row)
    }
    if not about_orders:
        return known_events, {}
    customer_ids, order_ids = zip(*about_orders, strict=True)
    return known_events, await event_store.find_orders(connection, workspace.id, customer_ids, order_ids)


def _must_fit_its_order(row: EventRow) -> bool:
    """Whether an event may be refused for what the order that it names says."""
    return (
        row.type == "order.refunded"
        and row.order_id is not None
        and (row.currency is not None or row.exchange_rate is not None)
    )


def _decide(
    rows: Sequence[EventRow],
    known_events: dict[tuple[str, str], bytes],
    known_orders: dict[tuple[str, str], Any],
    erased: Set[str] = frozenset(),
) -> tuple[list[Verdict], list[EventRow]]:
    """A verdict for each event in their order, and the new ones; the first of two that disagree wins."""
    verdicts: list[Verdict] = []
    new: list[EventRow] = []
    for row in rows:
        identity = (row.customer_id, row.event_id)
        stored = known_events.get(identity)
        order = known_orders.get((row.customer_id, row.order_id)) if row.order_id is not None else None
        is_order = row.type == "order.placed"
        verdict: Verdict = "accepted"
        if row.customer_id in erased:
            verdict = CUSTOMER_ERASED
        elif stored is not None:
            verdict = "duplicate" if stored == row.fingerprint else EVENT_CONFLICT
        elif is_order and order is not None:
            verdict = "duplicate" if order.fingerprint == row.fingerprint else ORDER_CONFLICT
        elif order is not None and _must_fit_its_order(row) and not _same_currency(row, order):
            verdict = CURRENCY_MISMATCH
        elif erased and row.type in PROFILE_TYPES and _referrer(row) in erased:
            verdict = REFERRER_ERASED
        else:
            new.append(row)
            known_events[identity] = row.fingerprint
            if is_order:
                known_orders[(row.customer_id, row.order_id or "")] = row
        verdicts.append(verdict)
    return verdicts, new


def _same_currency(refund: EventRow, order: Any) -> bool:
    return refund.currency in (None, order.currency) and (
        refund.exchange_rate is None or refund.exchange_rate == (order.exchange_rate or 1)
    )


async def _write(
    connection: AsyncConnection,
    workspace: Workspace,
    rows: Sequence[EventRow],
    received_at: datetime,
    form: StoredForm | None,
) -> set[str]:
    """Store new events and bring the summaries of their customers up to date, adding where that is enough.

    The summaries come first, in sorted order: they are the locks. Answers the customers who had no event before: any of
    them may be one who was erased.
    """
    # All that can be made of the rows is made before the locks: nearly any two large batches have customers in common,
    # and while one holds their locks the others wait.
    if form is None:
        form = await _apart(_form, rows)
    changes = form.changes
    added = await customer_store.add_changes(connection, workspace.id, form.joined_changes, received_at)
    recomputed = [change.customer_id for change in changes.values() if change.adjustment_count]
    if len(added) < len(changes):
        others = [change for customer_id, change in changes.items() if customer_id not in added]
        orders = [row for row in rows if row.type == "order.placed" and row.customer_id not in added]
        new_days = await customer_store.count_new_days(
            connection,
            workspace.id,
            *zip(*((row.customer_id, row.order_id or "", row.local_day) for row in orders), strict=True),
        )
        settled = [
            change._replace(purchase_days=new_days[change.customer_id])
            if change.customer_id in new_days
            else change.without_orders()
            for change in others
        ]
        joined_changes = await _apart(customer_store.join_changes, settled)
        await customer_store.add_changes(connection, workspace.id, joined_changes, received_at, settled=True)
        recomputed += [change.customer_id for change in others if change.customer_id not in new_days]
    await event_store.insert_events(connection, form.events)
    if recomputed:
        await customer_store.recompute_summaries(connection, workspace.id, recomputed)
    profiled = sorted({row.customer_id for row in rows if row.type in PROFILE_TYPES})
    if profiled:
        await customer_store.recompute_profiles(connection, workspace.id, profiled)
    return {customer_id for customer_id, count in added.items() if count == changes[customer_id].event_count}


async def _apart(work: Callable[[Sequence[Thing]], Result], things: Sequence[Thing]) -> Result:
    """What ``work`` makes of the things, in a thread if they are many: the event loop has others to serve."""
    if len(things) <= INLINE_ROWS:
        return work(things)
    return await asyncio.to_thread(work, things)


def _changes_by(rows: Sequence[EventRow]) -> tuple[dict[str, SummaryChange], dict[str, str]]:
    """What the rows add to the summaries, by customer in sorted order, and the same as the store takes it."""
    by_customer: dict[str, list[EventRow]] = {}
    for row in rows:
        by_customer.setdefault(row.customer_id, []).append(row)
    changes = {customer_id: _change(customer_id, by_customer[customer_id]) for customer_id in sorted(by_customer)}
    return changes, customer_store.join_changes(list(changes.values()))


def _change(customer_id: str, rows: Sequence[EventRow]) -> SummaryChange:
    """What a customer's new events add to the summary, but for orders where something adjusts them."""
    if len(rows) == 1 and rows[0].type == "order.placed":
        return _change_by_order(customer_id, rows[0])
    adjusting = sum(row.type in ADJUSTING_TYPES for row in rows)
    placed = [row for row in rows if row.type == "order.placed"]
    moments = [row.occurred_at for row in rows]
    booked = (
        [] if adjusting else [(row.local_day, _converted(row.amount, row), _converted(row.cost, row)) for row in placed]
    )
    days = {day for day, _, _ in booked}
    first_day = min(days, default=None)
    return SummaryChange(
        customer_id=customer_id,
        event_count=len(rows),
        adjustment_count=adjusting,
        interaction_count=len(rows) - len(placed) - adjusting - sum(row.type in PROFILE_TYPES for row in rows),
        latest_order_event_at=max(
            (row.occurred_at for row in rows if row.type == "order.placed" or row.type in ADJUSTING_TYPES),
            default=None,
        ),
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


def _change_by_order(customer_id: str, row: EventRow) -> SummaryChange:
    cost = ZERO if row.cost is None else _converted(row.cost, row)
    return SummaryChange(
        customer_id, 1, 0, 0, row.occurred_at, None, None, 1, 1, row.local_day, None, _converted(row.amount, row), cost,
        None, None,
    )  # fmt: skip


def _converted(money: Decimal | None, row: EventRow) -> Decimal:
    """An order's money in the workspace's currency, rounded half to even at the fourth decimal."""
    if money is None:
        return ZERO
    rate = row.exchange_rate
    return money if rate is None else (money * rate).quantize(MONEY_PLACES)
