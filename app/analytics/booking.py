"""The figures of many customers from what is booked of them: ``app.analytics.summary.summarise`` by arrays.

What counts, and for how much, is decided before: here it is added up by period.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.analytics.population import UNITS_LIMIT, TotalTooLarge
from app.analytics.summary import HALF_YEAR_DAYS, YEAR_DAYS

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Bookings:
    """A row an order that counts, or a refund without order, of n customers: int64 arrays (m,), in any order.

    Parameters
    ----------
    customer : 0 to n − 1.
    day : days since 1970-01-01.
    is_order : 1 for an order, 0 for a refund.
    units : net of an order, or the refund below zero, in ten-thousandths of the currency unit.
    cost_units : of an order, ≥ 0.
    """

    customer: IntArray
    day: IntArray
    is_order: IntArray
    units: IntArray
    cost_units: IntArray


@dataclass(frozen=True, slots=True)
class BookedFigures:
    """Figures of n customers, and their purchase days.

    ``figures`` has an array (n,) for each field of ``Summary``: int32 counts and days (0 where there is none), int64
    money in ten-thousandths. Those of the window are left out where there is none: they are those of all time.
    ``purchase_days`` (d,), int32, has each customer's purchase days, rising, one customer
    after another, as many of each as the figure ``purchase_days`` says.
    """

    figures: dict[str, NDArray[np.integer]]
    purchase_days: NDArray[np.int32]


def add_up(bookings: Bookings, customers: int, as_of_day: int, window_days: int | None = None) -> BookedFigures:
    """The figures of ``customers`` customers as of a day; see ``Summary`` for what each is.

    Raises
    ------
    TotalTooLarge : a customer's money does not stay below 9e18 ten-thousandths.

    Examples
    --------
    >>> orders = Bookings(*np.array([[0, 10, 1, 50_000, 0], [0, 12, 1, 30_000, 0], [0, 12, 0, -10_000, 0]]).T)
    >>> figures = add_up(orders, 2, as_of_day=20).figures
    >>> figures["net_spend"].tolist(), figures["purchase_days"].tolist()
    ([70000, 0], [2, 0])
    """
    _check_totals(bookings)
    # By customer and day; a stable sort of what comes nearly sorted is quick.
    order = np.lexsort((bookings.day, bookings.customer))
    customer, day = bookings.customer[order], bookings.day[order]
    placed, units, cost = bookings.is_order[order], bookings.units[order], bookings.cost_units[order]
    bounds = np.searchsorted(customer, np.arange(customers + 1))

    def per_customer(values: IntArray) -> IntArray:
        # Running totals may wrap around, and their differences are right nevertheless.
        running = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum(values, out=running[1:])
        return running[bounds[1:]] - running[bounds[:-1]]

    buying = np.flatnonzero(placed)
    new_day = np.ones(buying.size, dtype=np.bool_)
    new_day[1:] = (np.diff(customer[buying]) != 0) | (np.diff(day[buying]) != 0)
    opening = np.zeros_like(placed)
    opening[buying[new_day]] = 1
    bought = customer[buying[new_day]], day[buying[new_day]]
    first, last = np.zeros(customers, dtype=np.int64), np.zeros(customers, dtype=np.int64)
    last[bought[0]] = bought[1]
    first[bought[0][::-1]] = bought[1][::-1]
    on_first = placed * (day == first[customer])

    def within(days: int, before: int = 0) -> NDArray[np.bool_]:
        return (day > as_of_day - before - days) & (day <= as_of_day - before)

    year, half = within(YEAR_DAYS), within(HALF_YEAR_DAYS)
    prior_year, prior_half = within(YEAR_DAYS, YEAR_DAYS), within(HALF_YEAR_DAYS, HALF_YEAR_DAYS)
    counts = {
        "order_count": per_customer(placed),
        "purchase_days": per_customer(opening),
        "first_purchase_day": first,
        "last_purchase_day": last,
        "year_order_count": per_customer(placed * year),
        "year_purchase_days": per_customer(opening * year),
        "prior_year_order_count": per_customer(placed * prior_year),
    }
    money = {
        "net_spend": per_customer(units),
        "net_cost": per_customer(cost),
        "order_spend": per_customer(placed * units),
        "first_day_spend": per_customer(on_first * units),
        "first_day_cost": per_customer(on_first * cost),
        "year_net_spend": per_customer(units * year),
        "year_cost": per_customer(cost * year),
        "half_net_spend": per_customer(units * half),
        "prior_half_net_spend": per_customer(units * prior_half),
    }
    if window_days is not None:
        window = within(window_days)
        counts["window_order_count"] = per_customer(placed * window)
        money["window_net_spend"] = per_customer(units * window)
    figures: dict[str, NDArray[np.integer]] = {name: column.astype(np.int32) for name, column in counts.items()}
    figures.update(money)
    return BookedFigures(figures, bought[1].astype(np.int32))


def _check_totals(bookings: Bookings) -> None:
    columns = bookings.units, bookings.cost_units
    # A number far below the limit, as any real one is, needs no second look.
    if all(int(np.abs(units).max(initial=0)) * max(units.size, 1) < UNITS_LIMIT for units in columns):
        return
    for units in columns:
        totals = np.bincount(bookings.customer, weights=np.abs(units.astype(np.float64)))
        if totals.max(initial=0.0) >= UNITS_LIMIT:
            raise TotalTooLarge("a customer's money is too large to be counted in ten-thousandths")
