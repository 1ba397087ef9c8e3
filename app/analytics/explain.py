"""Why a customer has a score, and how far the next better one is. One customer at a time, plain numbers.

Distances are the least that would change the score with everything else as it is, in the step of the figure:
a day, an order, a ten-thousandth of the currency unit.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction

from app.analytics.churn import ACTIVE, AT_RISK, CHURNED, NEVER_PURCHASED, STATES, ChurnLimits
from app.analytics.churn import DEFAULT_LIMITS as CHURN_LIMITS
from app.analytics.lifecycle import (
    DECLINE,
    EXPLORATION,
    FORMATION,
    INACTIVE,
    NEW,
    OCCASIONAL,
    PROSPECT,
    STABLE,
    STAGES,
    STATUS_ACTIVE,
    STATUSES,
    LifecycleLimits,
)
from app.analytics.lifecycle import DEFAULT_LIMITS as LIFECYCLE_LIMITS
from app.analytics.pareto import AbcBoundary, AbcFit
from app.analytics.population import UNITS_PER_CURRENCY
from app.analytics.rfm import BoundaryPair, RfmFit


@dataclass(frozen=True, slots=True)
class ScoreExplanation:
    """One of R, F and M.

    Attributes
    ----------
    figure : what was graded: days, orders, or currency units. None where there is no counted order.
    score : 1 … k, None where there is none.
    cut_points : the fit's k − 1 rising cut points in the unit of the figure; empty where nobody was fitted. Where F
        is ranked (ties = "first") the order counts at the boundaries, which repeat where equal counts are split.
    next_score : the score that the distance reaches, the next better that can be had; None at the best one.
    distance : by how many days sooner the last order would be, how many orders or how much spend more there would
        be; None with ``next_score``.
    """

    figure: float | None
    score: int | None
    cut_points: tuple[float, ...]
    next_score: int | None
    distance: float | None


@dataclass(frozen=True, slots=True)
class RfmExplanation:
    r: ScoreExplanation
    f: ScoreExplanation
    m: ScoreExplanation


def explain_rfm(
    fit: RfmFit,
    *,
    as_of_day: int,
    days_since_last_order: int | None,
    order_count: int,
    net_spend: float,
    customer_id: str,
) -> RfmExplanation:
    """The figures, cut points and distances of R, F and M.

    Parameters
    ----------
    fit : of a population.
    as_of_day : days since 1970-01-01.
    days_since_last_order : days; None where there is no counted order.
    order_count, net_spend : of the fit's window; net_spend in currency units.
    customer_id : the customer's; it decides where F is ranked.

    Examples
    --------
    >>> fit = RfmFit(k=5, customers=9, r_cuts=(2, 4, 6, 8), f_cuts=(1, 1, 3, 3.5), m_cuts=(10, 20, 30, 40))
    >>> why = explain_rfm(fit, as_of_day=0, days_since_last_order=7, order_count=1, net_spend=35.0, customer_id="a")
    >>> why.r.score, why.r.next_score, why.r.distance
    (2, 3, 1)
    >>> why.f.score, why.f.next_score, why.f.distance
    (1, 3, 1)
    >>> why.m.distance
    5.0001
    """
    r_cuts = fit.r_limits(as_of_day) or ()
    f_cuts = fit.f_cuts or tuple(float(figure) for figure, _ in fit.f_pairs or ())
    m_cuts = fit.m_cuts or ()
    if days_since_last_order is None:
        r, f, m = (ScoreExplanation(None, None, cuts, None, None) for cuts in (r_cuts, f_cuts, m_cuts))
        return RfmExplanation(r, f, m)
    return RfmExplanation(
        r=_explain_r(r_cuts, fit.k, days_since_last_order),
        f=_explain_cut(f_cuts, order_count, 1)
        if fit.f_pairs is None
        else _explain_pairs(fit.f_pairs, f_cuts, order_count, customer_id),
        m=_explain_cut(m_cuts, net_spend, UNITS_PER_CURRENCY),
    )


@dataclass(frozen=True, slots=True)
class AbcExplanation:
    """A grade, the pairs it was given by, and the net spend that is missing to the next better grade.

    Money is in ten-thousandths of the currency unit. ``next_grade`` and ``distance_units`` are None at A, without
    a grade, and where the fit knows no better grade.
    """

    net_spend_units: int
    grade: str | None
    last_a: AbcBoundary | None
    last_b: AbcBoundary | None
    next_grade: str | None
    distance_units: int | None


def explain_abc(fit: AbcFit, *, net_spend_units: int, has_order: bool, customer_id: str) -> AbcExplanation:
    """The boundaries and the distance to the next better grade.

    Parameters
    ----------
    fit : of a population.
    net_spend_units : ten-thousandths of the currency unit, on the fit's basis.
    has_order : whether there is a counted order.
    customer_id : the customer's; it decides between equal spends.

    Examples
    --------
    >>> import numpy as np
    >>> from app.analytics.counted import Counted
    >>> from app.analytics.pareto import rank_spend
    >>> ranked = rank_spend(Counted.of(np.array([15, 80, 5]) * 10_000))
    >>> fit = ranked.fit(dict(zip(ranked.places, ["b", "a"])))
    >>> why = explain_abc(fit, net_spend_units=50_000, has_order=True, customer_id="c")
    >>> why.grade, why.next_grade, why.distance_units
    ('C', 'B', 100001)
    """
    if not has_order or not fit.customers:
        return AbcExplanation(net_spend_units, None, fit.last_a, fit.last_b, None, None)
    grade, next_grade, distance = "C", None, None
    for name, boundary in (("B", fit.last_b), ("A", fit.last_a)):
        if boundary is None:
            continue
        # At equal spend, the customer whose id comes after the boundary's stands behind it.
        missing = boundary.net_spend_units + (customer_id > boundary.customer_id) - net_spend_units
        if missing <= 0:
            grade = name
        # The same spend may pass both boundaries, where they are equal but for the ids.
        elif distance is None or missing == distance:
            next_grade, distance = name, missing
    return AbcExplanation(net_spend_units, grade, fit.last_a, fit.last_b, next_grade, distance)


@dataclass(frozen=True, slots=True)
class ChurnExplanation:
    """A churn state, its figures and limits.

    ``method`` is the one that gave the state. ``days_until_next`` is how many days without an order lead to
    ``next_state``; both are None when churned, never purchased, or by probability, which moves with the model.
    ``limits`` are the days (active, at risk), or the probabilities (at risk, churned).
    """

    state: str
    method: str
    days_since_last_order: int | None
    probability: float | None
    limits: tuple[float, float]
    next_state: str | None
    days_until_next: int | None


def explain_churn(
    *,
    days_since_last_order: int | None,
    state: int,
    method: str = "inactivity",
    probability: float | None = None,
    limits: ChurnLimits = CHURN_LIMITS,
) -> ChurnExplanation:
    """The figures of a churn state, and when it changes by inactivity.

    Parameters
    ----------
    days_since_last_order : days; None where there is no counted order.
    state : code into ``churn.STATES``.
    method : "inactivity" or "probability", whichever gave the state.
    probability : of churn, 0 to 1, or None.
    limits : that gave the state.

    Examples
    --------
    >>> why = explain_churn(days_since_last_order=90, state=0)
    >>> why.state, why.next_state, why.days_until_next
    ('active', 'at_risk', 1)
    """
    next_state = days = None
    if method == "inactivity" and days_since_last_order is not None:
        if state == ACTIVE:
            # Equal limits leave no days at risk between.
            next_state = AT_RISK if limits.active_days < limits.at_risk_days else CHURNED
            days = limits.active_days + 1 - days_since_last_order
        elif state == AT_RISK:
            next_state = CHURNED
            days = limits.at_risk_days + 1 - days_since_last_order
    by_days = method == "inactivity"
    return ChurnExplanation(
        state=STATES[NEVER_PURCHASED if days_since_last_order is None else state],
        method=method,
        days_since_last_order=days_since_last_order,
        probability=probability,
        limits=(limits.active_days, limits.at_risk_days)
        if by_days
        else (limits.at_risk_probability, limits.churned_probability),
        next_state=None if next_state is None else STATES[next_state],
        days_until_next=days,
    )


@dataclass(frozen=True, slots=True)
class LifecycleExplanation:
    """A status and a stage, and what they were read from.

    ``next_status`` is where the status goes without another order, after ``days_until_next`` days. An active
    customer may become occasional before, as purchase days leave the year: that takes their days, which are not
    looked at here. ``stage_reason`` is the rule that matched: no_order, churn_state, spend_fell, few_purchase_days,
    young_relationship, spend_grew or steady. ``decline_below`` and ``growth_above`` are the net spends of the last
    180 days, in currency units, below and above which the stage is decline and formation.
    """

    status: str
    next_status: str | None
    days_until_next: int | None
    stage: str | None
    stage_reason: str
    decline_below: float
    growth_above: float


def explain_lifecycle(
    *,
    status: int,
    stage: int,
    churn_state: int,
    days_since_last_order: int | None,
    T_days: int | None,
    year_purchase_days: int,
    half_net_spend: float,
    prior_half_net_spend: float,
    limits: LifecycleLimits = LIFECYCLE_LIMITS,
) -> LifecycleExplanation:
    """When the status changes by inactivity, and which rule gave the stage.

    Parameters
    ----------
    status, stage, churn_state : codes that ``lifecycle`` and ``churn`` gave; stage −1 for null.
    days_since_last_order, T_days : days since the last and the first purchase; None without a counted order.
    year_purchase_days : distinct days with a counted order of the last 365 days.
    half_net_spend, prior_half_net_spend : currency units, the last 180 days and the 180 before.
    limits : that gave status and stage.

    Examples
    --------
    >>> why = explain_lifecycle(status=2, stage=0, churn_state=0, days_since_last_order=10, T_days=10,
    ...                         year_purchase_days=1, half_net_spend=5.0, prior_half_net_spend=0.0)
    >>> why.next_status, why.days_until_next, why.stage_reason
    ('inactive', 171, 'few_purchase_days')
    """
    next_status = days = None
    if days_since_last_order is not None and T_days is not None and status not in (PROSPECT, INACTIVE):
        next_status = INACTIVE
        days = limits.inactive_after_days + 1 - days_since_last_order
        no_longer_new = limits.new_within_days + 1 - T_days
        if status == NEW and no_longer_new < days:
            days = no_longer_new
            next_status = STATUS_ACTIVE if year_purchase_days >= limits.active_purchase_days else OCCASIONAL
    return LifecycleExplanation(
        status=STATUSES[status],
        next_status=None if next_status is None else STATUSES[next_status],
        days_until_next=days,
        stage=None if stage < 0 else STAGES[stage],
        stage_reason=_stage_reason(stage, churn_state, T_days, limits),
        decline_below=round(prior_half_net_spend * limits.decline_below, 8),
        growth_above=round(prior_half_net_spend * limits.growth_above, 8),
    )


def _explain_r(cuts: tuple[float, ...], k: int, days: int) -> ScoreExplanation:
    if not cuts:
        return ScoreExplanation(days, None, cuts, None, None)
    above = bisect_left(cuts, days)
    target = math.floor(cuts[above - 1]) if above else -1
    # No order can lie in the future of ``as_of``: own limits below zero are out of reach.
    if target < 0:
        return ScoreExplanation(days, k - above, cuts, None, None)
    return ScoreExplanation(days, k - above, cuts, k - bisect_left(cuts, target), days - target)


def _explain_cut(cuts: tuple[float, ...], figure: float, steps_per_unit: int) -> ScoreExplanation:
    if not cuts:
        return ScoreExplanation(figure, None, cuts, None, None)
    below = bisect_left(cuts, figure)
    if below == len(cuts):
        return ScoreExplanation(figure, 1 + below, cuts, None, None)
    target = math.floor(Fraction(cuts[below]) * steps_per_unit)
    # Compared as scores are, in float64, which is coarser than a step beyond 4e11 currency units.
    while target / steps_per_unit <= cuts[below]:
        target += 1
    steps = target - round(figure * steps_per_unit)
    distance = steps if steps_per_unit == 1 else steps / steps_per_unit
    return ScoreExplanation(figure, 1 + below, cuts, 1 + bisect_left(cuts, target / steps_per_unit), distance)


def _explain_pairs(
    pairs: tuple[BoundaryPair, ...], cuts: tuple[float, ...], order_count: int, customer_id: str
) -> ScoreExplanation:
    below = bisect_left(pairs, (order_count, customer_id))
    if below == len(pairs):
        return ScoreExplanation(order_count, 1 + below, cuts, None, None)
    figure, boundary_id = pairs[below]
    target = figure if customer_id > boundary_id else figure + 1
    next_score = 1 + bisect_left(pairs, (target, customer_id))
    return ScoreExplanation(order_count, 1 + below, cuts, next_score, target - order_count)


def _stage_reason(stage: int, churn_state: int, T_days: int | None, limits: LifecycleLimits) -> str:
    if stage == DECLINE:
        return "spend_fell" if churn_state == ACTIVE else "churn_state"
    if stage == EXPLORATION:
        return "few_purchase_days"
    if stage == FORMATION:
        young = T_days is not None and T_days < limits.formation_below_days
        return "young_relationship" if young else "spend_grew"
    return "steady" if stage == STABLE else "no_order"
