"""MBG/CNBD-k: as MBG/NBD, for customers who buy regularly: every k-th event of a Poisson process is a purchase.

Platzer and Reutterer (2016), Ticking Away the Moments: Timing Regularity Helps to Better Predict Customer Activity,
Marketing Science 35(5), 779-799; Reutterer, Platzer and Schröder (2021), Leveraging purchase regularity for predicting
customer behavior the easy way, International Journal of Research in Marketing 38(1), 194-215. Times between purchases
are Erlang(k, lambda) with lambda ~ Gamma(r, alpha); the chance of leaving after a purchase, the first included, is
Beta(a, b). k = 1 is MBG/NBD.

Only (x, t_x, T) is known of a customer, not the times between. Their likelihood is that of the x-th purchase falling on
t_x; divided by what it is worth with k = 1, so that likelihoods of all k, and of the other models, compare.

Given that a customer is alive at T, j of the k events before the next purchase have happened already, with known
probabilities; for each j the rate is Gamma(r + k x + j, alpha + T), independent of the chance of leaving,
Beta(a, b + x + 1). So the number of future purchases has an exact distribution, where the literature approximates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaln, digamma, expit, gammaln

from app.analytics.expansion import chebyshev, evaluate_expansions
from app.analytics.fit import (
    FittedModel,
    FloatArray,
    Maximum,
    NotConverged,
    check_customers,
    check_weights,
    fitted_model,
    maximise,
    maximise_from,
    require_enough,
)
from app.analytics.grouping import Groups, distinct, group_customers
from app.analytics.special import beta_quadrature, log_negative_binomial

NAMES = ("r", "alpha", "a", "b")

LARGEST_K = 4
"""Erlang(4) purchases are already twice as even as Poisson ones; beyond, k is hardly told apart."""

SEARCH_CUSTOMERS = 5_000
SERIES_TERMS = 600
DIFFERENCE = 1e-5

DIED_OUT = 1e-10
"""The last terms of an expansion, beside its values: the quadrature that they come from is exact to about 1e-11, and
to 1e-7 where a is below 0.01."""

MOST_TERMS = 2048


def fit(
    frequency: ArrayLike, recency_days: ArrayLike, T_days: ArrayLike, *, customers: ArrayLike | None = None
) -> FittedModel:
    """Fit r, alpha, a, b by maximum likelihood and k by search over 2 to `LARGEST_K`.

    Parameters
    ----------
    frequency, recency_days, T_days : array-like, shape (n,)
        Repeat purchase days, days from first to last purchase, days from first purchase to now.
    customers : array-like, shape (n,), optional
        How many customers each row stands for, whole numbers >= 1; one each if left out.

    Returns
    -------
    FittedModel
        With `k` among the parameters; `alpha` is of the events, of which k make a purchase.

    Raises
    ------
    ValueError
        For impossible histories or numbers of customers.
    TooLittleData, NotConverged
        When there is nothing to learn from, or no maximum to be found; with code `not_regular` where k = 1 fits best,
        which is MBG/NBD.

    Examples
    --------
    >>> fit(frequency, recency_days, T_days).params  # doctest: +SKIP
    {'r': 1.1, 'alpha': 12.4, 'a': 0.5, 'b': 1.9, 'k': 2.0}
    """
    x, t_x, T = check_customers(frequency, recency_days, T_days)
    weight = check_weights(customers, x.size)
    require_enough(x, t_x, T, weight)
    groups = group_customers(x, t_x, T, weight)
    few, mean_T = groups.sample(SEARCH_CUSTOMERS), groups.mean_T
    best: tuple[float, int, FloatArray] | None = None
    for k in range(1, LARGEST_K + 1):
        starts: list[Sequence[float] | FloatArray] = [(1.0, mean_T / 3 / k, 0.8, 2.5), (0.5, mean_T / 10, 0.5, 5.0)]
        try:
            found = maximise_from(_objective(few, k), starts, NAMES)
        except NotConverged:
            continue
        if best is None or found.value > best[0]:
            best = (found.value, k, found.theta)
    if best is None:
        raise NotConverged("no_progress", "No regularity k from 1 to 4 has a likelihood with a maximum.")
    _, k, start = best
    if k == 1:
        raise NotConverged("not_regular", "Purchases are not more regular than by chance: k = 1 fits best.")
    maximum: Maximum = maximise(_objective(groups, k), start, NAMES)
    return fitted_model("mbg_cnbd_k", NAMES, maximum, groups.customers, k=float(k))


class _objective:  # noqa: N801
    """The mean log-likelihood with its gradient, and the Hessian from differences of the gradient."""

    def __init__(self, groups: Groups, k: int) -> None:
        self.groups, self.k = groups, k
        x, t_x, weight = groups.x, groups.t_x, groups.weight
        self.constant = float(weight @ _regularity_term(x, t_x, k))

    def __call__(self, theta: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        value, gradient = self.slope(theta)
        hessian = np.empty((4, 4))
        for index in range(4):
            step = np.zeros(4)
            step[index] = DIFFERENCE * theta[index]
            hessian[index] = (self.slope(theta + step)[1] - self.slope(theta - step)[1]) / (2 * step[index])
        return value, gradient, (hessian + hessian.T) / 2

    def slope(self, theta: FloatArray) -> tuple[float, FloatArray]:
        r, alpha, a, b = (float(value) for value in theta)
        groups, k, n = self.groups, self.k, self.groups.customers
        x, weight = groups.x, groups.weight
        shape, survived = r + k * groups.x_values, b + groups.x_values + 1
        until, since = alpha + groups.T, alpha + groups.t_x
        wait = (groups.T - groups.t_x) / until
        events = r + k * x
        stages, slopes = _stage_terms(events, wait, k)
        total = stages.sum(axis=0)
        log_alive = np.log(total) - events * np.log(until)
        log_gone = np.log(a / (b + x)) - events * np.log(since)
        gone = expit(log_gone - log_alive)
        stayed, left = weight * (1 - gone), weight * gone
        power = np.arange(k)[:, None]
        by_r = (stages * slopes).sum(axis=0) / total
        by_alpha = -(stages * power).sum(axis=0) / (total * until)

        counts = groups.x_weights
        value = float(counts @ (gammaln(shape) + gammaln(survived) - gammaln(a + survived)))
        value += n * float(r * np.log(alpha) - gammaln(r) + gammaln(a + b) - gammaln(b))
        value += float(weight @ np.logaddexp(log_alive, log_gone)) + self.constant
        leave = counts @ digamma(a + survived)
        gradient = np.array(
            [
                counts @ digamma(shape)
                + n * (np.log(alpha) - digamma(r))
                + stayed @ (by_r - np.log(until))
                - left @ np.log(since),
                n * r / alpha + stayed @ (by_alpha - events / until) - left @ (events / since),
                n * digamma(a + b) - leave + left.sum() / a,
                n * (digamma(a + b) - digamma(b)) + counts @ digamma(survived) - leave - left @ (1 / (b + x)),
            ]
        )
        return value / n, gradient / n


def _regularity_term(x: FloatArray, t_x: FloatArray, k: int) -> FloatArray:
    """Return log of t_x^((k-1) x) Gamma(x) / Gamma(k x): the density of t_x given the rate, over that with k = 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        term = (k - 1) * x * np.log(t_x) + gammaln(np.maximum(x, 1)) - gammaln(np.maximum(k * x, 1))
    return np.where(x > 0, term, 0.0)


