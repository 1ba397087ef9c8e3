"""How sure a forecast of purchases or value is: quantiles of the predictive distribution, without simulation.

Given that a customer is alive, the distribution comes from tables (``app.analytics.tabulation``). What is left for a
customer is to add the chance of having left (which depends on t_x), to invert, and to scale. Discounting shrinks the
value by the ratio of discounted to undiscounted expected purchases.

Parameters are uncertain, too. The standard error of the logarithm of the expected value, from the covariance of the
parameters, widens both sides as independent errors do: by the root of the sum of squares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from app.analytics import predictive
from app.analytics.fit import FittedModel, FloatArray, IntArray, check_customers
from app.analytics.gamma_gamma import FittedSpend, purchase_value
from app.analytics.tabulation import Block, TablesOfFit, blocks, count_table, kept_block, value_table

BLOCK_ROWS = 2_048
"""Rows whose mixed tables are held at once: a megabyte, which stays in the cache."""


@dataclass(frozen=True)
class Interval:
    """A central prediction interval of each customer; `low` and `high` of shape (n,)."""

    level: float
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class HistoryInterval:
    """What of the interval of value depends on a customer's history alone, not on their money; arrays (n,).

    Attributes
    ----------
    level : float
    frequency : repeat purchase days
    expected_purchases, discounted_purchases : in the horizon
    low, high : quantiles of the undiscounted value, parameters taken as known, in units of the expected value of one
        purchase; >= 0
    log_variance : of the logarithm of the expected purchases, by the error of the parameters
    """

    level: float
    frequency: FloatArray
    expected_purchases: FloatArray
    discounted_purchases: FloatArray
    low: FloatArray
    high: FloatArray
    log_variance: FloatArray


def interval(
    fitted: FittedModel,
    spend: FittedSpend,
    frequency: ArrayLike,
    recency_days: ArrayLike,
    T_days: ArrayLike,
    monetary_value: ArrayLike,
    horizon_days: float,
    annual_rate: float = 0.10,
    level: float = 0.90,
) -> Interval:
    """Return the central prediction interval of the discounted value of each customer over the horizon.

    Parameters
    ----------
    fitted, spend : FittedModel, FittedSpend
    frequency, recency_days, T_days, monetary_value : array-like, shape (n,)
    horizon_days, annual_rate : float
    level : float
        In (0, 1).

    Returns
    -------
    Interval
        In the unit of the monetary value. `low` is 0 where buying nothing is likelier than (1 - level) / 2.

    Examples
    --------
    >>> interval(fitted, spend, [2], [213], [272], [22.35], 365).high  # doctest: +SKIP
    array([121.6])
    """
    x, t_x, T, mean = _customers(frequency, recency_days, T_days, monetary_value)
    scores = predictive.score(fitted, x, t_x, T, horizon_days, annual_rate)
    return money_interval(spend, history_interval(scores, spend, level), mean)


def history_interval(
    scores: predictive.PurchaseScores, spend: FittedSpend, level: float, kept: TablesOfFit | None = None
) -> HistoryInterval:
    """Return what `interval` takes from each history; customers who share one need it once.

    Parameters
    ----------
    scores : PurchaseScores
    spend : FittedSpend
    level : float
        In (0, 1).
    kept : TablesOfFit or None
        Tables from earlier calls with the same fit, spend and horizon: of live scores, or of parts of a population.
    """
    _check_level(level)
    x, t_x, T = scores.frequency, scores.recency_days, scores.T_days
    bounds = np.empty((2, x.size))
    chances = np.array([(1 - level) / 2, (1 + level) / 2])
    cut = blocks if kept is None else partial(kept_block, kept)
    alive = [member.weight * member.p_alive for member in scores.members]
    for block in cut(scores.fitted, x, t_x, T, scores.horizon_days, value_table(spend)):
        for rows, cell, share in _pieces(block, alive):
            bounds[:, rows] = _invert(*_mixture(block, cell, share), block.grid[cell], chances)
    return HistoryInterval(
        level=level,
        frequency=x,
        expected_purchases=scores.expected_purchases,
        discounted_purchases=scores.discounted_purchases,
        low=bounds[0],
        high=bounds[1],
        log_variance=_purchases_log_variance(scores),
    )


def money_interval(spend: FittedSpend, history: HistoryInterval, monetary_value: ArrayLike) -> Interval:
    """Return the interval of `interval` for customers of these histories and means of money, shape (n,)."""
    x, expected = history.frequency, history.expected_purchases
    mean = _check_mean(x, monetary_value)
    discount = np.divide(history.discounted_purchases, expected, out=np.ones_like(x), where=expected > 0)
    unit = purchase_value(spend, x, mean) * discount
    error = np.sqrt(history.log_variance + _spend_log_variance(spend, x, mean)) * float(ndtri((1 + history.level) / 2))
    centre = expected * unit
    return Interval(history.level, *_widened(history.low * unit, history.high * unit, centre, error))


def purchase_interval(
    fitted: FittedModel,
    frequency: ArrayLike,
    recency_days: ArrayLike,
    T_days: ArrayLike,
    horizon_days: float,
    level: float = 0.90,
) -> Interval:
    """Return the central prediction interval of the number of purchase days of each customer over the horizon.

    Whole numbers: the smallest counts whose distribution reaches (1 - level) / 2 and (1 + level) / 2. Above
    `app.analytics.tabulation.EXACT_COUNTS` they are exact to the width of a bin. Parameters are taken as known, as
    their error is far less than one purchase.
    """
    x, t_x, T = check_customers(frequency, recency_days, T_days)
    _check_level(level)
    low, high = np.empty_like(x), np.empty_like(x)
    tail = (1 - level) / 2
    alive = [share for _, share in predictive.alive_by_member(fitted, x, t_x, T)]
    for block in blocks(fitted, x, t_x, T, float(horizon_days), count_table):
        for rows, cell, chances in _pieces(block, alive):
            mixed, base, none = _mixture(block, cell, chances)
            for bound, chance in ((low, tail), (high, 1 - tail)):
                target = chance - base
                position = np.minimum((mixed < target[:, None]).sum(axis=1), mixed.shape[1] - 1)
                bound[rows] = np.where(target <= none, 0.0, block.grid[cell, position])
    return Interval(level, low, high)


def value_probability(
    fitted: FittedModel,
    spend: FittedSpend,
    frequency: ArrayLike,
    recency_days: ArrayLike,
    T_days: ArrayLike,
    monetary_value: ArrayLike,
    horizon_days: float,
    value: ArrayLike,
) -> tuple[FloatArray, FloatArray]:
    """Return P(V < value) and P(V <= value) of the undiscounted value V over the horizon, each of shape (n,).

    They differ only at zero. A uniform draw between them is uniform for a calibrated forecast, which is how intervals
    are checked (Czado, Gneiting and Held 2009, Biometrics 65). Parameters are taken as known.
    """
    x, t_x, T, mean = _customers(frequency, recency_days, T_days, monetary_value)
    observed = np.asarray(value, dtype=np.float64)
    unit = purchase_value(spend, x, mean)
    share = np.divide(observed, unit, out=np.zeros_like(x), where=unit > 0)
    upto = np.empty_like(x)
    alive = [share for _, share in predictive.alive_by_member(fitted, x, t_x, T)]
    for block in blocks(fitted, x, t_x, T, float(horizon_days), value_table(spend)):
        for rows, cell, chances in _pieces(block, alive):
            mixed, base, none = _mixture(block, cell, chances)
            grid = block.grid[cell]
            log_step = np.log(grid[:, 1] / grid[:, 0])
            with np.errstate(divide="ignore"):
                place = np.log(share[rows] / grid[:, 0]) / log_step
            left = np.clip(np.floor(place), 0, grid.shape[1] - 2).astype(np.intp)
            part = np.clip(place - left, 0.0, 1.0)
            index = np.arange(len(cell))
            between = mixed[index, left] * (1 - part) + mixed[index, left + 1] * part
            upto[rows] = base + np.where(share[rows] > 0, between, none)
    return np.where(share > 0, upto, 0.0), upto


def _pieces(block: Block, alive: Sequence[FloatArray]) -> Iterator[tuple[IntArray, IntArray, list[FloatArray]]]:
    """Yield rows of a block with their cells and, of each member, its weight times P(alive)."""
    for start in range(0, len(block.rows), BLOCK_ROWS):
        rows = block.rows[start : start + BLOCK_ROWS]
        yield rows, block.cell[start : start + BLOCK_ROWS], [chance[rows] for chance in alive]


def _mixture(block: Block, cell: IntArray, chances: list[FloatArray]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return P(value <= grid and alive), P(has left), and P(no purchase and alive) of each row."""
    mixed = np.zeros((len(cell), block.grid.shape[1]))
    none = np.zeros(len(cell))
    for chance, table, nothing in zip(chances, block.tables, block.nothing, strict=True):
        mixed += chance[:, None] * table[cell]
        none += chance * nothing[cell]
    return mixed, 1 - np.sum(chances, axis=0), none


