"""How sure a forecast of purchases or value is: quantiles of the predictive distribution, without simulation.

Given that a customer is alive, the number of purchases in the horizon depends on (x, T) alone (with regular timing on
t_x as well), and their value in units of the customer's expected purchase value on x alone. So the distribution is
tabulated once for each (x, T) that occurs, over a logarithmic grid of values, as the mixture over counts; what is left
for a customer is to add the chance of having left (which depends on t_x), to invert, and to scale. Discounting shrinks
the value by the ratio of discounted to undiscounted expected purchases.

Parameters are uncertain, too. The standard error of the logarithm of the expected value, from the covariance of the
parameters, widens both sides as independent errors do: by the root of the sum of squares.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from threading import Lock
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from app.analytics import predictive
from app.analytics.fit import LARGEST_PARAMETER, SMALLEST_PARAMETER, FittedModel, FloatArray, IntArray, check_customers
from app.analytics.gamma_gamma import FittedSpend, purchase_value, spend_distribution
from app.analytics.grouping import distinct
from app.bounded import forget_oldest

VALUES = 64
"""Points of the grid of values; between them the normal quantile of the distribution is taken as linear."""

EXACT_COUNTS = 16
"""Up to so many purchases every count has its own term, above that bins grow by an eighth."""

MOST_CELLS = 16_384
"""Cells whose tables are kept for later calls: about 25 MB of a blend of three models."""

MOST_SHELVES = 512
"""Frequencies and classes of age whose bins, grids and tables of spend are kept: about 15 MB."""

BLOCK_CELLS = 100_000
BLOCK_ROWS = 32_768


@dataclass(frozen=True)
class Interval:
    """A central prediction interval of each customer; `low` and `high` of shape (n,)."""

    level: float
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class _Block:
    """Customers whose (x, T) were tabulated together.

    `rows` are their indices and `cell` their row in the tables; `tables` holds for each member of the fit
    P(value <= grid | alive), `nothing` P(no purchase | alive); `grid` is the grid of each cell.
    """

    rows: IntArray
    cell: IntArray
    grid: FloatArray
    tables: list[FloatArray]
    nothing: list[FloatArray]


class KeptTables:
    """Tables of cells that later calls may ask for again, of any number of fits; the oldest go first.

    `of` names the fit, spend model and horizon that the tables hold for. May be asked by several threads.
    """

    def __init__(self) -> None:
        self._cells: dict[Hashable, _Cell] = {}
        self._shelves: dict[Hashable, _Shelf] = {}
        self._lock = Lock()

    def of(self, name: Hashable) -> TablesOfFit:
        return TablesOfFit(self, name)

    def find(self, name: Hashable, keys: Iterable[_Key]) -> dict[_Key, _Cell]:
        found = ((key, self._cells.get((name, key))) for key in keys)
        return {key: cell for key, cell in found if cell is not None}

    def keep(self, name: Hashable, cells: Mapping[_Key, _Cell]) -> None:
        with self._lock:
            self._cells.update(((name, key), cell) for key, cell in cells.items())
            forget_oldest(self._cells, MOST_CELLS)

    def shelf(self, name: Hashable, frequency: float, age: float) -> _Shelf | None:
        return self._shelves.get((name, frequency, age))

    def put_on_shelf(self, name: Hashable, frequency: float, age: float, shelf: _Shelf) -> None:
        with self._lock:
            self._shelves[name, frequency, age] = shelf
            forget_oldest(self._shelves, MOST_SHELVES)


@dataclass(frozen=True)
class TablesOfFit:
    """The kept tables of one fit, spend model and horizon."""

    tables: KeptTables
    name: Hashable


_Key: TypeAlias = tuple[float, float, float]
"""Frequency, recency where it matters (T where not), and T of a cell."""

_Cell: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]
"""The grid of a cell (g,), the table of each member over it (m, g), and P(no purchase | alive) of each (m,)."""


_Shelf: TypeAlias = tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]
"""What cells of a frequency and class of age share: bins of counts (centres, first counts, sizes), grid, and table."""


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
    *,
    scores: predictive.PurchaseScores | None = None,
    kept: TablesOfFit | None = None,
) -> Interval:
    """Return the central prediction interval of the discounted value of each customer over the horizon.

    Parameters
    ----------
    fitted, spend : FittedModel, FittedSpend
    frequency, recency_days, T_days, monetary_value : array-like, shape (n,)
    horizon_days, annual_rate : float
    level : float
        In (0, 1).
    scores : PurchaseScores or None
        Of the same customers, horizon and rate, where they are known already.
    kept : TablesOfFit or None
        Tables from earlier calls with the same fit, spend and horizon, for the few customers of a live score.

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
    _check_level(level)
    scores = scores or predictive.score(fitted, x, t_x, T, horizon_days, annual_rate)
    bought = scores.expected_purchases > 0
    discount = np.divide(scores.discounted_purchases, scores.expected_purchases, out=np.ones_like(x), where=bought)
    unit = purchase_value(spend, x, mean) * discount
    low, high = np.empty_like(x), np.empty_like(x)
    tail = (1 - level) / 2
    cut = _blocks if kept is None else partial(_kept_block, kept)
    for block in cut(fitted, x, t_x, T, float(horizon_days), _value_table(spend)):
        for rows, cell, chances in _pieces(block, fitted, x, t_x, T):
            mixed, base, none = _mixture(block, cell, chances)
            low[rows] = _invert(mixed, base, none, block.grid[cell], tail)
            high[rows] = _invert(mixed, base, none, block.grid[cell], 1 - tail)
    error = _standard_error(fitted, spend, x, t_x, T, mean, float(horizon_days)) * float(ndtri(1 - tail))
    return Interval(level, *_widened(low * unit, high * unit, scores.expected_purchases * unit, error))


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
    `EXACT_COUNTS` they are exact to the width of a bin. Parameters are taken as known, as their error is far less than
    one purchase.
    """
    x, t_x, T = check_customers(frequency, recency_days, T_days)
    _check_level(level)
    low, high = np.empty_like(x), np.empty_like(x)
    tail = (1 - level) / 2
    for block in _blocks(fitted, x, t_x, T, float(horizon_days), _count_table):
        for rows, cell, chances in _pieces(block, fitted, x, t_x, T):
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
    for block in _blocks(fitted, x, t_x, T, float(horizon_days), _value_table(spend)):
        for rows, cell, chances in _pieces(block, fitted, x, t_x, T):
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


CellTable = Callable[[float, FloatArray, FloatArray, float], tuple[FloatArray, FloatArray]]
"""(frequency, counts, first counts of their bins, largest count) to a grid and P(value <= grid | counts)."""


def _value_table(spend: FittedSpend) -> CellTable:
    def table(x: float, counts: FloatArray, starts: FloatArray, largest: float) -> tuple[FloatArray, FloatArray]:
        # In units of one expected purchase: from a thousandth of one to several times the largest count.
        grid = np.geomspace(1e-3, 8 * largest + 40, VALUES)
        return grid, spend_distribution(spend, np.array(x), counts[:, None], grid)

    return table


def _count_table(x: float, counts: FloatArray, starts: FloatArray, largest: float) -> tuple[FloatArray, FloatArray]:
    return np.floor(counts), (starts[:, None] <= starts).astype(np.float64)


def _count_bins(largest: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return centres, first counts and sizes of bins of the counts from one to beyond the largest."""
    edges = [float(count) for count in range(1, EXACT_COUNTS + 2)]
    while edges[-1] <= largest:
        edges.append(np.ceil(edges[-1] * 1.125))
    bounds = np.array(edges)
    return (bounds[:-1] + bounds[1:] - 1) / 2, bounds[:-1], np.diff(bounds)


