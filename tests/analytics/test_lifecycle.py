from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.analytics.lifecycle import STAGES, STATUSES, LifecycleLimits, lifecycle_stage, lifecycle_status

Row = tuple[bool, int, int, int, int, int]


def status(has_order: bool = True, since: int = 0, age: int = 0, year_days: int = 1, **limits: Any) -> str:
    code = lifecycle_status(
        has_order=np.array([has_order]),
        days_since_last_order=np.array([since]),
        T_days=np.array([age]),
        year_purchase_days=np.array([year_days]),
        limits=LifecycleLimits(**limits),
    )
    return STATUSES[code[0]]


def stage(
    half: float = 100.0,
    prior: float = 100.0,
    has_order: bool = True,
    churn: int = 0,
    days: int = 3,
    age: int = 365,
    **limits: Any,
) -> str | None:
    code = lifecycle_stage(
        has_order=np.array([has_order]),
        churn_state=np.array([churn], dtype=np.int8),
        half_net_spend=np.array([half], dtype=float),
        prior_half_net_spend=np.array([prior], dtype=float),
        purchase_days=np.array([days]),
        T_days=np.array([age]),
        limits=LifecycleLimits(**limits),
    )
    return None if code[0] < 0 else STAGES[code[0]]


@pytest.mark.parametrize(
    ("customer", "expected"),
    [
        ({"has_order": False, "since": 999, "age": 999, "year_days": 0}, "prospect"),
        ({"since": 181, "age": 181, "year_days": 5}, "inactive"),
        ({"since": 180, "age": 180, "year_days": 5}, "new"),
        ({"since": 0, "age": 180, "year_days": 1}, "new"),
        ({"since": 180, "age": 181, "year_days": 2}, "active"),
        ({"since": 0, "age": 181, "year_days": 1}, "occasional"),
    ],
)
def test_the_first_status_that_matches_is_given(customer: dict[str, Any], expected: str | None) -> None:
    assert status(**customer) == expected


def test_status_limits_can_be_set() -> None:
    assert status(since=31, age=31, inactive_after_days=30) == "inactive"
    assert status(age=31, new_within_days=30) == "occasional"
    assert status(age=200, year_days=2, active_purchase_days=3) == "occasional"


@pytest.mark.parametrize(
    ("customer", "expected"),
    [
        ({"has_order": False, "churn": 3}, None),
        ({"churn": 1}, "decline"),
        ({"churn": 2}, "decline"),
        ({"half": 49.9999}, "decline"),
        ({"half": 49.9999, "days": 1}, "decline"),
        ({"half": 50.0}, "stable"),
        ({"days": 2}, "exploration"),
        ({"days": 2, "half": 500.0}, "exploration"),
        ({"days": 3}, "stable"),
        ({"age": 364}, "formation"),
        ({"age": 365}, "stable"),
        ({"half": 110.0}, "stable"),
        ({"half": 110.0001}, "formation"),
    ],
)
def test_the_first_stage_that_matches_is_given(customer: dict[str, Any], expected: str | None) -> None:
    assert stage(**customer) == expected


@pytest.mark.parametrize(
    ("half", "prior", "expected"),
    [
        (0, 0, "stable"),
        (0, 0.01, "decline"),
        (0.01, 0, "formation"),
        (-0.01, 0, "decline"),
        (0, -10, "formation"),
        (-6, -10, "decline"),
        (-5, -10, "formation"),
        (-11, -10, "decline"),
    ],
)
def test_zero_and_negative_halves_are_compared_as_stated(half: float, prior: float, expected: str) -> None:
    assert stage(half, prior) == expected


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**12))
def test_exact_shares_are_neither_below_nor_above_whatever_floats_say(tenths: int) -> None:
    prior = tenths / 1_000
    assert stage(round(11 * tenths / 10_000, 4), prior) == "stable"
    assert stage(round(5 * tenths / 10_000, 4), prior) == "stable"
    assert stage((11 * tenths + 1) / 10_000, prior) == "formation"
    assert stage((5 * tenths - 1) / 10_000, prior) == "decline"


def reference_stage(row: Row) -> str | None:
    """The definition in exact fractions."""
    has_order, churn, half, prior, days, age = row
    if not has_order:
        return None
    if churn != 0 or Fraction(half) < Fraction(1, 2) * prior:
        return "decline"
    if days < 3:
        return "exploration"
    if age < 365 or Fraction(half) > Fraction(11, 10) * prior:
        return "formation"
    return "stable"


money = st.one_of(st.integers(-20, 20).map(lambda n: n * 10_000), st.integers(-(10**9), 10**9))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(), st.integers(0, 2), money, money, st.integers(1, 5), st.sampled_from([0, 364, 365, 900])
        ),
        max_size=40,
    )
)
def test_stages_follow_the_definition_customer_by_customer(rows: list[Row]) -> None:
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    codes = lifecycle_stage(
        has_order=np.array(columns[0], dtype=bool),
        churn_state=np.array(columns[1], dtype=np.int8),
        half_net_spend=np.array(columns[2], dtype=float) / 10_000,
        prior_half_net_spend=np.array(columns[3], dtype=float) / 10_000,
        purchase_days=np.array(columns[4], dtype=np.int64),
        T_days=np.array(columns[5], dtype=np.int64),
    )
    assert [None if code < 0 else STAGES[code] for code in codes] == [reference_stage(row) for row in rows]


def test_stage_rates_can_be_set() -> None:
    assert stage(half=70, decline_below=0.8) == "decline"
    assert stage(half=120, growth_above=1.2) == "stable"
    assert stage(days=3, exploration_below=4) == "exploration"
    assert stage(age=365, formation_below_days=366) == "formation"


def test_limits_may_be_zero() -> None:
    assert stage(half=-1, prior=100, decline_below=0) == "decline"
    assert stage(half=0, prior=100, decline_below=0) == "stable"


def test_negative_limits_are_refused() -> None:
    for limits in ({"decline_below": -0.1}, {"growth_above": float("nan")}, {"new_within_days": -1}):
        with pytest.raises(ValueError, match="at least 0"):
            LifecycleLimits(**limits)
