"""Customer lifetime value: one fit, whatever the model behind it.

The textbook's figures stand beside every fit: they serve where a predictive model can't be fitted, and the reason is
told. What customers are worth by a fit is told by ``app.analytics.valuation``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from app.analytics import contest as contests
from app.analytics import predictive
from app.analytics.calibration import accuracy, calibration
from app.analytics.counted import Counted
from app.analytics.fit import FitError, FittedModel
from app.analytics.gamma_gamma import FittedSpend, fit_credible_mean, fit_spend
from app.analytics.origins import Split
from app.analytics.tally import PurchaseTally
from app.analytics.textbook import Basis, TextbookFit

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
        again, ``monetary_value``; see ``valuation.drivers``.
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
