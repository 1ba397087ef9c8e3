"""Explain a row of scores: the figures behind each, the limits that they were held against, and the way to the next.

Pure, and of one customer. Money is exact again here: what a caller is told to be missing is missing to the last unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any

from app.analytics import explain
from app.analytics.churn import STATES
from app.analytics.clv import ClvFit
from app.analytics.lifecycle import DEFAULT_LIMITS, OCCASIONAL, STAGES, STATUS_ACTIVE, STATUSES
from app.analytics.pareto import AbcFit
from app.analytics.population import UNITS_PER_CURRENCY
from app.analytics.rfm import RfmFit
from app.analytics.summary import YEAR_DAYS
from app.analytics.textbook import TextbookFit
from app.analytics.valuation import drivers, mean_purchase_value
from app.population import Population, day_number
from app.scalars import money_of
from app.scoring import Fitted
from app.value import (
    AbcBand,
    AbcExplanation,
    ChurnExplanation,
    ClvDriver,
    ClvExplanation,
    CountExplanation,
    Explanation,
    LifecycleExplanation,
    MoneyExplanation,
    RfmExplanation,
    TextbookFigures,
)
from app.workspace_settings import WorkspaceSettings

_PLACES = Decimal("0.0001")
_STATUS_RULES = ("no_order", "long_ago", "newcomer", "came_back", "otherwise")  # as STATUSES


@dataclass(frozen=True)
class OwnFigures:
    """A customer's figures: a population of one, and the last purchase days as day numbers, the latest first."""

    population: Population
    latest_days: Sequence[int]


def cut_money(cut: float) -> Decimal:
    """A cut point of money, rounded down to four decimals: no amount compares otherwise with it then."""
    # The shortest decimal of the float is the amount that it stands for, where it stands for one.
    return Decimal(repr(cut)).quantize(_PLACES, ROUND_FLOOR)


def explain_scores(
    row: Any,
    own: OwnFigures | None,
    *,
    settings: WorkspaceSettings,
    fitted: Fitted | None,
    as_of_day: date,
    horizon_days: int,
    currency: str,
) -> Explanation:
    """Why a row of scores, computed or stored, is what it is.

    ``own`` are the figures that gave the row, or None where they are no longer known: then only what follows from
    the row itself is told.
    """
    return Explanation(
        rfm=_rfm(row, fitted.rfm if fitted else None, day_number(as_of_day), currency),
        abc=_abc(row, fitted.abc if fitted else None),
        clv=_clv(row, own, settings, fitted, horizon_days),
        churn=_churn(row, settings),
        lifecycle=_lifecycle(row, own, as_of_day),
        late_events=own is None,
    )


def _rfm(row: Any, fit: RfmFit | None, as_of_day: int, currency: str) -> RfmExplanation:
    why = explain.explain_rfm(
        fit or RfmFit(k=1, customers=0),
        as_of_day=as_of_day,
        days_since_last_order=row.days_since_last_order,
        order_count=row.order_count,
        net_spend=float(row.net_spend),
        customer_id=row.customer_id,
    )
    return RfmExplanation(
        r=_count(why.r, "days"),
        f=_count(why.f, "orders"),
        m=MoneyExplanation(
            figure=None if why.m.figure is None else row.net_spend,
            unit=currency,
            score=why.m.score,
            cut_points=[cut_money(cut) for cut in why.m.cut_points],
            next_score=why.m.next_score,
            distance=None if why.m.distance is None else money_of(round(why.m.distance * UNITS_PER_CURRENCY)),
        ),
    )


def _count(why: explain.ScoreExplanation, unit: str) -> CountExplanation:
    return CountExplanation(
        figure=None if why.figure is None else int(why.figure),
        unit=unit,
        score=why.score,
        cut_points=list(why.cut_points),
        next_score=why.next_score,
        distance=None if why.distance is None else int(why.distance),
    )


def _abc(row: Any, fit: AbcFit | None) -> AbcExplanation:
    if fit is None:
        return AbcExplanation(row.abc_net_spend, None, [], None, None)
    why = explain.explain_abc(
        fit,
        net_spend_units=int(row.abc_net_spend * UNITS_PER_CURRENCY),
        has_order=row.days_since_last_order is not None,
        customer_id=row.customer_id,
    )
    return AbcExplanation(
        net_spend=row.abc_net_spend,
        grade=row.abc_grade,
        boundaries=[
            AbcBand(grade, None if last is None else money_of(last.net_spend_units))
            for grade, last in (("A", why.last_a), ("B", why.last_b))
        ],
        next_grade=why.next_grade,
        distance=None if why.distance_units is None else money_of(why.distance_units),
    )


