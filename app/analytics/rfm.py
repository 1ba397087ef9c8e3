"""RFM: how lately (R), how often (F) and for how much (M) a customer buys, graded among all customers.

``fit_rfm`` finds the cut points of a population; ``score_rfm`` grades any customers by them, a run's million or a
live one. R grades ``days_since_last_order`` (few days are good), F ``order_count``, M ``net_spend``.

Degenerate populations: without any customer nothing can be cut, and all scores are null (but for figures with own
thresholds); one customer, or many alike, equal every cut point and so score R = k, F = 1, M = 1.
"""

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property, lru_cache
from itertools import pairwise
from math import isfinite
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.analytics.counted import Counted, Place
from app.analytics.population import UNITS_PER_CURRENCY, Ids, id_array

SEGMENTS = (
    "new_customers",
    "potential_loyalists",
    "champions",
    "promising",
    "loyal_customers",
    "about_to_sleep",
    "need_attention",
    "hibernating",
    "at_risk",
    "cant_lose",
)
"""Segments of five grades, by R and F."""

SEGMENTS_OF_THREE = ("high_value", "medium_value", "low_value")
"""Segments of three grades, by the sum of the scores."""

Ties = Literal["equal", "first"]
Preset = Literal["quantiles", "thirds"]
BoundaryPair = tuple[int, str]

_GRID_OF_FIVE = {
    5: ("new_customers", "potential_loyalists", "potential_loyalists", "champions", "champions"),
    4: ("promising", "potential_loyalists", "potential_loyalists", "loyal_customers", "loyal_customers"),
    3: ("about_to_sleep", "about_to_sleep", "need_attention", "loyal_customers", "loyal_customers"),
    2: ("hibernating", "hibernating", "at_risk", "at_risk", "cant_lose"),
    1: ("hibernating", "hibernating", "at_risk", "at_risk", "cant_lose"),
}
_THIRDS_MONTHS = (4, 8)
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True)
class RfmSettings:
    """How to grade.

    Parameters
    ----------
    k : number of grades, 2 to 10. The preset ``thirds`` has three whatever ``k`` says.
    ties : "equal" gives equal figures equal scores, and may skip grades; "first" ranks F by
        (order_count, customer_id), so that quantile grades of F are even in size.
    window_days : limits F and M to the last days; None for all time. The figures come so limited: it is kept
        with the fit because live figures must be limited alike.
    preset : "quantiles", or "thirds": R by calendar months (at most 4 months ago 3, at most 8 months 2, else 1),
        F and M by thirds.
    r_limits, f_limits, m_limits : own limits instead of cut points, k − 1 numbers that rise strictly. A figure
        that equals a limit stands below it. R's are in days, M's in currency units. Any may be given alone.
    grid : own segments by R and F: "55" → name, or "10-9" when k = 10. It replaces the standard segments;
        a cell that it leaves out has none.

    Raises
    ------
    ValueError : a setting is not as described; the message names it.

    Examples
    --------
    >>> RfmSettings(preset="thirds").grades
    3
    """

    k: int = 5
    ties: Ties = "equal"
    window_days: int | None = None
    preset: Preset = "quantiles"
    r_limits: tuple[float, ...] | None = None
    f_limits: tuple[float, ...] | None = None
    m_limits: tuple[float, ...] | None = None
    grid: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or not 2 <= self.k <= 10:
            raise ValueError("k must be a whole number from 2 to 10")
        if self.ties not in ("equal", "first"):
            raise ValueError('ties must be "equal" or "first"')
        if self.preset not in ("quantiles", "thirds"):
            raise ValueError('preset must be "quantiles" or "thirds"')
        if self.window_days is not None and self.window_days < 1:
            raise ValueError("window_days must be at least 1")
        for letter in "rfm":
            limits = getattr(self, f"{letter}_limits")
            if limits is None:
                continue
            if len(limits) != self.grades - 1:
                raise ValueError(f"thresholds.{letter} must have {self.grades - 1} limits, one fewer than grades")
            if not all(isfinite(limit) for limit in limits) or any(a >= b for a, b in pairwise(limits)):
                raise ValueError(f"thresholds.{letter} must be finite and rise strictly")
        if self.grid is not None:
            cells = {cell_key(r, f, self.grades) for r in range(1, self.grades + 1) for f in range(1, self.grades + 1)}
            if not self.grid or not cells.issuperset(self.grid):
                raise ValueError(f'grid must name cells by R and F, such as "{cell_key(self.grades, 1, self.grades)}"')
            if not all(isinstance(name, str) and name for name in self.grid.values()):
                raise ValueError("grid must give each cell a name")

    @property
    def grades(self) -> int:
        """The number of grades in effect."""
        return 3 if self.preset == "thirds" else self.k


