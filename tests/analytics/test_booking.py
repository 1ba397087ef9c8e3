"""Adding up what is booked: money that does not fit is refused, however it is made up."""

import numpy as np
import pytest

from app.analytics.booking import Bookings, add_up
from app.analytics.population import TotalTooLarge


def bookings(rows: list[tuple[int, int, int, int, int]]) -> Bookings:
    return Bookings(*np.array(rows, dtype=np.int64).reshape(-1, 5).T)


def test_nobody_has_no_figures() -> None:
    booked = add_up(bookings([]), 0, as_of_day=0)
    assert {column.size for column in booked.figures.values()} == {0}


def test_customers_with_nothing_booked_have_zeros() -> None:
    booked = add_up(bookings([(1, 3, 1, 5, 0)]), 3, as_of_day=10)
    assert booked.figures["net_spend"].tolist() == [0, 5, 0]
    assert booked.figures["first_purchase_day"].tolist() == [0, 3, 0]


@pytest.mark.parametrize("column", ["units", "cost_units"])
def test_a_customer_whose_money_overflows_is_refused(column: str) -> None:
    big = 10**18
    rows = [(0, day, 1, big if column == "units" else 0, big if column == "cost_units" else 0) for day in range(9)]
    with pytest.raises(TotalTooLarge):
        add_up(bookings(rows), 1, as_of_day=10)


def test_many_rich_customers_are_counted_exactly() -> None:
    rows = [(customer, 1, 1, 8 * 10**18 + customer, 0) for customer in range(40)]
    booked = add_up(bookings(rows), 40, as_of_day=10)
    assert booked.figures["net_spend"].tolist() == [8 * 10**18 + customer for customer in range(40)]
