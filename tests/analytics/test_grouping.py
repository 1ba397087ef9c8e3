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


@pytest.mark.parametrize("values", [[3.0], [5.0, 1, 5, 2], [0.0, 1, 2], [0.5, 2, 0.5], [1e12, 3, 3], [9e6, 1, 1, 9e6]])
def test_distinct_values_are_those_of_numpy(values: list[float]) -> None:
    found, index = distinct(np.array(values))
    np.testing.assert_array_equal(found, np.unique(values))
    np.testing.assert_array_equal(found[index], values)