def _stage_terms(events: FloatArray, wait: FloatArray, k: int) -> tuple[FloatArray, FloatArray]:
    """Return (events)_j / j! wait^j for j = 0 .. k-1, shape (k, n), and their logarithmic slopes in `events`."""
    terms, slopes = np.ones((k, *events.shape)), np.zeros((k, *events.shape))
    for j in range(1, k):
        terms[j] = terms[j - 1] * (events + j - 1) / j * wait
        slopes[j] = slopes[j - 1] + 1 / (events + j - 1)
    return terms, slopes


def _log_odds_gone(params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray) -> FloatArray:
    r, alpha, a, b = (params[name] for name in NAMES)
    k = int(params["k"])
    stages, _ = _stage_terms(r + k * x, (T - t_x) / (alpha + T), k)
    gap = (r + k * x) * np.log1p((T - t_x) / (alpha + t_x))
    result: FloatArray = gap + np.log(a / (b + x)) - np.log(stages.sum(axis=0))
    return result


def log_likelihood(params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray) -> FloatArray:
    """Return the log-likelihood of each customer, shape (n,), comparable with that of the other models."""
    r, alpha, a, b = (params[name] for name in NAMES)
    k = int(params["k"])
    stages, _ = _stage_terms(r + k * x, (T - t_x) / (alpha + T), k)
    result: FloatArray = (
        gammaln(r + k * x)
        - gammaln(r)
        - r * np.log1p(T / alpha)
        - k * x * np.log(alpha + T)
        + betaln(a, b + x + 1)
        - betaln(a, b)
        + np.log(stages.sum(axis=0))
        + np.logaddexp(0.0, _log_odds_gone(params, x, t_x, T))
        + _regularity_term(x, t_x, k)
    )
    return result


