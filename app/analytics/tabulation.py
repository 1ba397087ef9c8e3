"""Tables of the predictive distribution of purchases and value, given that a customer is alive.

The number of purchases in the horizon depends on (x, T) alone (with regular timing on t_x as well), and their value in
units of the customer's expected purchase value on x alone. So the distribution is tabulated once for each (x, T) that
occurs, a cell, over a logarithmic grid of values, as the mixture over counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import TypeAlias

import numpy as np

from app.analytics import predictive
from app.analytics.fit import FittedModel, FloatArray, IntArray
from app.analytics.gamma_gamma import FittedSpend, spend_distribution
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

BLOCK_CELLS = 8_192
"""Cells tabulated at once, or a few more: about 20 MB of a blend of four models."""

FEW_ROWS = 512
"""Up to so many customers cells of all frequencies are tabulated in one step, though it is padded to the widest."""


@dataclass(frozen=True)
class Block:
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


CellTable = Callable[[float, FloatArray, FloatArray, float], tuple[FloatArray, FloatArray]]
"""(frequency, counts, first counts of their bins, largest count) to a grid and P(value <= grid | counts)."""


def value_table(spend: FittedSpend) -> CellTable:
    def table(x: float, counts: FloatArray, starts: FloatArray, largest: float) -> tuple[FloatArray, FloatArray]:
        # In units of one expected purchase: from a thousandth of one to several times the largest count.
        grid = np.geomspace(1e-3, 8 * largest + 40, VALUES)
        return grid, spend_distribution(spend, np.array(x), counts[:, None], grid)

    return table


def count_table(x: float, counts: FloatArray, starts: FloatArray, largest: float) -> tuple[FloatArray, FloatArray]:
    return np.floor(counts), (starts[:, None] <= starts).astype(np.float64)


def _count_bins(largest: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return centres, first counts and sizes of bins of the counts from one to beyond the largest."""
    edges = [float(count) for count in range(1, EXACT_COUNTS + 2)]
    while edges[-1] <= largest:
        edges.append(np.ceil(edges[-1] * 1.125))
    bounds = np.array(edges)
    return (bounds[:-1] + bounds[1:] - 1) / 2, bounds[:-1], np.diff(bounds)


