"""Lifecycle: a customer's status by when they bought, and stage of the relationship.

The stages are those of the relationship life cycle: exploration (考察期), formation (形成期), stable (稳定期) and
decline (衰退期).
"""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from app.analytics.churn import ACTIVE
from app.analytics.population import money_units

STATUSES = ("prospect", "inactive", "new", "active", "occasional")
PROSPECT, INACTIVE, NEW, STATUS_ACTIVE, OCCASIONAL = range(5)

STAGES = ("exploration", "formation", "stable", "decline")
EXPLORATION, FORMATION, STABLE, DECLINE = range(4)


@dataclass(frozen=True)
class LifecycleLimits:
    """The limits of statuses and stages.

    Parameters
    ----------
    inactive_after_days : inactive when the last purchase is more days ago.
    new_within_days : new when the first purchase is at most so many days ago.
    active_purchase_days : active with at least so many purchase days in 365 days.
    decline_below : decline when the last 180 days' net is below this share of the 180 before.
    growth_above : formation when it is above this share.
    exploration_below : exploration with fewer purchase days.
    formation_below_days : formation when the first purchase is fewer days ago (T).

    Raises
    ------
    ValueError : a limit is negative.
    """

    inactive_after_days: int = 180
    new_within_days: int = 180
    active_purchase_days: int = 2
    decline_below: float = 0.5
    growth_above: float = 1.1
    exploration_below: int = 3
    formation_below_days: int = 365

    def __post_init__(self) -> None:
        # Put as "not at least 0" so that NaN is refused too.
        if any(not value >= 0 for value in vars(self).values()):
            raise ValueError("lifecycle limits must be at least 0")


DEFAULT_LIMITS = LifecycleLimits()


def lifecycle_status(
    *,
    has_order: NDArray[np.bool_],
    days_since_last_order: NDArray[np.int64],
    T_days: NDArray[np.int64],
    year_purchase_days: NDArray[np.int64],
    limits: LifecycleLimits = DEFAULT_LIMITS,
) -> NDArray[np.int8]:
    """The status; the first that matches.

    No counted order: prospect. Last purchase more than 180 days ago: inactive. First at most 180 days ago: new.
    At least 2 purchase days in the last 365: active. Else occasional.

    Parameters
    ----------
    has_order : bool array (n,).
    days_since_last_order, T_days : int64 arrays (n,), days from the last and the first purchase day to the day of
        ``as_of``; not looked at where there is no counted order.
    year_purchase_days : int64 array (n,), purchase days of the last 365 days.
    limits : as above.

    Returns
    -------
    int8 array (n,) of codes into ``STATUSES``.

    Examples
    --------
    >>> status = lifecycle_status(has_order=np.array([True]), days_since_last_order=np.array([180]),
    ...                           T_days=np.array([181]), year_purchase_days=np.array([2]))
    >>> STATUSES[status[0]]
    'active'
    """
    # From the last rule to the first, so that the first has the last word.
    status = np.where(year_purchase_days >= limits.active_purchase_days, STATUS_ACTIVE, OCCASIONAL).astype(np.int8)
    status[T_days <= limits.new_within_days] = NEW
    status[days_since_last_order > limits.inactive_after_days] = INACTIVE
    status[~has_order] = PROSPECT
    return status


def lifecycle_stage(
    *,
    has_order: NDArray[np.bool_],
    churn_state: NDArray[np.int8],
    half_net_spend: NDArray[np.float64],
    prior_half_net_spend: NDArray[np.float64],
    purchase_days: NDArray[np.int64],
    T_days: NDArray[np.int64],
    limits: LifecycleLimits = DEFAULT_LIMITS,
) -> NDArray[np.int8]:
    """The stage; the first that matches.

    No counted order: null. Churn state not active, or net of the last 180 days < 50 % of the 180 before: decline.
    Fewer than 3 purchase days: exploration. T < 365, or net of the last 180 days > 110 % of the 180 before:
    formation. Else stable.

    The comparisons are made exactly as written, in ten-thousandths of the currency unit. Two halves of zero are
    neither a decline nor growth; spend after a half of zero is growth. Net spend is negative where refunds without
    order outweigh orders: a negative half after one of zero is a decline, zero or spend after a negative one is
    growth, and of two negative halves −6 after −10 is a decline (−6 < −5), −5 after −10 is growth (−5 > −11).

    Parameters
    ----------
    has_order : bool array (n,).
    churn_state : integer array (n,) of codes into ``churn.STATES``.
    half_net_spend, prior_half_net_spend : float64 arrays (n,), currency units: the last 180 days and the 180 before.
    purchase_days : int64 array (n,), distinct days with a counted order.
    T_days : int64 array (n,), days from the first purchase day to the day of ``as_of``.
    limits : as above.

    Returns
    -------
    int8 array (n,) of codes into ``STAGES``, −1 where there is no counted order.

    Examples
    --------
    >>> stage = lifecycle_stage(has_order=np.array([True]), churn_state=np.array([0]), purchase_days=np.array([9]),
    ...                         half_net_spend=np.array([110.0]), prior_half_net_spend=np.array([100.0]),
    ...                         T_days=np.array([365]))
    >>> STAGES[stage[0]]
    'stable'
    """
    half, prior = money_units(half_net_spend), money_units(prior_half_net_spend)
    fall, fall_by = _ratio(limits.decline_below)
    growth, growth_by = _ratio(limits.growth_above)
    # Whole numbers on both sides: 1.1 * 110.0 is no exact float.
    stage = np.where(
        (T_days < limits.formation_below_days) | (half * growth_by > prior * growth), FORMATION, STABLE
    ).astype(np.int8)
    stage[purchase_days < limits.exploration_below] = EXPLORATION
    stage[(churn_state != ACTIVE) | (half * fall_by < prior * fall)] = DECLINE
    stage[~has_order] = -1
    return stage


@lru_cache(maxsize=64)
def _ratio(rate: float) -> tuple[float, float]:
    """The decimal that a rate is written as, as numerator and denominator."""
    exact = Fraction(Decimal(str(rate)))
    return float(exact.numerator), float(exact.denominator)