def _blocks(
    fitted: FittedModel, x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float, make_table: CellTable
) -> Iterator[_Block]:
    x_values, x_index = distinct(x)
    T_values, T_index = distinct(T)
    keys, cell = distinct((x_index * len(T_values) + T_index).astype(np.float64))
    cell_x = (keys // len(T_values)).astype(np.intp)
    cell_T = T_values[(keys - cell_x * len(T_values)).astype(np.intp)]
    cell_t_x = cell_T
    if any(member.model in predictive.RECENCY_MATTERS for member, _ in predictive.members(fitted, x[:1])):
        t_values, t_index = distinct(t_x)
        wide, cell = distinct(cell.astype(np.float64) * len(t_values) + t_index)
        narrow = (wide // len(t_values)).astype(np.intp)
        cell_x, cell_T = cell_x[narrow], cell_T[narrow]
        cell_t_x = t_values[(wide - narrow * float(len(t_values))).astype(np.intp)]
    # Cells come by frequency and age, so those that share a grid stand together.
    age = _age_class(cell_T)
    starts = np.flatnonzero(np.r_[True, (np.diff(cell_x) != 0) | (np.diff(age) != 0)]) if len(cell_x) else keys[:0]
    bounds = np.append(starts, len(cell_x)).astype(np.intp)
    first = 0
    while first < len(starts):
        # As many whole groups as fit into a block, at least one.
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + BLOCK_CELLS, side="right")) - 1)
        here = slice(bounds[first], bounds[last])
        inside = (cell >= here.start) & (cell < here.stop)
        rows = np.flatnonzero(inside)
        parts = [
            _tabulate(
                fitted,
                float(x_values[cell_x[begin]]),
                cell_t_x[begin:end],
                cell_T[begin:end],
                float(age[begin]),
                horizon,
                make_table,
            )
            for begin, end in pairwise(bounds[first : last + 1].tolist())
        ]
        width = max(grid.shape[1] for grid, _, _ in parts)
        yield _Block(
            rows=rows,
            cell=cell[rows] - here.start,
            grid=np.concatenate([_padded(grid, width, np.inf) for grid, _, _ in parts]),
            tables=[
                np.concatenate([_padded(tables[member], width, 1.0) for _, tables, _ in parts])
                for member in range(len(parts[0][1]))
            ],
            nothing=[np.concatenate([none[member] for _, _, none in parts]) for member in range(len(parts[0][2]))],
        )
        first = last


