"""What counts at a moment: the reference definition of a customer's figures, and the arrays that scores read.

``summarise`` says in plain Python what the SQL of ``app.store.figures`` computes for many customers at once; a
property test holds the two equal. ``CustomerFigures`` is the same record as arrays, one element a customer.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

YEAR_DAYS = 365
HALF_YEAR_DAYS = 180

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """One order event of one customer.

    ``day`` is the calendar day of ``occurred_at`` in the workspace's time zone. ``amount`` and ``cost`` are in the
    currency of the order; ``exchange_rate`` is None in the workspace's own currency. A refund that names an order
    need not tell ``currency`` and ``exchange_rate``, and is of the order's.
    """

    kind: Literal["placed", "cancelled", "refunded"]
    occurred_at: datetime
    day: date
    order_id: str | None = None
    amount: Decimal = _ZERO
    cost: Decimal | None = None
    exchange_rate: Decimal | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class CountedOrder:
    """An order that counts at a moment, its money in the workspace's currency after refunds."""

    day: date
    net: Decimal
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Summary:
    """A customer's figures at a moment. Money is exact, in the workspace's currency, at most four decimals.

    ``net_spend`` of every period is the nets of the orders that count and are booked in it, less the refunds
    without an order dated in it; ``order_spend`` leaves those refunds out. Periods end on the day of ``as_of``:
    ``year`` is the last 365 days, ``half`` the last 180, ``prior_`` the same length before, and ``window``
    the last ``window_days`` (everything when that is None).
    """

    order_count: int = 0
    purchase_days: int = 0
    first_purchase_day: date | None = None
    last_purchase_day: date | None = None
    net_spend: Decimal = _ZERO
    net_cost: Decimal = _ZERO
    order_spend: Decimal = _ZERO
    first_day_spend: Decimal = _ZERO
    first_day_cost: Decimal = _ZERO
    window_order_count: int = 0
    window_net_spend: Decimal = _ZERO
    year_order_count: int = 0
    year_purchase_days: int = 0
    year_net_spend: Decimal = _ZERO
    year_cost: Decimal = _ZERO
    prior_year_order_count: int = 0
    half_net_spend: Decimal = _ZERO
    prior_half_net_spend: Decimal = _ZERO


def half_even(value: Fraction) -> Decimal:
    """Round an exact value to money: four decimals, ties to the even one."""
    return Decimal(round(value * 10_000)) / 10_000


def counted_orders(events: Iterable[OrderEvent], as_of: datetime) -> list[CountedOrder]:
    """The orders that count at ``as_of``: placed by then, not cancelled and not wholly refunded by then.

    A cancellation or refund dated before its order acts from the order's moment, since only orders placed by
    ``as_of`` are looked at. A refund in another currency or at another rate than its order counts nothing.
    """
    known = [event for event in events if event.occurred_at <= as_of]
    cancelled = {event.order_id for event in known if event.kind == "cancelled"}
    refunds: defaultdict[str | None, list[OrderEvent]] = defaultdict(list)
    for event in known:
        if event.kind == "refunded" and event.order_id is not None:
            refunds[event.order_id].append(event)
    counted = []
    for order in known:
        if order.kind != "placed" or order.order_id in cancelled:
            continue
        refunded = sum((refund.amount for refund in refunds[order.order_id] if _is_like(refund, order)), _ZERO)
        if refunded > 0 and refunded >= order.amount:
            continue
        rate = Fraction(order.exchange_rate) if order.exchange_rate is not None else Fraction(1)
        net = Fraction(order.amount) - Fraction(refunded)
        kept = net / Fraction(order.amount) if refunded else Fraction(1)
        cost = Fraction(order.cost or _ZERO) * kept * rate
        counted.append(CountedOrder(order.day, half_even(net * rate), half_even(cost)))
    return counted


def _is_like(refund: OrderEvent, order: OrderEvent) -> bool:
    return refund.currency in (None, order.currency) and refund.exchange_rate in (None, order.exchange_rate or 1)