def _clv(
    row: Any, own: OwnFigures | None, settings: WorkspaceSettings, fitted: Fitted | None, horizon_days: int
) -> ClvExplanation:
    fit = fitted.clv if fitted else None
    has_order = row.days_since_last_order is not None
    predictive = fit is not None and fit.purchases is not None
    frequency = recency = age = value = None
    driven: list[ClvDriver] = []
    if fit and fit.purchases and own and has_order:
        arrays = own.population.arrays
        frequency, recency, age = int(arrays.frequency[0]), int(arrays.recency_days[0]), int(arrays.T_days[0])
        mean = float(mean_purchase_value(arrays, settings.clv.basis)[0])
        value = _rounded(mean)
        driven = _drivers(fit, frequency, recency, age, mean, horizon_days, settings.clv.discount_rate)
    return ClvExplanation(
        method=fit.model if fit else None,
        fallback_reason=fit.fallback_reason if fit else None,
        basis=settings.clv.basis,
        horizon_days=horizon_days,
        textbook=_textbook(row, fit.textbook) if fit and has_order and not predictive else None,
        frequency=frequency,
        recency_days=recency,
        T_days=age,
        monetary_value=value,
        expected_purchase_value=row.expected_purchase_value,
        discount_rate=settings.clv.discount_rate if predictive else None,
        drivers=driven,
    )


def _drivers(
    fit: ClvFit, frequency: int, recency: int, age: int, mean: float, horizon_days: int, discount_rate: float
) -> list[ClvDriver]:
    found = drivers(
        fit,
        frequency=frequency,
        recency_days=recency,
        T_days=age,
        monetary_value=mean,
        horizon_days=horizon_days,
        discount_rate=discount_rate,
    )
    return [
        ClvDriver(
            driver.name,
            driver.figure,
            driver.population_median,
            None if driver.predicted_at_median is None else _rounded(driver.predicted_at_median),
        )
        for driver in found
    ]


def _textbook(row: Any, fit: TextbookFit) -> TextbookFigures:
    """The group that the value stands on: the segment, or everybody where it was empty when fitted."""
    group = fit.segments.get(row.segment)
    of_segment = group is not None and group.customers > 0
    if group is None or not of_segment:
        group = fit.overall
    return TextbookFigures(
        segment=row.segment if of_segment else None,
        customers=group.customers,
        orders=group.orders,
        average_order_value=None if group.average_order_value is None else _rounded(group.average_order_value),
        purchase_frequency=group.purchase_frequency,
        lifespan_years=group.lifespan_years,
        churn_share=group.churn_share,
    )


def _churn(row: Any, settings: WorkspaceSettings) -> ChurnExplanation:
    by_probability = settings.churn.method != "inactivity" and row.churn_probability is not None
    limits = settings.churn.analytic()
    why = explain.explain_churn(
        days_since_last_order=row.days_since_last_order,
        state=STATES.index(row.churn_state),
        method="probability" if by_probability else "inactivity",
        probability=row.churn_probability,
        limits=limits,
    )
    return ChurnExplanation(
        state=why.state,
        method=why.method,
        days_since_last_order=why.days_since_last_order,
        probability=why.probability,
        at_risk_after_days=None if by_probability else limits.active_days,
        churned_after_days=None if by_probability else limits.at_risk_days,
        at_risk_probability=limits.at_risk_probability if by_probability else None,
        churned_probability=limits.churned_probability if by_probability else None,
        next_state=why.next_state,
        days_until_next=why.days_until_next,
    )


def _lifecycle(row: Any, own: OwnFigures | None, as_of_day: date) -> LifecycleExplanation:
    status = STATUSES.index(row.lifecycle_status)
    stage = -1 if row.lifecycle_stage is None else STAGES.index(row.lifecycle_stage)
    has_order = row.days_since_last_order is not None
    age = purchase_days = None
    half = prior = 0
    if own:
        figures = own.population.figures
        half, prior = int(figures["half_net_spend"][0]), int(figures["prior_half_net_spend"][0])
        purchase_days = int(figures["year_purchase_days"][0])
        age = int(own.population.arrays.T_days[0]) if has_order else None
    why = explain.explain_lifecycle(
        status=status,
        stage=stage,
        churn_state=STATES.index(row.churn_state),
        days_since_last_order=row.days_since_last_order,
        T_days=age,
        year_purchase_days=purchase_days or 0,
        half_net_spend=half / UNITS_PER_CURRENCY,
        prior_half_net_spend=prior / UNITS_PER_CURRENCY,
    )
    next_status, days = why.next_status, why.days_until_next
    needed = DEFAULT_LIMITS.active_purchase_days
    if status == STATUS_ACTIVE and own and days is not None and len(own.latest_days) >= needed:
        # The purchase day that keeps the customer active leaves the year, maybe before they are inactive.
        kept_for = own.latest_days[needed - 1] + YEAR_DAYS - day_number(as_of_day)
        if kept_for < days:
            next_status, days = STATUSES[OCCASIONAL], kept_for
    shown = own is not None and has_order
    fall, growth = (Fraction(str(limit)) for limit in (DEFAULT_LIMITS.decline_below, DEFAULT_LIMITS.growth_above))
    return LifecycleExplanation(
        status=why.status,
        status_rule=_STATUS_RULES[status],
        next_status=next_status,
        days_until_next=days,
        next_status_on=None if days is None else as_of_day + timedelta(days=days),
        stage=why.stage,
        # Without the figures nobody knows whether the relationship is young, or spend grew.
        stage_rule=None if own is None and why.stage == "formation" else why.stage_reason,
        half_year_net_spend=money_of(half) if shown else None,
        prior_half_year_net_spend=money_of(prior) if shown else None,
        decline_below=money_of(ceil(prior * fall)) if shown else None,
        growth_above=money_of(floor(prior * growth)) if shown else None,
    )


def _rounded(money: float) -> Decimal:
    return money_of(round(money * UNITS_PER_CURRENCY))