def _kept_block(
    kept: TablesOfFit,
    fitted: FittedModel,
    x: FloatArray,
    t_x: FloatArray,
    T: FloatArray,
    horizon: float,
    make_table: CellTable,
) -> list[_Block]:
    """The same as `_blocks` for few customers: only cells that are not kept yet are tabulated."""
    matters = any(member.model in predictive.RECENCY_MATTERS for member, _ in predictive.members(fitted, x[:1]))
    keys: list[_Key] = list(zip(x.tolist(), (t_x if matters else T).tolist(), T.tolist(), strict=True))
    place = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    if not place:
        return []
    cells = kept.tables.find(kept.name, place)
    missing = [key for key in place if key not in cells]
    if missing:
        new = dict(zip(missing, _tabulate_each(kept, fitted, missing, horizon, make_table), strict=True))
        kept.tables.keep(kept.name, new)
        cells |= new
    grids, tables_of, nothing_of = zip(*(cells[key] for key in place), strict=True)
    return [
        _Block(
            rows=np.arange(x.size),
            cell=np.array([place[key] for key in keys]),
            grid=np.stack(grids),
            tables=list(np.stack(tables_of, axis=1)),
            nothing=list(np.stack(nothing_of, axis=1)),
        )
    ]


def _tabulate_each(
    kept: TablesOfFit, fitted: FittedModel, keys: Sequence[_Key], horizon: float, make_table: CellTable
) -> list[_Cell]:
    """The same as `_tabulate` for a few cells of any frequency and age, all at once."""
    columns = np.array(keys)
    shelves = []
    for frequency, age in zip(columns[:, 0].tolist(), _age_class(columns[:, 2]).tolist(), strict=True):
        shelf = kept.tables.shelf(kept.name, frequency, age)
        if shelf is None:
            largest = _largest(fitted, frequency, age, horizon)
            bins = _count_bins(largest)
            shelf = (*bins, *make_table(frequency, bins[0], bins[1], largest))
            kept.tables.put_on_shelf(kept.name, frequency, age, shelf)
        shelves.append(shelf)
    # Bins that a cell has not are empty.
    width = max(len(counts) for counts, *_ in shelves)
    counts, sizes = np.ones((len(keys), width)), np.zeros((len(keys), width))
    table = np.zeros((len(keys), width, len(shelves[0][3])))
    for row, (own, _, size, _, chances) in enumerate(shelves):
        counts[row, : len(own)], sizes[row, : len(own)], table[row, : len(own)] = own, size, chances
    x, t_x, T = (np.ascontiguousarray(column) for column in columns.T)
    tables, nothing = [], []
    for member, _ in predictive.members(fitted, x):
        model, params = predictive.MODELS[member.model], member.params
        mass = np.exp(model.log_pmf_if_alive(params, x[:, None], t_x[:, None], T[:, None], horizon, counts)) * sizes
        some = model.chance_if_alive(params, x, t_x, T, horizon)
        mass *= (some / mass.sum(axis=1))[:, None]
        tables.append(np.matmul(mass[:, None, :], table)[:, 0, :] + (1 - some)[:, None])
        nothing.append(1 - some)
    grids = (grid for *_, grid, _ in shelves)
    return list(zip(grids, np.stack(tables, axis=1), np.stack(nothing, axis=1), strict=True))


