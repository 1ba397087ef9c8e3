"""What the models of a whole population share: the order of ids, and exact money."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

UNITS_PER_CURRENCY = 10_000
"""Exact money is counted in ten-thousandths of the currency unit, the last decimal that is kept."""

UNITS_LIMIT = 9 * 10**18
"""Sums of exact money must stay below this, so that 64 bits hold them."""

Ids = Sequence[str] | NDArray[np.object_]


class TotalTooLarge(ValueError):
    """The money of a population does not fit into 64 bits of ten-thousandths."""


class RisingIds(Sequence[str]):
    """The ids of a large population in their order, kept as texts of many: in a sixth of the room of strings.

    Ids compare by code points. That is the order of their UTF-8 bytes, which is PostgreSQL's "C" collation.

    Parameters
    ----------
    texts : each of some ids, one a line; ids hold no line breaks, and are not empty.

    Raises
    ------
    ValueError : the ids do not rise strictly.

    Examples
    --------
    >>> ids = RisingIds(["a\\nb", "c"])
    >>> len(ids), ids[1], ids.places(["c", "bb", "a"])
    (3, 'b', [2, None, 0])
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        sizes, self._firsts, lasts = [], [], []
        for text in texts:
            ids = text.split("\n")
            check_id_order(np.array(ids, dtype=np.object_))
            sizes.append(len(ids))
            self._firsts.append(ids[0])
            lasts.append(ids[-1])
        if any(last >= first for last, first in zip(lasts, self._firsts[1:], strict=False)):
            raise ValueError(_NOT_RISING)
        self._starts = [0, *accumulate(sizes)]

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[str]: ...
    def __getitem__(self, row: int | slice) -> str | Sequence[str]:
        if isinstance(row, slice):
            return list(self.to_array()[row])
        if not 0 <= row < len(self):
            raise IndexError(row)
        part = bisect_right(self._starts, row) - 1
        return self._texts[part].split("\n")[row - self._starts[part]]

    def to_array(self) -> NDArray[np.object_]:
        """All ids as strings, shape (n,)."""
        return np.array([one for text in self._texts for one in text.split("\n")], dtype=np.object_)

    def places(self, customer_ids: Iterable[str]) -> list[int | None]:
        """The row of each of some ids; None where it is not among these."""
        asked = list(customer_ids)
        found: dict[str, int] = {}
        for part, some in groupby(sorted(asked), lambda one: bisect_right(self._firsts, one) - 1):
            if part < 0:
                continue
            ids = self._texts[part].split("\n")
            for one in some:
                place = bisect_left(ids, one)
                if place < len(ids) and ids[place] == one:
                    found[one] = self._starts[part] + place
        return [found.get(one) for one in asked]


_NOT_RISING = 'rows must come in the order of customer_id ("C" collation), each once'


def id_array(customer_ids: Ids | None, size: int, why: str) -> NDArray[np.object_]:
    """The ids as an object array of shape (size,), compared in code-point order.

    Raises
    ------
    ValueError : there are no ids, or not as many as customers.
    """
    if customer_ids is None:
        raise ValueError(f"customer_ids are needed {why}")
    ids = customer_ids.to_array() if isinstance(customer_ids, RisingIds) else np.asarray(customer_ids, dtype=np.object_)
    if ids.shape != (size,):
        raise ValueError("customer_ids must have one id a customer")
    return ids


def check_id_order(ids: NDArray[np.object_]) -> None:
    """Raise ValueError unless the ids rise strictly, as rows of a population fit must."""
    if not (ids[:-1] < ids[1:]).all():
        raise ValueError(_NOT_RISING)


def rising_ids(customer_ids: Ids | None, size: int, why: str) -> Ids:
    """The ids of a population fit, one a row. Raises ValueError where they are missing, too few or do not rise."""
    if isinstance(customer_ids, RisingIds):
        if len(customer_ids) != size:
            raise ValueError("customer_ids must have one id a customer")
        return customer_ids
    ids = id_array(customer_ids, size, why)
    check_id_order(ids)
    return ids


def exact_total(units: NDArray[np.int64]) -> int:
    """The sum of int64 numbers as a Python integer, which can't overflow.

    >>> exact_total(np.array([2**62, 2**62, 2**62, -1]))
    13835058055282163711
    """
    high = int((units >> 32).sum())
    return (high << 32) + int((units & 0xFFFFFFFF).sum())


def money_units(money: NDArray[np.float64]) -> NDArray[np.float64]:
    """Money in ten-thousandths, as whole numbers in float64: exact sums and comparisons while below 2**53."""
    return np.rint(money * UNITS_PER_CURRENCY)


def sum_by_code(codes: NDArray[Any], money: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Money by code, shape (size,), exact and free of the order of rows up to 900 billion currency units.

    Parameters
    ----------
    codes : integer array (n,) of 0 … size − 1.
    money : float64 array (n,) in currency units, at most four decimals.
    size : number of codes.

    >>> sum_by_code(np.array([0, 1, 0]), np.array([0.1, 5.0, 0.2]), 3).tolist()
    [0.3, 5.0, 0.0]
    """
    sums: NDArray[np.float64] = np.bincount(codes, weights=money_units(money), minlength=size) / UNITS_PER_CURRENCY
    return sums
