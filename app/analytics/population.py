"""What the models of a whole population share, and the tables that reports draw from scores.

Everything here takes one element a customer and answers arrays whose size does not depend on the customers.
Codes are small integers into a tuple of names; −1 is null.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class RfmGrid:
    """Customers and their net spend by score: element [r − 1, f − 1] of arrays of shape (k, k)."""

    customers: NDArray[np.int64]
    net_spend: NDArray[np.float64]


def rfm_grid(r: NDArray[Any], f: NDArray[Any], net_spend: NDArray[np.float64], k: int) -> RfmGrid:
    """The grid of R against F. Customers without scores (−1) are left out.

    Parameters
    ----------
    r, f : integer arrays (n,), 1 … k or −1.
    net_spend : float64 array (n,) in currency units.
    k : number of grades.

    >>> rfm_grid(np.array([1, 2, -1]), np.array([2, 2, -1]), np.array([4.0, 6.0, 9.0]), 2).customers.tolist()
    [[0, 1], [0, 1]]
    """
    scored = (r > 0) & (f > 0)
    cells = (r[scored].astype(np.int64) - 1) * k + (f[scored].astype(np.int64) - 1)
    return RfmGrid(
        customers=np.bincount(cells, minlength=k * k).reshape(k, k),
        net_spend=sum_by_code(cells, net_spend[scored], k * k).reshape(k, k),
    )


@dataclass(frozen=True, slots=True)
class SegmentTable:
    """A row a segment and a last one for customers with a counted order but no segment: arrays (segments + 1,).

    ``customer_share`` and ``net_spend_share`` are of all customers with a counted order (0 to 1; the share of
    money is NaN unless the whole is positive). Means are NaN in a segment without customers.
    """

    customers: NDArray[np.int64]
    customer_share: NDArray[np.float64]
    net_spend: NDArray[np.float64]
    net_spend_share: NDArray[np.float64]
    order_count: NDArray[np.int64]
    mean_days_since_last_order: NDArray[np.float64]
    mean_order_count: NDArray[np.float64]
    mean_net_spend: NDArray[np.float64]


def segment_table(
    segment: NDArray[Any],
    segments: int,
    *,
    has_order: NDArray[np.bool_],
    days_since_last_order: NDArray[np.int64],
    order_count: NDArray[np.int64],
    net_spend: NDArray[np.float64],
) -> SegmentTable:
    """Customers, money and mean figures of each segment, over the customers with a counted order.

    Parameters
    ----------
    segment : integer array (n,) of segment codes, −1 for none.
    segments : number of segments.
    has_order : bool array (n,).
    days_since_last_order, order_count : int64 arrays (n,).
    net_spend : float64 array (n,) in currency units.

    >>> one = np.array([1, 1, 1])
    >>> table = segment_table(np.array([0, 0, -1]), 1, has_order=one > 0, days_since_last_order=one * 4,
    ...                       order_count=one, net_spend=np.array([1.0, 2.0, 9.0]))
    >>> table.customers.tolist(), table.mean_net_spend.tolist()
    ([2, 1], [1.5, 9.0])
    """
    rows = segments + 1
    codes = segment[has_order].astype(np.int64)
    codes[codes < 0] = segments
    customers = np.bincount(codes, minlength=rows)
    spend = sum_by_code(codes, net_spend[has_order], rows)
    orders = np.bincount(codes, weights=order_count[has_order], minlength=rows).astype(np.float64)
    days = np.bincount(codes, weights=days_since_last_order[has_order], minlength=rows).astype(np.float64)
    everyone = int(customers.sum())
    total = round(float(spend.sum()), 4)

    def mean(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        means = np.full(rows, np.nan)
        np.divide(sums, customers, out=means, where=customers > 0)
        return means

    return SegmentTable(
        customers=customers,
        customer_share=customers / everyone if everyone else np.zeros(rows),
        net_spend=spend,
        net_spend_share=spend / total if total > 0 else np.full(rows, np.nan),
        order_count=orders.astype(np.int64),
        mean_days_since_last_order=mean(days),
        mean_order_count=mean(orders),
        mean_net_spend=mean(spend),
    )


@dataclass(frozen=True, slots=True)
class Transitions:
    """Moves between two runs: element [before, after] of arrays (codes before + 1, codes after + 1).

    The last row and column are for null. Money is the net spend of the customers of the cell in either run.
    """

    customers: NDArray[np.int64]
    net_spend_before: NDArray[np.float64]
    net_spend_after: NDArray[np.float64]


def transitions(
    before: NDArray[Any],
    after: NDArray[Any],
    sizes: tuple[int, int],
    net_spend_before: NDArray[np.float64],
    net_spend_after: NDArray[np.float64],
) -> Transitions:
    """Count customers and their money by where they were and where they are; segments, grades or any codes.

    Parameters
    ----------
    before, after : integer arrays (n,) of codes of the same customers, −1 for none or for not in that run.
    sizes : numbers of codes before and after.
    net_spend_before, net_spend_after : float64 arrays (n,) in currency units, 0 where not in that run.

    >>> moved = transitions(np.array([0, 1]), np.array([1, -1]), (2, 2), np.array([5.0, 1.0]), np.array([7.0, 0.0]))
    >>> moved.customers.tolist()
    [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
    """
    rows, columns = sizes[0] + 1, sizes[1] + 1
    source = before.astype(np.int64)
    target = after.astype(np.int64)
    cells = np.where(source < 0, sizes[0], source) * columns + np.where(target < 0, sizes[1], target)
    shape = (rows, columns)
    return Transitions(
        customers=np.bincount(cells, minlength=rows * columns).reshape(shape),
        net_spend_before=sum_by_code(cells, net_spend_before, rows * columns).reshape(shape),
        net_spend_after=sum_by_code(cells, net_spend_after, rows * columns).reshape(shape),
    )


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values in bins [edge i, edge i + 1), the last bin closed; ``edges`` has one element more."""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    below: int
    above: int


def bin_edges(low: float, high: float, most_bins: int = 20) -> NDArray[np.float64]:
    """Round edges (steps of 1, 2 or 5 times a power of ten) that cover [low, high] in at most ``most_bins`` bins.

    Parameters
    ----------
    low, high : finite numbers, low ≤ high.
    most_bins : at least 2.

    >>> bin_edges(3, 47, 10).tolist()
    [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0, 50.0]
    """
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError("low and high must be finite, low at most high")
    if most_bins < 2:
        raise ValueError("most_bins must be at least 2")
    if low == high:
        return np.array([np.floor(low), np.floor(low) + 1.0])
    power = int(np.floor(np.log10((high - low) / most_bins)))
    for exponent in range(power, power + 3):
        for factor in (1, 2, 5):
            # Dividing by a power of ten keeps the edges the floats nearest to their decimals, as 0.3 is.
            step, per = (factor * 10**exponent, 1) if exponent >= 0 else (factor, 10**-exponent)
            first, last = int(np.floor(low * per / step)), int(np.ceil(high * per / step))
            if last - first <= most_bins:
                return np.arange(first, last + 1) * float(step) / per
    raise ValueError("low and high are too far apart")  # pragma: no cover - three powers of ten always suffice


def histogram(values: NDArray[Any], edges: NDArray[np.float64]) -> Histogram:
    """Count values by bin. Values outside of the edges are counted in ``below`` and ``above``, NaN nowhere.

    Parameters
    ----------
    values : numbers, shape (n,).
    edges : rising float64 array (bins + 1,).

    >>> histogram(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0])).counts.tolist()
    [1, 2]
    """
    counts, _ = np.histogram(values, bins=edges)
    return Histogram(
        edges=edges,
        counts=counts.astype(np.int64),
        below=int((values < edges[0]).sum()),
        above=int((values > edges[-1]).sum()),
    )
