"""Gamma-Gamma: what a purchase of a customer is worth, given the mean of the past ones.

Fader, Hardie and Lee (2005), RFM and CLV: Using Iso-Value Curves for Customer Base Analysis, Journal of Marketing
Research 42(4); Fader and Hardie (2013), The Gamma-Gamma Model of Monetary Value. Spend of a customer varies as
Gamma(p, nu) around a mean p / nu, nu differs between customers as Gamma(q, v), and neither has to do with how often
they buy. The last assumption is checked: where it fails, or the model has no finite mean, the credibility-weighted mean
of Bühlmann and Straub (1970) takes its place, which assumes no distribution at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, digamma, gammainc, gammaln, polygamma

from app.analytics.fit import (
    MINIMUM_REPEATERS,
    FittedModel,
    FloatArray,
    Maximum,
    NotConverged,
    TooLittleData,
    check_weights,
    fitted_model,
    maximise_from,
)
from app.analytics.grouping import distinct

NAMES = ("p", "q", "v")

INDEPENDENCE_LIMIT = 0.3
"""Largest rank correlation of frequency and mean spend among repeaters (either sign) that still counts as none. At 0.3
less than a tenth of the variance of ranks is shared; CDNOW, which the model was made for, has 0.21."""


ZERO_SPEND_LIMIT = 0.1
"""Largest share of repeaters whose purchases were all free; Gamma-Gamma gives such a mean no likelihood."""


@dataclass(frozen=True)
class FittedSpend:
    """How the value of a purchase is predicted.

    Attributes
    ----------
    method : str
        `gamma_gamma` or `mean`.
    reason : str or None
        Why it is not Gamma-Gamma: `too_few_repeaters`, `frequency_correlates`, `zero_spend`,
        `no_finite_mean`, `not_converged`, `negative_margin`.
    correlation : float or None
        Spearman's rank correlation of frequency and mean spend among repeaters; None where it is not defined.
    mean : float
        Mean value of a purchase in the population, used where a customer has no repeat purchase.
    within, between : float
        For `mean` (else 0): variance of single purchases around their customer's mean, and of customers' means, both
        relative to `mean` squared.
    gamma_gamma : FittedModel or None
        The fitted p, q, v.
    """

    method: str
    reason: str | None
    correlation: float | None
    mean: float
    within: float
    between: float
    gamma_gamma: FittedModel | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and numbers that JSON can hold; `from_dict` is the inverse."""
        return {
            "method": self.method,
            "reason": self.reason,
            "correlation": self.correlation,
            "mean": self.mean,
            "within": self.within,
            "between": self.between,
            "gamma_gamma": None if self.gamma_gamma is None else self.gamma_gamma.to_dict(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> FittedSpend:
        """Read back what `to_dict` wrote."""
        inner = stored["gamma_gamma"]
        return cls(
            method=str(stored["method"]),
            reason=None if stored["reason"] is None else str(stored["reason"]),
            correlation=None if stored["correlation"] is None else float(stored["correlation"]),
            mean=float(stored["mean"]),
            within=float(stored["within"]),
            between=float(stored["between"]),
            gamma_gamma=None if inner is None else FittedModel.from_dict(inner),
        )


def fit_gamma_gamma(
    frequency: ArrayLike, monetary_value: ArrayLike, *, customers: ArrayLike | None = None
) -> FittedModel:
    """Fit p, q, v by maximum likelihood (Fader and Hardie 2013, eq. 1a) on customers who repeated and spent.

    Parameters
    ----------
    frequency, monetary_value : array-like, shape (n,)
        Repeat purchase days and mean value of one; rows without repeat purchase or with a mean of zero or less are
        left out, for the model gives them no likelihood.
    customers : array-like, shape (n,), optional
        How many customers each row stands for, whole numbers >= 1; one each if left out.

    Raises
    ------
    ValueError
        For impossible figures or numbers of customers.
    TooLittleData, NotConverged

    Examples
    --------
    >>> fit_gamma_gamma(frequency, monetary_value).params  # doctest: +SKIP
    {'p': 6.25, 'q': 3.74, 'v': 15.44}
    """
    x, mean = _pair(frequency, monetary_value)
    weight = _weights(customers, x.size)
    used = (x > 0) & (mean > 0)
    x, mean, weight = x[used], mean[used], weight[used]
    repeaters = int(weight.sum())
    if repeaters < MINIMUM_REPEATERS:
        raise TooLittleData(
            "too_few_repeaters", f"{repeaters} customers with repeat spend; at least {MINIMUM_REPEATERS} are needed."
        )
    # Amounts may be in any currency: in units of their mean, one start fits all.
    unit = float(weight @ mean) / repeaters
    total, purchases = x * (mean / unit), weight * x
    x_values, x_index = distinct(x)
    x_weights = np.bincount(x_index, weights=weight, minlength=len(x_values)).astype(np.float64)
    logs = (float(purchases @ np.log(total)), float(weight @ np.log(mean / unit)))

    def objective(theta: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        return _objective(theta, weight, purchases, total, logs, x_values, x_weights)

    starts = [(5.0, 4.0, 1.0), (1.0, 2.0, 2.0), (50.0, 3.0, 0.1), (0.5, 10.0, 20.0)]
    maximum = maximise_from(objective, starts, NAMES)
    # Back from units of the mean: v scales as the amounts do, the density of a mean as their inverse.
    scale = np.array([1.0, 1.0, unit])
    maximum = Maximum(
        theta=maximum.theta * scale,
        value=maximum.value - float(np.log(unit)),
        hessian=maximum.hessian / np.outer(scale, scale),
        steps=maximum.steps,
    )
    return fitted_model("gamma_gamma", NAMES, maximum, repeaters)


def _objective(
    theta: FloatArray,
    weight: FloatArray,
    purchases: FloatArray,
    total: FloatArray,
    logs: tuple[float, float],
    x_values: FloatArray,
    x_weights: FloatArray,
) -> tuple[float, FloatArray, FloatArray]:
    """Return the mean log-likelihood with its gradient and Hessian in (p, q, v).

    Parameters
    ----------
    theta : array, shape (3,)
    weight, purchases, total : arrays, shape (n,)
        Customers a row stands for, repeat purchases of all of them, and repeat spend of one of them.
    logs : tuple of float
        Sums over customers of x log(x m) and of log(m).
    x_values, x_weights : arrays, shape (k,)
        The distinct frequencies, and how many customers have each.
    """
    p, q, v = (float(value) for value in theta)
    n = float(x_weights.sum())
    shape = p * x_values + q
    log_sum = np.log(v + total)
    inverse = 1 / (v + total)
    weighted = x_values * x_weights
    value = float(x_weights @ (gammaln(shape) - gammaln(p * x_values))) + n * float(q * np.log(v) - gammaln(q))
    value += p * logs[0] - logs[1] - float(p * (purchases @ log_sum) + q * (weight @ log_sum))
    gradient = np.array(
        [
            weighted @ (digamma(shape) - digamma(p * x_values)) + logs[0] - purchases @ log_sum,
            x_weights @ digamma(shape) + n * (np.log(v) - digamma(q)) - weight @ log_sum,
            n * q / v - p * (purchases @ inverse) - q * (weight @ inverse),
        ]
    )
    bend = polygamma(1, shape)
    pq, pv, qv = weighted @ bend, -(purchases @ inverse), n / v - weight @ inverse
    hessian = np.array(
        [
            [(weighted * x_values) @ (bend - polygamma(1, p * x_values)), pq, pv],
            [pq, x_weights @ bend - n * polygamma(1, q), qv],
            [pv, qv, -n * q / v**2 + (p * purchases + q * weight) @ (inverse * inverse)],
        ]
    )
    return value / n, gradient / n, hessian / n


def fit_spend(frequency: ArrayLike, monetary_value: ArrayLike, *, customers: ArrayLike | None = None) -> FittedSpend:
    """Choose and fit how the value of a purchase is predicted.

    Gamma-Gamma where frequency and mean spend of repeaters have a rank correlation within `INDEPENDENCE_LIMIT`, the fit
    converges and q > 1, so that the mean is finite; else the credibility-weighted mean, with the reason.

    Parameters
    ----------
    frequency, monetary_value : array-like, shape (n,)
        Repeat purchase days and mean value of one.
    customers : array-like, shape (n,), optional
        How many customers each row stands for, whole numbers >= 1; one each if left out.

    Raises
    ------
    ValueError
        For impossible figures or numbers of customers.
    TooLittleData
        If nobody has a repeat purchase.

    Examples
    --------
    >>> fit_spend(frequency, monetary_value).method  # doctest: +SKIP
    'gamma_gamma'
    """
    x, mean = _pair(frequency, monetary_value)
    weight = _weights(customers, x.size)
    repeated = x > 0
    x, mean, weight = x[repeated], mean[repeated], weight[repeated]
    if x.size == 0:
        raise TooLittleData("no_repeat_purchases", "Nobody has bought on a second day.")
    correlation = _rank_correlation(x, mean, weight)
    reason = None
    if correlation is not None and abs(correlation) > INDEPENDENCE_LIMIT:
        reason = "frequency_correlates"
    elif weight @ (mean == 0) > ZERO_SPEND_LIMIT * weight.sum():
        reason = "zero_spend"
    else:
        try:
            fitted = fit_gamma_gamma(x, mean, customers=weight)
        except TooLittleData as error:
            reason = error.code
        except NotConverged:
            reason = "not_converged"
        else:
            p, q, v = (fitted.params[name] for name in NAMES)
            if q > 1:
                return FittedSpend("gamma_gamma", None, correlation, p * v / (q - 1), 0.0, 0.0, fitted)
            reason = "no_finite_mean"
    return _credible_mean(x, mean, weight, correlation, reason)


def fit_credible_mean(
    frequency: FloatArray, value: FloatArray, reason: str, *, customers: ArrayLike | None = None
) -> FittedSpend:
    """Fit the credibility-weighted mean of values of any sign, such as margins; `reason` says why it serves.

    Parameters
    ----------
    frequency, value : arrays, shape (n,)
        Repeat purchase days, and the mean value of one.
    reason : str
    customers : array-like, shape (n,), optional
        How many customers each row stands for, whole numbers >= 1; one each if left out.

    Raises
    ------
    ValueError
        For impossible numbers of customers.
    TooLittleData
        If nobody has a repeat purchase.
    """
    weight = _weights(customers, frequency.size)
    repeated = frequency > 0
    if not repeated.any():
        raise TooLittleData("no_repeat_purchases", "Nobody has bought on a second day.")
    x, mean, weight = frequency[repeated], value[repeated], weight[repeated]
    return _credible_mean(x, mean, weight, _rank_correlation(x, mean, weight), reason)


def _credible_mean(
    x: FloatArray, mean: FloatArray, weight: FloatArray, correlation: float | None, reason: str | None
) -> FittedSpend:
    purchases = weight * x
    overall = float(purchases @ mean / purchases.sum())
    within, between = _variances(x, mean, weight, overall)
    return FittedSpend("mean", reason, correlation, overall, within, between, None)


def purchase_value(spend: FittedSpend, frequency: FloatArray, monetary_value: FloatArray) -> FloatArray:
    """Return the expected value of a future purchase of each customer, shape (n,).

    Gamma-Gamma: p (v + x m) / (p x + q - 1) (Fader and Hardie 2013, eq. 5). Else Z m + (1 - Z) mean with the
    credibility Z = x between / (x between + within).

    Parameters
    ----------
    spend : FittedSpend
    frequency, monetary_value : arrays, shape (n,)
        The monetary value is ignored where the frequency is 0.
    """
    m = np.where(frequency > 0, monetary_value, 0.0)
    if spend.gamma_gamma is not None:
        p, q, v = (spend.gamma_gamma.params[name] for name in NAMES)
        result: FloatArray = p * (v + frequency * m) / (p * frequency + q - 1)
        return result
    credibility = _credibility(spend, frequency)
    return credibility * m + (1 - credibility) * spend.mean


def spend_distribution(
    spend: FittedSpend, frequency: FloatArray, purchases: FloatArray, share: FloatArray
) -> FloatArray:
    """Return P(value of the next `purchases` <= share x expected value of one), broadcast over the arrays.

    With Gamma-Gamma the posterior rate is Gamma(p x + q, v + x m), and a sum of n purchases over it is beta prime:
    exact. Without it, the sum is taken as gamma with the mean and the variance that the credibility model gives.

    Parameters
    ----------
    spend : FittedSpend
    frequency, purchases, share : arrays, broadcastable to one shape
        `purchases` >= 1, `share` >= 0.
    """
    if spend.gamma_gamma is not None:
        p, q = spend.gamma_gamma.params["p"], spend.gamma_gamma.params["q"]
        shape = p * frequency + q
        odds = share * p / (shape - 1)
        return np.asarray(betainc(p * purchases, shape, odds / (1 + odds)))
    spread = purchases * spend.within + purchases**2 * spend.between * (1 - _credibility(spend, frequency))
    shape = purchases**2 / np.maximum(spread, 1e-12)
    return np.asarray(gammainc(shape, shape * share / purchases))


def _credibility(spend: FittedSpend, frequency: FloatArray) -> FloatArray:
    if spend.between == 0:
        return np.zeros_like(frequency)
    # Whoever has no repeat purchase has said nothing, even where the purchases of a customer do not vary.
    known = frequency + spend.within / spend.between
    return np.divide(frequency, known, out=np.zeros_like(known), where=known > 0)


def _pair(frequency: ArrayLike, monetary_value: ArrayLike) -> tuple[FloatArray, FloatArray]:
    x = np.atleast_1d(np.asarray(frequency, dtype=np.float64))
    mean = np.atleast_1d(np.asarray(monetary_value, dtype=np.float64))
    if x.ndim != 1 or x.shape != mean.shape:
        raise ValueError("frequency and monetary_value must be one-dimensional and of equal length")
    if not ((x >= 0).all() and (mean >= 0).all() and (x < np.inf).all() and (mean < np.inf).all()):
        raise ValueError("frequency and monetary_value must be finite and not negative")
    return x, mean


def _weights(customers: ArrayLike | None, rows: int) -> FloatArray:
    weight = check_weights(customers, rows)
    return np.ones(rows) if weight is None else weight


def _rank_correlation(x: FloatArray, mean: FloatArray, weight: FloatArray) -> float | None:
    total = float(weight.sum())
    if total < 3 or not np.ptp(x) or not np.ptp(mean):
        return None
    # Ranks run from 1 to the number of customers, and sharing them leaves their mean.
    by_x, by_mean = (_ranks(values, weight) - (total + 1) / 2 for values in (x, mean))
    shared = weight @ (by_x * by_mean) / np.sqrt((weight @ by_x**2) * (weight @ by_mean**2))
    return float(np.clip(shared, -1.0, 1.0))


def _ranks(values: FloatArray, weight: FloatArray) -> FloatArray:
    """Return the rank of each row's customers, shape (n,); customers of equal values share the mean of their ranks."""
    _, place = np.unique(values, return_inverse=True)
    counts = np.bincount(place, weights=weight)
    ranks: FloatArray = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _variances(x: FloatArray, mean: FloatArray, weight: FloatArray, overall: float) -> tuple[float, float]:
    """Return the variances within and between customers, relative to the squared mean.

    The mean of x purchases has variance between + within / x: a least-squares line in 1 / x, neither part negative, in
    which a row counts by its `weight`, the number of customers it stands for.
    Where all have the same x, the two can't be told apart, and nothing shows that customers differ.
    """
    if overall == 0:
        return 0.0, 0.0
    squared = (mean / overall - 1) ** 2
    inverse = 1 / x
    weighted = weight * inverse
    within_alone = float(weighted @ squared / (weighted @ inverse))
    if not np.ptp(x):
        return within_alone, 0.0
    total = weight.sum()
    mean_squared, mean_inverse = float(weight @ squared / total), float(weighted.sum() / total)
    centred = inverse - mean_inverse
    within = float((weight * centred) @ squared / (weight @ centred**2))
    between = mean_squared - within * mean_inverse
    # Where one part of the unbounded line is negative, the best line without that part is the best of those allowed.
    if within < 0:
        return 0.0, mean_squared
    return (within_alone, 0.0) if between < 0 else (within, between)
