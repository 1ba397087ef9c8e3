"""Figures of a population as counts: how many customers have each value.

Counts of the parts of a population add up to those of the whole, and quantiles, ranks and totals of the whole follow
from them exactly. Customers of one value stand in the order of their ids, and so do the parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


def distinct_rows(
    columns: Sequence[NDArray[Any]], customers: NDArray[np.int64]
) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
    """The distinct rows of columns (n,), rising by the first, then by the next, and how many customers have each."""
    order = np.lexsort(tuple(reversed(columns)))
    rising = [column[order] for column in columns]
    first = np.ones(order.size, dtype=np.bool_)
    first[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in rising])
    starts = np.flatnonzero(first)
    return [column[starts] for column in rising], np.add.reduceat(
        customers[order], starts
    ) if starts.size else customers


class Place(NamedTuple):
    """A customer by figure and rank: the ``nth`` (from 0), by id, of those who have the value."""

    value: int
    nth: int


@dataclass(frozen=True)
class Counted:
    """How many customers have each value.

    Attributes
    ----------
    values : array (m,), strictly rising.
    customers : int64 array (m,), at least 1 each.
    """

    values: NDArray[Any]
    customers: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[Any], customers: NDArray[np.int64] | None = None) -> "Counted":
        """Count values in any order, shape (n,); ``customers`` (n,) tells how many have each, one if it is None.

        >>> Counted.of(np.array([3, 1, 3])).customers.tolist()
        [1, 2]
        """
        if customers is None:
            found, counts = np.unique(values, return_counts=True)
            return cls(found, counts.astype(np.int64))
        (found,), counts = distinct_rows((values,), customers)
        return cls(found, counts)

    @classmethod
    def joined(cls, parts: Sequence["Counted"]) -> "Counted":
        """The counts of all parts together, of which there is at least one."""
        if len(parts) == 1:
            return parts[0]
        return cls.of(
            np.concatenate([part.values for part in parts]), np.concatenate([part.customers for part in parts])
        )

    @cached_property
    def through(self) -> NDArray[np.int64]:
        """How many customers have each value or less, shape (m,)."""
        return np.cumsum(self.customers)

    @property
    def size(self) -> int:
        """All customers."""
        return int(self.through[-1]) if self.through.size else 0

    def quantiles(self, shares: ArrayLike) -> NDArray[np.float64]:
        """NumPy's linear quantiles, shape (q,), of one value a customer; there must be customers.

        >>> Counted.of(np.array([1, 2, 2, 5])).quantiles([0.5, 0.9]).tolist()
        [2.0, 4.1000000000000005]
        """
        low, part = _positions(self.size, shares)
        # The last quantile has nothing above it, and no part of it either.
        return _between(self._at(low), self._at(np.minimum(low + 1, self.size - 1)), part)

    def boundaries(self, shares: ArrayLike) -> list[Place]:
        """The last customers at or below the linear quantiles of the ranks 1 to n, by (value, id).

        >>> Counted.of(np.array([1, 2, 2, 5])).boundaries([0.5])
        [Place(value=2, nth=0)]
        """
        low, part = _positions(self.size, shares)
        ranks = np.floor(_between(low + np.float64(1), low + np.float64(2), part)).astype(np.int64)
        return [self.place(rank - 1) for rank in ranks.tolist()]

    def place(self, rank: int) -> Place:
        """The customer of a rank from 0, by (value, id)."""
        row = int(np.searchsorted(self.through, rank, side="right"))
        return Place(int(self.values[row]), rank - int(self.through[row] - self.customers[row]))

    def count(self, value: int) -> int:
        """How many customers have a value."""
        row = int(np.searchsorted(self.values, value))
        return int(self.customers[row]) if row < self.values.size and self.values[row] == value else 0

    def _at(self, ranks: NDArray[np.int64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.values[np.searchsorted(self.through, ranks, side="right")].astype(np.float64)
        return found


def find_place(place: Place, parts: Sequence[Counted]) -> tuple[int, Place]:
    """The part that a customer of all parts together is in, and the customer's place there.

    Raises
    ------
    LookupError : the parts together have no such customer.

    Examples
    --------
    >>> parts = [Counted.of(np.array([7, 7])), Counted.of(np.array([7]))]
    >>> find_place(Place(7, 2), parts)
    (1, Place(value=7, nth=0))
    """
    before = 0
    for index, part in enumerate(parts):
        here = part.count(place.value)
        if place.nth < before + here:
            return index, Place(place.value, place.nth - before)
        before += here
    raise LookupError(f"no part has customer {place.nth} of those with {place.value}")


def _positions(size: int, shares: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The rank from 0 below each quantile, and how far it is from there to the next."""
    exact = (size - 1) * np.asarray(shares, dtype=np.float64)
    low = np.floor(exact)
    return low.astype(np.int64), exact - low


def _between(below: NDArray[np.float64], above: NDArray[np.float64], part: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear interpolation from the nearer end, as NumPy's quantiles have it, to the last bit."""
    step = above - below
    return np.where(part < 0.5, below + step * part, above - step * (1 - part))