def cell_key(r: int, f: int, k: int) -> str:
    """The name of a cell in an own segment grid: "54", or "5-4" when there are ten grades."""
    return f"{r}-{f}" if k == 10 else f"{r}{f}"


@dataclass(frozen=True)
class RfmFit:
    """The cut points of a population, all that a live score needs. Plain numbers and strings: see ``to_dict``.

    Attributes
    ----------
    k : number of grades.
    customers : customers with a counted order that were fitted.
    window_days : the window of the figures, or None.
    r_cuts : k − 1 rising cut points of days_since_last_order, or None where ``r_months`` rule or nobody was fitted.
    r_months : calendar months (4, 8) in place of ``r_cuts``, or None.
    f_cuts : k − 1 cut points of order_count, or None where ``f_pairs`` rule or nobody was fitted.
    f_pairs : k − 1 pairs (order_count, customer_id) of the last customer at or below each cut of the ranks
        (ties = "first"), or None.
    m_cuts : k − 1 cut points of net_spend in currency units, or None where nobody was fitted.
    grid : own segment grid, or None.
    """

    k: int
    customers: int
    window_days: int | None = None
    r_cuts: tuple[float, ...] | None = None
    r_months: tuple[int, ...] | None = None
    f_cuts: tuple[float, ...] | None = None
    f_pairs: tuple[BoundaryPair, ...] | None = None
    m_cuts: tuple[float, ...] | None = None
    grid: Mapping[str, str] | None = None

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """The names that segment codes point into; empty where this fit knows no segments."""
        if self.grid is not None:
            return tuple(dict.fromkeys(self.grid[cell] for cell in sorted(self.grid)))
        return {5: SEGMENTS, 3: SEGMENTS_OF_THREE}.get(self.k, ())

    def r_limits(self, as_of_day: int) -> tuple[float, ...] | None:
        """R's cut points in days; those of calendar months depend on the day of ``as_of``."""
        if self.r_months is None:
            return self.r_cuts
        return tuple(float(as_of_day - months_before(as_of_day, months)) for months in self.r_months)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; ``from_dict`` reads it back."""
        return {
            "k": self.k,
            "customers": self.customers,
            "window_days": self.window_days,
            "r_cuts": _listed(self.r_cuts),
            "r_months": _listed(self.r_months),
            "f_cuts": _listed(self.f_cuts),
            "f_pairs": None
            if self.f_pairs is None
            else [{"order_count": figure, "customer_id": customer_id} for figure, customer_id in self.f_pairs],
            "m_cuts": _listed(self.m_cuts),
            "grid": None if self.grid is None else dict(self.grid),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "RfmFit":
        pairs = stored["f_pairs"]
        return cls(
            k=int(stored["k"]),
            customers=int(stored["customers"]),
            window_days=stored["window_days"],
            r_cuts=_floats(stored["r_cuts"]),
            r_months=None if stored["r_months"] is None else tuple(int(months) for months in stored["r_months"]),
            f_cuts=_floats(stored["f_cuts"]),
            f_pairs=None
            if pairs is None
            else tuple((int(pair["order_count"]), str(pair["customer_id"])) for pair in pairs),
            m_cuts=_floats(stored["m_cuts"]),
            grid=stored["grid"],
        )

    @cached_property
    def _cut_arrays(self) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, NDArray[np.float64] | None]:
        return _array(self.r_cuts), _array(self.f_cuts), _array(self.m_cuts)

    @cached_property
    def _pair_figures(self) -> NDArray[np.int64]:
        return np.array([figure for figure, _ in self.f_pairs or ()], dtype=np.int64)

    @cached_property
    def _segment_codes(self) -> NDArray[np.int8] | None:
        """Segment codes by [r, f], or by [r, f, m] for three grades. Grade −1, null, falls on the spare last row."""
        k = self.k
        if self.grid is not None:
            codes = np.full((k + 2, k + 2), -1, dtype=np.int8)
            for r in range(1, k + 1):
                for f in range(1, k + 1):
                    name = self.grid.get(cell_key(r, f, k))
                    codes[r, f] = -1 if name is None else self.segments.index(name)
            return codes
        if k == 5:
            codes = np.full((7, 7), -1, dtype=np.int8)
            for r, names in _GRID_OF_FIVE.items():
                codes[r, 1:6] = [SEGMENTS.index(name) for name in names]
            return codes
        if k == 3:
            codes = np.full((5, 5, 5), -1, dtype=np.int8)
            grades = np.arange(1, 4)
            total = grades[:, None, None] + grades[:, None] + grades
            codes[1:4, 1:4, 1:4] = np.where(total >= 8, 0, np.where(total >= 5, 1, 2))
            return codes
        return None


@dataclass(frozen=True, slots=True)
class RfmScores:
    """Scores of n customers: int8 arrays (n,), grades 1 … k, and segment codes into ``RfmFit.segments``; −1 is null."""

    r: NDArray[np.int8]
    f: NDArray[np.int8]
    m: NDArray[np.int8]
    segment: NDArray[np.int8]


def fit_rfm(
    settings: RfmSettings,
    *,
    days_since_last_order: Counted,
    order_count: Counted,
    net_spend: Counted,
    ranked: Mapping[Place, str] | None = None,
) -> RfmFit:
    """Find the cut points of a population: its customers with a counted order.

    A cut point is NumPy's linear quantile at i/k, i = 1 … k − 1.

    Parameters
    ----------
    settings : how to grade.
    days_since_last_order : days.
    order_count, net_spend : orders, and money in ten-thousandths of the currency unit, both limited to the window if
        the settings have one.
    ranked : the ids of the customers of ``f_boundaries``; only needed where there are any.

    Returns
    -------
    RfmFit

    Raises
    ------
    KeyError : an id is missing.

    Notes
    -----
    Source: Hughes, Strategic Database Marketing; quantiles are type 7 of Hyndman and Fan (1996).

    Examples
    --------
    >>> days, orders = Counted.of(np.array([1, 2, 3, 4, 5])), Counted.of(np.array([5, 4, 3, 2, 1]))
    >>> spend = Counted.of(np.array([10, 8, 6, 4, 2]) * 10_000)
    >>> fit_rfm(RfmSettings(), days_since_last_order=days, order_count=orders, net_spend=spend).m_cuts
    (3.6, 5.2, 6.8, 8.4)
    """
    k = settings.grades
    boundaries = f_boundaries(settings, order_count)
    f_pairs = tuple((place.value, (ranked or {})[place]) for place in boundaries) or None
    r_months = _THIRDS_MONTHS if settings.preset == "thirds" and settings.r_limits is None else None
    currency = Counted(net_spend.values / UNITS_PER_CURRENCY, net_spend.customers)
    return RfmFit(
        k=k,
        customers=order_count.size,
        window_days=settings.window_days,
        r_cuts=None if r_months else _cuts(days_since_last_order, k, settings.r_limits),
        r_months=r_months,
        f_cuts=None if f_pairs else _cuts(order_count, k, settings.f_limits),
        f_pairs=f_pairs,
        m_cuts=_cuts(currency, k, settings.m_limits),
        grid=None if settings.grid is None else dict(settings.grid),
    )


def f_boundaries(settings: RfmSettings, order_count: Counted) -> list[Place]:
    """The customers whose ids a fit has to know: the last of each grade of F where ties = "first" ranks them."""
    if settings.ties != "first" or settings.f_limits is not None or not order_count.size:
        return []
    return order_count.boundaries([i / settings.grades for i in range(1, settings.grades)])


def score_rfm(
    fit: RfmFit,
    *,
    as_of_day: int,
    days_since_last_order: NDArray[np.int64],
    order_count: NDArray[np.int64],
    net_spend: NDArray[np.float64],
    has_order: NDArray[np.bool_],
    customer_ids: Ids | None = None,
) -> RfmScores:
    """Grade customers by the cut points of a fit; rows in any order.

    F and M score 1 + #{cut < figure}, R scores k − #{cut < figure}. A customer of the fitted population whose
    figures have not changed gets the score that the population gave.

    Parameters
    ----------
    fit : of a population.
    as_of_day : the day the figures speak of, days since 1970-01-01.
    days_since_last_order, order_count : int64 arrays (n,), as in ``fit_rfm``; days are not looked at where there is no
        counted order.
    net_spend : float64 array (n,), in currency units.
    has_order : bool array (n,), whether the customer has a counted order at any time.
    customer_ids : n strings; only a fit with ties = "first" needs them.

    Returns
    -------
    RfmScores : all null where there is no counted order.

    Raises
    ------
    ValueError : the fit needs ids and they are missing or of another length.

    Examples
    --------
    >>> fit = RfmFit(k=5, customers=9, r_cuts=(2, 4, 6, 8), f_cuts=(1, 2, 3, 4), m_cuts=(10, 20, 30, 40))
    >>> scores = score_rfm(fit, as_of_day=0, days_since_last_order=np.array([2]), order_count=np.array([4]),
    ...                    net_spend=np.array([30.5]), has_order=np.array([True]))
    >>> score_texts(scores, 5).tolist(), fit.segments[scores.segment[0]]
    (['544'], 'champions')
    """
    r_cuts, f_cuts, m_cuts = fit._cut_arrays
    if fit.r_months is not None:
        r_cuts = _array(fit.r_limits(as_of_day))
    unscored = ~has_order
    r = _null(has_order) if r_cuts is None else (fit.k - r_cuts.searchsorted(days_since_last_order)).astype(np.int8)
    if fit.f_pairs is not None:
        f = _above_pairs(fit, order_count, customer_ids)
    else:
        f = _null(has_order) if f_cuts is None else (1 + f_cuts.searchsorted(order_count)).astype(np.int8)
    m = _null(has_order) if m_cuts is None else (1 + m_cuts.searchsorted(net_spend)).astype(np.int8)
    r[unscored] = f[unscored] = m[unscored] = -1
    codes = fit._segment_codes
    if codes is None:
        return RfmScores(r, f, m, _null(has_order))
    return RfmScores(r, f, m, codes[r, f] if codes.ndim == 2 else codes[r, f, m])


def score_text(r: int, f: int, m: int, k: int) -> str | None:
    """The scores in one text, "-" between them when there are ten grades; None where one is null.

    >>> score_text(5, 4, 4, 5), score_text(10, 9, 1, 10), score_text(-1, -1, -1, 5)
    ('544', '10-9-1', None)
    """
    if min(r, f, m) < 1:
        return None
    return f"{r}-{f}-{m}" if k == 10 else f"{r}{f}{m}"


def score_texts(scores: RfmScores, k: int) -> NDArray[np.object_]:
    """``score_text`` of each customer: an object array (n,) of strings and None."""
    texts: NDArray[np.object_] = _texts(k)[scores.r, scores.f, scores.m]
    return texts


def months_before(day: int, months: int) -> int:
    """The same day of the month, ``months`` calendar months earlier; the month's last day if it is shorter.

    Days are days since 1970-01-01.

    >>> months_before(59, 1), months_before(58, 1)  # 1 March and 28 February 1970
    (31, 27)
    """
    then = date.fromordinal(day + _EPOCH)
    year, month = divmod(then.year * 12 + then.month - 1 - months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(then.day, last)).toordinal() - _EPOCH


def _cuts(figures: Counted, k: int, limits: tuple[float, ...] | None) -> tuple[float, ...] | None:
    if limits is not None:
        return tuple(float(limit) for limit in limits)
    if not figures.size:
        return None
    return tuple(figures.quantiles([i / k for i in range(1, k)]).tolist())


def _above_pairs(fit: RfmFit, order_count: NDArray[np.int64], customer_ids: Ids | None) -> NDArray[np.int8]:
    """1 + the number of boundary pairs below (order_count, customer_id)."""
    ids = id_array(customer_ids, order_count.size, "because the fit ranked F by them")
    below = fit._pair_figures.searchsorted(order_count)
    score = (1 + below).astype(np.int8)
    for figure, customer_id in fit.f_pairs or ():
        tied = np.flatnonzero(order_count == figure)
        if tied.size:
            score[tied] += ids[tied] > customer_id
    return score


def _null(like: NDArray[np.bool_]) -> NDArray[np.int8]:
    return np.full(like.shape, -1, dtype=np.int8)


def _array(cuts: tuple[float, ...] | None) -> NDArray[np.float64] | None:
    return None if cuts is None else np.array(cuts, dtype=np.float64)


def _listed(values: tuple[Any, ...] | None) -> list[Any] | None:
    return None if values is None else list(values)


def _floats(values: list[Any] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)


@lru_cache(maxsize=16)
def _texts(k: int) -> NDArray[np.object_]:
    texts = np.full((k + 2, k + 2, k + 2), None, dtype=np.object_)
    for r in range(1, k + 1):
        for f in range(1, k + 1):
            for m in range(1, k + 1):
                texts[r, f, m] = score_text(r, f, m, k)
    return texts
