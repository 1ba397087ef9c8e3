"""What a part of a population tells of itself for the fit of the whole: rows, and how many customers share each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.analytics.counted import Counted
from app.analytics.grouping import group_customers


@dataclass(frozen=True)
class Histories:
    """Distinct purchase histories.

    Attributes
    ----------
    frequency, recency_days, T_days : int32 arrays (m,): repeat purchase days, days from first to last purchase, days
        from first purchase to now.
    customers : int64 array (m,), how many have each history.
    """

    frequency: NDArray[np.int32]
    recency_days: NDArray[np.int32]
    T_days: NDArray[np.int32]
    customers: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        frequency: NDArray[Any],
        recency_days: NDArray[Any],
        T_days: NDArray[Any],
        customers: NDArray[np.int64] | None = None,
    ) -> "Histories":
        """The distinct among histories of shape (n,), each of one customer or of so many as ``customers`` says."""
        if not frequency.size:
            none = np.zeros(0, dtype=np.int32)
            return cls(none, none, none, np.zeros(0, dtype=np.int64))
        x, t_x, T = (column.astype(np.float64) for column in (frequency, recency_days, T_days))
        groups = group_customers(x, t_x, T, None if customers is None else customers.astype(np.float64))
        x, t_x, T = groups.x, groups.t_x, groups.T
        return cls(x.astype(np.int32), t_x.astype(np.int32), T.astype(np.int32), groups.weight.astype(np.int64))

    @classmethod
    def joined(cls, parts: Sequence["Histories"]) -> "Histories":
        """The histories of all parts together, of which there is at least one."""
        return parts[0] if len(parts) == 1 else cls.of(*_columns_of(parts))

    @property
    def days_since_last_order(self) -> Counted:
        return Counted.of(self.T_days - self.recency_days, self.customers)


@dataclass(frozen=True)
class PurchaseValues:
    """Mean values of a purchase, of customers who have bought again.

    Attributes
    ----------
    frequency : int32 array (m,), repeat purchase days, at least 1.
    mean : float64 array (m,), the mean value of one in currency units.
    customers : int64 array (m,), how many share both.
    """

    frequency: NDArray[np.int32]
    mean: NDArray[np.float64]
    customers: NDArray[np.int64]

    @classmethod
    def of(
        cls, frequency: NDArray[Any], mean: NDArray[np.float64], customers: NDArray[np.int64] | None = None
    ) -> "PurchaseValues":
        """The distinct among those of repeaters (n,), each of one customer or of so many as ``customers`` says."""
        order = np.lexsort((mean, frequency))
        frequency, mean = frequency[order].astype(np.int32), mean[order]
        first = np.ones(order.size, dtype=np.bool_)
        first[1:] = (np.diff(frequency) != 0) | (np.diff(mean) != 0)
        starts = np.flatnonzero(first)
        counts = np.ones(order.size, dtype=np.int64) if customers is None else customers[order]
        return cls(frequency[starts], mean[starts], np.add.reduceat(counts, starts) if starts.size else counts)

    @classmethod
    def joined(cls, parts: Sequence["PurchaseValues"]) -> "PurchaseValues":
        """Those of all parts together, of which there is at least one."""
        return parts[0] if len(parts) == 1 else cls.of(*_columns_of(parts))


@dataclass(frozen=True)
class Tally:
    """The customers with a counted order of a population, or of a part of one, in counts.

    Attributes
    ----------
    order_count : orders, limited to the window of RFM if there is one.
    net_spend : in ten-thousandths of the currency unit, limited likewise.
    graded_spend : what ABC grades, in ten-thousandths.
    histories : of purchases.
    purchase_values : what lifetime value counts: spend, or spend less cost.
    purchase_spend : spend.
    """

    order_count: Counted
    net_spend: Counted
    graded_spend: Counted
    histories: Histories
    purchase_values: PurchaseValues
    purchase_spend: PurchaseValues

    @classmethod
    def joined(cls, parts: Sequence["Tally"]) -> "Tally":
        """The tally of all parts together, of which there is at least one."""
        found: dict[str, Any] = {}
        for name, kind in _KINDS.items():
            like = _LIKE.get(name)
            same = like is not None and all(getattr(part, name) is getattr(part, like) for part in parts)
            found[name] = found[like] if like and same else kind.joined([getattr(part, name) for part in parts])
        return cls(**found)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays by name; ``from_arrays`` reads it back."""
        return {
            f"{name}.{field.name}": getattr(getattr(self, name), field.name)
            for name, kind in _KINDS.items()
            if name not in _LIKE or getattr(self, name) is not getattr(self, _LIKE[name])
            for field in fields(kind)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "Tally":
        found: dict[str, Any] = {}
        for name, kind in _KINDS.items():
            names = [f"{name}.{field.name}" for field in fields(kind)]
            found[name] = kind(*(arrays[column] for column in names)) if names[0] in arrays else found[_LIKE[name]]
        return cls(**found)


_KINDS: dict[str, Any] = {
    "order_count": Counted,
    "net_spend": Counted,
    "graded_spend": Counted,
    "histories": Histories,
    "purchase_values": PurchaseValues,
    "purchase_spend": PurchaseValues,
}
_LIKE = {"graded_spend": "net_spend", "purchase_spend": "purchase_values"}
"""What is often the very same counts as another, and is then kept once."""


def _columns_of(parts: Sequence[Any]) -> list[NDArray[Any]]:
    return [np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(parts[0])]
