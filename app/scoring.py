"""Fit a population and score its customers: the same functions for a run of millions and a live batch of one.

Pure: figures in, scores out. ``app.live`` and ``app.runs`` bring the figures from the store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.analytics.actions import ACTIONS, clv_tier, fit_clv_tiers, recommended_action
from app.analytics.churn import AT_RISK, CHURNED, STATES, churn_state
from app.analytics.churn_learning import Learned
from app.analytics.clv import ClvFit, ClvValues, PurchaseDays, fit_clv, value_clv
from app.analytics.lifecycle import STAGES, STATUSES, lifecycle_stage, lifecycle_status
from app.analytics.pareto import GRADES, AbcFit, ParetoCurve, fit_abc, grade_by_boundaries
from app.analytics.population import UNITS_PER_CURRENCY
from app.analytics.rfm import RfmFit, fit_rfm, score_rfm, score_text
from app.analytics.signals import SUBTYPES, TYPES
from app.analytics.summary import COUNT_FIGURES, DAY_FIGURES, MONEY_FIGURES, CustomerFigures
from app.churn_typing import ChurnFit, ChurnTypes, Interactions, expert_weights, silent_types, type_customers
from app.scalars import money_of
from app.workspace_settings import WorkspaceSettings

EPOCH_DAY = date(1970, 1, 1)
SIGNIFICANT_DIGITS = 9
CUSTOMERS_A_PIECE = 50_000
"""So many are valued at once: their distributions take more room than their values."""


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - EPOCH_DAY).days


def _as_floats(units: NDArray[Any]) -> NDArray[np.float64]:
    """Money in currency units, each the float nearest to the exact amount."""
    money: NDArray[np.float64] = units.astype(np.float64) / UNITS_PER_CURRENCY
    return money


@dataclass(frozen=True)
class Population:
    """Customers and their figures as of one day, a row each.

    ``figures`` has an integer array per name: counts, days since 1970-01-01, and money in ten-thousandths of the
    currency unit, all exact.
    """

    as_of_day: int
    customer_ids: Sequence[str]
    figures: Mapping[str, NDArray[Any]]

    @cached_property
    def arrays(self) -> CustomerFigures:
        """As the scores read them: money as float64."""
        money: dict[str, Any] = {name: _as_floats(self.figures[name]) for name in MONEY_FIGURES}
        whole: dict[str, Any] = {name: self.figures[name] for name in COUNT_FIGURES + DAY_FIGURES}
        return CustomerFigures(as_of_day=self.as_of_day, **whole, **money)

    def on_basis(self, basis: str, net: str, cost: str) -> NDArray[Any]:
        """Exact money of a period: net spend, or net spend less cost."""
        return self.figures[net] - self.figures[cost] if basis == "margin" else self.figures[net]

    def part(self, rows: slice) -> "Population":
        return Population(
            self.as_of_day,
            self.customer_ids[rows],
            {name: column[rows] for name, column in self.figures.items()},
        )


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


@dataclass(frozen=True)
class FittedPopulation:
    """A fit, with what only the population as a whole can tell."""

    fitted: Fitted
    clv: ClvValues
    cumulative_share: NDArray[np.float64]
    curve: ParetoCurve


def fit_population(
    population: Population,
    settings: WorkspaceSettings,
    purchase_days: PurchaseDays | None = None,
    learned: Learned | None = None,
) -> FittedPopulation:
    """Fit everything that depends on all customers together; rows in the order of customer_id ("C" collation).

    ``purchase_days`` are needed where the settings leave the choice of the model to a contest. ``learned`` is what
    learning churn types from labels came to, None where there are no labels.
    """
    arrays = population.arrays
    recency: dict[str, Any] = {
        "days_since_last_order": arrays.days_since_last_order,
        "order_count": arrays.window_order_count,
        "net_spend": arrays.window_net_spend,
        "has_order": arrays.has_order,
        "customer_ids": population.customer_ids,
    }
    rfm = fit_rfm(settings.rfm.analytic(), **recency)
    segment = score_rfm(rfm, as_of_day=population.as_of_day, **recency).segment
    abc = fit_abc(
        population.on_basis(settings.abc.basis, "net_spend", "net_cost"),
        arrays.has_order,
        population.customer_ids,
        settings.abc.analytic(),
    )
    clv = fit_clv(
        arrays,
        segment,
        rfm.segments,
        model=settings.clv.model,
        basis=settings.clv.basis,
        lifespan_years=settings.clv.lifespan_years,
        purchase_days=purchase_days,
    )
    values = _value_in_pieces(population, settings, clv, segment)
    historical = population.on_basis(settings.clv.basis, "net_spend", "net_cost")
    churn = ChurnFit(
        method="inactivity" if settings.churn.method == "inactivity" or clv.purchases is None else "probability",
        horizon_days=settings.churn.horizon_days,
        weights=learned.weights if learned else expert_weights(),
        learning=learned.summary() if learned else {},
        calibration=_churn_calibration(clv),
        tiers=fit_clv_tiers(_as_floats(historical) + values.predicted),
    )
    return FittedPopulation(Fitted(rfm, abc.fit, clv, churn), values, abc.cumulative_share, abc.curve)


def _value(
    population: Population, settings: WorkspaceSettings, fit: ClvFit, segment: NDArray[np.int8], horizon_days: int
) -> ClvValues:
    return value_clv(
        fit,
        population.arrays,
        segment,
        horizon_days=horizon_days,
        discount_rate=settings.clv.discount_rate,
        interval_level=settings.clv.interval_level,
        churn_horizon_days=settings.churn.horizon_days,
    )


def _value_in_pieces(
    population: Population, settings: WorkspaceSettings, fit: ClvFit, segment: NDArray[np.int8]
) -> ClvValues:
    """The values of a whole population over the horizon of the settings, in bounded memory."""
    pieces = [
        _value(population.part(rows), settings, fit, segment[rows], settings.clv.horizon_days)
        for rows in (
            slice(start, start + CUSTOMERS_A_PIECE) for start in range(0, max(segment.size, 1), CUSTOMERS_A_PIECE)
        )
    ]
    return ClvValues.joined(pieces)


def _churn_calibration(clv: ClvFit) -> dict[str, Any] | None:
    """How the probability of churn came true in the model's calibration."""
    if clv.calibration is None:
        return None
    deciles = [
        {"customers": group["customers"], "predicted": group["forecast"], "actual": group["actual"]}
        for group in clv.calibration["churn_deciles"]
    ]
    return {"horizon_days": clv.calibration["holdout_days"], "deciles": deciles}


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
    evidence: list[dict[str, Any]] | None
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
    cumulative_share: NDArray[np.float64] | None = None,
) -> list[ScoreRow]:
    """Score customers, with the fit of a run or, where there is none, with what needs no population.

    ``interactions`` are those of the same customers, None where there are none. ``clv`` are their values by ``fitted``
    where these are known already. ``cumulative_share`` is the population's, NaN where it no longer holds.
    """
    arrays = population.arrays
    has_order = arrays.has_order
    size = has_order.size
    days_since = arrays.days_since_last_order
    no_code = np.full(size, -1, dtype=np.int8)
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
        clv = clv or _value(population, settings, fitted.clv, segment, horizon_days)
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
    leaving = np.isin(state, (AT_RISK, CHURNED))
    null: list[None] = [None] * size
    predicted = _units(clv.predicted) if clv else null
    total = [None if p is None else int(h) + p for h, p in zip(historical.tolist(), predicted, strict=True)]
    tiers = fitted.churn.tiers if fitted else None
    worth = _as_floats(historical) + clv.predicted if clv else np.full(size, np.nan)
    verdicts = types.verdicts
    probabilities = _significant(verdicts.probabilities).tolist()
    action = recommended_action(state, verdicts.type, verdicts.subtype, verdicts.lever, grade, clv_tier(worth, tiers))
    columns: tuple[Sequence[Any], ...] = (
        population.customer_ids,
        [days if known else None for days, known in zip(days_since.tolist(), has_order.tolist(), strict=True)],
        arrays.window_order_count.tolist(),
        _money(population.figures["window_net_spend"].tolist()),
        _grades(r),
        _grades(f),
        _grades(m),
        _names(segment, segments),
        _names(grade, GRADES),
        _money(abc_units.tolist()),
        null if cumulative_share is None else _floats(cumulative_share),
        _money(historical.tolist()),
        _money(current.tolist()),
        _money(predicted),
        _money(total),
        _floats(clv.expected_purchases) if clv else null,
        _money(_units(clv.expected_purchase_value)) if clv else null,
        _floats(clv.p_alive) if clv else null,
        _money(_units(clv.interval_low)) if clv else null,
        _money(_units(clv.interval_high)) if clv else null,
        _names(state, STATES),
        _floats(clv.churn_probability) if clv else null,
        _names(np.where(leaving, verdicts.type, -1), TYPES),
        _names(np.where(leaving, verdicts.subtype, -1), SUBTYPES),
        [row if told else None for row, told in zip(probabilities, leaving.tolist(), strict=True)],
        [told or None for told in types.evidence],
        _names(action, ACTIONS),
        _names(status, STATUSES),
        _names(stage, STAGES),
    )
    return [ScoreRow(*row) for row in zip(*columns, strict=True)]


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


