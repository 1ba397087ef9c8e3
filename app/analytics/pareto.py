"""ABC: customers by the share of money that they bring (Pareto analysis), exact to the last unit of money.

Customers stand in falling order of net spend, ties by customer_id in "C" collation. The grade is A while the share
of positive spend *before* the customer is below one limit, B while below another, else C: whoever crosses a limit
belongs to the upper grade. Money is int64 in ten-thousandths of the currency unit, revenue or margin: the basis
is which of them is passed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.analytics.population import (
    UNITS_LIMIT,
    UNITS_PER_CURRENCY,
    Ids,
    TotalTooLarge,
    exact_total,
    id_array,
    rising_ids,
)

GRADES = ("A", "B", "C")
A, B, C = range(3)
PRESET_SHARES = {"standard": (0.80, 0.95), "literal": (0.80, 0.99)}
MOST_CURVE_POINTS = 200

Share = float | str | Decimal


@dataclass(frozen=True)
class AbcSettings:
    """The shares of positive spend that end A and B.

    Parameters
    ----------
    preset : "standard" for 0.80 and 0.95, "literal" for 0.80 and 0.99.
    a_share, b_share : own shares in place of the preset's; 0 < a_share < b_share ≤ 1.

    Raises
    ------
    ValueError : the preset is unknown, or the shares are not as described.

    Examples
    --------
    >>> AbcSettings(b_share=0.9).shares
    (Fraction(4, 5), Fraction(9, 10))
    """

    preset: Literal["standard", "literal"] = "standard"
    a_share: Share | None = None
    b_share: Share | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESET_SHARES:
            raise ValueError('preset must be "standard" or "literal"')
        try:
            a, b = self.shares
        except (ArithmeticError, ValueError):  # not a number; infinite or not a number at all
            raise ValueError("shares must be decimal numbers") from None
        if not 0 < a < b <= 1:
            raise ValueError("shares must be above 0 and at most 1, the share of A below that of B")

    @property
    def shares(self) -> tuple[Fraction, Fraction]:
        """Both shares as the exact decimals that they are written as."""
        preset_a, preset_b = PRESET_SHARES[self.preset]
        a = preset_a if self.a_share is None else self.a_share
        b = preset_b if self.b_share is None else self.b_share
        return Fraction(Decimal(str(a))), Fraction(Decimal(str(b)))


@dataclass(frozen=True, slots=True)
class AbcBoundary:
    """The last customer of a grade: net spend in ten-thousandths (> 0) and id."""

    net_spend_units: int
    customer_id: str


@dataclass(frozen=True, slots=True)
class GradeTotal:
    """Customers of a grade and their net spend in ten-thousandths (C's may be negative)."""

    customers: int
    net_spend_units: int


@dataclass(frozen=True)
class AbcFit:
    """The boundaries of a population, all that a live grade needs. Plain numbers and strings: see ``to_dict``.

    Attributes
    ----------
    customers : customers with a counted order that were fitted.
    a_share, b_share : the limits, as decimal texts.
    positive_units : the sum of positive net spend, in ten-thousandths.
    last_a : None where nobody has positive spend.
    last_b : None where nobody is graded B.
    totals : of A, B and C.
    """

    customers: int
    a_share: str
    b_share: str
    positive_units: int
    last_a: AbcBoundary | None
    last_b: AbcBoundary | None
    totals: tuple[GradeTotal, GradeTotal, GradeTotal]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, money as decimal strings in currency units; ``from_dict`` reads it back."""

        def pair(boundary: AbcBoundary | None) -> dict[str, str] | None:
            if boundary is None:
                return None
            return {"net_spend": _currency(boundary.net_spend_units), "customer_id": boundary.customer_id}

        return {
            "customers": self.customers,
            "a_share": self.a_share,
            "b_share": self.b_share,
            "positive_net_spend": _currency(self.positive_units),
            "last_a": pair(self.last_a),
            "last_b": pair(self.last_b),
            "grades": [
                {"grade": grade, "customers": total.customers, "net_spend": _currency(total.net_spend_units)}
                for grade, total in zip(GRADES, self.totals, strict=True)
            ],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "AbcFit":
        def boundary(pair: Mapping[str, str] | None) -> AbcBoundary | None:
            return None if pair is None else AbcBoundary(_units(pair["net_spend"]), pair["customer_id"])

        a, b, c = (GradeTotal(int(row["customers"]), _units(row["net_spend"])) for row in stored["grades"])
        return cls(
            customers=int(stored["customers"]),
            a_share=str(stored["a_share"]),
            b_share=str(stored["b_share"]),
            positive_units=_units(stored["positive_net_spend"]),
            last_a=boundary(stored["last_a"]),
            last_b=boundary(stored["last_b"]),
            totals=(a, b, c),
        )


@dataclass(frozen=True, slots=True)
class ParetoCurve:
    """The share of positive spend that the first customers bring: arrays (p,), p ≤ 200, from none to all customers.

    ``customers`` is int64, the number of customers counted from the top; ``customer_share`` and ``spend_share`` are
    float64 from 0 to 1 (``spend_share`` is 0 throughout where nobody has positive spend). The ends of A and B are
    always among the points.
    """

    customers: NDArray[np.int64]
    customer_share: NDArray[np.float64]
    spend_share: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AbcResult:
    """A fitted population: the fit, and its customers' grades.

    ``grade`` is int8 (n,) into ``GRADES``, −1 where there is no counted order. ``cumulative_share`` is float64 (n,):
    the share of positive spend up to and with the customer, 1 for those without positive spend, NaN where there is
    no counted order.
    """

    fit: AbcFit
    grade: NDArray[np.int8]
    cumulative_share: NDArray[np.float64]
    curve: ParetoCurve


def fit_abc(
    net_spend_units: NDArray[np.int64],
    has_order: NDArray[np.bool_],
    customer_ids: Ids,
    settings: AbcSettings | None = None,
) -> AbcResult:
    """Grade a population, and find the boundaries by which live grades are given.

    Shares are compared in whole numbers, without rounding: of spends 80, 15 and 5, the second has exactly 0.80
    before it and is B, the third exactly 0.95 and is C.

    Parameters
    ----------
    net_spend_units : int64 array (n,), ten-thousandths of the currency unit; may be negative.
    has_order : bool array (n,), whether the customer has a counted order.
    customer_ids : n strings, rising in "C" collation.
    settings : the shares; default 0.80 and 0.95.

    Returns
    -------
    AbcResult

    Raises
    ------
    TotalTooLarge : the positive spend, or a customer's, reaches 9e18 ten-thousandths.
    ValueError : ids are of another length or not in order.

    Examples
    --------
    >>> result = fit_abc(np.array([15, 80, 5]) * 10_000, np.ones(3, bool), ["a", "b", "c"])
    >>> [GRADES[code] for code in result.grade], result.cumulative_share.tolist()
    (['B', 'A', 'C'], [0.95, 0.8, 1.0])
    """
    settings = settings or AbcSettings()
    ids = rising_ids(customer_ids, net_spend_units.size, "to order equal spends")
    rows = np.flatnonzero(has_order)
    units = net_spend_units[rows]
    if units.size and (int(units.min()) <= -UNITS_LIMIT or int(units.max()) >= UNITS_LIMIT):
        raise TotalTooLarge("a customer's net spend is too large to be graded")
    # Rows come in the order of ids, so a stable sort by spend alone orders by (spend falling, customer_id).
    falling = np.argsort(-units, kind="stable")
    rows, units = rows[falling], units[falling]
    positive = np.maximum(units, 0)
    total = exact_total(positive)
    if total >= UNITS_LIMIT:
        raise TotalTooLarge("the net spend of all customers is too large to be graded")
    through = np.cumsum(positive)
    before = through - positive
    a_share, b_share = settings.shares
    # A whole number is below a limit exactly if it is below the limit rounded up.
    a_end = int(np.searchsorted(before, _ceil(a_share * total)))
    b_end = int(np.searchsorted(before, _ceil(b_share * total)))

    grade = np.full(net_spend_units.shape, -1, dtype=np.int8)
    grade[rows] = C
    grade[rows[:b_end]] = B
    grade[rows[:a_end]] = A
    share = np.full(net_spend_units.shape, np.nan)
    share[rows] = through / total if total else 1.0

    def last(end: int) -> AbcBoundary:
        return AbcBoundary(int(units[end - 1]), str(ids[int(rows[end - 1])]))

    ends = (0, a_end, b_end, units.size)
    a, b, c = (GradeTotal(stop - start, exact_total(units[start:stop])) for start, stop in pairwise(ends))
    fit = AbcFit(
        customers=int(units.size),
        a_share=_decimal_text(a_share),
        b_share=_decimal_text(b_share),
        positive_units=total,
        last_a=last(a_end) if a_end else None,
        last_b=last(b_end) if b_end > a_end else None,
        totals=(a, b, c),
    )
    return AbcResult(fit, grade, share, _curve(through, total, (a_end, b_end)))


def grade_by_boundaries(
    fit: AbcFit,
    net_spend_units: NDArray[np.int64],
    has_order: NDArray[np.bool_],
    customer_ids: Ids,
) -> NDArray[np.int8]:
    """Grade customers by the boundaries of a fit; rows in any order.

    A customer is A at or before the last A of the fit, B at or before its last B, else C. A grade that nobody had
    is given to nobody. A customer of the fitted population whose spend has not changed gets their grade of the fit.

    Parameters
    ----------
    fit : of a population.
    net_spend_units, has_order, customer_ids : as in ``fit_abc``, shape (n,).

    Returns
    -------
    int8 array (n,) of codes into ``GRADES``; −1 where there is no counted order, or nobody was fitted.

    Raises
    ------
    ValueError : ids are of another length.

    Examples
    --------
    >>> fit = fit_abc(np.array([15, 80, 5]) * 10_000, np.ones(3, bool), ["a", "b", "c"]).fit
    >>> grade_by_boundaries(fit, np.array([800_000, 800_000]), np.ones(2, bool), ["b", "bb"]).tolist()
    [0, 1]
    """
    ids = id_array(customer_ids, net_spend_units.size, "to order equal spends")
    grade = np.full(net_spend_units.shape, C, dtype=np.int8)
    for code, boundary in ((B, fit.last_b), (A, fit.last_a)):
        if boundary is None:
            continue
        grade[net_spend_units > boundary.net_spend_units] = code
        tied = np.flatnonzero(net_spend_units == boundary.net_spend_units)
        if tied.size:
            grade[tied[ids[tied] <= boundary.customer_id]] = code
    if fit.customers:
        grade[~has_order] = -1
    else:
        grade[:] = -1
    return grade


def _curve(through: NDArray[np.int64], total: int, ends: tuple[int, int]) -> ParetoCurve:
    size = through.size
    even = np.rint(np.linspace(0, size, MOST_CURVE_POINTS - len(ends))).astype(np.int64)
    customers = np.union1d(even, np.array(ends, dtype=np.int64))
    money = np.concatenate((np.zeros(1, dtype=np.int64), through))[customers]
    return ParetoCurve(
        customers=customers,
        customer_share=customers / size if size else np.zeros(customers.size),
        spend_share=money / total if total else np.zeros(customers.size),
    )


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)


def _decimal_text(share: Fraction) -> str:
    return format(Decimal(share.numerator) / Decimal(share.denominator), "f")


def _currency(units: int) -> str:
    return format(Decimal(units).scaleb(-4), "f")


def _units(text: str) -> int:
    return int(Decimal(text) * UNITS_PER_CURRENCY)
