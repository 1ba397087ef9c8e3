"""ABC: customers by the share of money that they bring (Pareto analysis), exact to the last unit of money.

Customers stand in falling order of net spend, ties by customer_id in "C" collation. The grade is A while the share
of positive spend *before* the customer is below one limit, B while below another, else C: whoever crosses a limit
belongs to the upper grade. Money is int64 in ten-thousandths of the currency unit, revenue or margin: the basis
is which of them is passed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.analytics.counted import Counted, Place
from app.analytics.population import UNITS_LIMIT, UNITS_PER_CURRENCY, Ids, TotalTooLarge, exact_total, id_array

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


@dataclass(frozen=True)
class RankedSpend:
    """A population in falling order of spend, as far as counts tell: where A and B end, by whose ids grades are given.

    Attributes
    ----------
    customers, a_share, b_share, positive_units, totals : as in ``AbcFit``.
    last_a, last_b : the last customers of A and B.
    curve : the Pareto curve.
    """

    customers: int
    a_share: str
    b_share: str
    positive_units: int
    last_a: Place | None
    last_b: Place | None
    totals: tuple[GradeTotal, GradeTotal, GradeTotal]
    curve: ParetoCurve

    @property
    def places(self) -> list[Place]:
        """The customers whose ids ``fit`` takes."""
        return [place for place in (self.last_a, self.last_b) if place is not None]

    def fit(self, ids: Mapping[Place, str]) -> AbcFit:
        """The fit, given the ids of ``places``. Raises KeyError where one is missing."""

        def boundary(place: Place | None) -> AbcBoundary | None:
            return None if place is None else AbcBoundary(place.value, ids[place])

        return AbcFit(
            customers=self.customers,
            a_share=self.a_share,
            b_share=self.b_share,
            positive_units=self.positive_units,
            last_a=boundary(self.last_a),
            last_b=boundary(self.last_b),
            totals=self.totals,
        )


def rank_spend(spend: Counted, settings: AbcSettings | None = None) -> RankedSpend:
    """Find where the grades of a population end.

    Shares are compared in whole numbers, without rounding: of spends 80, 15 and 5, the second has exactly 0.80
    before it and is B, the third exactly 0.95 and is C.

    Parameters
    ----------
    spend : net spend of customers with a counted order, int64 ten-thousandths of the currency unit; may be negative.
    settings : the shares; default 0.80 and 0.95.

    Returns
    -------
    RankedSpend

    Raises
    ------
    TotalTooLarge : the positive spend, or a customer's, reaches 9e18 ten-thousandths.

    Examples
    --------
    >>> ranked = rank_spend(Counted.of(np.array([15, 80, 5]) * 10_000))
    >>> ranked.last_a, ranked.last_b
    (Place(value=800000, nth=0), Place(value=150000, nth=0))
    """
    settings = settings or AbcSettings()
    values = spend.values
    if values.size and (int(values[0]) <= -UNITS_LIMIT or int(values[-1]) >= UNITS_LIMIT):
        raise TotalTooLarge("a customer's net spend is too large to be graded")
    total = exact_total(np.maximum(values, 0), spend.customers)
    if total >= UNITS_LIMIT:
        raise TotalTooLarge("the net spend of all customers is too large to be graded")
    falling = _Falling(spend)
    a_share, b_share = settings.shares
    # A whole number is below a limit exactly if it is below the limit rounded up.
    a_end = falling.customers_before(_ceil(a_share * total))
    b_end = falling.customers_before(_ceil(b_share * total))
    ends = [(end, falling.sum_of_first(end)) for end in (0, a_end, b_end, spend.size)]
    a, b, c = (GradeTotal(until[0] - since[0], until[1] - since[1]) for since, until in pairwise(ends))
    return RankedSpend(
        customers=spend.size,
        a_share=_decimal_text(a_share),
        b_share=_decimal_text(b_share),
        positive_units=total,
        last_a=falling.place(a_end - 1) if a_end else None,
        last_b=falling.place(b_end - 1) if b_end > a_end else None,
        totals=(a, b, c),
        curve=_curve(falling, total, (a_end, b_end)),
    )


class _Falling:
    """Customers in falling order of spend, those of one value by id."""

    def __init__(self, spend: Counted) -> None:
        self.values = spend.values[::-1]
        self.customers = spend.customers[::-1]
        self.through = np.cumsum(self.customers)
        # Whoever spends nothing or less adds nothing to positive spend.
        self.positive = np.maximum(self.values, 0)
        self.spent = np.cumsum(self.positive * self.customers)

    def customers_before(self, limit: int) -> int:
        """How many have less than the limit, at most the whole, of positive spend before them."""
        row = int(np.searchsorted(self.spent, limit))
        if limit <= 0 or row == self.spent.size:
            return 0 if limit <= 0 else int(self.through[-1])
        before = int(self.spent[row - 1]) if row else 0
        count = int(self.through[row - 1]) if row else 0
        return count + -(-(limit - before) // int(self.positive[row]))

    def place(self, rank: int) -> Place:
        row = int(np.searchsorted(self.through, rank, side="right"))
        return Place(int(self.values[row]), rank - int(self.through[row] - self.customers[row]))

    def sum_of_first(self, count: int) -> int:
        """The spend of the first customers."""
        row = int(np.searchsorted(self.through, count, side="right"))
        whole = exact_total(self.values[:row], self.customers[:row])
        before = int(self.through[row - 1]) if row else 0
        return whole + (count - before) * int(self.values[row]) if count > before else whole

    def positive_of_first(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positive spend of the first customers, for several numbers of them."""
        row = np.searchsorted(self.through, counts, side="right")
        through, spent = (np.concatenate((np.zeros(1, dtype=np.int64), sums)) for sums in (self.through, self.spent))
        next_value = np.append(self.positive, 0)[row]
        result: NDArray[np.int64] = spent[row] + next_value * (counts - through[row])
        return result