def _age_class(T: FloatArray) -> FloatArray:
    """The least age of the class of each: 0, 3, 15, 63, 255, ... days.

    The grid of a customer depends on it, never on who else is asked about: a batch of one answers what a million do.
    """
    classes: FloatArray = 4.0 ** np.floor(np.log2(T + 1) / 2) - 1
    return classes


def _padded(table: FloatArray, width: int, value: float) -> FloatArray:
    """Frequencies differ in how many counts they need; what lies beyond has been reached."""
    if table.shape[1] == width:
        return table
    return np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=value)


def _tabulate(
    fitted: FittedModel,
    x: float,
    t_x: FloatArray,
    T: FloatArray,
    youngest: float,
    horizon: float,
    make_table: CellTable,
) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
    """Return the grid, and of each member P(value <= grid | alive) and P(no purchase | alive) for each cell."""
    frequency = np.full_like(T, x)
    parts = predictive.members(fitted, frequency)
    largest = _largest(fitted, x, youngest, horizon)
    counts, starts, sizes = _count_bins(largest)
    grid, table = make_table(x, counts, starts, largest)
    tables, nothing = [], []
    for member, _ in parts:
        model, params = predictive.MODELS[member.model], member.params
        once = np.full((1, 1), x)
        mass = np.exp(model.log_pmf_if_alive(params, once, t_x[:, None], T[:, None], horizon, counts))
        mass *= sizes
        # Bins are a quadrature of the distribution; its total is known exactly.
        some = model.chance_if_alive(params, frequency, t_x, T, horizon)
        mass *= (some / mass.sum(axis=1))[:, None]
        tables.append(mass @ table + (1 - some)[:, None])
        nothing.append(1 - some)
    return np.broadcast_to(grid, (len(T), len(grid))), tables, nothing


def _largest(fitted: FittedModel, x: float, youngest: float, horizon: float) -> float:
    return max(_largest_count(member, x, youngest, horizon) for member, _ in predictive.members(fitted, np.array([x])))


def _largest_count(member: FittedModel, x: float, T: float, horizon: float) -> float:
    """A count that a customer who never leaves passes about once in a million times."""
    shape = member.params["r"] + x
    odds = horizon / (member.params["alpha"] + T)
    return float(shape * odds + 6 * np.sqrt(shape * odds * (1 + odds)) + 14 * (1 + odds))


def _pieces(
    block: _Block, fitted: FittedModel, x: FloatArray, t_x: FloatArray, T: FloatArray
) -> Iterator[tuple[IntArray, IntArray, list[FloatArray]]]:
    """Yield rows of a block with their cells and, of each member, its weight times P(alive)."""
    for start in range(0, len(block.rows), BLOCK_ROWS):
        rows = block.rows[start : start + BLOCK_ROWS]
        history = x[rows], t_x[rows], T[rows]
        chances = [
            weight * predictive.MODELS[member.model].p_alive(member.params, *history)
            for member, weight in predictive.members(fitted, history[0])
        ]
        yield rows, block.cell[start : start + BLOCK_ROWS], chances


