"""The transaction that records events, each exactly once, whatever order and however often they come.

It copies its events, whose unique keys let in what is new alone, and then brings the summaries of their customers up to
date, which locks them. Both in one order for all batches, so that batches that meet wait for one another in a line.
The events come first: nearly any two large batches have customers in common, and copy side by side.

Nearly all batches bring only what is new, so a batch is first written as if all of it were. Where a key says that it is
not, everything is undone, what is known is looked up, and the rest is written; if that is in vain too, then alone.
"""

import json
from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import chain
from typing import Any, Literal, TypeAlias

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
from app.store.engine import is_unique_violation
from app.store.event_format import encode_events
from app.store.events import EncodedEvents, EventRow
from app.store.workspaces import Workspace
from app.threads import apart_if
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

_SHARED_TRIES = 2
"""A batch that was undone so many times is recorded while no other of its workspace is."""

_resent: set[int] = set()
"""Workspaces whose last batch had known events in it: whoever sends one batch again tends to send the next again."""


@dataclass(frozen=True, slots=True)
class StoredForm:
    """What is written for rows that are all new."""

    is_distinct: bool
    """Whether each row has an event of its own, and an order of its own if it places one."""

    changes: dict[str, SummaryChange]
    """What the rows add to the summaries, by customer in sorted order."""

    joined_changes: dict[str, str]
    """The same as the store takes it."""

    events: EncodedEvents


def form_ahead(workspace: Workspace, rows: Sequence[EventRow]) -> StoredForm | None:
    """The form of rows that are likely to be new, for ``record_rows``; None where it would be made in vain.

    Pure, and about 5 µs a row, so it is best made while the database is at work on something else.
    """
    # Whoever sends one batch again tends to send the next again.
    return _form(rows) if rows and workspace.id not in _resent else None


def _form(rows: Sequence[EventRow]) -> StoredForm:
    by_customer = _by_customer(rows)
    changes = {customer_id: _change(customer_id, group) for customer_id, group in by_customer.items()}
    return StoredForm(
        all(len(group) == 1 or _are_distinct(group) for group in by_customer.values()),
        changes,
        customer_store.join_changes(list(changes.values())),
        encode_events(list(chain.from_iterable(by_customer.values()))),
    )


def _by_customer(rows: Sequence[EventRow]) -> dict[str, list[EventRow]]:
    """The rows in the order in which all batches write: by customer, and of each by order and event.

    Both are unique keys. Of two batches that bring the same things the one that comes second to the first of them
    comes second to all.
    """
    by_customer: dict[str, list[EventRow]] = {}
    for row in rows:
        by_customer.setdefault(row.customer_id, []).append(row)
    for group in by_customer.values():
        if len(group) > 1:
            group.sort(key=lambda row: (row.order_id or "", row.event_id))
    return dict(sorted(by_customer.items()))


def _are_distinct(rows: Sequence[EventRow]) -> bool:
    """The same of one customer's rows."""
    placed = [row.order_id for row in rows if row.type == "order.placed"]
    return len({row.event_id for row in rows}) == len(rows) and len(set(placed)) == len(placed)


async def record_rows(
    connection: AsyncConnection,
    workspace: Workspace,
    rows: Sequence[EventRow],
    received_at: datetime,
    tries: int,
    form: StoredForm | None = None,
) -> list[Verdict]:
    """Store what is new among valid events and answer a verdict for each; the step of a transaction.

    ``form`` is that of all the rows, where it was made before; ``tries`` counts those that were undone. Raises
    ``BeginAgain`` where events that were taken for new are not.
    """
    # Most batches are of orders alone, and then need no second look for anything else.
    types = {row.type for row in rows}
    referrers = _referrers(rows) if types & PROFILE_TYPES else set()
    if referrers:
        # They need not be customers at all, so there is no summary to lock.
        await erasure_store.hold_off_erasing(connection, workspace.id)
    # What comes between looking up what is known and writing the rest has it begin again. Whoever sends the same events
    # in small batches could do that to a large one for ever, but everybody else waits for one that is alone.
    await event_store.begin_recording(connection, workspace.id, alone=tries >= _SHARED_TRIES)
    erased: frozenset[str] = frozenset()
    known_events: dict[tuple[str, str], bytes] = {}
    known_orders: dict[tuple[str, str], Any] = {}
    if tries:
        erased = await erased_among(connection, workspace, {row.customer_id for row in rows} | referrers)
    must_fit = "order.refunded" in types and any(map(_must_fit_its_order, rows))
    if tries or must_fit or workspace.id in _resent:
        known_events, known_orders = await _find_known(connection, workspace, rows)
        if known_events or known_orders:
            _resent.add(workspace.id)
        else:
            _resent.discard(workspace.id)
    verdicts: list[Verdict]
    if form is not None and form.is_distinct and not (known_events or known_orders or erased or must_fit):
        verdicts, new = ["accepted"] * len(rows), rows
    else:
        verdicts, new = _decide(rows, known_events, known_orders, erased)
    if new:
        try:
            fresh = await _write(connection, workspace, new, received_at, form if len(new) == len(rows) else None)
        except DBAPIError as error:
            if is_unique_violation(error):
                raise BeginAgain from error
            raise
        # Also those who were erased after they were looked for above, and before their locks were held.
        if await erased_among(connection, workspace, (fresh | referrers) - erased):
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

    Answers the customers who had no event before: any of them may be one who was erased.
    """
    # All that can be made of the rows is made before the locks.
    if form is None:
        form = await apart_if(len(rows) > INLINE_ROWS, _form, rows)
    changes = form.changes
    await event_store.insert_events(connection, form.events)
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
        joined_changes = await apart_if(len(settled) > INLINE_ROWS, customer_store.join_changes, settled)
        await customer_store.add_changes(connection, workspace.id, joined_changes, received_at, settled=True)
        recomputed += [change.customer_id for change in others if change.customer_id not in new_days]
    if recomputed:
        await customer_store.recompute_summaries(connection, workspace.id, recomputed)
    profiled = sorted({row.customer_id for row in rows if row.type in PROFILE_TYPES})
    if profiled:
        await customer_store.recompute_profiles(connection, workspace.id, profiled)
    return {customer_id for customer_id, count in added.items() if count == changes[customer_id].event_count}


def _change(customer_id: str, rows: Sequence[EventRow]) -> SummaryChange:
    """What a customer's new events add to the summary, but for orders where something adjusts them."""
    if len(rows) == 1 and rows[0].type == "order.placed":
        return _change_by_order(rows[0])
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


def _change_by_order(order: EventRow) -> SummaryChange:
    (_, customer_id, _, _, occurred_at, _, _, local_day, _, amount, _, rate, cost, _) = order
    if rate is not None:
        amount, cost = _converted(amount, order), _converted(cost, order)
    return SummaryChange._make(
        (customer_id, 1, 0, 0, occurred_at, None, None, 1, 1, local_day, None, amount, cost or ZERO, None, None)
    )


def _converted(money: Decimal | None, row: EventRow) -> Decimal:
    """An order's money in the workspace's currency, rounded half to even at the fourth decimal."""
    if money is None:
        return ZERO
    rate = row.exchange_rate
    return money if rate is None else (money * rate).quantize(MONEY_PLACES)