def summarise(
    events: Iterable[OrderEvent], as_of: datetime, as_of_day: date, window_days: int | None = None
) -> Summary:
    """A customer's figures at ``as_of`` from all their order events, in any order.

    Parameters
    ----------
    events : the order events of one customer; those after ``as_of`` are ignored.
    as_of : the moment the figures speak of.
    as_of_day : its calendar day in the workspace's time zone.
    window_days : length of the RFM window in days, or None for all time.
    """
    events = list(events)
    orders = counted_orders(events, as_of)
    credits = [
        (event.day, half_even(Fraction(event.amount) * Fraction(event.exchange_rate or 1)))
        for event in events
        if event.kind == "refunded" and event.order_id is None and event.occurred_at <= as_of
    ]

    def within(days: int, before: int = 0) -> tuple[date, date]:
        """The days (as_of − before − days, as_of − before], as the pair (after, until)."""
        until = as_of_day - timedelta(days=before)
        return until - timedelta(days=days), until

    def spend(period: tuple[date, date]) -> Decimal:
        after, until = period
        return sum((o.net for o in orders if after < o.day <= until), _ZERO) - sum(
            (amount for day, amount in credits if after < day <= until), _ZERO
        )

    def count(period: tuple[date, date]) -> int:
        after, until = period
        return sum(after < order.day <= until for order in orders)

    all_time = (date.min, as_of_day)
    year, prior_year = within(YEAR_DAYS), within(YEAR_DAYS, before=YEAR_DAYS)
    half, prior_half = within(HALF_YEAR_DAYS), within(HALF_YEAR_DAYS, before=HALF_YEAR_DAYS)
    window = all_time if window_days is None else within(window_days)
    days = sorted({order.day for order in orders})
    first_day = days[0] if days else None
    return Summary(
        order_count=len(orders),
        purchase_days=len(days),
        first_purchase_day=first_day,
        last_purchase_day=days[-1] if days else None,
        net_spend=spend(all_time),
        net_cost=sum((order.cost for order in orders), _ZERO),
        order_spend=sum((order.net for order in orders), _ZERO),
        first_day_spend=sum((order.net for order in orders if order.day == first_day), _ZERO),
        first_day_cost=sum((order.cost for order in orders if order.day == first_day), _ZERO),
        window_order_count=count(window),
        window_net_spend=spend(window),
        year_order_count=count(year),
        year_purchase_days=sum(year[0] < day <= year[1] for day in days),
        year_net_spend=spend(year),
        year_cost=sum((order.cost for order in orders if year[0] < order.day <= year[1]), _ZERO),
        prior_year_order_count=count(prior_year),
        half_net_spend=spend(half),
        prior_half_net_spend=spend(prior_half),
    )


COUNT_FIGURES = (
    "order_count",
    "purchase_days",
    "window_order_count",
    "year_order_count",
    "year_purchase_days",
    "prior_year_order_count",
)
DAY_FIGURES = ("first_purchase_day", "last_purchase_day")
MONEY_FIGURES = (
    "net_spend",
    "net_cost",
    "order_spend",
    "first_day_spend",
    "first_day_cost",
    "window_net_spend",
    "year_net_spend",
    "year_cost",
    "half_net_spend",
    "prior_half_net_spend",
)


@dataclass(frozen=True, slots=True)
class CustomerFigures:
    """The figures of ``n`` customers as arrays of shape (n,), as of one day.

    Counts are int64. Days are int64 ordinals (days since 1970-01-01) and mean nothing where ``order_count`` is 0.
    Money is float64 in units of the workspace's currency; exact amounts stay outside of ``analytics``.
    Attributes are named as in ``Summary``.
    """

    as_of_day: int
    order_count: NDArray[np.int64]
    purchase_days: NDArray[np.int64]
    first_purchase_day: NDArray[np.int64]
    last_purchase_day: NDArray[np.int64]
    net_spend: NDArray[np.float64]
    net_cost: NDArray[np.float64]
    order_spend: NDArray[np.float64]
    first_day_spend: NDArray[np.float64]
    first_day_cost: NDArray[np.float64]
    window_order_count: NDArray[np.int64]
    window_net_spend: NDArray[np.float64]
    year_order_count: NDArray[np.int64]
    year_purchase_days: NDArray[np.int64]
    year_net_spend: NDArray[np.float64]
    year_cost: NDArray[np.float64]
    prior_year_order_count: NDArray[np.int64]
    half_net_spend: NDArray[np.float64]
    prior_half_net_spend: NDArray[np.float64]

    @property
    def has_order(self) -> NDArray[np.bool_]:
        return self.order_count > 0

    @property
    def frequency(self) -> NDArray[np.int64]:
        """Repeat purchase days (x); −1 where there is no counted order."""
        return self.purchase_days - 1

    @property
    def recency_days(self) -> NDArray[np.int64]:
        """First to last purchase day (t_x)."""
        return self.last_purchase_day - self.first_purchase_day

    @property
    def T_days(self) -> NDArray[np.int64]:
        """First purchase day to the day of ``as_of`` (T)."""
        return self.as_of_day - self.first_purchase_day

    @property
    def days_since_last_order(self) -> NDArray[np.int64]:
        return self.as_of_day - self.last_purchase_day

    @property
    def monetary_value(self) -> NDArray[np.float64]:
        """Mean spend per repeat purchase day; 0 where there is none."""
        repeats = np.maximum(self.frequency, 0)
        spend = self.order_spend - self.first_day_spend
        return np.divide(spend, repeats, out=np.zeros_like(spend), where=repeats > 0)