def _units(money: NDArray[np.float64]) -> list[int | None]:
    """Money as the ten-thousandths nearest to it, null where it is not known."""
    rounded = np.rint(money * UNITS_PER_CURRENCY)
    return [None if units != units else int(units) for units in rounded.tolist()]


def _money(units: Sequence[int | None]) -> list[Decimal | None]:
    return [None if one is None else money_of(one) for one in units]


def _significant(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values with nine significant digits: the last ones of a float depend on how many are computed together."""
    finite = np.isfinite(values) & (values != 0)
    exponent = np.floor(np.log10(np.abs(values, where=finite, out=np.ones_like(values))))
    scale = 10.0 ** (SIGNIFICANT_DIGITS - 1 - exponent)
    return np.where(finite, np.rint(values * scale) / scale, values)


def _floats(values: NDArray[np.float64]) -> list[float | None]:
    return [None if value != value else value for value in _significant(values).tolist()]


def _grades(codes: NDArray[np.int8]) -> list[int | None]:
    return [None if code < 0 else code for code in codes.tolist()]


def _names(codes: NDArray[Any], names: Sequence[str]) -> list[str | None]:
    named = [*names, None]  # a code of −1 is null
    return [named[code] for code in codes.tolist()]


@dataclass(frozen=True)
class FittedRun:
    """A succeeded run, as scoring reads it."""

    id: int
    name: str
    as_of: datetime
    settings: WorkspaceSettings
    fitted: Fitted
    partition: int