def spend_before(spend: Counted, parts: Sequence[Counted]) -> list[NDArray[np.int64]]:
    """The positive spend of all who stand before the first customer of each value of each part.

    Parameters
    ----------
    spend : of all parts together, whose positive spend is below 9e18; see ``rank_spend``.
    parts : in the order of ids.

    Returns
    -------
    an int64 array for each part, in the order of its values: what ``cumulative_share`` takes.
    """
    positive = np.maximum(spend.values, 0)
    earned = positive * spend.customers
    above = np.cumsum(earned[::-1])[::-1] - earned
    earlier = np.zeros(spend.values.size, dtype=np.int64)
    before = []
    for part in parts:
        row = np.searchsorted(spend.values, part.values)
        before.append(above[row] + positive[row] * earlier[row])
        earlier[row] += part.customers
    return before


def cumulative_share(
    net_spend_units: NDArray[np.int64], has_order: NDArray[np.bool_], before: NDArray[np.int64], positive_units: int
) -> NDArray[np.float64]:
    """The share of positive spend up to and with each customer of a part.

    Parameters
    ----------
    net_spend_units : int64 array (n,), ten-thousandths of the currency unit, in the order of ids.
    has_order : bool array (n,), whether the customer has a counted order.
    before : of ``spend_before``.
    positive_units : of the whole population; see ``AbcFit``.

    Returns
    -------
    float64 array (n,) : in [0, 1]; 1 for those without positive spend, NaN where there is no counted order.

    Examples
    --------
    >>> units = np.array([15, 80, 5])
    >>> (before,) = spend_before(Counted.of(units), [Counted.of(units)])
    >>> cumulative_share(units, np.ones(3, bool), before, 100).tolist()
    [0.95, 0.8, 1.0]
    """
    share = np.full(net_spend_units.shape, np.nan)
    rows = np.flatnonzero(has_order)
    values, value, counts = np.unique(net_spend_units[rows], return_inverse=True, return_counts=True)
    # Rows come in the order of ids, so a stable sort by value ranks those of one value by id.
    order = np.argsort(value, kind="stable")
    nth = np.empty(rows.size, dtype=np.int64)
    nth[order] = np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts)
    through = before[value] + np.maximum(values, 0)[value] * (nth + 1)
    share[rows] = through / positive_units if positive_units else 1.0
    return share


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
    net_spend_units : int64 array (n,), ten-thousandths of the currency unit; may be negative.
    has_order : bool array (n,), whether the customer has a counted order.
    customer_ids : n strings.

    Returns
    -------
    int8 array (n,) of codes into ``GRADES``; −1 where there is no counted order, or nobody was fitted.

    Raises
    ------
    ValueError : ids are of another length.

    Examples
    --------
    >>> ranked = rank_spend(Counted.of(np.array([15, 80, 5]) * 10_000))
    >>> fit = ranked.fit(dict(zip(ranked.places, ["b", "a"])))
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


def _curve(falling: _Falling, total: int, ends: tuple[int, int]) -> ParetoCurve:
    size = int(falling.through[-1]) if falling.through.size else 0
    even = np.rint(np.linspace(0, size, MOST_CURVE_POINTS - len(ends))).astype(np.int64)
    customers = np.union1d(even, np.array(ends, dtype=np.int64))
    money = falling.positive_of_first(customers)
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
