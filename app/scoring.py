"""Score customers by the fit of their population: the same functions for a run of millions and a live batch of one.

Pure: figures in, scores out. ``app.live`` and ``app.runs`` bring the figures from the store.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.analytics.actions import ACTIONS, clv_tier, recommended_action
from app.analytics.churn import AT_RISK, CHURNED, STATES, churn_state
from app.analytics.clv import ClvFit
from app.analytics.lifecycle import STAGES, STATUSES, lifecycle_stage, lifecycle_status
from app.analytics.pareto import GRADES, AbcFit, grade_by_boundaries
from app.analytics.population import UNITS_LIMIT, UNITS_PER_CURRENCY
from app.analytics.rfm import RfmFit, score_rfm, score_text
from app.analytics.signals import SUBTYPES, TYPES
from app.analytics.summary import CustomerFigures
from app.analytics.tabulation import TablesOfFit
from app.analytics.valuation import ClvValues, ValuationTerms, value_clv
from app.churn_typing import ChurnFit, ChurnTypes, Interactions, expert_weights, silent_types, type_customers
from app.population import Population, as_floats
from app.score_columns import Column, Documents, Moneys, Names, RealLists, Reals, ScoreColumns, Wholes
from app.workspace_settings import WorkspaceSettings

SIGNIFICANT_DIGITS = 9


@dataclass(frozen=True)
class Fitted:
    """What a run learned of its population; all that a live score needs besides the customer's own figures."""

    rfm: RfmFit
    abc: AbcFit
    clv: ClvFit
    churn: ChurnFit

    def to_dict(self) -> dict[str, Any]:
        return {
            "rfm": self.rfm.to_dict(),
            "abc": self.abc.to_dict(),
            "clv": self.clv.to_dict(),
            "churn": self.churn.to_dict(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Fitted":
        return cls(
            RfmFit.from_dict(stored["rfm"]),
            AbcFit.from_dict(stored["abc"]),
            ClvFit.from_dict(stored["clv"]),
            ChurnFit.from_dict(stored["churn"]),
        )


def value_customers(
    figures: CustomerFigures,
    settings: WorkspaceSettings,
    fit: ClvFit,
    segment: NDArray[np.int8],
    horizon_days: int,
    kept: TablesOfFit | None = None,
) -> ClvValues:
    """Value customers by a fit and their segments; see ``value_clv``."""
    return value_clv(fit, figures, segment, valuation_terms(settings, horizon_days), kept)


def valuation_terms(settings: WorkspaceSettings, horizon_days: int) -> ValuationTerms:
    return ValuationTerms(
        horizon_days, settings.clv.discount_rate, settings.clv.interval_level, settings.churn.horizon_days
    )


class ScoreRow(NamedTuple):
    """The scores of one customer, in the order of the columns of ``scores``; null where nothing can be said."""

    customer_id: str
    days_since_last_order: int | None
    order_count: int
    net_spend: Decimal
    r: int | None
    f: int | None
    m: int | None
    segment: str | None
    abc_grade: str | None
    abc_net_spend: Decimal
    cumulative_share: float | None
    clv_historical: Decimal
    clv_current: Decimal
    clv_predicted: Decimal | None
    clv_total: Decimal | None
    expected_purchases: float | None
    expected_purchase_value: Decimal | None
    p_alive: float | None
    interval_low: Decimal | None
    interval_high: Decimal | None
    churn_state: str
    churn_probability: float | None
    churn_type: str | None
    churn_subtype: str | None
    type_probabilities: list[float] | None
    evidence: str | None
    action: str | None
    lifecycle_status: str
    lifecycle_stage: str | None


def score_population(
    population: Population,
    settings: WorkspaceSettings,
    fitted: Fitted | None,
    *,
    horizon_days: int,
    interactions: Interactions | None = None,
    clv: ClvValues | None = None,
) -> list[ScoreRow]:
    """Score a few customers, a row each; see ``score_columns``."""
    scores = score_columns(population, settings, fitted, horizon_days=horizon_days, interactions=interactions, clv=clv)
    columns = (scores.customer_ids, *(column.to_list() for column in scores.columns.values()))
    return [ScoreRow(*row) for row in zip(*columns, strict=True)]


def score_columns(
    population: Population,
    settings: WorkspaceSettings,
    fitted: Fitted | None,
    *,
    horizon_days: int,
    interactions: Interactions | None = None,
    clv: ClvValues | None = None,
    cumulative_share: NDArray[np.float64] | None = None,
) -> ScoreColumns:
    """Score customers, with the fit of a run or, where there is none, with what needs no population.

    ``interactions`` are those of the same customers, None where there are none. ``clv`` are their values by ``fitted``
    where these are known already. ``cumulative_share`` is the population's, NaN where it no longer holds.
    """
    arrays = population.arrays
    has_order = arrays.has_order
    size = has_order.size
    days_since = arrays.days_since_last_order
    no_code = np.full(size, -1, dtype=np.int8)
    unknown = np.full(size, np.nan)
    segments: tuple[str, ...] = ()
    r = f = m = segment = grade = no_code
    abc_units = population.on_basis(settings.abc.basis, "net_spend", "net_cost")
    if fitted is not None:
        scores = score_rfm(
            fitted.rfm,
            as_of_day=population.as_of_day,
            days_since_last_order=days_since,
            order_count=arrays.window_order_count,
            net_spend=arrays.window_net_spend,
            has_order=has_order,
            customer_ids=population.customer_ids,
        )
        r, f, m, segment, segments = scores.r, scores.f, scores.m, scores.segment, fitted.rfm.segments
        grade = grade_by_boundaries(fitted.abc, abc_units, has_order, population.customer_ids)
        clv = clv or value_customers(arrays, settings, fitted.clv, segment, horizon_days)
    state = churn_state(
        days_since,
        has_order,
        churn_probability=clv.churn_probability if clv and fitted and fitted.clv.purchases else None,
        method=settings.churn.method,
        limits=settings.churn.analytic(),
    )
    status = lifecycle_status(
        has_order=has_order,
        days_since_last_order=days_since,
        T_days=arrays.T_days,
        year_purchase_days=arrays.year_purchase_days,
    )
    stage = lifecycle_stage(
        has_order=has_order,
        churn_state=state,
        half_net_spend=arrays.half_net_spend,
        prior_half_net_spend=arrays.prior_half_net_spend,
        purchase_days=arrays.purchase_days,
        T_days=arrays.T_days,
    )
    historical = population.on_basis(settings.clv.basis, "net_spend", "net_cost")
    current = population.on_basis(settings.clv.basis, "year_net_spend", "year_cost")
    types = _churn_types(population, fitted, interactions)
    leaving = (state == AT_RISK) | (state == CHURNED)
    clv = clv or ClvValues.unknown(size)
    predicted = _as_money(clv.predicted)
    tiers = fitted.churn.tiers if fitted else None
    worth = whole_worth(historical, clv)
    verdicts = types.verdicts
    action = recommended_action(state, verdicts.type, verdicts.subtype, verdicts.lever, grade, clv_tier(worth, tiers))
    columns: dict[str, Column] = {
        "days_since_last_order": Wholes(days_since, has_order),
        "order_count": Wholes(arrays.window_order_count),
        "net_spend": Moneys(population.figures["window_net_spend"]),
        "r": Wholes(r, r >= 0),
        "f": Wholes(f, f >= 0),
        "m": Wholes(m, m >= 0),
        "segment": Names(segment, segments),
        "abc_grade": Names(grade, GRADES),
        "abc_net_spend": Moneys(abc_units),
        "cumulative_share": Reals(unknown if cumulative_share is None else _significant(cumulative_share)),
        "clv_historical": Moneys(historical),
        "clv_current": Moneys(current),
        "clv_predicted": predicted,
        "clv_total": Moneys(_sum(historical, predicted.units), predicted.known),
        "expected_purchases": Reals(_significant(clv.expected_purchases)),
        "expected_purchase_value": _as_money(clv.expected_purchase_value),
        "p_alive": Reals(_significant(clv.p_alive)),
        "interval_low": _as_money(clv.interval_low),
        "interval_high": _as_money(clv.interval_high),
        "churn_state": Names(state, STATES),
        "churn_probability": Reals(_significant(clv.churn_probability)),
        "churn_type": Names(np.where(leaving, verdicts.type, -1), TYPES),
        "churn_subtype": Names(np.where(leaving, verdicts.subtype, -1), SUBTYPES),
        "type_probabilities": RealLists(_significant(verdicts.probabilities), leaving),
        "evidence": Documents(types.evidence),
        "action": Names(action, ACTIONS),
        "lifecycle_status": Names(status, STATUSES),
        "lifecycle_stage": Names(stage, STAGES),
    }
    return ScoreColumns(population.customer_ids, columns)


def whole_worth(historical: NDArray[Any], clv: ClvValues) -> NDArray[np.float64]:
    """What tiers of customers are told by, shape (n,): what they spent, ``historical`` in ten-thousandths, and the
    prediction, in currency units; NaN where there is none.

    To so many digits that whoever is valued together with whom makes no difference.
    """
    return _significant(as_floats(historical) + clv.predicted)


def _churn_types(population: Population, fitted: Fitted | None, interactions: Interactions | None) -> ChurnTypes:
    weights = fitted.churn.weights if fitted else expert_weights()
    if interactions is None:
        return silent_types(len(population.customer_ids), weights)
    arrays = population.arrays
    return type_customers(interactions, arrays.last_purchase_day, arrays.has_order, weights)


def rfm_text(row: ScoreRow, k: int) -> str | None:
    """The three grades in one text."""
    if row.r is None or row.f is None or row.m is None:
        return None
    return score_text(row.r, row.f, row.m, k)


def _as_money(money: NDArray[np.float64]) -> Moneys:
    """Money as the ten-thousandths nearest to it, null where it is not known."""
    known = ~np.isnan(money)
    if not known.any():
        return Moneys(np.zeros(money.shape, dtype=np.int64), known)
    rounded = np.rint(money * UNITS_PER_CURRENCY)
    rounded[~known] = 0.0
    fits = float(np.abs(rounded).max(initial=0.0)) < UNITS_LIMIT
    units = rounded.astype(np.int64) if fits else np.array([int(value) for value in rounded.tolist()], dtype=np.object_)
    return Moneys(units, known)


def _sum(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """The exact sum of money in ten-thousandths, whatever its size."""
    most = max((int(np.abs(units).max()) for units in (one, other) if units.size), default=0)
    exact = np.int64 if most < UNITS_LIMIT // 2 else np.object_
    total: NDArray[Any] = one.astype(exact) + other.astype(exact)
    return total


def _significant(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values with nine significant digits: the last ones of a float depend on how many are computed together."""
    finite = np.isfinite(values) & (values != 0)
    if not finite.any():
        return values
    exponent = np.floor(np.log10(np.abs(values, where=finite, out=np.ones_like(values))))
    scale = 10.0 ** (SIGNIFICANT_DIGITS - 1 - exponent)
    return np.where(finite, np.rint(values * scale) / scale, values)


@dataclass(frozen=True)
class FittedRun:
    """A succeeded run, as scoring reads it."""

    id: int
    name: str
    as_of: datetime
    settings: WorkspaceSettings
    fitted: Fitted
    partition: int
