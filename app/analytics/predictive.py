"""The predictive purchase models behind one set of functions: what scoring calls, for one customer or a million.

All times are days. A model is fitted once per population (`fit_model`), stored (`FittedModel.to_dict`), and applied to
any number of customers; a customer's figure does not depend on who else is scored with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from app.analytics import bgnbd, mbgcnbdk, mbgnbd, paretonbd
from app.analytics.fit import FitError, FittedModel, FloatArray, NotConverged, TooLittleData, check_customers

__all__ = [
    "MODELS",
    "FitError",
    "FittedModel",
    "NotConverged",
    "PurchaseScores",
    "TooLittleData",
    "chance_of_purchase",
    "discounted_purchases",
    "expected_purchases",
    "fit_model",
    "log_likelihood",
    "log_predictive",
    "members",
    "p_alive",
    "probability_of_purchase",
    "score",
]

STEP_DAYS = 30.0
FEW_CUSTOMERS = 32
"""Up to so many are asked about for several parameters in one step."""

DAYS_IN_YEAR = 365.0

Params = Mapping[str, float]


class Fit(Protocol):
    """Fits a model to histories, each that of as many customers as `customers` says; see `fit_model`."""

    def __call__(
        self,
        frequency: ArrayLike,
        recency_days: ArrayLike,
        T_days: ArrayLike,
        *,
        customers: ArrayLike | None = None,
    ) -> FittedModel: ...


@dataclass(frozen=True)
class PurchaseModel:
    """The functions of one model; every `_if_alive` is conditional on being alive at T."""

    fit: Fit
    log_likelihood: Callable[[Params, FloatArray, FloatArray, FloatArray], FloatArray]
    p_alive: Callable[[Params, FloatArray, FloatArray, FloatArray], FloatArray]
    growth_if_alive: Callable[[Params, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray], FloatArray]
    chance_if_alive: Callable[[Params, FloatArray, FloatArray, FloatArray, float], FloatArray]
    log_pmf_if_alive: Callable[[Params, FloatArray, FloatArray, FloatArray, float, FloatArray], FloatArray]
    expected_at: Callable[[Sequence[Params], FloatArray, FloatArray, FloatArray, float], FloatArray | None] | None
    """Expected purchases of a few customers by each of several parameters; None where it is no faster than by one."""


MODELS: dict[str, PurchaseModel] = {
    name: PurchaseModel(
        fit=module.fit,
        log_likelihood=module.log_likelihood,
        p_alive=module.p_alive,
        growth_if_alive=module.growth_if_alive,
        chance_if_alive=module.chance_if_alive,
        log_pmf_if_alive=module.log_pmf_if_alive,
        expected_at=getattr(module, "expected_at", None),
    )
    for name, module in (
        ("bg_nbd", bgnbd),
        ("mbg_nbd", mbgnbd),
        ("pareto_nbd", paretonbd),
        ("mbg_cnbd_k", mbgcnbdk),
    )
}

RECENCY_MATTERS = frozenset({"mbg_cnbd_k"})
"""Models in which the future depends on t_x even for a customer known to be alive: timing has memory."""


@dataclass(frozen=True)
class MemberScores:
    """What one of the models behind a fit says of each customer, and how much it counts; every array of shape (n,)."""

    fitted: FittedModel
    weight: FloatArray
    p_alive: FloatArray
    expected_purchases: FloatArray


@dataclass(frozen=True)
class PurchaseScores:
    """Figures of each customer, every array of shape (n,).

    Attributes
    ----------
    fitted, horizon_days : what they are scored by
    frequency, recency_days, T_days : the histories that were scored
    expected_purchases : purchases in (T, T + horizon], undiscounted
    discounted_purchases : the same, discounted to T
    p_alive : probability of not having left by T
    members : what the models behind the fit say, in the order of `members`
    """

    fitted: FittedModel
    horizon_days: float
    frequency: FloatArray
    recency_days: FloatArray
    T_days: FloatArray
    expected_purchases: FloatArray
    discounted_purchases: FloatArray
    p_alive: FloatArray
    members: tuple[MemberScores, ...]


def fit_model(
    name: str,
    frequency: ArrayLike,
    recency_days: ArrayLike,
    T_days: ArrayLike,
    *,
    customers: ArrayLike | None = None,
) -> FittedModel:
    """Fit a purchase model by maximum likelihood.

    Parameters
    ----------
    name : str
        A key of `MODELS`.
    frequency, recency_days, T_days : array-like, shape (n,)
        Repeat purchase days, days from first to last purchase, days from first purchase to now.
    customers : array-like, shape (n,), optional
        How many customers each row stands for, whole numbers >= 1; one each if left out.

    Raises
    ------
    KeyError
        For an unknown name.
    ValueError
        For impossible histories or numbers of customers.
    TooLittleData, NotConverged
        With a `code` and a sentence, when there is nothing to score with.

    Examples
    --------
    >>> fitted = fit_model("bg_nbd", frequency, recency_days, T_days)  # doctest: +SKIP
    >>> FittedModel.from_dict(fitted.to_dict()) == fitted  # doctest: +SKIP
    True
    """
    return MODELS[name].fit(frequency, recency_days, T_days, customers=customers)


@lru_cache(maxsize=256)
def discount_steps(horizon_days: float, annual_rate: float) -> tuple[FloatArray, FloatArray]:
    """Return the ends t_j of the steps, shape (k,), and what to multiply the E(t_j) with, shape (k, 2).

    The first column gives E(horizon); the second sum_j (E(t_j) - E(t_{j-1})) (1 + rate)^(-t_j / 365), rearranged to a
    sum over E(t_j). Steps are 30 days long and the last ends at the horizon.
    """
    if not 0 < horizon_days < np.inf:
        raise ValueError("horizon_days must be positive and finite")
    if not -1 < annual_rate < np.inf:
        raise ValueError("annual_rate must be above -1 and finite")
    ends = np.append(np.arange(STEP_DAYS, horizon_days, STEP_DAYS), float(horizon_days))
    factors = (1 + annual_rate) ** (-ends / DAYS_IN_YEAR)
    coefficients = np.zeros((len(ends), 2))
    coefficients[-1, 0] = 1.0
    coefficients[:, 1] = factors - np.append(factors[1:], 0.0)
    ends.setflags(write=False)
    coefficients.setflags(write=False)
    return ends, coefficients


def score(
    fitted: FittedModel,
    frequency: ArrayLike,
    recency_days: ArrayLike,
    T_days: ArrayLike,
    horizon_days: float,
    annual_rate: float = 0.10,
) -> PurchaseScores:
    """Return the purchase figures of each customer at once, the cheapest way to more than one of them.

    Parameters
    ----------
    fitted : FittedModel
    frequency, recency_days, T_days : array-like, shape (n,)
        A customer with one purchase and nothing since is (0, 0, T); a new one (0, 0, 0).
    horizon_days : float
        Positive.
    annual_rate : float
        Discount rate a year.

    Examples
    --------
    >>> score(fitted, [2], [213], [272], 365).expected_purchases  # doctest: +SKIP
    array([1.55882897])
    """
    x, t_x, T = check_customers(frequency, recency_days, T_days)
    ends, coefficients = discount_steps(horizon_days, annual_rate)
    expected, discounted, alive_by_all = np.zeros((3, x.size))
    each = []
    for member, weight in members(fitted, x):
        model, params = MODELS[member.model], member.params
        alive = model.p_alive(params, x, t_x, T)
        growth = model.growth_if_alive(params, x, t_x, T, ends, coefficients)
        each.append(MemberScores(member, np.broadcast_to(weight, x.shape), alive, alive * growth[:, 0]))
        expected += weight * each[-1].expected_purchases
        discounted += weight * alive * growth[:, 1]
        alive_by_all += weight * alive
    return PurchaseScores(fitted, float(horizon_days), x, t_x, T, expected, discounted, alive_by_all, tuple(each))


def expected_by_each(
    model: PurchaseModel, points: Sequence[Params], x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float
) -> FloatArray:
    """Return the expected purchases in the horizon of each customer by each of several parameters, shape (p, n)."""
    if not points:
        return np.empty((0, x.size))
    if x.size <= FEW_CUSTOMERS and model.expected_at is not None:
        found = model.expected_at(points, x, t_x, T, horizon)
        if found is not None:
            return found
    ends, one = np.array([horizon]), np.ones((1, 1))
    return np.stack(
        [model.p_alive(point, x, t_x, T) * model.growth_if_alive(point, x, t_x, T, ends, one)[:, 0] for point in points]
    )


def members(fitted: FittedModel, x: FloatArray) -> list[tuple[FittedModel, FloatArray]]:
    """Return the models behind a fit and the weight of each for every customer; a single model has weight one."""
    if not fitted.components:
        return [(fitted, np.ones(1))]
    return [
        (part.fitted, np.asarray(part.weights)[np.minimum(x, len(part.weights) - 1).astype(np.intp)])
        for part in fitted.components
    ]


def log_likelihood(fitted: FittedModel, frequency: ArrayLike, recency_days: ArrayLike, T_days: ArrayLike) -> FloatArray:
    """Return the log-likelihood of each customer's history under a single fitted model, shape (n,)."""
    x, t_x, T = check_customers(frequency, recency_days, T_days)
    if fitted.components:
        raise ValueError("a blend has no likelihood of its own; ask its components")
    return MODELS[fitted.model].log_likelihood(fitted.params, x, t_x, T)


