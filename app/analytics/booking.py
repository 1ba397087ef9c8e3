"""The figures of many customers from what is booked of them: ``app.analytics.summary.summarise`` by arrays.

What counts, and for how much, is decided before: here it is added up by period.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.analytics.population import UNITS_LIMIT, TotalTooLarge
from app.analytics.summary import COUNT_FIGURES, DAY_FIGURES, HALF_YEAR_DAYS, MONEY_FIGURES, YEAR_DAYS

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


WINDOW_FIGURES = {"window_order_count": "order_count", "window_net_spend": "net_spend"}
"""The figures of the window, and those of all time that they are where there is no window."""


def empty_figures(customers: int, window_days: int | None = None) -> dict[str, NDArray[np.integer]]:
    """Room for the figures of ``customers`` customers.

    An array (n,) for each field of ``Summary``: int32 counts and days (0 where there is none), int64 money in
    ten-thousandths. Those of the window are left out where there is none.
    """
    names = COUNT_FIGURES + DAY_FIGURES + MONEY_FIGURES
    return {
        name: np.zeros(customers, dtype=np.int64 if name in MONEY_FIGURES else np.int32)
        for name in names
        if window_days is not None or name not in WINDOW_FIGURES
    }


def add_up(
    bookings: Bookings, figures: Mapping[str, NDArray[np.integer]], as_of_day: int, window_days: int | None = None
) -> NDArray[np.int32]:
    """Work out the figures of customers as of a day, into the arrays of ``empty_figures``; see ``Summary`` for them.

    Returns
    -------
    int32 array (d,) : each customer's purchase days, rising, one customer after another, as many of each as the
    figure ``purchase_days`` says.

    Raises
    ------
    TotalTooLarge : a customer's money does not stay below 9e18 ten-thousandths.

    Examples
    --------
    >>> orders = Bookings(*np.array([[0, 10, 1, 50_000, 0], [0, 12, 1, 30_000, 0], [0, 12, 0, -10_000, 0]]).T)
    >>> figures = empty_figures(2)
    >>> add_up(orders, figures, as_of_day=20).tolist()
    [10, 12]
    >>> figures["net_spend"].tolist(), figures["purchase_days"].tolist()
    ([70000, 0], [2, 0])
    """
    customers = figures["order_count"].size
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
    figures["order_count"][:] = per_customer(placed)
    figures["purchase_days"][:] = per_customer(opening)
    figures["first_purchase_day"][:] = first
    figures["last_purchase_day"][:] = last
    figures["net_spend"][:] = per_customer(units)
    figures["net_cost"][:] = per_customer(cost)
    figures["order_spend"][:] = per_customer(placed * units)
    figures["first_day_spend"][:] = per_customer(on_first * units)
    figures["first_day_cost"][:] = per_customer(on_first * cost)
    figures["year_order_count"][:] = per_customer(placed * year)
    figures["year_purchase_days"][:] = per_customer(opening * year)
    figures["prior_year_order_count"][:] = per_customer(placed * prior_year)
    figures["year_net_spend"][:] = per_customer(units * year)
    figures["year_cost"][:] = per_customer(cost * year)
    figures["half_net_spend"][:] = per_customer(units * half)
    figures["prior_half_net_spend"][:] = per_customer(units * prior_half)
    if window_days is not None:
        window = within(window_days)
        figures["window_order_count"][:] = per_customer(placed * window)
        figures["window_net_spend"][:] = per_customer(units * window)
    return bought[1].astype(np.int32)


def _check_totals(bookings: Bookings) -> None:
    columns = bookings.units, bookings.cost_units
    # A number far below the limit, as any real one is, needs no second look.
    if all(int(np.abs(units).max(initial=0)) * max(units.size, 1) < UNITS_LIMIT for units in columns):
        return
    for units in columns:
        totals = np.bincount(bookings.customer, weights=np.abs(units.astype(np.float64)))
        if totals.max(initial=0.0) >= UNITS_LIMIT:
            raise TotalTooLarge("a customer's money is too large to be counted in ten-thousandths")
