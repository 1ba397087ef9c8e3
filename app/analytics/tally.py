"""What a part of a population tells of itself for the fit of the whole: rows, and how many customers share each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.analytics.counted import Counted, distinct_rows
from app.analytics.grouping import group_customers

_Member = TypeVar("_Member")


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
        counts = np.ones(frequency.size, dtype=np.int64) if customers is None else customers
        (frequency, mean), counts = distinct_rows((frequency, mean), counts)
        return cls(frequency.astype(np.int32), mean, counts)

    @classmethod
    def joined(cls, parts: Sequence["PurchaseValues"]) -> "PurchaseValues":
        """Those of all parts together, of which there is at least one."""
        return parts[0] if len(parts) == 1 else cls.of(*_columns_of(parts))


_LIKE = {"graded_spend": "net_spend", "spend": "values"}
"""What is often the very same counts as an earlier member of its tally, and is then kept once."""


@dataclass(frozen=True)
class _Tally:
    """Members that are dataclasses of arrays, and can be ``joined``."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays by name; ``from_arrays`` reads it back."""
        members = {field.name: getattr(self, field.name) for field in fields(self)}
        return to_arrays(
            {name: member for name, member in members.items() if member is not members.get(_LIKE.get(name, ""))}
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        kept = {name.partition(".")[0] for name in arrays}
        found: dict[str, Any] = {}
        for name, kind in cls._kinds():
            found[name] = read_member(arrays, name, kind) if name in kept else found[_LIKE[name]]
        return cls(**found)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The tally of all parts together, of which there is at least one."""
        found: dict[str, Any] = {}
        for name, kind in cls._kinds():
            earlier = _LIKE.get(name)
            if earlier is not None and all(getattr(part, name) is getattr(part, earlier) for part in parts):
                found[name] = found[earlier]
            else:
                found[name] = kind.joined([getattr(part, name) for part in parts])
        return cls(**found)

    @classmethod
    def _kinds(cls) -> list[tuple[str, Any]]:
        return [(field.name, field.type) for field in fields(cls)]


@dataclass(frozen=True)
class RankTally(_Tally):
    """What ranks customers with a counted order: how many of a part have each figure.

    Attributes
    ----------
    T_days, days_since_last_order : days since the first and the last purchase.
    order_count : orders, limited to the window of RFM if there is one.
    net_spend : in ten-thousandths of the currency unit, limited likewise.
    graded_spend : what ABC grades, in ten-thousandths.
    """

    T_days: Counted
    days_since_last_order: Counted
    order_count: Counted
    net_spend: Counted
    graded_spend: Counted


@dataclass(frozen=True)
class PurchaseTally(_Tally):
    """What models of purchases are fitted to: the customers of a part with a counted order.

    Attributes
    ----------
    histories : of purchases.
    values : what lifetime value counts of a purchase: spend, or spend less cost.
    spend : spend.
    """

    histories: Histories
    values: PurchaseValues
    spend: PurchaseValues


def to_arrays(members: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Dataclasses of arrays by name, as arrays by name; ``read_member`` reads one back."""
    return {
        f"{name}.{field.name}": np.asarray(getattr(member, field.name))
        for name, member in members.items()
        for field in fields(member)
    }


def read_member(arrays: Mapping[str, NDArray[Any]], name: str, kind: type[_Member]) -> _Member:
    """A member of ``to_arrays``, of the dataclass ``kind``."""
    return kind(*(arrays[f"{name}.{field.name}"] for field in fields(kind)))  # type: ignore[arg-type]


def _columns_of(parts: Sequence[Any]) -> list[NDArray[Any]]:
    return [np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(parts[0])]
