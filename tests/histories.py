"""Random order histories for the property tests, how they are sent, and what the reference makes of them."""

from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from app.analytics.summary import OrderEvent
from app.scalars import show_decimal, show_instant

TIME_ZONES = ("UTC", "Asia/Shanghai", "America/New_York")
LAST_DAY = date(2025, 3, 9)
"""The histories end about here: New York's clocks spring forward on this day."""

# Days before LAST_DAY: the borders of all periods, seen from LAST_DAY, and what is around them.
_DAYS_BEFORE = st.sampled_from([0, 1, 2, 30, 179, 180, 181, 359, 360, 361, 364, 365, 366, 729, 730, 731, 900])
OTHER_CURRENCY = "GBP"
_TIMES = st.sampled_from([time(0), time(0, 0, 0, 1), time(1, 30), time(12), time(23, 59, 59, 999_999)])
_AMOUNTS = st.sampled_from(["0", "0.0001", "0.0003", "0.01", "1", "2.5", "10", "33.3333", "129.90", "7999999999.9999"])
# 0.5 makes ties of odd ten-thousandths; the longest have the ten places that a rate may have.
_RATES = st.sampled_from([None, None, "1", "0.5", "0.25", "1.5", "1.08345", "0.3333333333", "7.1234567891"])


@dataclass(frozen=True)
class Event:
    """An order event as a client sends it, and as the reference reads it."""

    customer_id: str
    wire: dict[str, Any]
    reference: OrderEvent


@dataclass(frozen=True)
class History:
    """Order events of a few customers, and a moment to look at them from."""

    time_zone: ZoneInfo
    events: tuple[Event, ...]
    as_of: datetime

    @property
    def as_of_day(self) -> date:
        return self.as_of.astimezone(self.time_zone).date()

    @property
    def customer_ids(self) -> list[str]:
        return sorted({event.customer_id for event in self.events})

    def stored(self, stored: Set[tuple[str, str]]) -> "History":
        """What is left of it: these events by customer and id."""
        left = tuple(event for event in self.events if (event.customer_id, event.wire["id"]) in stored)
        return replace(self, events=left)

    def reference(self, customer_id: str) -> list[OrderEvent]:
        return [event.reference for event in self.events if event.customer_id == customer_id]


@dataclass(frozen=True)
class Delivery:
    """In which order and in which batches the events come, some of them more than once."""

    batches: tuple[tuple[dict[str, Any], ...], ...]
    concurrent: bool


@st.composite
def _moments(draw: st.DrawFn, time_zone: ZoneInfo) -> datetime:
    """Moments about borders of the zone's days."""
    day = LAST_DAY - timedelta(days=draw(_DAYS_BEFORE))
    return datetime.combine(day, draw(_TIMES), time_zone).astimezone(UTC)


@st.composite
def _order(
    draw: st.DrawFn, time_zone: ZoneInfo, customer_id: str, number: int, calm: bool, others: bool
) -> list[Event]:
    """An order with its cancellations and refunds, or these alone, of an order that never comes; or an order alone."""
    order_id = f"o{number}"
    amount, rate = Decimal(draw(_AMOUNTS)), draw(_RATES)
    currency = "USD" if rate is None else "EUR"
    events: list[Event] = []

    def add(kind: str, occurred_at: datetime, **data: Any) -> None:
        events.append(
            make_event(time_zone, customer_id, f"{order_id}-{len(events)}", kind, occurred_at, data, rate, order_id)
        )

    if calm or draw(st.integers(0, 9)) > 0:
        cost = draw(st.sampled_from([None, None, amount, Decimal("0.0001"), Decimal("3.3333")]))
        add("placed", draw(_moments(time_zone)), amount=amount, currency=currency, exchange_rate=rate, cost=cost)
    if calm:
        return events
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 2]))):
        add("cancelled", draw(_moments(time_zone)))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2, 3]))):
        part = draw(st.sampled_from(["0.0001", "0.3333", "0.5", "1", "1.5"]))
        refunded = max((amount * Decimal(part)).quantize(Decimal("0.0001")), Decimal("0.0001"))
        named = draw(st.sampled_from([None, currency, *([OTHER_CURRENCY] if others else [])]))
        add("refunded", draw(_moments(time_zone)), amount=refunded, currency=named)
    return events


def make_event(
    time_zone: ZoneInfo,
    customer_id: str,
    event_id: str,
    kind: str,
    occurred_at: datetime,
    data: dict[str, Any],
    rate: str | None,
    order_id: str | None,
) -> Event:
    wire_data = {
        name: show_decimal(value) if isinstance(value, Decimal) else value
        for name, value in {"order_id": order_id, **data}.items()
        if value is not None
    }
    wire = {
        "id": event_id,
        "type": f"order.{kind}",
        "customer_id": customer_id,
        "occurred_at": show_instant(occurred_at),
        "data": wire_data,
    }
    reference = OrderEvent(
        kind=kind,  # type: ignore[arg-type]
        occurred_at=occurred_at,
        day=occurred_at.astimezone(time_zone).date(),
        order_id=order_id,
        amount=data.get("amount", Decimal(0)),
        cost=data.get("cost"),
        exchange_rate=None if rate is None else Decimal(rate),
        currency=data.get("currency"),
    )
    return Event(customer_id, wire, reference)


@st.composite
def _credit(draw: st.DrawFn, time_zone: ZoneInfo, customer_id: str, number: int) -> Event:
    """A refund without an order."""
    amount, rate = max(Decimal(draw(_AMOUNTS)), Decimal("0.0001")), draw(_RATES)
    data = {"amount": amount, "currency": "USD" if rate is None else "EUR", "exchange_rate": rate}
    return make_event(time_zone, customer_id, f"r{number}", "refunded", draw(_moments(time_zone)), data, rate, None)


@st.composite
def histories(draw: st.DrawFn, others: bool = False) -> History:
    """Where there are ``others``, some refunds tell another currency than their order; those that come after it are
    refused."""
    time_zone = ZoneInfo(draw(st.sampled_from(TIME_ZONES)))
    events: list[Event] = []
    for customer_id in [f"c{number}" for number in range(draw(st.integers(1, 4)))]:
        # What happens to most customers: they order, and nothing is ever adjusted.
        calm = draw(st.booleans())
        for number in range(draw(st.integers(0, 5))):
            events += draw(_order(time_zone, customer_id, number, calm, others))
        for number in range(0 if calm else draw(st.sampled_from([0, 0, 1, 2]))):
            events.append(draw(_credit(time_zone, customer_id, number)))
    # Half of the moments are after all events.
    late = datetime.combine(LAST_DAY, time(23, 59, 59, 999_999), time_zone).astimezone(UTC)
    as_of = late if draw(st.booleans()) else draw(_moments(time_zone))
    return History(time_zone, tuple(events), as_of)


@st.composite
def deliveries(draw: st.DrawFn, history: History) -> Delivery:
    again = draw(st.lists(st.sampled_from(history.events), max_size=6)) if history.events else []
    wires = [event.wire for event in draw(st.permutations([*history.events, *again]))]
    if draw(st.booleans()):
        # As they happened, which is how most come.
        wires.sort(key=lambda wire: str(wire["occurred_at"]))
    batches = []
    while wires:
        size = draw(st.sampled_from([1, 2, 3, 8, 40]))
        batches.append(tuple(wires[:size]))
        wires = wires[size:]
    return Delivery(tuple(batches), draw(st.booleans()))
