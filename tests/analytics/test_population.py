from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.analytics.population import (
    SegmentTable,
    bin_edges,
    check_id_order,
    exact_total,
    histogram,
    id_array,
    rfm_grid,
    segment_table,
    sum_by_code,
    transitions,
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


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3), units), max_size=40))
def test_the_grid_counts_customers_and_money_by_cell(rows: list[Any]) -> None:
    null = [(-1, -1, 77)]
    grid = rfm_grid(column(rows + null, 0), column(rows + null, 1), column(rows + null, 2) / 10_000, 3)
    for r in (1, 2, 3):
        for f in (1, 2, 3):
            members = [n for own_r, own_f, n in rows if (own_r, own_f) == (r, f)]
            assert grid.customers[r - 1, f - 1] == len(members)
            assert grid.net_spend[r - 1, f - 1] == sum(members) / 10_000


def table_of(rows: list[Any], segments: int) -> SegmentTable:
    """Rows are (segment, has_order, days, orders, units)."""
    return segment_table(
        column(rows, 0, np.int8),
        segments,
        has_order=column(rows, 1, bool),
        days_since_last_order=column(rows, 2),
        order_count=column(rows, 3),
        net_spend=column(rows, 4) / 10_000,
    )


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 2), st.booleans(), st.integers(0, 99), st.integers(0, 9), units), max_size=40)
)
def test_the_segment_table_follows_its_customers(rows: list[Any]) -> None:
    table = table_of(rows, 3)
    buyers = [row for row in rows if row[1]]
    total = sum(row[4] for row in buyers)
    for position, code in enumerate((0, 1, 2, -1)):
        members = [row for row in buyers if row[0] == code]
        spend = sum(row[4] for row in members) / 10_000
        assert table.customers[position] == len(members)
        assert table.net_spend[position] == spend
        assert table.order_count[position] == sum(row[3] for row in members)
        assert table.customer_share[position] == (len(members) / len(buyers) if buyers else 0)
        if total > 0:
            assert table.net_spend_share[position] == pytest.approx(spend / (total / 10_000), rel=1e-9)
        else:
            assert np.isnan(table.net_spend_share[position])
        means = [
            table.mean_days_since_last_order[position],
            table.mean_order_count[position],
            table.mean_net_spend[position],
        ]
        if members:
            expected = [sum(row[2] for row in members), sum(row[3] for row in members), spend]
            assert means == pytest.approx([number / len(members) for number in expected])
        else:
            assert np.isnan(means).all()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 2), units, units), max_size=40))
def test_transitions_count_customers_and_money_by_move(rows: list[Any]) -> None:
    moved = transitions(
        column(rows, 0, np.int8),
        column(rows, 1, np.int8),
        (2, 3),
        column(rows, 2) / 10_000,
        column(rows, 3) / 10_000,
    )
    assert moved.customers.shape == (3, 4)
    for row, before in enumerate((0, 1, -1)):
        for place, after in enumerate((0, 1, 2, -1)):
            members = [own for own in rows if own[:2] == (before, after)]
            assert moved.customers[row, place] == len(members)
            assert moved.net_spend_before[row, place] == sum(own[2] for own in members) / 10_000
            assert moved.net_spend_after[row, place] == sum(own[3] for own in members) / 10_000


def test_a_bin_holds_its_lower_edge_and_the_last_both() -> None:
    counted = histogram(np.array([-1.0, 0.0, 0.9, 1.0, 2.0, 2.1, np.nan]), np.array([0.0, 1.0, 2.0]))
    assert counted.counts.tolist() == [2, 2]
    assert (counted.below, counted.above) == (1, 1)


@given(st.floats(-1e6, 1e6), st.floats(0, 1e9), st.integers(2, 50))
def test_edges_cover_the_range_in_few_round_steps(low: float, width: float, most: int) -> None:
    high = low + (width if width > 1e-3 else 0.0)
    edges = bin_edges(low, high, most)
    assert edges[0] <= low
    assert edges[-1] >= high
    assert 2 <= edges.size <= most + 1
    assert (np.diff(edges) > 0).all()


def test_edges_are_the_decimals_that_people_write() -> None:
    assert bin_edges(0.05, 0.6, 6).tolist() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert bin_edges(0, 100, 5).tolist() == [0, 20, 40, 60, 80, 100]
    assert bin_edges(7, 7).tolist() == [7, 8]
    assert bin_edges(1.5e6, 3.2e6, 3).tolist() == [1e6, 2e6, 3e6, 4e6]


@pytest.mark.parametrize("arguments", [(2, 1), (float("nan"), 1), (0, float("inf")), (0, 1, 1)])
def test_edges_of_no_range_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        bin_edges(*arguments)


def test_ids_rise_in_the_order_of_their_utf8_bytes() -> None:
    ids = ["A", "B", "a", "é", "中", "\uffee", "\U0001f600"]
    assert ids == sorted(ids, key=lambda customer_id: customer_id.encode())
    check_id_order(id_array(ids, 7, ""))
    with pytest.raises(ValueError, match="order"):
        check_id_order(id_array(["a", "B"], 2, ""))
    check_id_order(id_array([], 0, ""))
