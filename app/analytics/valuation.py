"""What customers are worth by a fit of lifetime value, whatever the model behind it.

Nearly all of the work is done for a history, which very many customers share; what they spend is put in at the end.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from app.analytics import predictive
from app.analytics.clv import ClvFit
from app.analytics.fit import FittedModel
from app.analytics.gamma_gamma import FittedSpend, purchase_value
from app.analytics.interval import HistoryInterval, history_interval, money_interval
from app.analytics.summary import CustomerFigures
from app.analytics.tabulation import TablesOfFit
from app.analytics.textbook import Basis, value_textbook


@dataclass(frozen=True, slots=True)
class ValuationTerms:
    """What a valuation is asked for: the days that it looks ahead, the discount a year, the level of the interval in
    (0, 1), and the days without a purchase that are churn."""

    horizon_days: int
    discount_rate: float
    interval_level: float
    churn_horizon_days: int


@dataclass(frozen=True, slots=True)
class ClvValues:
    """Values of n customers: float64 arrays (n,), NaN for null. Money in currency units.

    ``churn_probability`` is that of no purchase within the churn horizon; only predictive models tell it.
    """

    predicted: NDArray[np.float64]
    expected_purchases: NDArray[np.float64]
    expected_purchase_value: NDArray[np.float64]
    p_alive: NDArray[np.float64]
    interval_low: NDArray[np.float64]
    interval_high: NDArray[np.float64]
    churn_probability: NDArray[np.float64]

    def part(self, rows: slice) -> "ClvValues":
        """The values of some of the customers."""
        return ClvValues(*(getattr(self, name)[rows] for name in self.__slots__))

    @classmethod
    def unknown(cls, size: int) -> "ClvValues":
        """Null for each customer."""
        return cls(*np.full((len(cls.__slots__), size), np.nan))


def mean_purchase_value(figures: CustomerFigures, basis: Basis) -> NDArray[np.float64]:
    """The mean value of a repeat purchase day, shape (n,): of spend, or of spend less cost; 0 where there is none."""
    if basis == "revenue":
        return figures.monetary_value
    repeats = np.maximum(figures.frequency, 0)
    cost = figures.net_cost - figures.first_day_cost
    return figures.monetary_value - np.divide(cost, repeats, out=np.zeros_like(cost), where=repeats > 0)


def _predictive(fit: ClvFit) -> tuple[FittedModel, FittedSpend]:
    if fit.purchases is None or fit.spend is None:
        raise ValueError("fit must have a predictive model; the textbook's values follow from segments")
    return fit.purchases, fit.spend


@dataclass(frozen=True, slots=True)
class HistoryValues:
    """What follows from the histories of n customers, whatever their money: arrays (n,)."""

    interval: HistoryInterval
    p_alive: NDArray[np.float64]
    churn_probability: NDArray[np.float64]

    def to_columns(self) -> NDArray[np.float64]:
        """All figures, shape (c, n); ``from_columns`` reads them back."""
        bounds = (getattr(self.interval, field.name) for field in fields(self.interval) if field.name != "level")
        return np.stack((self.p_alive, self.churn_probability, *bounds))

    @classmethod
    def from_columns(cls, level: float, columns: NDArray[np.float64]) -> "HistoryValues":
        alive, churned, *bounds = columns
        return cls(HistoryInterval(level, *bounds), alive, churned)


def value_histories(
    fit: ClvFit,
    frequency: NDArray[np.float64],
    recency_days: NDArray[np.float64],
    T_days: NDArray[np.float64],
    terms: ValuationTerms,
    kept: TablesOfFit | None = None,
) -> HistoryValues:
    """Value histories, arrays (n,), by a predictive model; nearly all of the work is here.

    ``kept`` are tables from earlier calls with the same fit and horizon, which live scores and the parts of a
    population share; see ``history_interval``. Raises ``ValueError`` for a fit without a predictive model.
    """
    purchases, spend = _predictive(fit)
    scores = predictive.score(purchases, frequency, recency_days, T_days, terms.horizon_days, terms.discount_rate)
    return HistoryValues(
        # Where margins are negative, the interval is that of revenue, moved and stretched in proportion.
        history_interval(scores, fit.spread or spend, terms.interval_level, kept),
        scores.p_alive,
        1.0 - predictive.chance_of_purchase(scores, terms.churn_horizon_days),
    )


def value_spending(
    fit: ClvFit, figures: CustomerFigures, buyers: NDArray[np.intp], histories: HistoryValues
) -> ClvValues:
    """Value customers by the ``histories`` of the ``buyers`` among them, rows of ``figures``, and by what they spend.

    All others' values are null. Raises ``ValueError`` for a fit without a predictive model.
    """
    _, spend = _predictive(fit)
    bounds, mean = histories.interval, mean_purchase_value(figures, fit.basis)[buyers]
    worth = purchase_value(spend, bounds.frequency, mean)
    if fit.spread:
        amount = figures.monetary_value[buyers]
        found = money_interval(fit.spread, bounds, amount)
        factor = worth / purchase_value(fit.spread, bounds.frequency, amount)
        ends = found.low * factor, found.high * factor
        low, high = np.minimum(*ends), np.maximum(*ends)
    else:
        found = money_interval(spend, bounds, mean)
        low, high = found.low, found.high

    def of_all(values: NDArray[np.float64]) -> NDArray[np.float64]:
        everyone = np.full(figures.has_order.size, np.nan)
        everyone[buyers] = values
        return everyone

    return ClvValues(
        predicted=of_all(worth * bounds.discounted_purchases),
        expected_purchases=of_all(bounds.expected_purchases),
        expected_purchase_value=of_all(worth),
        p_alive=of_all(histories.p_alive),
        interval_low=of_all(low),
        interval_high=of_all(high),
        churn_probability=of_all(histories.churn_probability),
    )


def value_clv(
    fit: ClvFit,
    figures: CustomerFigures,
    segment: NDArray[np.int8],
    terms: ValuationTerms,
    kept: TablesOfFit | None = None,
) -> ClvValues:
    """Value customers by a fit; rows in any order. All is null without a counted order.

    The predicted value is that of a purchase times the discounted purchases of the horizon; the textbook's is not
    discounted, and tells neither interval nor probabilities. ``kept`` is as in ``value_histories``.
    """
    if fit.purchases is None or not figures.has_order.any():
        values = value_textbook(
            fit.textbook, segment=segment, has_order=figures.has_order, horizon_days=terms.horizon_days
        )
        told = {field.name: getattr(values, field.name) for field in fields(values)}
        return replace(ClvValues.unknown(segment.size), **told)
    buyers = np.flatnonzero(figures.has_order)
    # All but money follows from the history, which very many customers share: each is valued once.
    x, t_x, T = (column[buyers] for column in (figures.frequency, figures.recency_days, figures.T_days))
    # Counts and days are whole and T is the largest: a history packs into one machine word.
    days = np.int64(T.max()) + 1
    _, first, of = np.unique((x * days + T) * days + t_x, return_index=True, return_inverse=True)
    frequency, recency_days, T_days = (column[first].astype(np.float64) for column in (x, t_x, T))
    distinct = value_histories(fit, frequency, recency_days, T_days, terms, kept)
    histories = HistoryValues.from_columns(terms.interval_level, distinct.to_columns()[:, of])
    return value_spending(fit, figures, buyers, histories)


@dataclass(frozen=True, slots=True)
class Driver:
    """A figure of a customer beside that of the customer in the middle, and what it does to the predicted value.

    ``predicted_at_median`` is the customer's predicted value with this one figure that of the middle and the others
    their own; None where no customer could have such figures.
    """

    name: str
    figure: float
    population_median: float
    predicted_at_median: float | None


def drivers(
    fit: ClvFit,
    *,
    frequency: float,
    recency_days: float,
    T_days: float,
    monetary_value: float,
    horizon_days: int,
    discount_rate: float,
) -> list[Driver]:
    """What drove one customer's predicted value, figure by figure; empty where the textbook serves."""
    if fit.purchases is None or fit.spend is None or fit.medians is None:
        return []
    silent = T_days - recency_days
    own = {
        "frequency": frequency,
        "days_since_last_order": silent,
        "T_days": T_days,
        "monetary_value": monetary_value,
    }
    found = []
    for name, figure in own.items():
        median = fit.medians[name]
        x, since, age, value = (own | {name: median}).values()
        # With one purchase day, the first is the last; with more, there must be time between them.
        recency = age - since if x > 0 else 0.0
        predicted = None
        if (recency > 0 or x == 0) and (x > 0 or name == "frequency" or frequency == 0):
            history = np.array([x]), np.array([recency]), np.array([age])
            purchases = predictive.discounted_purchases(fit.purchases, *history, horizon_days, discount_rate)
            predicted = float((purchases * purchase_value(fit.spend, history[0], np.array([value])))[0])
        found.append(Driver(name, figure, median, predicted))
    return found
