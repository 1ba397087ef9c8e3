"""Candidates: events as they came off the wire become the rows that would store them, or rejections that say why not.

Pure: what is decided here needs no database.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from app.events import EARLIEST, FUTURE_TOLERANCE, fingerprint, read_event, write_data
from app.plain_orders import is_plain, read_plain_orders
from app.rejections import Reason, Rejection, reject_invalid
from app.scalars import MONEY_LIMIT
from app.store.events import EventRow
from app.store.workspaces import Workspace

_COLUMNS = frozenset(("order_id", "amount", "currency", "exchange_rate", "cost"))
"""Fields of events' data that have a column of their own."""


_PIECE = 250
"""So many events are looked at together: a call for all would let nothing else happen meanwhile, and one event that is
not valid has so many read one by one."""

FEWEST_TOGETHER = 5
"""Fewer are read faster one by one."""


class Unreadable:
    """Stands where an event should be that could not even be parsed; ``detail`` says why."""

    def __init__(self, detail: str) -> None:
        self.detail = detail


@dataclass(slots=True)
class Candidates:
    """The rows of a batch's valid events, in its order, and the place of each in the batch."""

    rows: list[EventRow] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


def prepare(workspace: Workspace, items: Sequence[Any], received_at: datetime) -> tuple[Candidates, list[Rejection]]:
    """Validate a batch and make the rows of its valid events; pure but for the time it takes.

    An item may be a row that was made before, which is taken as it is.
    """
    candidates = Candidates()
    rejections: list[Rejection] = []
    for start in range(0, len(items), _PIECE):
        piece = items[start : start + _PIECE]
        plain = [place for place, item in enumerate(piece) if is_plain(workspace, item)]
        together = len(plain) >= FEWEST_TOGETHER
        rows = read_plain_orders(workspace, [piece[place] for place in plain], received_at) if together else None
        if rows is not None and len(plain) == len(piece):
            candidates.rows += rows
            candidates.places += range(start, start + len(piece))
            continue
        read = dict(zip(plain, rows, strict=True)) if rows is not None else {}
        for place, item in enumerate(piece):
            row = read.get(place) or _read_one(workspace, start + place, item, received_at)
            if isinstance(row, Rejection):
                rejections.append(row)
            else:
                candidates.rows.append(row)
                candidates.places.append(start + place)
    return candidates, rejections


def _read_one(workspace: Workspace, place: int, item: Any, received_at: datetime) -> EventRow | Rejection:
    if isinstance(item, EventRow):
        return item
    try:
        event = read_event(item)
    except ValidationError as error:
        return reject_invalid(place, item, error)
    reason = _inadmissible(workspace, event, received_at + FUTURE_TOLERANCE)
    return _row(workspace, event, received_at) if reason is None else Rejection(place, event["id"], *reason)


def _inadmissible(workspace: Workspace, event: dict[str, Any], latest: datetime) -> Reason | None:
    """What can't be told from the event alone: the clock and the workspace's currency have a say."""
    if not EARLIEST <= event["occurred_at"] <= latest:
        return Reason(
            "occurred_at_out_of_range",
            "occurred_at must not be before 1970 nor more than 24 hours ahead.",
            "/occurred_at",
        )
    data = event["data"]
    rate = data.get("exchange_rate")
    if event["type"] == "order.refunded":
        if data.get("order_id") is not None:
            return None
    elif event["type"] != "order.placed":
        return None
    if rate is None:
        if data["currency"] == workspace.currency:
            return None
        return Reason(
            "exchange_rate_required",
            "exchange_rate is required where currency is not the workspace's.",
            "/data/exchange_rate",
        )
    if rate != 1 and data["currency"] == workspace.currency:
        return Reason(
            "exchange_rate_not_one",
            "exchange_rate must be left out, or 1, in the workspace's own currency.",
            "/data/exchange_rate",
        )
    for name in ("amount", "cost"):
        money = data.get(name)
        if money is not None and money * rate >= MONEY_LIMIT:
            return Reason(
                "invalid_value",
                f"{name} must be below 100000000000 in the workspace's currency.",
                f"/data/{name}",
            )
    return None


def _row(workspace: Workspace, event: dict[str, Any], received_at: datetime) -> EventRow:
    """The row that stores an event. Content that compares equal has equal fingerprints."""
    data = event["data"]
    occurred_at = event["occurred_at"]
    order_id, amount, currency = data.get("order_id"), data.get("amount"), data.get("currency")
    rate, cost = data.get("exchange_rate"), data.get("cost")
    if rate == 1 and currency == workspace.currency:
        rate = None
    rest = write_data(event, without=_COLUMNS)
    return EventRow(
        workspace.id,
        event["customer_id"],
        event["id"],
        event["type"],
        occurred_at,
        received_at,
        fingerprint(event["type"], occurred_at.isoformat(), order_id, amount, currency, rate, cost, rest),
        workspace.local_day(occurred_at),
        order_id,
        amount,
        currency,
        rate,
        cost,
        rest,
    )