def expected_purchases(
    fitted: FittedModel, frequency: ArrayLike, recency_days: ArrayLike, T_days: ArrayLike, horizon_days: float
) -> FloatArray:
    """Return the expected purchase days in the horizon after T of each customer, shape (n,), >= 0.

    At (0, 0, 0) it is the expectation of a customer who has just bought for the first time.
    """
    ends, coefficients = discount_steps(horizon_days, 0.0)
    return _growth(fitted, frequency, recency_days, T_days, ends[-1:], coefficients[-1:, :1])


def discounted_purchases(
    fitted: FittedModel,
    frequency: ArrayLike,
    recency_days: ArrayLike,
    T_days: ArrayLike,
    horizon_days: float,
    annual_rate: float = 0.10,
) -> FloatArray:
    """Return sum_j (E(t_j) - E(t_{j-1})) (1 + annual_rate)^(-t_j / 365), t_j = 30, 60, ..., horizon, shape (n,)."""
    ends, coefficients = discount_steps(horizon_days, annual_rate)
    return _growth(fitted, frequency, recency_days, T_days, ends, coefficients[:, 1:])


def _growth(
    fitted: FittedModel,
    frequency: ArrayLike,
    recency_days: ArrayLike,
    T_days: ArrayLike,
    ends: FloatArray,
    coefficients: FloatArray,
) -> FloatArray:
    """Return the sum over j of coefficients (k, 1) times E(t_j) of each customer, shape (n,)."""
    x, t_x, T = check_customers(frequency, recency_days, T_days)
    total = np.zeros_like(x)
    for member, share in alive_by_member(fitted, x, t_x, T):
        total += share * MODELS[member.model].growth_if_alive(member.params, x, t_x, T, ends, coefficients)[:, 0]
    return total


