"""Adding up what is booked: money that does not fit is refused, however it is made up."""

import numpy as np
import pytest

from app.analytics.booking import Bookings, add_up, empty_figures
from app.analytics.population import TotalTooLarge


def bookings(rows: list[tuple[int, int, int, int, int]]) -> Bookings:
    return Bookings(*np.array(rows, dtype=np.int64).reshape(-1, 5).T)


def added_up(rows: list[tuple[int, int, int, int, int]], customers: int) -> dict[str, list[int]]:
    figures = empty_figures(customers)
    add_up(bookings(rows), figures, as_of_day=10)
    return {name: column.tolist() for name, column in figures.items()}


def test_nobody_has_no_figures() -> None:
    assert set(map(len, added_up([], 0).values())) == {0}


def test_customers_with_nothing_booked_have_zeros() -> None:
    figures = added_up([(1, 3, 1, 5, 0)], 3)
    assert figures["net_spend"] == [0, 5, 0]
    assert figures["first_purchase_day"] == [0, 3, 0]


@pytest.mark.parametrize("column", ["units", "cost_units"])
def test_a_customer_whose_money_overflows_is_refused(column: str) -> None:
    big = 10**18
    rows = [(0, day, 1, big if column == "units" else 0, big if column == "cost_units" else 0) for day in range(9)]
    with pytest.raises(TotalTooLarge):
        added_up(rows, 1)


def test_many_rich_customers_are_counted_exactly() -> None:
    rows = [(customer, 1, 1, 8 * 10**18 + customer, 0) for customer in range(40)]
    assert added_up(rows, 40)["net_spend"] == [8 * 10**18 + customer for customer in range(40)]