def blocks(
    fitted: FittedModel, x: FloatArray, t_x: FloatArray, T: FloatArray, horizon: float, make_table: CellTable
) -> Iterator[Block]:
    cells = _distinct_cells(fitted, x, t_x, T)
    cell, bounds = cells.of, _group_bounds(cells.x, cells.T)
    first = 0
    while first < len(bounds) - 1:
        # As many whole groups as fit into a block, at least one.
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + BLOCK_CELLS, side="right")) - 1)
        here = slice(bounds[first], bounds[last])
        inside = (cell >= here.start) & (cell < here.stop)
        rows = np.flatnonzero(inside)
        parts = [
            _tabulate(fitted, cells.x[begin], cells.t_x[begin:end], cells.T[begin:end], horizon, make_table)
            for begin, end in pairwise(bounds[first : last + 1].tolist())
        ]
        width = max(grid.shape[1] for grid, _, _ in parts)
        yield Block(
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


@dataclass(frozen=True)
class _Cells:
    """Distinct cells, arrays (c,), by frequency, age and recency; ``of`` (n,) is that of each customer.

    Where recency does not matter, T stands for it.
    """

    x: FloatArray
    t_x: FloatArray
    T: FloatArray
    of: IntArray


def _distinct_cells(fitted: FittedModel, x: FloatArray, t_x: FloatArray, T: FloatArray) -> _Cells:
    x_values, x_index = distinct(x)
    T_values, T_index = distinct(T)
    keys, cell = distinct((x_index * len(T_values) + T_index).astype(np.float64))
    cell_x = (keys // len(T_values)).astype(np.intp)
    cell_T = T_values[(keys - cell_x * len(T_values)).astype(np.intp)]
    if not _recency_matters(fitted, x):
        return _Cells(x_values[cell_x], cell_T, cell_T, cell)
    t_values, t_index = distinct(t_x)
    wide, cell = distinct(cell.astype(np.float64) * len(t_values) + t_index)
    narrow = (wide // len(t_values)).astype(np.intp)
    cell_t_x = t_values[(wide - narrow * float(len(t_values))).astype(np.intp)]
    return _Cells(x_values[cell_x[narrow]], cell_t_x, cell_T[narrow], cell)


def _recency_matters(fitted: FittedModel, x: FloatArray) -> bool:
    return any(member.model in predictive.RECENCY_MATTERS for member, _ in predictive.members(fitted, x[:1]))


def _group_bounds(x: FloatArray, T: FloatArray) -> IntArray:
    """Return where cells, sorted by frequency and age, begin to share another grid, and their number at the end."""
    if not x.size:
        return np.zeros(1, dtype=np.intp)
    changes = (np.diff(x) != 0) | (np.diff(_age_class(T)) != 0)
    return np.concatenate(([0], np.flatnonzero(changes) + 1, [x.size]))


def kept_block(
    kept: TablesOfFit,
    fitted: FittedModel,
    x: FloatArray,
    t_x: FloatArray,
    T: FloatArray,
    horizon: float,
    make_table: CellTable,
) -> Iterable[Block]:
    """The same as `blocks`, but only cells that are not kept yet are tabulated."""
    place: Collection[_Key]
    if x.size <= FEW_ROWS:
        recency = t_x if _recency_matters(fitted, x) else T
        keys: list[_Key] = list(zip(x.tolist(), recency.tolist(), T.tolist(), strict=True))
        place = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        cell = np.array([place[key] for key in keys])
        tabulate = _tabulate_each
    else:
        distinct_cells = _distinct_cells(fitted, x, t_x, T)
        if distinct_cells.x.size > MOST_CELLS:
            # They would push each other out before they are asked for again.
            return blocks(fitted, x, t_x, T, horizon, make_table)
        columns = (distinct_cells.x, distinct_cells.t_x, distinct_cells.T)
        place = list(zip(*(column.tolist() for column in columns), strict=True))
        cell = distinct_cells.of
        tabulate = _tabulate_groups
    if not place:
        return []
    cells = kept.tables.find(kept.name, place)
    missing = [key for key in place if key not in cells]
    if missing:
        new = dict(zip(missing, tabulate(kept, fitted, missing, horizon, make_table), strict=True))
        kept.tables.keep(kept.name, new)
        cells |= new
    grids, tables_of, nothing_of = zip(*(cells[key] for key in place), strict=True)
    return [
        Block(
            rows=np.arange(x.size),
            cell=cell,
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


def _tabulate_groups(
    kept: TablesOfFit, fitted: FittedModel, keys: Sequence[_Key], horizon: float, make_table: CellTable
) -> list[_Cell]:
    """The same as `_tabulate` for many cells, sorted by frequency and age, group by group."""
    x, t_x, T = (np.ascontiguousarray(column) for column in np.array(keys).T)
    cells: list[_Cell] = []
    for begin, end in pairwise(_group_bounds(x, T).tolist()):
        grids, tables, nothing = _tabulate(fitted, x[begin], t_x[begin:end], T[begin:end], horizon, make_table)
        cells.extend(zip(grids, np.stack(tables, axis=1), np.stack(nothing, axis=1), strict=True))
    return cells


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
    fitted: FittedModel, x: float, t_x: FloatArray, T: FloatArray, horizon: float, make_table: CellTable
) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
    """Return the grid, and of each member P(value <= grid | alive) and P(no purchase | alive) for each cell.

    The cells (c,) are of one frequency and class of age, sorted by T.
    """
    x = float(x)
    largest = _largest(fitted, x, float(_age_class(T[:1])[0]), horizon)
    counts, starts, sizes = _count_bins(largest)
    grid, table = make_table(x, counts, starts, largest)
    first = np.concatenate(([True], T[1:] != T[:-1]))
    ages = T[first]
    tables, nothing = [], []
    for member, _ in predictive.members(fitted, np.array([x])):
        model, params = predictive.MODELS[member.model], member.params
        # Cells that differ in recency alone are one to a model without a memory of timing.
        each = member.model in predictive.RECENCY_MATTERS or len(ages) == len(T)
        at, until = (t_x, T) if each else (ages, ages)
        once = np.full((1, 1), x)
        mass = np.exp(model.log_pmf_if_alive(params, once, at[:, None], until[:, None], horizon, counts))
        mass *= sizes
        # Bins are a quadrature of the distribution; its total is known exactly.
        some = model.chance_if_alive(params, np.full_like(until, x), at, until, horizon)
        mass *= (some / mass.sum(axis=1))[:, None]
        upto, none = mass @ table + (1 - some)[:, None], 1 - some
        if not each:
            place = np.cumsum(first) - 1
            upto, none = upto[place], none[place]
        tables.append(upto)
        nothing.append(none)
    return np.broadcast_to(grid, (len(T), len(grid))), tables, nothing


def _largest(fitted: FittedModel, x: float, youngest: float, horizon: float) -> float:
    return max(_largest_count(member, x, youngest, horizon) for member, _ in predictive.members(fitted, np.array([x])))


def _largest_count(member: FittedModel, x: float, T: float, horizon: float) -> float:
    """A count that a customer who never leaves passes about once in a million times."""
    shape = member.params["r"] + x
    odds = horizon / (member.params["alpha"] + T)
    return float(shape * odds + 6 * np.sqrt(shape * odds * (1 + odds)) + 14 * (1 + odds))
