"""Churn state: whether a customer is active, at risk or gone, by inactivity or by the probability of churn."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

STATES = ("active", "at_risk", "churned", "never_purchased")
ACTIVE, AT_RISK, CHURNED, NEVER_PURCHASED = range(4)

Method = Literal["auto", "inactivity", "probability"]


@dataclass(frozen=True)
class ChurnLimits:
    """Where the states begin.

    Parameters
    ----------
    active_days : a customer is active to this many days since the last order, and at risk after it.
    at_risk_days : at risk to this many days, churned after them.
    at_risk_probability : at risk from this probability of churn on.
    churned_probability : churned from this probability on.

    Raises
    ------
    ValueError : limits are out of range, or the first of a pair is above the second.
    """

    active_days: int = 90
    at_risk_days: int = 180
    at_risk_probability: float = 0.5
    churned_probability: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.active_days <= self.at_risk_days:
            raise ValueError("active_days must be at least 0 and at most at_risk_days")
        if not 0 <= self.at_risk_probability <= self.churned_probability <= 1:
            raise ValueError("at_risk_probability must be at least 0, churned_probability at least that and at most 1")


DEFAULT_LIMITS = ChurnLimits()


def state_by_inactivity(
    days_since_last_order: NDArray[np.int64], has_order: NDArray[np.bool_], limits: ChurnLimits = DEFAULT_LIMITS
) -> NDArray[np.int8]:
    """The state by days since the last counted order: ≤ 90 active, ≤ 180 at risk, else churned.

    Parameters
    ----------
    days_since_last_order : int64 array (n,), days; not looked at where there is no counted order.
    has_order : bool array (n,).
    limits : the days.

    Returns
    -------
    int8 array (n,) of codes into ``STATES``.

    Examples
    --------
    >>> state_by_inactivity(np.array([90, 91, 181, 0]), np.array([True, True, True, False])).tolist()
    [0, 1, 2, 3]
    """
    state = (days_since_last_order > limits.active_days).astype(np.int8)
    state[days_since_last_order > limits.at_risk_days] = CHURNED
    state[~has_order] = NEVER_PURCHASED
    return state


def state_by_probability(
    churn_probability: NDArray[np.float64], has_order: NDArray[np.bool_], limits: ChurnLimits = DEFAULT_LIMITS
) -> NDArray[np.int8]:
    """The state by the probability of churn, 1 − P(at least one order within the setting's days).

    Parameters
    ----------
    churn_probability : float64 array (n,), 0 to 1, or NaN where it is not known.
    has_order : bool array (n,).
    limits : the probabilities.

    Returns
    -------
    int8 array (n,) of codes into ``STATES``; −1 where there is a counted order and the probability is NaN.

    Examples
    --------
    >>> state_by_probability(np.array([0.49, 0.5, 0.9, 0.0]), np.array([True, True, True, False])).tolist()
    [0, 1, 2, 3]
    """
    state = (churn_probability >= limits.at_risk_probability).astype(np.int8)
    state[churn_probability >= limits.churned_probability] = CHURNED
    state[np.isnan(churn_probability)] = -1
    state[~has_order] = NEVER_PURCHASED
    return state


def churn_state(
    days_since_last_order: NDArray[np.int64],
    has_order: NDArray[np.bool_],
    *,
    churn_probability: NDArray[np.float64] | None = None,
    method: Method = "auto",
    limits: ChurnLimits = DEFAULT_LIMITS,
) -> NDArray[np.int8]:
    """The state by the method of the settings.

    "auto" and "probability" go by the probability where there is one, and by inactivity for customers without one
    (or for all, when the run fitted no model that tells it: ``churn_probability`` None), so that there is always
    a state.

    Parameters
    ----------
    days_since_last_order, has_order : as in ``state_by_inactivity``, shape (n,).
    churn_probability : as in ``state_by_probability``, shape (n,), or None.
    method : of the settings.
    limits : of either method.

    Returns
    -------
    int8 array (n,) of codes into ``STATES``.

    Examples
    --------
    >>> churn_state(np.array([200]), np.array([True]), churn_probability=np.array([0.2])).tolist()
    [0]
    >>> churn_state(np.array([200]), np.array([True])).tolist()
    [2]
    """
    if method == "inactivity" or churn_probability is None:
        return state_by_inactivity(days_since_last_order, has_order, limits)
    state = state_by_probability(churn_probability, has_order, limits)
    unknown = state < 0
    if unknown.any():
        state[unknown] = state_by_inactivity(days_since_last_order[unknown], has_order[unknown], limits)
    return state
