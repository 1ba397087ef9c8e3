"""BG/NBD: the beta-geometric model of buying till leaving.

Fader, Hardie and Lee (2005), "Counting Your Customers" the Easy Way: An Alternative to the Pareto/NBD Model, Marketing
Science 24(2), 275-284. A customer leaves only right after a repeat purchase, so a one-time buyer counts as alive for
ever: use the chance of another purchase, not `p_alive`, to tell who is lost. Times are in days.
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
    """Fit r, alpha, a, b by maximum likelihood (eq. 6).

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
    {'r': 0.243, 'alpha': 30.9, 'a': 0.793, 'b': 2.426}
    """
    return betageometric.fit("bg_nbd", frequency, recency_days, T_days, customers=customers, first_may_leave=False)


def log_likelihood(params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray) -> FloatArray:
    """Return the log-likelihood of each customer, shape (n,), eq. 6."""
    return betageometric.log_likelihood(params, x, t_x, T, first_may_leave=False)


def p_alive(params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray) -> FloatArray:
    """Return P(alive at T), shape (n,), in [0, 1]; one for every customer without a repeat purchase.

    Fader, Hardie and Lee (2008), Computing P(alive) Using the BG/NBD Model.
    """
    return betageometric.p_alive(params, x, t_x, T, first_may_leave=False)


def growth_if_alive(
    params: Mapping[str, float],
    x: FloatArray,
    t_x: FloatArray,
    T: FloatArray,
    horizons: FloatArray,
    coefficients: FloatArray,
) -> FloatArray:
    """Return coefficient-weighted sums over horizons of expected purchases if alive at T (eq. 10), shape (n, m)."""
    return betageometric.growth_if_alive(params, x, T, horizons, coefficients, first_may_leave=False)


def expected_at(
    points: Sequence[Mapping[str, float]], x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float
) -> FloatArray | None:
    """Return the expected purchases of a few customers by each of several parameters, shape (p, n)."""
    return betageometric.expected_at(points, x, t_x, T, horizon, first_may_leave=False)


def chance_if_alive(
    params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float
) -> FloatArray:
    """Return P(at least one purchase in the horizon) if alive at T, shape (n,)."""
    return betageometric.chance_if_alive(params, x, T, horizon)


def log_pmf_if_alive(
    params: Mapping[str, float], x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float, count: FloatArray
) -> FloatArray:
    """Return log P(count purchases in the horizon) if alive at T, broadcast over all arrays (eq. 8, updated)."""
    return betageometric.log_pmf_if_alive(params, x, T, horizon, count, first_may_leave=False)
