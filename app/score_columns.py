"""Scores of many customers as columns: arrays that a run stores as they are, and that become rows for a few.

A column knows which of its values are null, and lists them as Python values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.scalars import money_of

Known = NDArray[np.bool_] | None
"""Which values there are; None where there are all."""


def _nulled(values: Sequence[Any], known: Known) -> list[Any]:
    if known is None:
        return list(values)
    return [value if there else None for value, there in zip(values, known.tolist(), strict=True)]


@dataclass(frozen=True, slots=True)
class Wholes:
    """Whole numbers, shape (n,)."""

    values: NDArray[Any]
    known: Known = None

    def to_list(self) -> list[int | None]:
        return _nulled(self.values.tolist(), self.known)


@dataclass(frozen=True, slots=True)
class Moneys:
    """Exact money in ten-thousandths, shape (n,): int64, or Python integers where they are larger."""

    units: NDArray[Any]
    known: Known = None

    def to_list(self) -> list[Decimal | None]:
        return _nulled([money_of(units) for units in self.units.tolist()], self.known)


@dataclass(frozen=True, slots=True)
class Reals:
    """float64, shape (n,); NaN is null."""

    values: NDArray[np.float64]

    def to_list(self) -> list[float | None]:
        return [None if value != value else value for value in self.values.tolist()]


@dataclass(frozen=True, slots=True)
class RealLists:
    """Lists of k numbers: float64, shape (n, k)."""

    values: NDArray[np.float64]
    known: Known = None

    def to_list(self) -> list[list[float] | None]:
        return _nulled(self.values.tolist(), self.known)


@dataclass(frozen=True, slots=True)
class Names:
    """Codes, shape (n,), into ``names``; −1 is null."""

    codes: NDArray[Any]
    names: Sequence[str]

    def to_list(self) -> list[str | None]:
        named = [*self.names, None]  # A code of −1 finds the last.
        return [named[code] for code in self.codes.tolist()]


@dataclass(frozen=True, slots=True)
class Documents:
    """JSON texts, n of them, or None."""

    values: Sequence[str | None]

    def to_list(self) -> list[str | None]:
        return list(self.values)


Column = Wholes | Moneys | Reals | RealLists | Names | Documents


@dataclass(frozen=True, slots=True)
class ScoreColumns:
    """The scores of n customers, a column a field of ``ScoreRow`` after the customer's id, in their order."""

    customer_ids: Sequence[str]
    columns: Mapping[str, Column]
