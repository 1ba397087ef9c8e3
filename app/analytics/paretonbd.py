"""Pareto/NBD: Poisson purchases until an unseen, exponentially distributed end.

Schmittlein, Morrison and Colombo (1987), Counting Your Customers: Who Are They and What Will They Do Next?, Management
Science 33(1), 1-24; Fader and Hardie (2005), A Note on Deriving the Pareto/NBD Model and Related Expressions. The
purchase rate is Gamma(r, alpha), the rate of leaving Gamma(s, beta), independent. Times are in days.

The likelihood is written with the integral over the unseen time of leaving instead of two hypergeometric functions:

    L = Gamma(r+x)/Gamma(r) alpha^r beta^s { (alpha+T)^-(r+x) (beta+T)^-s
        + s int_{t_x}^{T} (alpha+u)^-(r+x) (beta+u)^-(s+1) du }

which has no special case at alpha = beta or s = 1, cannot overflow, and is differentiated under the integral.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, expit, exprel, gammaln, polygamma

from app.analytics.fit import (
    FittedModel,
    FloatArray,
    IntArray,
    NotConverged,
    check_customers,
    check_weights,
    fitted_model,
    maximise,
    maximise_from,
    require_enough,
)
from app.analytics.grouping import FEW, Groups, distinct, group_customers
from app.analytics.special import (
    RULES,
    TAIL,
    gauss_legendre,
    log_negative_binomial,
    power_integral,
    power_integral_nodes,
    power_integral_rule,
)

NAMES = ("r", "alpha", "s", "beta")
CHUNK = 2048
WARM_START_ROWS = 20_000
WARM_START_CUSTOMERS = 12_000
DEATH_NODES = 32
NODE_CELLS = 32_768


def fit(
    frequency: ArrayLike, recency_days: ArrayLike, T_days: ArrayLike, *, customers: ArrayLike | None = None
) -> FittedModel:
    """Fit r, alpha, s, beta by maximum likelihood.

    Parameters
    ----------
    frequency, recency_days, T_days : array-like, shape (n,)
        Repeat purchase days, days from first to last purchase, days from first purchase to now.
    customers : array-like, shape (n,), optional
        How many customers each row stands for, whole numbers >= 1; one each if left out.

    Returns
    -------
    FittedModel

    Raises
    ------
    ValueError
        For impossible histories or numbers of customers.
    TooLittleData, NotConverged
        When there is nothing to learn from, or no maximum to be found.

    Examples
    --------
    >>> fit(frequency, recency_days, T_days).params  # doctest: +SKIP
    {'r': 0.553, 'alpha': 74.0, 's': 0.606, 'beta': 81.7}
    """
    x, t_x, T = check_customers(frequency, recency_days, T_days)
    weight = check_weights(customers, x.size)
    require_enough(x, t_x, T, weight)
    groups = group_customers(x, t_x, T, weight)
    mean_T = groups.mean_T
    starts: list[Sequence[float] | FloatArray] = [
        (0.6, mean_T / 3, 0.6, mean_T / 3),
        (1.0, mean_T, 0.3, mean_T),
        (0.3, mean_T / 10, 1.5, mean_T * 3),
    ]
    if groups.x.size > WARM_START_ROWS:
        # Any subset gives a start so near that two or three steps over all customers remain.
        few = groups.sample(WARM_START_CUSTOMERS)
        try:
            start = maximise(lambda theta: _objective(theta, few), starts[0], NAMES, 1e-6).theta
            starts.insert(0, start)
        except NotConverged:
            pass
    maximum = maximise_from(lambda theta: _objective(theta, groups), starts, NAMES)
    return fitted_model("pareto_nbd", NAMES, maximum, groups.customers)


def _objective(theta: FloatArray, groups: Groups) -> tuple[float, FloatArray, FloatArray]:
    """Return the mean log-likelihood with its gradient and Hessian in (r, alpha, s, beta)."""
    r, alpha, s, beta = (float(value) for value in theta)
    gradient, hessian = np.zeros(4), np.zeros((4, 4))
    x, n, customers = groups.x_values, groups.x_weights, groups.customers
    value = float(n @ gammaln(r + x)) + customers * float(r * np.log(alpha) + s * np.log(beta) - gammaln(r))
    gradient[0] = n @ digamma(r + x) + customers * (np.log(alpha) - digamma(r))
    gradient[1] = customers * r / alpha
    gradient[2] = customers * np.log(beta)
    gradient[3] = customers * s / beta
    hessian[0, 0] = n @ polygamma(1, r + x) - customers * polygamma(1, r)
    hessian[0, 1] = hessian[1, 0] = customers / alpha
    hessian[1, 1] = -customers * r / alpha**2
    hessian[2, 3] = hessian[3, 2] = customers / beta
    hessian[3, 3] = -customers * s / beta**2
    useful, rule_index = power_integral_rule(alpha, beta, r + groups.x, s + 1, groups.t_x, groups.T)
    for index, rule in enumerate(RULES):
        rows = np.flatnonzero(rule_index == index)
        step = max(64, CHUNK * 8 // rule)
        for start in range(0, rows.size, step):
            part = rows[start : start + step]
            value += _unseen_end(groups, part, (r, alpha, s, beta), useful[part], rule, gradient, hessian)
    return value / customers, gradient / customers, hessian / customers


def _unseen_end(
    groups: Groups,
    part: IntArray,
    theta: tuple[float, float, float, float],
    useful: FloatArray,
    rule: int,
    gradient: FloatArray,
    hessian: FloatArray,
) -> float:
    """Add the logarithm of the braces of L with its derivatives; return its value."""
    r, alpha, s, beta = theta
    t_x, T, weight = groups.t_x[part], groups.T[part], groups.weight[part]
    shape = r + groups.x[part]
    elapsed, term = power_integral_nodes(alpha, beta, shape, s + 1, t_x, useful, rule)
    integral = term.sum(axis=0)
    term /= np.where(integral > 0, integral, 1.0)

    # Alive at T: f = -(r+x) log(alpha+T) - s log(beta+T), its gradient and its two curvatures.
    since_a, since_b, until_a, until_b = alpha + t_x, beta + t_x, alpha + T, beta + T
    log_a, log_b = np.log(until_a), np.log(until_b)
    alive = -shape * log_a - s * log_b
    by_alive = np.stack([-log_a, -shape / until_a, -log_b, -s / until_b])
    # Left at t_x + elapsed, averaged over the density of that moment.
    inverse_a, inverse_b = 1 / (since_a + elapsed), 1 / (since_b + elapsed)
    by_node = np.empty((4, *elapsed.shape))
    np.log(inverse_a, out=by_node[0])
    np.multiply(inverse_a, -shape, out=by_node[1])
    np.log(inverse_b, out=by_node[2])
    np.multiply(inverse_b, -(s + 1), out=by_node[3])
    by_left = np.einsum("ikn,kn->in", by_node, term)
    by_left[2] += 1 / s
    by_node[2] += 1 / s

    log_odds = shape * np.log(until_a / since_a) + s * np.log(until_b / since_b)
    with np.errstate(divide="ignore"):
        log_odds += np.log(s * integral / since_b)
    gone = expit(log_odds)
    stayed, left = weight * (1 - gone), weight * gone
    gradient += by_alive @ stayed + by_left @ left
    # E[d log g d log g'] over nodes less the square of the mean gradient gives the curvature of the logarithm.
    spread = by_node.reshape(4, -1)
    mean = by_alive * (1 - gone) + by_left * gone
    hessian += (spread * (term * left).ravel()) @ spread.T + (by_alive * stayed) @ by_alive.T - (mean * weight) @ mean.T
    mean_a = np.einsum("kn,kn->n", inverse_a, term)
    mean_b = np.einsum("kn,kn->n", inverse_b, term)
    cross_a = -(stayed @ (1 / until_a) + left @ mean_a)
    cross_b = -(stayed @ (1 / until_b) + left @ mean_b)
    inverse_a *= inverse_a
    inverse_b *= inverse_b
    square_a = stayed @ (shape / until_a**2) + left @ (shape * np.einsum("kn,kn->n", inverse_a, term))
    square_b = s * (stayed @ (1 / until_b**2)) + (s + 1) * (left @ np.einsum("kn,kn->n", inverse_b, term))
    hessian[0, 1] += cross_a
    hessian[1, 0] += cross_a
    hessian[1, 1] += square_a
    hessian[2, 2] -= left.sum() / s**2
    hessian[2, 3] += cross_b
    hessian[3, 2] += cross_b
    hessian[3, 3] += square_b
    return float(weight @ (alive + np.logaddexp(0.0, log_odds)))


def log_likelihood(params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray) -> FloatArray:
    """Return the log-likelihood of each customer, shape (n,)."""
    r, alpha, s, beta = (params[name] for name in NAMES)
    result: FloatArray = (
        gammaln(r + x)
        - gammaln(r)
        - r * np.log1p(T / alpha)
        - x * np.log(alpha + T)
        - s * np.log1p(T / beta)
        + np.logaddexp(0.0, _log_odds_gone(params, x, t_x, T))
    )
    return result


def _log_odds_gone(
    params: Mapping[str, float] | Mapping[str, FloatArray], x: FloatArray, t_x: FloatArray, T: FloatArray
) -> FloatArray:
    r, alpha, s, beta = (params[name] for name in NAMES)
    integral = power_integral(alpha, beta, r + x, s + 1, t_x, T)
    with np.errstate(divide="ignore"):
        result: FloatArray = (
            np.log(integral * (s / (beta + t_x)))
            + (r + x) * np.log1p((T - t_x) / (alpha + t_x))
            + s * np.log1p((T - t_x) / (beta + t_x))
        )
    return result


def p_alive(
    params: Mapping[str, float] | Mapping[str, FloatArray], x: FloatArray, t_x: FloatArray, T: FloatArray
) -> FloatArray:
    """Return P(alive at T), shape (n,), in [0, 1] (Schmittlein et al. 1987, eq. 11)."""
    result: FloatArray = expit(-_log_odds_gone(params, x, t_x, T))
    return result


def growth_if_alive(
    params: Mapping[str, float],
    x: FloatArray,
    t_x: FloatArray,
    T: FloatArray,
    horizons: FloatArray,
    coefficients: FloatArray,
) -> FloatArray:
    """Return coefficient-weighted sums over horizons of expected purchases if alive at T, shape (n, m).

    (r+x)/(alpha+T) int_0^t ((beta+T)/(beta+T+u))^s du (Schmittlein et al. 1987, eq. 22), finite at s = 1.

    Parameters
    ----------
    x, t_x, T : arrays, shape (n,)
    horizons : array, shape (k,)
    coefficients : array, shape (k, m)
    """
    r, alpha, s, beta = (params[name] for name in NAMES)
    T_values, T_index = distinct(T)
    length = np.log1p(horizons / (beta + T_values)[:, None])
    lived = (length * exprel((1 - s) * length)) @ coefficients
    lived *= ((beta + T_values) / (alpha + T_values))[:, None]
    result: FloatArray = lived[T_index] * (r + x)[:, None]
    return result


def expected_at(
    points: Sequence[Mapping[str, float]], x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float
) -> FloatArray:
    """Return the expected purchases in the horizon of a few customers by each of several parameters, shape (p, n).

    The same as `p_alive` times `growth_if_alive` of each, in as many steps as one takes.
    """
    params = {name: np.repeat([point[name] for point in points], x.size) for name in NAMES}
    x, t_x, T = (np.tile(figure, len(points)) for figure in (x, t_x, T))
    r, alpha, s, beta = (params[name] for name in NAMES)
    length = np.log1p(horizon / (beta + T))
    growth = length * exprel((1 - s) * length) * ((beta + T) / (alpha + T)) * (r + x)
    result: FloatArray = (p_alive(params, x, t_x, T) * growth).reshape(len(points), -1)
    return result


def chance_if_alive(
    params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float
) -> FloatArray:
    """Return P(at least one purchase in the horizon) if alive at T, shape (n,): the density of the next, integrated."""
    r, alpha, s, beta = (params[name] for name in NAMES)
    if x.size > FEW:
        x_values, x_index = distinct(x)
        T_values, T_index = distinct(T)
        if len(x_values) * len(T_values) < x.size:
            grid_x, grid_T = (part.ravel() for part in np.meshgrid(x_values, T_values, indexing="ij"))
            table = chance_if_alive(params, grid_x, grid_T, grid_T, horizon)
            return np.asarray(table[x_index * len(T_values) + T_index])
    shape = r + x
    result: FloatArray = power_integral(alpha, beta, shape + 1, s, T, T + horizon) * (shape / (alpha + T))
    return result


def log_pmf_if_alive(
    params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float, count: FloatArray
) -> FloatArray:
    """Return log P(count purchases in (T, T + horizon]) of customers alive at T.

    Either the customer lives through the horizon, or leaves at a time u within it, when the purchases are those of u;
    the second is integrated over u (Fader and Hardie 2014, Deriving the Conditional PMF of the Pareto/NBD Model).

    Parameters
    ----------
    x, t_x, T, count : arrays, broadcastable to one shape
    """
    r, alpha, s, beta = (params[name] for name in NAMES)
    shape, scale_a, scale_b = r + x, alpha + T, beta + T
    stayed = log_negative_binomial(count, shape, horizon / scale_a) - s * np.log1p(horizon / scale_b)

    # The integrand peaks where `count` purchases are due; only the share of time u / (alpha + T + u) around it counts.
    last = horizon / (scale_a + horizon)
    peak = count / (count + shape)
    width = np.sqrt(peak * (1 - peak) / (count + shape))
    low = np.maximum(0.0, np.minimum(peak - 9 * width, last * (1 - TAIL / np.maximum(count, 1.0))))
    high = np.minimum(last, peak + 9 * width + TAIL / (count + shape))
    low, high = (scale_a * end / (1 - end) for end in (low, high))
    nodes, weights = gauss_legendre(DEATH_NODES)
    least = np.minimum(scale_a, scale_b)
    start = least + low
    length = np.log1p((high - low) / start)
    total = np.zeros(np.broadcast_shapes(stayed.shape, length.shape))
    # The constants of the probability come out of the sum, so that a term costs four elementary functions.
    constant = gammaln(shape + count) - gammaln(shape) - gammaln(count + 1)
    # As many nodes at once as stay in the cache: one where there are many customers, all for one customer.
    step = max(1, NODE_CELLS // max(total.size, 1))
    for first in range(0, DEATH_NODES, step):
        column = (slice(first, first + step), *(None,) * total.ndim)
        y = length * nodes[column]
        u = low + start * np.expm1(y)
        log_u = np.log1p(u / scale_a)
        arrivals = count * (np.log(u / scale_a) - log_u)
        terms = np.exp(constant + arrivals - shape * log_u - (s + 1) * np.log1p(u / scale_b) + y)
        total += (weights[column] * terms).sum(axis=0)
    with np.errstate(divide="ignore"):
        left = np.log(total) + np.log(s * length * start / scale_b)
    result: FloatArray = np.logaddexp(stayed, left)
    return result