def _invert(mixed: FloatArray, base: FloatArray, none: FloatArray, grid: FloatArray, chances: FloatArray) -> FloatArray:
    """Return the value at which the distribution of each row (n,) reaches each probability (m,), shape (m, n); 0 where
    zero has reached it."""
    target = chances[:, None] - base
    position = np.clip((mixed < target[:, :, None]).sum(axis=2), 1, mixed.shape[1] - 1)
    row = np.arange(len(base))
    # The least and the last step keep the normal quantiles of 0 and 1 finite.
    scale = np.maximum(1 - base, 1e-300)
    figures = np.stack((mixed[row, position - 1], mixed[row, position], target)) / scale
    left, right, wanted = ndtri(np.clip(figures, 1e-12, 1 - 1e-12))
    part = np.clip(np.divide(wanted - left, right - left, out=np.zeros_like(left), where=right > left), 0.0, 1.0)
    first, second = grid[row, position - 1], grid[row, position]
    return np.where(target <= none, 0.0, first * (second / first) ** part)


def _purchases_log_variance(scores: predictive.PurchaseScores) -> FloatArray:
    """Return the variance of the logarithm of each expected number of purchases that the parameters leave, (n,)."""
    x, t_x, T, expected = scores.frequency, scores.recency_days, scores.T_days, scores.expected_purchases
    error = np.zeros_like(x)
    for member in scores.members:
        centre = member.expected_purchases
        model = predictive.MODELS[member.fitted.model]
        moved = predictive.expected_by_each(model, member.fitted.moved_params, x, t_x, T, scores.horizon_days)
        # Members were fitted on the same customers, so their errors go together.
        error += member.weight * centre * np.sqrt(_log_variance(moved, centre))
    return np.square(np.divide(error, expected, out=np.zeros_like(x), where=expected > 0))


