import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.analytics.counted import Counted, Place, find_place

values_strategy = st.lists(st.integers(-5, 30), min_size=1, max_size=60)
shares_strategy = st.integers(2, 10).map(lambda k: [i / k for i in range(1, k)])


def counts(values: list[int], parts: int, unit: float = 1) -> list[Counted]:
    """Values of customers in the order of ids, counted by part."""
    return [Counted.of(np.array(part, dtype=np.int64) * unit) for part in np.array_split(values, parts)]


@given(values_strategy, st.integers(1, 4), shares_strategy, st.sampled_from([1, 0.37]))
def test_quantiles_of_counted_parts_are_those_of_numpy(
    values: list[int], parts: int, shares: list[float], unit: float
) -> None:
    counted = Counted.joined(counts(values, parts, unit))
    assert counted.size == len(values)
    assert counted.quantiles(shares).tolist() == np.quantile(np.array(values) * unit, shares).tolist()


@given(values_strategy, st.integers(1, 4), shares_strategy)
def test_boundaries_are_the_customers_at_the_quantiles_of_ranks(
    values: list[int], parts: int, shares: list[float]
) -> None:
    ranked = np.argsort(values, kind="stable")
    last = ranked[np.floor(np.quantile(np.arange(1, len(values) + 1), shares)).astype(int) - 1]
    rows = np.array_split(np.arange(len(values)), parts)
    each = counts(values, parts)
    found = []
    for place in Counted.joined(each).boundaries(shares):
        part, there = find_place(place, each)
        alike = [row for row in rows[part].tolist() if values[row] == there.value]
        found.append(alike[there.nth])
    assert found == last.tolist()


def test_rows_may_stand_for_several_customers() -> None:
    counted = Counted.of(np.array([7, 3, 7]), np.array([2, 5, 1]))
    assert (counted.values.tolist(), counted.customers.tolist()) == ([3, 7], [5, 3])
    assert [counted.count(value) for value in (3, 4, 7, 8)] == [5, 0, 3, 0]
    assert Counted.of(np.zeros(0), np.zeros(0, dtype=np.int64)).size == 0


def test_a_customer_whom_no_part_has_is_not_found() -> None:
    with pytest.raises(LookupError, match="customer 2 of those with 7"):
        find_place(Place(7, 2), counts([7, 7, 8], 2))
