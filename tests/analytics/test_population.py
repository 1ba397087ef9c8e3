import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.analytics.population import exact_total, id_array


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50))
def test_totals_are_exact_beyond_64_bits(numbers: list[int]) -> None:
    assert exact_total(np.array(numbers, dtype=np.int64)) == sum(numbers)


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(1, 10**6)), max_size=50))
def test_totals_of_counted_numbers_are_exact_beyond_64_bits(counted: list[tuple[int, int]]) -> None:
    numbers, customers = (np.array([row[column] for row in counted], dtype=np.int64) for column in (0, 1))
    assert exact_total(numbers, customers) == sum(number * count for number, count in counted)


def test_ids_rise_in_the_order_of_their_utf8_bytes() -> None:
    ids = ["A", "B", "a", "é", "中", "\uffee", "\U0001f600"]
    assert ids == sorted(ids, key=lambda customer_id: customer_id.encode())
    array = id_array(ids, 7, "")
    assert (array[:-1] < array[1:]).all()
    with pytest.raises(ValueError, match="one id a customer"):
        id_array(ids, 6, "")
