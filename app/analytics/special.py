"""Integrals that the purchase models share, as quadratures with positive terms.

The closed forms of the literature use Gauss' hypergeometric function, which overflows at large counts, loses digits by
cancellation and is singular at a = 1 and s = 1 although the integrals behind it are not. The integrands themselves are
smooth and positive, so a quadrature of them keeps its digits everywhere.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
from scipy.special import betaln, gammaln

from app.analytics.fit import FloatArray, IntArray

Figure: TypeAlias = float | FloatArray
"""The same for all customers, or one of each."""

BETA_STEP = 0.25
BETA_STRETCH = 0.02
TAIL = 40.0
"""Beyond exp(-40) of its peak an integrand adds nothing to 64-bit figures."""


def beta_quadrature(a: float, b: FloatArray, reach: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights for the mean of a smooth function of p over Beta(a, b) densities.

    The trapezoidal rule in the logit of p, where such densities are analytic in a strip, stretched in the tails by a
    hyperbolic sine so that a small `a` or `b` costs few nodes.

    Parameters
    ----------
    a : float
        First shape, > 0.
    b : array, shape (n,)
        Second shapes, > 0.
    reach : array, shape (n,)
        The function changes over p of the order 1 / reach; nodes are kept dense from there up.

    Returns
    -------
    p, weight : arrays, shape (n, k)
        Positive weights that sum to one along the last axis (to about 1e-11).
    """
    b = b[:, None]
    mode = np.log(a) - np.log(b)
    unit = np.minimum(1.0, 1.2 * np.sqrt(1 / a + 1 / b))
    lowest = np.maximum(np.minimum(mode, -np.log1p(reach[:, None])), mode - TAIL / a)
    centre = (mode + lowest) / 2
    stretch = BETA_STRETCH / np.cosh(np.minimum((mode - lowest) / 2 / unit + 2, 600))
    left = (TAIL / a - (mode - centre)) / unit + 8
    right = (TAIL / b + (mode - centre)) / unit + 8
    # Both the linear and the stretched part alone reach the end, so the nearer of the two bounds it.
    start = -np.minimum(left, np.arcsinh(left / stretch))
    stop = np.minimum(right, np.arcsinh(right / stretch))
    count = int(np.ceil((stop - start).max() / BETA_STEP)) + 1
    step = (stop - start) / (count - 1)
    v = start + step * np.arange(count)
    growth = np.exp(v)
    y = centre + unit * (v + stretch * (growth - 1 / growth) / 2)
    log_p = -np.logaddexp(0.0, -y)
    log_weight = a * log_p - b * np.logaddexp(0.0, y)
    weight = np.exp(log_weight - betaln(a, b)) * (step * unit * (1 + stretch * (growth + 1 / growth) / 2))
    # Nodes below 1e-200 stand in the flat part of every function asked for; a zero would only divide by zero.
    return np.maximum(np.exp(log_p), 1e-200), weight


def thinned_growth(c: FloatArray, a: float, b: FloatArray, w: FloatArray) -> FloatArray:
    """Return E[(1 - (1 + p w)^-c) / p] over p ~ Beta(a, b).

    It is the expected number of further purchases of a customer who is alive, whose rate is Gamma(c, 1), who is watched
    for a time w, and who leaves after each purchase with probability p: the factor
    (a+b+x-1)/(a-1) [1 - ((alpha+T)/(alpha+T+t))^(r+x) 2F1(r+x, b+x; a+b+x-1; t/(alpha+T+t))] of Fader, Hardie and Lee
    (2005), eq. 10, without its removable singularity at a = 1.

    Parameters
    ----------
    c : array, shape (n,)
    a : float
    b : array, shape (n,)
    w : array, shape (n, k)
        Non-negative.

    Returns
    -------
    array, shape (n, k)
    """
    p, weight = beta_quadrature(a, b, c * w.max(axis=1, initial=0.0))
    inner = np.log1p(p[:, None, :] * w[:, :, None])
    inner *= -c[:, None, None]
    np.expm1(inner, out=inner)
    result: FloatArray = -np.matmul(inner, (weight / p)[:, :, None])[:, :, 0]
    return result


@lru_cache(maxsize=8)
def gauss_legendre(count: int) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights of the Gauss-Legendre rule on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    nodes, weights = (nodes + 1) / 2, weights / 2
    nodes.setflags(write=False)
    weights.setflags(write=False)
    return nodes, weights


