"""What the models of a whole population share: ids, and exact money."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

UNITS_PER_CURRENCY = 10_000
"""Exact money is counted in ten-thousandths of the currency unit, the last decimal that is kept."""

UNITS_LIMIT = 9 * 10**18
"""Sums of exact money must stay below this, so that 64 bits hold them."""

Ids = Sequence[str] | NDArray[np.object_]


class TotalTooLarge(ValueError):
    """The money of a population does not fit into 64 bits of ten-thousandths."""


def id_array(customer_ids: Ids | None, size: int, why: str) -> NDArray[np.object_]:
    """The ids as an object array of shape (size,), compared in code-point order.

    Raises
    ------
    ValueError : there are no ids, or not as many as customers.
    """
    if customer_ids is None:
        raise ValueError(f"customer_ids are needed {why}")
    ids = np.asarray(customer_ids, dtype=np.object_)
    if ids.shape != (size,):
        raise ValueError("customer_ids must have one id a customer")
    return ids


def exact_total(units: NDArray[np.int64], customers: NDArray[np.int64] | None = None) -> int:
    """The sum of int64 numbers as a Python integer, which can't overflow; of each as often as ``customers`` says.

    >>> exact_total(np.array([2**62, 2**62, 2**62, -1]))
    13835058055282163711
    >>> exact_total(np.array([2**62, -1]), np.array([3, 1]))
    13835058055282163711
    """
    counts = np.ones(units.size, dtype=np.int64) if customers is None else customers
    # The halves of all have room for so many customers as there are people.
    high, low = int((units >> 32) @ counts), int((units & 0xFFFFFFFF) @ counts)
    return (high << 32) + low


def money_units(money: NDArray[np.float64]) -> NDArray[np.float64]:
    """Money in ten-thousandths, as whole numbers in float64: exact sums and comparisons while below 2**53."""
    return np.rint(money * UNITS_PER_CURRENCY)
