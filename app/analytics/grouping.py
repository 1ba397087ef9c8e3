"""Collapse customers with equal (frequency, recency, T) into weighted rows, and into (frequency, T) cells.

Days are whole numbers, so a million customers share far fewer distinct histories. Packing a history into one integer
makes finding them a single sort of machine words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from app.analytics.fit import FloatArray, IntArray

COUNTED_KEYS = 2_000_000
DENSE_CELLS = 8_000_000
"""Largest table that is cheaper to fill than to sort for."""

FEW = 32
"""Up to so many values are told apart faster without arrays."""


@dataclass(frozen=True)
class Groups:
    """Distinct histories, sorted by frequency, with how many customers share each.

    `repeat_start` is the first row with a repeat purchase. `x_values` and `x_weights` are the distribution of the
    frequencies alone.
    """

    x: FloatArray
    t_x: FloatArray
    T: FloatArray
    weight: FloatArray
    customers: int
    repeat_start: int
    x_values: FloatArray
    x_weights: FloatArray

    @property
    def mean_T(self) -> float:
        """Mean over customers of the days from first purchase to now."""
        return float(self.weight @ self.T) / self.customers

    def sample(self, size: int) -> Groups:
        """Return every n-th customer in the order of the histories: `size` or more of them, fewer than twice as many.

        So few take their shares of all frequencies, and are the same ones in whatever order the customers came. Where
        every customer would be taken, these groups themselves are the sample.

        Parameters
        ----------
        size : int
            Number of customers, >= 1.
        """
        every = self.customers // size
        if every <= 1:
            return self
        weight = np.diff(np.floor(np.cumsum(self.weight) / every), prepend=0.0)
        taken = weight > 0
        return _groups(self.x[taken], self.t_x[taken], self.T[taken], weight[taken])


def group_customers(x: FloatArray, t_x: FloatArray, T: FloatArray, customers: FloatArray | None = None) -> Groups:
    """Return the distinct rows of (x, t_x, T) and how many customers share each.

    Parameters
    ----------
    x, t_x, T : arrays, shape (n,)
        Repeat purchase days, days from first to last purchase, days from first purchase to now; in any order.
    customers : array, shape (n,), optional
        How many customers each row stands for, whole numbers >= 1; those of equal rows are added up. One each if left
        out.
    """
    x_code, x_values = _codes(x)
    T_code, T_values = _codes(T)
    t_code, t_values = _codes(t_x)
    cells = len(x_values) * len(T_values) * len(t_values)
    if cells < 2**62:
        # 32-bit words halve the memory that counting has to move.
        kind: type[np.signedinteger[Any]] = np.int32 if cells < 2**31 else np.int64
        key: IntArray = x_code.astype(kind)
        key *= len(T_values)
        key += T_code.astype(kind, copy=False)
        key *= len(t_values)
        key += t_code.astype(kind, copy=False)
        key, weight = _count(key, customers)
        rest = key // len(t_values)
        t_values = t_values[key - rest * len(t_values)]
        x_index = rest // len(T_values)
        T_values = T_values[rest - x_index * len(T_values)]
        x_rows = x_values[x_index]
    else:
        rows, row = np.unique(np.stack([x, T, t_x], axis=1), axis=0, return_inverse=True)
        x_rows, T_values, t_values = rows.T
        weight = np.bincount(row, weights=customers).astype(np.float64)
    return _groups(x_rows, t_values, T_values, weight)


def _groups(x: FloatArray, t_x: FloatArray, T: FloatArray, weight: FloatArray) -> Groups:
    """Return the groups of distinct rows that are sorted already."""
    starts = np.flatnonzero(np.concatenate(([True], x[1:] != x[:-1])))
    return Groups(
        x=x,
        t_x=t_x,
        T=T,
        weight=weight,
        customers=int(weight.sum()),
        repeat_start=int(np.searchsorted(x, 0.5)),
        x_values=x[starts],
        x_weights=np.add.reduceat(weight, starts),
    )


def _count(key: IntArray, customers: FloatArray | None) -> tuple[IntArray, FloatArray]:
    """Return the distinct keys, rising, and how many customers have each; keys are non-negative and mostly small."""
    # Most histories have few purchases and so small keys, which are counted in a table; the rest are sorted.
    small = key < min(COUNTED_KEYS, 4 * key.size)
    counts = np.bincount(key[small], weights=None if customers is None else customers[small])
    low = np.flatnonzero(counts > 0)
    if customers is None:
        high, high_counts = np.unique(key[~small], return_counts=True)
    else:
        high, place = np.unique(key[~small], return_inverse=True)
        high_counts = np.bincount(place, weights=customers[~small])
    distinct_keys = np.concatenate((low.astype(key.dtype), high))
    return distinct_keys, np.concatenate((counts[low], high_counts)).astype(np.float64)


def _codes(values: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return integer codes in the order of the values and the value of each code (some may not occur)."""
    top = values.max()
    if top <= DENSE_CELLS:
        whole = values.astype(np.int32)
        if (whole == values).all():
            return whole, np.arange(int(top) + 1, dtype=np.float64)
    distinct, codes = np.unique(values, return_inverse=True)
    return codes, distinct


def distinct(values: FloatArray) -> tuple[FloatArray, IntArray]:
    """Return the sorted distinct values, shape (m,), and the index of each value among them, shape (n,).

    The same as `numpy.unique(values, return_inverse=True)`, without its sort where the values are whole and small.
    """
    if values.size == 1:
        return values, np.zeros(1, dtype=np.int64)
    if values.size <= FEW:
        listed = values.tolist()
        place = {value: number for number, value in enumerate(sorted(set(listed)))}
        return np.array(list(place)), np.array([place[value] for value in listed], dtype=np.int64)
    codes, table = _codes(values)
    if len(table) > 2 * values.size + 16:
        found, codes = np.unique(values, return_inverse=True)
        return found, codes
    present = np.zeros(len(table), dtype=bool)
    present[codes] = True
    if present.all():
        return table, codes
    position = np.cumsum(present) - 1
    return table[present], position[codes]