def p_alive(params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray) -> FloatArray:
    """Return P(alive at T), shape (n,), in [0, 1] (Reutterer et al. 2021, eq. 9)."""
    result: FloatArray = expit(-_log_odds_gone(params, x, t_x, T))
    return result


def _stages(params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray) -> FloatArray:
    """Return the probabilities of j events since the last purchase if alive, shape (k, ...)."""
    k = int(params["k"])
    events, wait = np.broadcast_arrays(params["r"] + k * x, (T - t_x) / (params["alpha"] + T))
    terms, _ = _stage_terms(events, wait, k)
    result: FloatArray = terms / terms.sum(axis=0)
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

    Exact: the mean for each number of events since the last purchase, by their probabilities.
    """
    r, alpha, a, b = (params[name] for name in NAMES)
    k = int(params["k"])
    x_values, x_index = distinct(x)
    span = float(np.log1p(horizons[-1] / alpha))
    ones = [
        _expansion(k, j, r + k * count + j, a, b + count + 1, span) for j in range(k) for count in x_values.tolist()
    ]
    # All stages at once, so that what depends on T alone is worked out once; and each length for itself, for a few
    # customers of long ones would make those of all cost as much.
    rows = (np.arange(k)[:, None] * x_values.size + x_index).ravel()
    ages = np.tile(T, k)
    terms = np.array([one.size for one in ones])
    growth = np.empty((rows.size, coefficients.shape[1]))
    for length in np.unique(terms):
        alike = np.flatnonzero(terms == length)
        place = np.zeros(terms.size, dtype=np.int64)
        place[alike] = np.arange(alike.size)
        those = np.flatnonzero(terms[rows] == length)
        expansion = np.stack([ones[row] for row in alike])
        growth[those] = evaluate_expansions(
            expansion, place[rows[those]], ages[those], alpha, span, horizons, coefficients
        )
    chances = _stages(params, x, t_x, T)
    return np.asarray(np.einsum("jn,jnm->nm", chances, growth.reshape(k, x.size, -1)))


@lru_cache(maxsize=4_096)
def _expansion(k: int, j: int, events: float, a: float, b: float, span: float) -> FloatArray:
    """Return Chebyshev coefficients of (expected purchases / w) over log(1 + w) in [0, span], shape (c,).

    Many regular purchases rise in steps, which more terms follow: as many are taken as let them die out. The parts of
    a population ask for the same again and again.
    """
    terms = 32 + 12 * int(np.ceil(span))
    while True:
        nodes, transform = chebyshev(terms)
        w = np.expm1(span / 2 * (1 + nodes))
        values = _growth_from(k, j, events, a, b, w) / w
        expansion: FloatArray = values @ transform
        if np.abs(expansion[-4:]).max() <= DIED_OUT * values.max() or terms >= MOST_TERMS:
            return expansion
        terms = min(2 * terms, MOST_TERMS)


def _growth_from(k: int, j: int, events: float, a: float, b: float, w: FloatArray) -> FloatArray:
    """Return expected purchases by scaled time w of a customer who has had j of k events, w of shape (n,).

    sum_m E[(1 - p)^m] P(events >= k - j + m k): as a series where few terms count, else over the k-th roots of unity,
    which turn the sum into k geometric ones, with a quadrature over p.
    """
    last = float(w.max())
    largest = events * last + 10 * np.sqrt(events * last * (1 + last)) + 40 * (1 + last)
    if largest <= SERIES_TERMS * k:
        m = np.arange(np.ceil(largest / k) + 1)
        moments = np.exp(betaln(a, b + m) - betaln(a, b))
        return np.asarray(betainc(k - j + m * k, events, (w / (1 + w))[:, None]) @ moments)
    p, weight = beta_quadrature(a, np.array([b]), np.array([events * last]))
    # Nodes that round to one carry no weight, but would divide by zero.
    log_theta = np.log1p(-np.minimum(p[0], 1 - 1e-16)) / k
    share = weight[0] / np.exp(log_theta * (k - 1 - j))
    # Most mass may lie where p is tiny, and there logarithms of complex numbers near one have no digits left.
    rate: NDArray[Any] = -np.expm1(log_theta)
    total: FloatArray = (-np.expm1(-events * np.log1p(w[:, None] * rate)) / rate) @ share / k
    for root in range(1, k):
        turn = 2j * np.pi * root / k
        rate = -np.expm1(log_theta + turn)
        lived = -np.expm1(-events * np.log1p(w[:, None] * rate)) / rate
        total += np.real((lived * np.exp(-turn * (k - 1 - j))) @ share) / k
    return total


def chance_if_alive(
    params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float
) -> FloatArray:
    """Return P(at least one purchase in the horizon) if alive at T, shape (n,)."""
    k = int(params["k"])
    share = horizon / (params["alpha"] + T + horizon)
    total = np.zeros_like(x)
    for j, chance in enumerate(_stages(params, x, t_x, T)):
        total += chance * betainc(float(k - j), params["r"] + k * x + j, share)
    return total


def log_pmf_if_alive(
    params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float, count: FloatArray
) -> FloatArray:
    """Return log P(count purchases in the horizon) if alive at T, broadcast over all arrays."""
    a, b = params["a"], params["b"] + x + 1
    k = int(params["k"])
    odds = horizon / (params["alpha"] + T)
    normal = betaln(a, b)
    some = np.maximum(count, 1.0)
    total = np.zeros(np.broadcast_shapes(np.shape(odds), np.shape(x), np.shape(count), np.shape(t_x)))
    for j, chance in enumerate(_stages(params, x, t_x, T)):
        events = params["r"] + k * x + j
        # All `count` purchases survived and the next is not due, ...
        due = np.zeros_like(total)
        for event in range(k):
            reached = count * k - j + event
            mass = np.exp(log_negative_binomial(np.maximum(reached, 0.0), events, odds))
            due = due + np.where(reached >= 0, mass, 0.0)
        total += chance * np.exp(betaln(a, b + count) - normal) * due
        # ... or the last of them ended it, whatever would have followed.
        left = np.exp(betaln(a + 1, b + some - 1) - normal) * betainc(some * k - j, events, odds / (1 + odds))
        total += np.where(count > 0, chance * left, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(total))
