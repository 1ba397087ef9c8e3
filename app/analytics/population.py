"""What the models of a whole population share: the order of ids, and exact money."""

from collections.abc import Sequence
from typing import Any

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

    Code-point order is the order of the UTF-8 bytes, which is PostgreSQL's "C" collation.

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


def check_id_order(ids: NDArray[np.object_]) -> None:
    """Raise ValueError unless the ids rise strictly, as rows of a population fit must."""
    if not (ids[:-1] < ids[1:]).all():
        raise ValueError('rows must come in the order of customer_id ("C" collation), each once')


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