def _spend_log_variance(spend: FittedSpend, x: FloatArray, mean: FloatArray) -> FloatArray:
    """Return the same of the expected value of a purchase, (n,); the credible mean tells none."""
    if spend.gamma_gamma is None:
        return np.zeros_like(x)

    def worth(params: Mapping[str, float]) -> FloatArray:
        p, q, v = params["p"], params["q"], params["v"]
        # A draw with q below 1 has no mean for newcomers; the least q that has a sensible one stands for it.
        return p * (v + x * mean) / (p * x + max(q, 1.05) - 1)

    moved = np.array([worth(point) for point in spend.gamma_gamma.moved_params])
    return _log_variance(moved, worth(spend.gamma_gamma.params))


def _log_variance(moved: FloatArray, centre: FloatArray) -> FloatArray:
    """Return the variance of the logarithm of a figure that is ``centre``, shape (n,), and by each of
    `FittedModel.moved_params` ``moved``, shape (p, n)."""
    if not len(moved):
        return np.zeros_like(centre)
    ratio = np.divide(moved, centre, out=np.ones_like(moved), where=centre > 1e-280)
    variance: FloatArray = np.square(np.log(np.maximum(ratio, 1e-300))).sum(axis=0)
    return variance


def _widened(low: FloatArray, high: FloatArray, centre: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the bounds further from the centre by an independent error of its logarithm."""
    moved = []
    for bound, sign in ((low, -1.0), (high, 1.0)):
        usable = (bound > 0) & (centre > 0)
        distance = np.abs(np.log(np.where(usable, bound, 1.0) / np.where(usable, centre, 1.0)))
        moved.append(bound * np.exp(sign * (np.hypot(distance, error) - distance)))
    return moved[0], moved[1]


def _customers(
    frequency: ArrayLike, recency_days: ArrayLike, T_days: ArrayLike, monetary_value: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    x, t_x, T = check_customers(frequency, recency_days, T_days)
    return x, t_x, T, _check_mean(x, monetary_value)


def _check_mean(x: FloatArray, monetary_value: ArrayLike) -> FloatArray:
    """Return the mean value of a repeat purchase of each, 0 where there is none, or say what is wrong with it."""
    mean = np.atleast_1d(np.asarray(monetary_value, dtype=np.float64))
    if mean.shape != x.shape or not ((mean >= 0).all() and (mean < np.inf).all()):
        raise ValueError("monetary_value must have one finite value, not negative, for each customer")
    return np.where(x > 0, mean, 0.0)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError("level must lie between 0 and 1")