def p_alive(fitted: FittedModel, frequency: ArrayLike, recency_days: ArrayLike, T_days: ArrayLike) -> FloatArray:
    """Return the probability of not having left by T of each customer, shape (n,), in [0, 1]; it may underflow to 0."""
    x, t_x, T = check_customers(frequency, recency_days, T_days)
    total = np.zeros_like(x)
    for _, share in alive_by_member(fitted, x, t_x, T):
        total += share
    return total


def alive_by_member(
    fitted: FittedModel, x: FloatArray, t_x: FloatArray, T: FloatArray
) -> list[tuple[FittedModel, FloatArray]]:
    """Return the models behind a fit, in the order of `members`, and of each its weight times P(alive), shape (n,)."""
    return [
        (member, weight * MODELS[member.model].p_alive(member.params, x, t_x, T))
        for member, weight in members(fitted, x)
    ]


def probability_of_purchase(
    fitted: FittedModel, frequency: ArrayLike, recency_days: ArrayLike, T_days: ArrayLike, horizon_days: float
) -> FloatArray:
    """Return P(at least one purchase day in the horizon after T) of each customer, shape (n,), in [0, 1]."""
    x, t_x, T = check_customers(frequency, recency_days, T_days)
    return _chance(alive_by_member(fitted, x, t_x, T), x, t_x, T, float(horizon_days))


def chance_of_purchase(scores: PurchaseScores, horizon_days: float) -> FloatArray:
    """Return `probability_of_purchase` of customers who are scored already, over whatever horizon, shape (n,)."""
    alive = ((each.fitted, each.weight * each.p_alive) for each in scores.members)
    return _chance(alive, scores.frequency, scores.recency_days, scores.T_days, float(horizon_days))


def _chance(
    alive: Iterable[tuple[FittedModel, FloatArray]], x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float
) -> FloatArray:
    """Return the sum over models of the chance to be alive by each, weighted, times that to purchase if so."""
    total = np.zeros_like(x)
    for member, share in alive:
        total += share * MODELS[member.model].chance_if_alive(member.params, x, t_x, T, horizon)
    return total


def log_predictive(
    fitted: FittedModel,
    frequency: ArrayLike,
    recency_days: ArrayLike,
    T_days: ArrayLike,
    horizon_days: float,
    purchases: ArrayLike,
) -> FloatArray:
    """Return the log probability that each customer makes exactly so many purchases in the horizon, shape (n,).

    Parameters
    ----------
    purchases : array-like, shape (n,)
        Whole numbers, >= 0.
    """
    x, t_x, T = check_customers(frequency, recency_days, T_days)
    count = np.broadcast_to(np.asarray(purchases, dtype=np.float64), x.shape)
    total = np.full(x.shape, -np.inf)
    for member, weight in members(fitted, x):
        model, params = MODELS[member.model], member.params
        alive = model.p_alive(params, x, t_x, T)
        with np.errstate(divide="ignore"):
            bought = np.log(alive) + model.log_pmf_if_alive(params, x, t_x, T, float(horizon_days), count)
            gone = np.where(count == 0, np.log1p(-alive), -np.inf)
            total = np.logaddexp(total, np.log(weight) + np.logaddexp(bought, gone))
    return total
