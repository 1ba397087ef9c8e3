# ruff: noqa: N806
"""Grouping equals NumPy's unique rows on every path."""

from __future__ import annotations

import numpy as np
import pytest

from app.analytics import grouping
from app.analytics.grouping import distinct, group_customers


@pytest.mark.parametrize("scale", [1.0, 1 / 7, 1e7])
@pytest.mark.parametrize("counted", [50, 2_000_000])
def test_groups_are_the_distinct_rows_with_their_counts(
    scale: float, counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "COUNTED_KEYS", counted)
    random = np.random.default_rng(2)
    T = random.integers(0, 30, 5000) * scale
    x = random.integers(0, 6, 5000) * (T > 0).astype(float)
    t_x = np.where(x > 0, T * random.integers(0, 2, 5000), 0)
    groups = group_customers(x.astype(float), t_x.astype(float), T.astype(float))
    rows, counts = np.unique(np.stack([x, T, t_x], axis=1), axis=0, return_counts=True)
    np.testing.assert_array_equal(np.stack([groups.x, groups.T, groups.t_x], axis=1), rows)
    np.testing.assert_array_equal(groups.weight, counts)
    assert groups.customers == 5000
    assert groups.repeat_start == np.count_nonzero(rows[:, 0] == 0)
    values, weights = np.unique(x, return_counts=True)
    np.testing.assert_array_equal(groups.x_values, values)
    np.testing.assert_array_equal(groups.x_weights, weights)


@pytest.mark.parametrize("scale", [1.0, 1 / 7, 1e7])
@pytest.mark.parametrize("counted", [50, 2_000_000])
@pytest.mark.parametrize("spread", [1, 600_000])
def test_rows_that_stand_for_several_customers_group_as_the_customers_would(
    scale: float, counted: int, spread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouping, "COUNTED_KEYS", counted)
    random = np.random.default_rng(3)
    # With large numbers there are more histories than one integer can tell apart: they are grouped as rows.
    T = np.float64(scale) * (random.integers(0, 12, 900) * (1 + random.integers(0, 2, 900) * spread) + 1)
    x = random.integers(0, 5, 900) * (1.0 + random.integers(0, 2, 900) * spread)
    t_x = np.where(x > 0, T * random.integers(0, 2, 900), 0)
    customers = random.integers(1, 6, 900)
    found = group_customers(x, t_x, T, customers.astype(float))
    wanted = group_customers(*(np.repeat(column, customers) for column in (x, t_x, T)))
    for name in vars(wanted):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert found.customers == customers.sum()
    assert found.mean_T == pytest.approx(np.average(T, weights=customers))


def test_a_sample_takes_every_nth_customer_in_whatever_order_they_came() -> None:
    random = np.random.default_rng(4)
    T = random.integers(1, 40, 3000).astype(float)
    x = np.minimum(random.geometric(0.4, 3000) - 1.0, T)
    t_x = np.where(x > 0, np.floor(T / 2), 0)
    customers = random.integers(1, 50, 3000).astype(float)
    groups = group_customers(x, t_x, T, customers)
    sample = groups.sample(1000)
    every = groups.customers // 1000

    each = np.repeat(np.arange(groups.x.size), groups.weight.astype(int))[every - 1 :: every]
    for name in ("x", "t_x", "T"):
        taken = np.repeat(getattr(sample, name), sample.weight.astype(int))
        np.testing.assert_array_equal(taken, getattr(groups, name)[each])
    assert sample.customers == each.size
    assert sample.x.size < groups.x.size
    again = group_customers(sample.x, sample.t_x, sample.T, sample.weight)
    order = random.permutation(3000)
    shuffled = group_customers(x[order], t_x[order], T[order], customers[order]).sample(1000)
    for name in vars(sample):
        np.testing.assert_array_equal(getattr(sample, name), getattr(again, name))
        np.testing.assert_array_equal(getattr(sample, name), getattr(shuffled, name))


def test_a_sample_of_as_many_as_there_are_is_all_of_them() -> None:
    groups = group_customers(np.zeros(3), np.zeros(3), np.array([1.0, 2, 2]), np.array([1.0, 2, 4]))
    assert groups.sample(7) is groups
    assert groups.sample(100) is groups
    np.testing.assert_array_equal(groups.sample(3).weight, [3])


@pytest.mark.parametrize("values", [[3.0], [5.0, 1, 5, 2], [0.0, 1, 2], [0.5, 2, 0.5], [1e12, 3, 3], [9e6, 1, 1, 9e6]])
def test_distinct_values_are_those_of_numpy(values: list[float]) -> None:
    found, index = distinct(np.array(values))
    np.testing.assert_array_equal(found, np.unique(values))
    np.testing.assert_array_equal(found[index], values)