RULES = (4, 8, 12, 16, 24, 32, 80)
RULE_LIMITS = np.array([0.4, 4.9, 14.0, 25.0, 45.0, 140.0])
"""Gauss-Legendre rules for power integrals and the hardness up to which each is exact to 1e-12, found by trial."""


def power_integral_rule(
    alpha: Figure, beta: Figure, c: FloatArray, d: Figure, low: FloatArray, high: FloatArray
) -> tuple[FloatArray, IntArray]:
    """Return the length in logarithmic time that matters for each power integral, and how hard it is.

    See `power_integral_nodes`. The second array is the index into `RULES` of a rule that is exact to about 1e-12.
    """
    scale = np.minimum(alpha, beta) + low
    length = np.log1p((high - low) / scale)
    decay = c * (scale / (alpha + low)) + d * (scale / (beta + low)) - 1
    useful = np.where(decay * length > TAIL, TAIL / np.maximum(decay, 1e-300), length)
    end = scale * np.expm1(useful)
    # What a rule must follow: the fall of the logarithm of the integrand, and singularities at imaginary pi.
    hardness = c * np.log1p(end / (alpha + low)) + d * np.log1p(end / (beta + low)) + 4.0 * useful
    return useful, np.searchsorted(RULE_LIMITS, hardness)


def power_integral_nodes(
    alpha: Figure, beta: Figure, c: FloatArray, d: Figure, low: FloatArray, useful: FloatArray, rule: int
) -> tuple[FloatArray, FloatArray]:
    """Return times and positive terms of int_low^high ((alpha+low)/(alpha+u))^c ((beta+low)/(beta+u))^d du.

    The variable of integration is log(min(alpha, beta) + u), in which the integrand has no singularity nearer than pi
    from the real axis.

    Returns
    -------
    elapsed, term : arrays, shape (rule, n)
        Times u - low, and weights times integrand: the sum over the first axis is the integral.
    """
    nodes, weights = gauss_legendre(rule)
    scale = np.minimum(alpha, beta) + low
    y = useful * nodes[:, None]
    elapsed = np.expm1(y)
    elapsed *= scale
    power = np.log1p(elapsed / (alpha + low))
    power *= -c
    power -= d * np.log1p(elapsed / (beta + low))
    power += y
    np.exp(power, out=power)
    power *= weights[:, None] * (useful * scale)
    return elapsed, power


def power_integral(
    alpha: Figure, beta: Figure, c: FloatArray, d: Figure, low: FloatArray, high: FloatArray
) -> FloatArray:
    """Return int_low^high ((alpha+low)/(alpha+u))^c ((beta+low)/(beta+u))^d du, shape (n,), relative error < 1e-11."""
    useful, rule_index = power_integral_rule(alpha, beta, c, d, low, high)
    present = np.flatnonzero(np.bincount(rule_index))
    if useful.size <= 8192 and len(present) == 1:
        total: FloatArray = power_integral_nodes(alpha, beta, c, d, low, useful, RULES[present[0]])[1].sum(axis=0)
        return total
    result = np.zeros_like(useful)
    for index in present:
        rule = RULES[index]
        rows = np.flatnonzero(rule_index == index)
        for start in range(0, rows.size, 8192):
            part = rows[start : start + 8192]
            alphas, betas, ds = (of[part] if isinstance(of, np.ndarray) else of for of in (alpha, beta, d))
            _, term = power_integral_nodes(alphas, betas, c[part], ds, low[part], useful[part], rule)
            result[part] = term.sum(axis=0)
    return result


def log_negative_binomial(count: FloatArray, shape: FloatArray, odds: FloatArray) -> FloatArray:
    """Return the log probability of `count` events by a time `odds` (in units of the scale) at a Gamma(shape) rate.

    Gamma(shape + count) / (Gamma(shape) count!) (1 + odds)^-shape (odds / (1 + odds))^count.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        arrivals = np.where(count > 0, count * (np.log(odds) - np.log1p(odds)), 0.0)
    result: FloatArray = (
        gammaln(shape + count) - gammaln(shape) - gammaln(count + 1) - shape * np.log1p(odds) + arrivals
    )
    return result
