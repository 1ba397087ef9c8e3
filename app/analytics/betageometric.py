"""The mathematics that BG/NBD and MBG/NBD share: Poisson purchases, a beta-geometric chance of leaving after each.

Both models give a customer a purchase rate from Gamma(r, alpha) and a chance of leaving after a purchase from
Beta(a, b). They differ in one thing: whether the first purchase, too, can be the last (`first_may_leave`). Given that
a customer is alive at T, the rate is Gamma(r + x, alpha + T) and the chance Beta(a, b + x) (one more in the second
shape where the first purchase was survived as well), and the two are independent.

References
----------
Fader, Hardie and Lee (2005), "Counting Your Customers" the Easy Way, Marketing Science 24(2).
Batislam, Denizel and Filiztekin (2007), Empirical validation and comparison of models for customer base analysis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaln, digamma, expit, gammaln, polygamma

from app.analytics.expansion import chebyshev, evaluate_expansions
from app.analytics.fit import (
    FittedModel,
    FloatArray,
    NotConverged,
    check_customers,
    check_weights,
    fitted_model,
    maximise,
    maximise_from,
    require_enough,
)
from app.analytics.grouping import Groups, distinct, group_customers
from app.analytics.special import log_negative_binomial, thinned_growth

NAMES = ("r", "alpha", "a", "b")
CHUNK = 16_384
WARM_START_ROWS = 60_000
WARM_START_CUSTOMERS = 12_000
FEW_FREQUENCIES = 24

BoolArray = NDArray[np.bool_]


def fit(
    model: str,
    frequency: ArrayLike,
    recency_days: ArrayLike,
    T_days: ArrayLike,
    *,
    customers: ArrayLike | None = None,
    first_may_leave: bool,
) -> FittedModel:
    """Fit by maximum likelihood; see `bgnbd.fit` and `mbgnbd.fit`."""
    x, t_x, T = check_customers(frequency, recency_days, T_days)
    weight = check_weights(customers, x.size)
    require_enough(x, t_x, T, weight)
    groups = group_customers(x, t_x, T, weight)
    mean_T = groups.mean_T
    starts: list[Sequence[float] | FloatArray] = [
        (0.5, mean_T / 3, 0.8, 2.5),
        (1.0, mean_T, 1.0, 1.0),
        (0.2, mean_T / 10, 0.5, 5.0),
        (3.0, mean_T, 0.2, 3.0),
    ]
    if groups.x.size > WARM_START_ROWS:
        # Any subset gives a start so near that two or three steps over all customers remain.
        few = groups.sample(WARM_START_CUSTOMERS)
        try:
            start = maximise(lambda theta: _objective(theta, few, first_may_leave), starts[0], NAMES, 1e-6).theta
            starts.insert(0, start)
        except NotConverged:
            pass
    maximum = maximise_from(lambda theta: _objective(theta, groups, first_may_leave), starts, NAMES)
    return fitted_model(model, NAMES, maximum, groups.customers)


def _objective(theta: FloatArray, groups: Groups, first_may_leave: bool) -> tuple[float, FloatArray, FloatArray]:
    """Return the mean log-likelihood with its gradient and Hessian in (r, alpha, a, b)."""
    r, alpha, a, b = (float(value) for value in theta)
    shift = 1.0 if first_may_leave else 0.0
    gradient, hessian = np.zeros(4), np.zeros((4, 4))
    x, n = groups.x_values, groups.x_weights
    survived = b + x + shift
    value = float(n @ (gammaln(r + x) + gammaln(survived) - gammaln(a + survived)))
    value += groups.customers * float(r * np.log(alpha) - gammaln(r) + gammaln(a + b) - gammaln(b))
    leave = n @ digamma(a + survived)
    gradient[0] = n @ digamma(r + x) + groups.customers * (np.log(alpha) - digamma(r))
    gradient[1] = groups.customers * r / alpha
    gradient[2] = groups.customers * digamma(a + b) - leave
    gradient[3] = groups.customers * (digamma(a + b) - digamma(b)) + n @ digamma(survived) - leave
    hessian[0, 0] = n @ polygamma(1, r + x) - groups.customers * polygamma(1, r)
    hessian[0, 1] = groups.customers / alpha
    hessian[1, 1] = -groups.customers * r / alpha**2
    hessian[2, 2] = hessian[2, 3] = groups.customers * polygamma(1, a + b) - n @ polygamma(1, a + survived)
    hessian[3, 3] = hessian[2, 3] + n @ polygamma(1, survived) - groups.customers * polygamma(1, b)
    # Without a chance to leave at the first purchase, customers with none since are alive: no second term.
    first = 0 if first_may_leave else groups.repeat_start
    if first:
        value += _watched(groups, slice(0, first), r, alpha, gradient, hessian)
    for start in range(first, groups.x.size, CHUNK):
        part = slice(start, min(start + CHUNK, groups.x.size))
        value += _possibly_gone(groups, part, (r, alpha, a, b), shift, gradient, hessian)
    hessian = np.triu(hessian) + np.triu(hessian, 1).T
    return value / groups.customers, gradient / groups.customers, hessian / groups.customers


def _watched(groups: Groups, part: slice, r: float, alpha: float, gradient: FloatArray, hessian: FloatArray) -> float:
    """Add sum of -(r + x) log(alpha + T) with its derivatives; return its value."""
    weight = groups.weight[part]
    until = alpha + groups.T[part]
    log_until = np.log(until)
    per_day = weight / until
    shape = r + groups.x[part]
    gradient[0] -= weight @ log_until
    gradient[1] -= per_day @ shape
    hessian[0, 1] -= per_day.sum()
    hessian[1, 1] += (per_day / until) @ shape
    return -float((weight * shape) @ log_until)


def _possibly_gone(
    groups: Groups,
    part: slice,
    theta: tuple[float, float, float, float],
    shift: float,
    gradient: FloatArray,
    hessian: FloatArray,
) -> float:
    """Add -(r + x) log(alpha + T) + log(1 + odds) with derivatives, odds those of having left at t_x."""
    r, alpha, a, b = theta
    x, weight = groups.x[part], groups.weight[part]
    shape, stays = r + x, b + x + (shift - 1)
    until, since = alpha + groups.T[part], alpha + groups.t_x[part]
    log_until = np.log(until)
    gap = log_until - np.log(since)
    log_odds = shape * gap
    log_odds -= np.log(stays)
    log_odds += np.log(a)
    small = np.exp(-np.abs(log_odds))
    gone = np.where(log_odds > 0, 1.0, small) / (1 + small)
    value = np.maximum(log_odds, 0.0) + np.log1p(small) - shape * log_until

    inverse_until, inverse_since = 1 / until, 1 / since
    narrow = inverse_until - inverse_since
    by = np.stack([gap, shape * narrow, np.full_like(x, 1 / a), -1 / stays])
    weighted = weight * gone
    gradient += by @ weighted
    hessian += (by * (weighted * (1 - gone))) @ by.T
    per_day = weight * inverse_until
    gradient[0] -= weight @ log_until
    gradient[1] -= shape @ per_day
    hessian[0, 1] += weighted @ narrow - per_day.sum()
    hessian[1, 1] += shape @ (per_day * inverse_until - weighted * narrow * (inverse_until + inverse_since))
    hessian[2, 2] -= weighted.sum() / a**2
    hessian[3, 3] += weighted @ by[3] ** 2
    return float(weight @ value)


def log_likelihood(
    params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray, *, first_may_leave: bool
) -> FloatArray:
    """Return the log-likelihood of each customer, shape (n,)."""
    r, alpha, a, b = (params[name] for name in NAMES)
    survived = b + x + (1.0 if first_may_leave else 0.0)
    result: FloatArray = (
        gammaln(r + x)
        - gammaln(r)
        - r * np.log1p(T / alpha)
        - x * np.log(alpha + T)
        + betaln(a, survived)
        - betaln(a, b)
        + np.logaddexp(0.0, _log_odds_gone(params, x, t_x, T, first_may_leave))
    )
    return result


def _log_odds_gone(
    params: Mapping[str, float] | Mapping[str, FloatArray],
    x: FloatArray,
    t_x: FloatArray,
    T: FloatArray,
    first_may_leave: bool,
) -> FloatArray:
    r, alpha, a, b = (params[name] for name in NAMES)
    gap = (r + x) * np.log1p((T - t_x) / (alpha + t_x))
    if first_may_leave:
        gap += np.log(a / (b + x))
        return gap
    repeated = x > 0
    # A customer without a repeat purchase has had no occasion to leave: odds of zero.
    gap += np.log(a / np.where(repeated, b + x - 1, 1.0))
    result: FloatArray = np.where(repeated, gap, -np.inf)
    return result


def p_alive(
    params: Mapping[str, float] | Mapping[str, FloatArray],
    x: FloatArray,
    t_x: FloatArray,
    T: FloatArray,
    *,
    first_may_leave: bool,
) -> FloatArray:
    """Return the probability that each customer has not left by T, shape (n,)."""
    result: FloatArray = expit(-_log_odds_gone(params, x, t_x, T, first_may_leave))
    return result


def chance_if_alive(params: Mapping[str, float], x: FloatArray, T: FloatArray, horizon: float) -> FloatArray:
    """Return P(at least one purchase in (T, T + horizon]) of customers alive at T, shape (n,)."""
    result: FloatArray = -np.expm1(-(params["r"] + x) * np.log1p(horizon / (params["alpha"] + T)))
    return result


def growth_if_alive(
    params: Mapping[str, float],
    x: FloatArray,
    T: FloatArray,
    horizons: FloatArray,
    coefficients: FloatArray,
    *,
    first_may_leave: bool,
) -> FloatArray:
    """Return sums over the horizons of expected purchases of customers alive at T, times the coefficients.

    The mean depends on T and the horizon t only through w = t / (alpha + T). For each frequency it is expanded in
    Chebyshev polynomials of log(1 + w) once; the sum for a (frequency, T) pair is then one dot product. The expansion
    depends on the parameters and the horizons alone, so that one customer gets the figure a million would.

    Parameters
    ----------
    x, T : arrays, shape (n,)
    horizons : array, shape (k,)
        Rising, the last is the longest.
    coefficients : array, shape (k, m)

    Returns
    -------
    array, shape (n, m)
    """
    x_values, x_index = distinct(x)
    span = float(np.log1p(horizons[-1] / params["alpha"]))
    theta = (params["r"], params["a"], params["b"] + (1.0 if first_may_leave else 0.0))
    if x_values.size <= FEW_FREQUENCIES:
        # A few customers at a time is how live scores come, over and over with the same fit.
        ones = [_expansion_of_one(*theta, frequency, span) for frequency in x_values.tolist()]
        expansion, smooth = (np.concatenate(parts) for parts in zip(*ones, strict=True))
    else:
        expansion, smooth = _expansions(*theta, x_values, span)
    result = evaluate_expansions(expansion, x_index, T, params["alpha"], span, horizons, coefficients)
    if not smooth.all():
        rough = np.flatnonzero(~smooth[x_index])
        for start in range(0, rough.size, 256):
            part = rough[start : start + 256]
            reach = horizons / (params["alpha"] + T[part, None])
            result[part] = thinned_growth(theta[0] + x[part], theta[1], theta[2] + x[part], reach) @ coefficients
    return result


def expected_at(
    points: Sequence[Mapping[str, float]],
    x: FloatArray,
    t_x: FloatArray,
    T: FloatArray,
    horizon: float,
    *,
    first_may_leave: bool,
) -> FloatArray | None:
    """Return the expected purchases in the horizon of a few customers by each of several parameters, shape (p, n).

    The same as `p_alive` times `growth_if_alive` of each, in as many steps as one takes; None where an expansion does
    not hold.
    """
    params = {name: np.array([[point[name]] for point in points]) for name in NAMES}
    alpha, shift = params["alpha"], 1.0 if first_may_leave else 0.0
    # All expansions are of log(1 + w) over the same span, so that they have as many terms each.
    span = float(np.log1p(horizon / alpha.min()))
    thetas = tuple((point["r"], point["a"], point["b"] + shift) for point in points)
    asked = (_expansions_by_each(thetas, frequency, span) for frequency in x.tolist())
    ones = [one for one in asked if one is not None]
    if len(ones) < x.size:
        return None
    w = horizon / (alpha + T)
    angle = np.arccos(np.minimum(2 / span * np.log1p(w) - 1, 1.0))
    expansion = np.stack(ones, axis=1)
    growth = (expansion * np.cos(angle[:, :, None] * np.arange(expansion.shape[2]))).sum(axis=2) * w
    result: FloatArray = p_alive(params, x, t_x, T, first_may_leave=first_may_leave) * growth
    return result


def _expansions(r: float, a: float, b: float, x_values: FloatArray, span: float) -> tuple[FloatArray, BoolArray]:
    """Return Chebyshev coefficients of (mean purchases / w) over log(1 + w) in [0, span] for each frequency, shape
    (u, k), and whether they have died out, so that the expansion holds."""
    shape, stays = r + x_values, b + x_values
    nodes, transform = chebyshev(24 + 8 * int(np.ceil(span)))
    w = np.expm1(span / 2 * (1 + nodes))
    values = np.empty((len(shape), len(w)))
    for start in range(0, len(shape), 64):
        part = slice(start, start + 64)
        reach = np.broadcast_to(w, (len(shape[part]), len(w)))
        values[part] = thinned_growth(shape[part], a, stays[part], reach)
    values /= w
    expansion: FloatArray = values @ transform
    return expansion, np.abs(expansion[:, -4:]).max(axis=1) <= 1e-11 * values.min(axis=1)


@lru_cache(maxsize=16_384)
def _expansion_of_one(r: float, a: float, b: float, x: float, span: float) -> tuple[FloatArray, BoolArray]:
    return _expansions(r, a, b, np.array([x]), span)


@lru_cache(maxsize=4_096)
def _expansions_by_each(thetas: tuple[tuple[float, float, float], ...], x: float, span: float) -> FloatArray | None:
    """Return the expansions of one frequency by several (r, a, b), shape (p, k); None where one does not hold.

    All that are kept take about 8 MB.
    """
    ones = [_expansions(*theta, np.array([x]), span) for theta in thetas]
    return np.concatenate([found for found, _ in ones]) if all(smooth.all() for _, smooth in ones) else None


def log_pmf_if_alive(
    params: Mapping[str, float],
    x: FloatArray,
    T: FloatArray,
    horizon: float,
    count: FloatArray,
    *,
    first_may_leave: bool,
) -> FloatArray:
    """Return log P(count purchases in (T, T + horizon]) of customers alive at T.

    Either all `count` purchases are survived and no other follows, or the last of them ends it. With the posterior
    Gamma rate and Beta chance both are elementary (Fader, Hardie and Lee 2005, eq. 8, with updated parameters).

    Parameters
    ----------
    x, T, count : arrays, broadcastable to one shape
    """
    shape, stays = params["r"] + x, params["b"] + x + (1.0 if first_may_leave else 0.0)
    odds = horizon / (params["alpha"] + T)
    a = params["a"]
    normal = betaln(a, stays)
    stayed = betaln(a, stays + count) - normal + log_negative_binomial(count, shape, odds)
    with np.errstate(divide="ignore"):
        reached = np.log(betainc(np.maximum(count, 1.0), shape, odds / (1 + odds)))
        left = betaln(a + 1, stays + np.maximum(count, 1.0) - 1) - normal + reached
    result: FloatArray = np.where(count > 0, np.logaddexp(stayed, left), stayed)
    return result
