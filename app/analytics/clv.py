"""Customer lifetime value: one fit and one valuation, whatever the model behind them.

The textbook's figures stand beside every fit: they serve where a predictive model can't be fitted, and the reason is
told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.analytics import contest as contests
from app.analytics import predictive
from app.analytics.calibration import accuracy, calibration
from app.analytics.counted import Counted
from app.analytics.fit import FitError, FittedModel
from app.analytics.gamma_gamma import FittedSpend, fit_credible_mean, fit_spend, purchase_value
from app.analytics.interval import history_interval, money_interval
from app.analytics.origins import Split
from app.analytics.summary import CustomerFigures
from app.analytics.tabulation import TablesOfFit
from app.analytics.tally import PurchaseTally
from app.analytics.textbook import Basis, TextbookFit, value_textbook

Model = Literal["auto", "textbook", "bg_nbd", "mbg_nbd", "pareto_nbd", "mbg_cnbd_k"]


@dataclass(frozen=True)
class ClvFit:
    """A fitted population.

    Attributes
    ----------
    basis : what money is counted: "revenue" or "margin".
    customers : customers with a counted order.
    textbook : the textbook's figures, always there.
    purchases, spend : the predictive model of purchases, and of what one is worth; None where the textbook serves.
    spread : where margins are negative, the model of revenue, whose spread the interval takes in proportion.
    contest : the record of the contest, where the model was chosen by one.
    calibration : how the model, fitted to an earlier part of the time, forecast the rest; see ``backtest``.
    medians : of the population's ``frequency``, ``days_since_last_order``, ``T_days`` and, among those who bought
        again, ``monetary_value``; see ``drivers``.
    fallback_reason, fallback_detail : why the textbook serves though a predictive model was asked for.
    """

    basis: Basis
    customers: int
    textbook: TextbookFit
    purchases: FittedModel | None = None
    spend: FittedSpend | None = None
    spread: FittedSpend | None = None
    contest: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None
    medians: Mapping[str, float] | None = None
    fallback_reason: str | None = None
    fallback_detail: str | None = None

    @property
    def model(self) -> str:
        """The model in use."""
        return self.purchases.model if self.purchases else "textbook"

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; ``from_dict`` reads it back. Parameters stand first, by the letters of the papers."""
        spend = self.spend.gamma_gamma if self.spend else None
        return {
            "model": self.model,
            "basis": self.basis,
            "params": self.purchases.params if self.purchases else {},
            "log_likelihood": self.purchases.log_likelihood if self.purchases else None,
            "customers": self.customers,
            "gamma_gamma": spend.params if spend else None,
            "fallback_reason": self.fallback_reason,
            "fallback_detail": self.fallback_detail,
            "purchases": self.purchases.to_dict() if self.purchases else None,
            "spend": self.spend.to_dict() if self.spend else None,
            "spread": self.spread.to_dict() if self.spread else None,
            "contest": dict(self.contest) if self.contest else None,
            "calibration": dict(self.calibration) if self.calibration else None,
            "medians": dict(self.medians) if self.medians else None,
            "textbook": self.textbook.to_dict(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "ClvFit":
        return cls(
            basis=stored["basis"],
            customers=stored["customers"],
            textbook=TextbookFit.from_dict(stored["textbook"]),
            purchases=FittedModel.from_dict(stored["purchases"]) if stored["purchases"] else None,
            spend=FittedSpend.from_dict(stored["spend"]) if stored["spend"] else None,
            spread=FittedSpend.from_dict(stored["spread"]) if stored["spread"] else None,
            contest=stored["contest"],
            calibration=stored["calibration"],
            medians=stored["medians"],
            fallback_reason=stored["fallback_reason"],
            fallback_detail=stored["fallback_detail"],
        )


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
    def joined(cls, parts: Sequence["ClvValues"]) -> "ClvValues":
        """The values of all customers, from those of parts that follow one another."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


def mean_purchase_value(figures: CustomerFigures, basis: Basis) -> NDArray[np.float64]:
    """The mean value of a repeat purchase day, shape (n,): of spend, or of spend less cost; 0 where there is none."""
    if basis == "revenue":
        return figures.monetary_value
    repeats = np.maximum(figures.frequency, 0)
    cost = figures.net_cost - figures.first_day_cost
    return figures.monetary_value - np.divide(cost, repeats, out=np.zeros_like(cost), where=repeats > 0)


def fit_clv(
    tally: PurchaseTally,
    textbook: TextbookFit,
    *,
    model: Model,
    splits: Sequence[Split] = (),
) -> ClvFit:
    """Fit the population's lifetime value.

    Parameters
    ----------
    tally : of the population.
    textbook : the fit of the textbook, whose basis the purchase values are of.
    model : a model by name; "auto" takes the one that forecast the population's own past best.
    splits : at each origin of a contest; "auto" and the calibration need them.

    Returns
    -------
    ClvFit : with a ``fallback_reason`` where the model that was asked for can't be fitted to these customers.
    """
    histories = tally.histories
    basis, size = textbook.basis, int(histories.customers.sum())
    if model == "textbook":
        return ClvFit(basis, size, textbook)
    x, t_x, T, customers = (getattr(histories, field.name).astype(np.float64) for field in fields(histories))
    record = None
    try:
        if model == "auto":
            purchases, contest = contests.choose(splits, x, t_x, T, customers=customers)
            record = contest.to_dict()
        else:
            purchases = predictive.fit_model(model, x, t_x, T, customers=customers)
        repeats, worth, repeaters = tally.values.frequency, tally.values.mean, tally.values.customers
        spread = None
        if (worth < 0).any():
            # No distribution of positive amounts fits: the level comes from the margins, the spread from revenue.
            spend = fit_credible_mean(repeats.astype(np.float64), worth, "negative_margin", customers=repeaters)
            spread = fit_spend(tally.spend.frequency, tally.spend.mean, customers=tally.spend.customers)
        else:
            spend = fit_spend(repeats, worth, customers=repeaters)
    except FitError as refusal:
        return ClvFit(basis, size, textbook, fallback_reason=refusal.code, fallback_detail=refusal.reason)
    medians = {
        "frequency": _median(Counted.of(histories.frequency, histories.customers)),
        "days_since_last_order": _median(histories.days_since_last_order),
        "T_days": _median(Counted.of(histories.T_days, histories.customers)),
        "monetary_value": _median(Counted.of(worth, repeaters)),
    }
    return ClvFit(basis, size, textbook, purchases, spend, spread, record, backtest(purchases, splits), medians)


def _median(counted: Counted) -> float:
    return float(counted.quantiles([0.5])[0])


def backtest(fitted: FittedModel, splits: Sequence[Split]) -> dict[str, Any] | None:
    """How the same model, fitted to what was known at an earlier day, forecast the days after it.

    Parameters
    ----------
    fitted : the model whose kind (and weights, if it is a blend) is tried.
    splits : of the population; the one with the longest holdout is taken.

    Returns
    -------
    dict of plain numbers, or None without a split that the model can be fitted to: the errors of the forecast number
    of purchase days; in ``deciles``, groups of rising forecast with mean forecast and mean outcome; in
    ``churn_deciles`` the same of the probability to buy nothing in the holdout.
    """
    if not splits:
        return None
    split = max(splits, key=lambda one: one.holdout_days)
    history = split.frequency, split.recency_days, split.T_days
    try:
        if fitted.components:
            parts = tuple(
                replace(part, fitted=predictive.fit_model(part.fitted.model, *history)) for part in fitted.components
            )
            earlier = replace(fitted, components=parts)
        else:
            earlier = predictive.fit_model(fitted.model, *history)
    except FitError:
        return None
    forecast = predictive.expected_purchases(earlier, *history, split.holdout_days)
    silent = 1.0 - predictive.probability_of_purchase(earlier, *history, split.holdout_days)
    bought_nothing = (split.purchases == 0).astype(np.float64)
    return {
        "holdout_days": split.holdout_days,
        "customers": int(split.purchases.size),
        **asdict(accuracy(forecast, split.purchases)),
        "deciles": [asdict(group) for group in calibration(forecast, split.purchases)],
        "churn_deciles": [asdict(group) for group in calibration(silent, bought_nothing)],
    }


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


FEW_CUSTOMERS = 32
"""Among so few, looking for those who share a history costs more than it saves."""


def _distinct_histories(
    figures: CustomerFigures, buyers: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.intp] | None]:
    """Return frequency, recency and T of each distinct history, (m,), and the row of each buyer among them, (n,).

    Few buyers are one row each, in their own order, and have None for it.
    """
    x, t_x, T = (column[buyers] for column in (figures.frequency, figures.recency_days, figures.T_days))
    of = None
    if buyers.size > FEW_CUSTOMERS:
        # Counts and days are whole and T is the largest: a history packs into one machine word.
        days = np.int64(T.max()) + 1
        _, first, of = np.unique((x * days + T) * days + t_x, return_index=True, return_inverse=True)
        x, t_x, T = x[first], t_x[first], T[first]
    return x.astype(np.float64), t_x.astype(np.float64), T.astype(np.float64), of


def value_clv(
    fit: ClvFit,
    figures: CustomerFigures,
    segment: NDArray[np.int8],
    *,
    horizon_days: int,
    discount_rate: float,
    interval_level: float,
    churn_horizon_days: int,
    kept: TablesOfFit | None = None,
) -> ClvValues:
    """Value customers by a fit; rows in any order. All is null without a counted order.

    The predicted value is that of a purchase times the discounted purchases of the horizon; the textbook's is not
    discounted, and tells neither interval nor probabilities. ``kept`` are tables from earlier calls with the same fit
    and horizon, which live scores and the parts of a population share; see ``interval``.
    """
    size = segment.size
    if fit.purchases is None or fit.spend is None or not figures.has_order.any():
        values = value_textbook(fit.textbook, segment=segment, has_order=figures.has_order, horizon_days=horizon_days)
        null = np.full(size, np.nan)
        return ClvValues(
            values.predicted, values.expected_purchases, values.expected_purchase_value, null, null, null, null
        )
    buyers = np.flatnonzero(figures.has_order)
    # All but money follows from the history, which very many customers share: each is valued once.
    x, t_x, T, of = _distinct_histories(figures, buyers)
    # Where margins are negative, the interval is that of revenue, moved and stretched in proportion.
    spend = fit.spread or fit.spend
    scores = predictive.score(fit.purchases, x, t_x, T, horizon_days, discount_rate)
    bounds = history_interval(fit.purchases, spend, x, t_x, T, horizon_days, interval_level, scores, kept)
    churned = 1.0 - predictive.probability_of_purchase(fit.purchases, x, t_x, T, churn_horizon_days, scores=scores)
    discounted, expected, alive = scores.discounted_purchases, scores.expected_purchases, scores.p_alive
    if of is not None:
        x, bounds, churned = x[of], bounds.at(of), churned[of]
        discounted, expected, alive = discounted[of], expected[of], alive[of]
    mean = mean_purchase_value(figures, fit.basis)[buyers]
    worth = purchase_value(fit.spend, x, mean)
    amount = figures.monetary_value[buyers] if fit.spread else mean
    found = money_interval(spend, bounds, amount)
    low, high = found.low, found.high
    if fit.spread:
        factor = worth / purchase_value(spend, x, amount)
        low, high = np.minimum(low * factor, high * factor), np.maximum(low * factor, high * factor)

    def spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
        everyone = np.full(size, np.nan)
        everyone[buyers] = values
        return everyone

    return ClvValues(
        predicted=spread(worth * discounted),
        expected_purchases=spread(expected),
        expected_purchase_value=spread(worth),
        p_alive=spread(alive),
        interval_low=spread(low),
        interval_high=spread(high),
        churn_probability=spread(churned),
    )
