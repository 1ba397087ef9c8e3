from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.analytics.population import (
    RisingIds,
    check_id_order,
    exact_total,
    id_array,
    rising_ids,
    sum_by_code,
)

units = st.integers(-(10**11), 10**11)


def column(rows: list[Any], index: int, dtype: type = np.int64) -> NDArray[Any]:
    return np.array([row[index] for row in rows], dtype=dtype)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50))
def test_totals_are_exact_beyond_64_bits(numbers: list[int]) -> None:
    assert exact_total(np.array(numbers, dtype=np.int64)) == sum(numbers)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), units), max_size=50), st.randoms())
def test_money_by_code_is_exact_and_free_of_order(rows: list[Any], random: Random) -> None:
    random.shuffle(rows)
    sums = sum_by_code(column(rows, 0), column(rows, 1) / 10_000, 4)
    for code in range(4):
        assert sums[code] == sum(n for own, n in rows if own == code) / 10_000


def test_ids_rise_in_the_order_of_their_utf8_bytes() -> None:
    ids = ["A", "B", "a", "é", "中", "\uffee", "\U0001f600"]
    assert ids == sorted(ids, key=lambda customer_id: customer_id.encode())
    check_id_order(id_array(ids, 7, ""))
    with pytest.raises(ValueError, match="order"):
        check_id_order(id_array(["a", "B"], 2, ""))
    check_id_order(id_array([], 0, ""))


@given(st.sets(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1)), st.data())
def test_ids_in_texts_are_the_ids(some: set[str], data: st.DataObject) -> None:
    ids = sorted(some)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(ids) - 1)))) if len(ids) > 1 else []
    parts = [ids[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(ids)], strict=True) if start < stop]
    rising = RisingIds(["\n".join(part) for part in parts])
    assert list(rising) == rising.to_array().tolist() == ids
    assert [rising[row] for row in range(len(ids))] == ids
    assert rising[1:3] == ids[1:3]
    asked = data.draw(st.lists(st.one_of(st.sampled_from(ids), st.text()) if ids else st.text()))
    assert rising.places(asked) == [ids.index(one) if one in some else None for one in asked]
    assert rising_ids(rising, len(ids), "") is rising
    with pytest.raises(ValueError, match="one id a customer"):
        rising_ids(rising, len(ids) + 1, "")


@pytest.mark.parametrize("texts", [["b\na"], ["a\na"], ["a\nb", "b"], ["b", "a"]])
def test_ids_in_texts_must_rise(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="order"):
        RisingIds(texts)
