from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.analytics.churn import STATES, ChurnLimits, churn_state, state_by_inactivity, state_by_probability

YES = np.array([True])


def by_days(days: int, has_order: bool = True, **limits: Any) -> str:
    state = state_by_inactivity(np.array([days]), np.array([has_order]), ChurnLimits(**limits))
    return STATES[state[0]]


def by_probability(probability: float, has_order: bool = True, **limits: Any) -> str:
    state = state_by_probability(np.array([probability]), np.array([has_order]), ChurnLimits(**limits))
    return STATES[state[0]]


@pytest.mark.parametrize(
    ("days", "state"), [(0, "active"), (90, "active"), (91, "at_risk"), (180, "at_risk"), (181, "churned")]
)
def test_inactivity_is_active_to_day_90_and_at_risk_to_day_180(days: int, state: str) -> None:
    assert by_days(days) == state


@pytest.mark.parametrize(
    ("probability", "state"),
    [(0.0, "active"), (0.4999, "active"), (0.5, "at_risk"), (0.8999, "at_risk"), (0.9, "churned"), (1.0, "churned")],
)
def test_probability_is_at_risk_from_a_half_and_churned_from_nine_tenths(probability: float, state: str) -> None:
    assert by_probability(probability) == state


def test_without_an_order_there_is_nothing_to_churn_from() -> None:
    assert by_days(0, has_order=False) == "never_purchased"
    assert by_days(999, has_order=False) == "never_purchased"
    assert by_probability(1.0, has_order=False) == "never_purchased"
    assert by_probability(float("nan"), has_order=False) == "never_purchased"


def test_own_limits_move_the_states() -> None:
    assert [by_days(days, active_days=10, at_risk_days=10) for days in (10, 11)] == ["active", "churned"]
    own: dict[str, Any] = {"at_risk_probability": 0.2, "churned_probability": 0.2}
    assert [by_probability(p, **own) for p in (0.19, 0.2)] == ["active", "churned"]


@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=50))
def test_a_batch_is_as_its_customers_alone(rows: list[tuple[int, bool]]) -> None:
    days = np.array([row[0] for row in rows], dtype=np.int64)
    has_order = np.array([row[1] for row in rows], dtype=bool)
    assert [STATES[code] for code in state_by_inactivity(days, has_order)] == [by_days(*row) for row in rows]


def test_auto_goes_by_probability_where_there_is_one() -> None:
    days, low = np.array([200]), np.array([0.1])
    assert churn_state(days, YES, churn_probability=low).tolist() == [0]
    assert churn_state(days, YES, churn_probability=low, method="probability").tolist() == [0]
    assert churn_state(days, YES, churn_probability=low, method="inactivity").tolist() == [2]


def test_customers_without_a_probability_go_by_inactivity() -> None:
    nan = float("nan")
    state = churn_state(
        np.array([0, 100, 200, 200, 0]),
        np.array([True, True, True, True, False]),
        churn_probability=np.array([nan, nan, nan, 0.0, nan]),
        limits=ChurnLimits(active_days=99),
    )
    assert [STATES[code] for code in state] == ["active", "at_risk", "churned", "active", "never_purchased"]
    assert state_by_probability(np.array([nan]), YES).tolist() == [-1]
    assert churn_state(np.array([100]), YES, method="probability").tolist() == [1]


def test_limits_may_be_at_their_ends() -> None:
    assert by_days(1, active_days=0, at_risk_days=0) == "churned"
    assert by_probability(0.5, at_risk_probability=0, churned_probability=1) == "at_risk"


@pytest.mark.parametrize(
    "limits",
    [
        {"active_days": -1},
        {"active_days": 181},
        {"at_risk_probability": -0.1},
        {"at_risk_probability": 0.95},
        {"churned_probability": 1.1},
        {"churned_probability": float("nan")},
    ],
)
def test_limits_that_cross_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ChurnLimits(**limits)
