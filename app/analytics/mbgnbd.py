"""MBG/NBD: as BG/NBD, but the first purchase can be the last as well.

Batislam, Denizel and Filiztekin (2007), Empirical validation and comparison of models for customer base analysis,
International Journal of Research in Marketing 24(3), 201-209; Hoppe and Wagner (2007), Customer Base Analysis: The
Case for a Central Variant of the Betageometric/NBD Model, Marketing ZFP 3, 75-90.
A one-time buyer may have left, so `p_alive` is meaningful for everybody. Times are in days.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from numpy.typing import ArrayLike

from app.analytics import betageometric
from app.analytics.fit import FittedModel, FloatArray

NAMES = betageometric.NAMES


def fit(
    frequency: ArrayLike, recency_days: ArrayLike, T_days: ArrayLike, *, customers: ArrayLike | None = None
) -> FittedModel:
    """Fit r, alpha, a, b by maximum likelihood.

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
    {'r': 0.525, 'alpha': 43.3, 'a': 0.891, 'b': 1.614}
    """
    return betageometric.fit("mbg_nbd", frequency, recency_days, T_days, customers=customers, first_may_leave=True)


def log_likelihood(params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray) -> FloatArray:
    """Return the log-likelihood of each customer, shape (n,)."""
    return betageometric.log_likelihood(params, x, t_x, T, first_may_leave=True)


def p_alive(params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray) -> FloatArray:
    """Return P(alive at T), shape (n,), in [0, 1]."""
    return betageometric.p_alive(params, x, t_x, T, first_may_leave=True)


def growth_if_alive(
    params: Mapping[str, float],
    x: FloatArray,
    t_x: FloatArray,
    T: FloatArray,
    horizons: FloatArray,
    coefficients: FloatArray,
) -> FloatArray:
    """Return coefficient-weighted sums over horizons of expected purchases if alive at T, shape (n, m)."""
    return betageometric.growth_if_alive(params, x, T, horizons, coefficients, first_may_leave=True)


def expected_at(
    points: Sequence[Mapping[str, float]], x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float
) -> FloatArray | None:
    """Return the expected purchases of a few customers by each of several parameters, shape (p, n)."""
    return betageometric.expected_at(points, x, t_x, T, horizon, first_may_leave=True)


def chance_if_alive(
    params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float
) -> FloatArray:
    """Return P(at least one purchase in the horizon) if alive at T, shape (n,)."""
    return betageometric.chance_if_alive(params, x, T, horizon)


def log_pmf_if_alive(
    params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float, count: FloatArray
) -> FloatArray:
    """Return log P(count purchases in the horizon) if alive at T, broadcast over all arrays."""
    return betageometric.log_pmf_if_alive(params, x, T, horizon, count, first_may_leave=True)