def _mixture(block: _Block, cell: IntArray, chances: list[FloatArray]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return P(value <= grid and alive), P(has left), and P(no purchase and alive) of each row."""
    mixed = np.zeros((len(cell), block.grid.shape[1]))
    none = np.zeros(len(cell))
    for chance, table, nothing in zip(chances, block.tables, block.nothing, strict=True):
        mixed += chance[:, None] * table[cell]
        none += chance * nothing[cell]
    return mixed, 1 - np.sum(chances, axis=0), none


def _invert(mixed: FloatArray, base: FloatArray, none: FloatArray, grid: FloatArray, chance: float) -> FloatArray:
    """Return the value at which the distribution of each row reaches a probability; 0 where zero has reached it."""
    target = chance - base
    position = np.clip((mixed < target[:, None]).sum(axis=1), 1, mixed.shape[1] - 1)
    row = np.arange(len(target))
    # The least and the last step keep the normal quantiles of 0 and 1 finite.
    scale = np.maximum(1 - base, 1e-300)
    left, right, wanted = (
        ndtri(np.clip(figure / scale, 1e-12, 1 - 1e-12))
        for figure in (mixed[row, position - 1], mixed[row, position], target)
    )
    part = np.clip(np.divide(wanted - left, right - left, out=np.zeros_like(left), where=right > left), 0.0, 1.0)
    ends = grid[row, position - 1], grid[row, position]
    return np.where(target <= none, 0.0, ends[0] * (ends[1] / ends[0]) ** part)


def _standard_error(
    fitted: FittedModel,
    spend: FittedSpend,
    x: FloatArray,
    t_x: FloatArray,
    T: FloatArray,
    mean: FloatArray,
    horizon: float,
) -> FloatArray:
    """Return the standard error of the logarithm of each expected value that the parameters leave, shape (n,)."""
    total, error = np.zeros_like(x), np.zeros_like(x)
    for member, weight in predictive.members(fitted, x):
        model = predictive.MODELS[member.model]

        def expected(params: dict[str, float], model: predictive.PurchaseModel = model) -> FloatArray:
            growth = model.growth_if_alive(params, x, t_x, T, np.array([horizon]), np.ones((1, 1)))
            return model.p_alive(params, x, t_x, T) * growth[:, 0]

        centre = expected(member.params)
        total += weight * centre
        # Members were fitted on the same customers, so their errors go together.
        error += weight * centre * np.sqrt(_log_variance(member, expected, centre))
    variance = np.square(np.divide(error, total, out=np.zeros_like(x), where=total > 0))
    if spend.gamma_gamma is not None:

        def worth(params: dict[str, float]) -> FloatArray:
            p, q, v = params["p"], params["q"], params["v"]
            # A draw with q below 1 has no mean for newcomers; the least q that has a sensible one stands for it.
            return p * (v + x * mean) / (p * x + max(q, 1.05) - 1)

        variance += _log_variance(spend.gamma_gamma, worth, worth(spend.gamma_gamma.params))
    return np.sqrt(variance)


def _log_variance(
    fitted: FittedModel, figure: Callable[[dict[str, float]], FloatArray], centre: FloatArray
) -> FloatArray | float:
    """Return the variance of the logarithm of a figure over the normal law of the log parameters.

    The squared changes over one standard deviation along each axis of the covariance add up to it, exactly where the
    logarithm is linear.
    """
    if not fitted.covariance:
        return 0.0
    names = list(fitted.standard_errors)
    theta = np.array([fitted.params[name] for name in names])
    axes = np.linalg.cholesky(np.array(fitted.covariance) / np.outer(theta, theta))
    variance = np.zeros_like(centre)
    for axis in axes.T:
        point = np.clip(theta * np.exp(axis), SMALLEST_PARAMETER, max(LARGEST_PARAMETER, float(theta.max())))
        params = fitted.params | dict(zip(names, point.tolist(), strict=True))
        ratio = np.divide(figure(params), centre, out=np.ones_like(centre), where=centre > 1e-280)
        variance += np.log(np.maximum(ratio, 1e-300)) ** 2
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
    mean = np.atleast_1d(np.asarray(monetary_value, dtype=np.float64))
    if mean.shape != x.shape or not ((mean >= 0).all() and (mean < np.inf).all()):
        raise ValueError("monetary_value must have one finite value, not negative, for each customer")
    return x, t_x, T, np.where(x > 0, mean, 0.0)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError("level must lie between 0 and 1")
