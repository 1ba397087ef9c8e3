"""Textbook customer lifetime value: average order value × purchase frequency × lifespan, by segment.

All figures are of the last 365 days and undiscounted. The lifespan is the mean of a constant yearly loss: with a
share q of last year's buyers gone, 1/q years.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.analytics.population import UNITS_PER_CURRENCY, money_units

YEAR_DAYS = 365
SHORTEST_LIFESPAN_YEARS = 1.0
LONGEST_LIFESPAN_YEARS = 5.0
FEWEST_PRIOR_BUYERS = 30

Basis = Literal["revenue", "margin"]


@dataclass(frozen=True, slots=True)
class TextbookGroup:
    """The figures of a segment, or of all customers.

    Attributes
    ----------
    customers : customers with a counted order.
    orders, value : their orders of the last 365 days, and the money of these (net spend, or net spend less cost).
    average_order_value : value / orders in currency units, None where there are no orders.
    purchase_frequency : orders / customers, orders a year; 0 where there are no customers.
    prior_buyers : customers with an order in the 365 days before.
    lost_buyers : those of them without an order since.
    churn_share : lost_buyers / prior_buyers, None where there are fewer than 30 prior buyers.
    lifespan_years : 1 / churn_share within [1, 5], 5 where nobody was lost; the setting where churn_share is None.
    """

    customers: int
    orders: int
    value: float
    average_order_value: float | None
    purchase_frequency: float
    prior_buyers: int
    lost_buyers: int
    churn_share: float | None
    lifespan_years: float


@dataclass(frozen=True)
class TextbookFit:
    """The figures of each segment, in the order of segment codes, and of all customers together."""

    basis: Basis
    segments: Mapping[str, TextbookGroup]
    overall: TextbookGroup

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; ``from_dict`` reads it back. Segments are a list, because codes count on their order."""
        return {
            "basis": self.basis,
            "segments": [{"segment": name, **asdict(group)} for name, group in self.segments.items()],
            "overall": asdict(self.overall),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "TextbookFit":
        return cls(
            basis=stored["basis"],
            segments={
                row["segment"]: TextbookGroup(**{key: value for key, value in row.items() if key != "segment"})
                for row in stored["segments"]
            },
            overall=TextbookGroup(**stored["overall"]),
        )

    @cached_property
    def _table(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Value of an order (NaN for none), orders a year and lifespan by segment code, all customers' at −1."""
        groups = [group if group.customers else self.overall for group in self.segments.values()] + [self.overall]
        return (
            np.array([np.nan if group.average_order_value is None else group.average_order_value for group in groups]),
            np.array([group.purchase_frequency if group.customers else np.nan for group in groups]),
            np.array([group.lifespan_years for group in groups]),
        )


@dataclass(frozen=True, slots=True)
class TextbookValues:
    """Values of n customers: float64 arrays (n,), NaN for null.

    ``predicted`` is money over the horizon, ``expected_purchases`` orders over the horizon, and
    ``expected_purchase_value`` money an order.
    """

    predicted: NDArray[np.float64]
    expected_purchases: NDArray[np.float64]
    expected_purchase_value: NDArray[np.float64]


@dataclass(frozen=True)
class SegmentSums:
    """What the textbook's figures are made of, by segment: sums, so that those of parts of a population add up.

    Attributes
    ----------
    customers, orders, prior_buyers, lost_buyers : int64 arrays (s + 1,), as in ``TextbookGroup``, by segment code; the
        last row is of customers without a segment.
    value_units : float64 array (s + 1,), ten-thousandths: whole numbers, exact up to 900 billion currency units.
    """

    customers: NDArray[np.int64]
    orders: NDArray[np.int64]
    prior_buyers: NDArray[np.int64]
    lost_buyers: NDArray[np.int64]
    value_units: NDArray[np.float64]

    @classmethod
    def joined(cls, parts: Sequence["SegmentSums"]) -> "SegmentSums":
        """The sums of all parts together, of which there is at least one."""
        return cls(*(sum(getattr(part, field.name) for part in parts) for field in fields(cls)))


def sum_segments(
    *,
    segment: NDArray[np.int8],
    segments: tuple[str, ...],
    has_order: NDArray[np.bool_],
    year_order_count: NDArray[np.int64],
    year_net_spend: NDArray[np.float64],
    year_cost: NDArray[np.float64],
    prior_year_order_count: NDArray[np.int64],
    basis: Basis = "revenue",
) -> SegmentSums:
    """Add up the customers of a population, or of a part of one, by segment.

    Parameters
    ----------
    segment : integer array (n,) of codes into ``segments``, −1 for none.
    segments : the names, ``RfmFit.segments`` of the same run; may be empty.
    has_order : bool array (n,); customers without a counted order are left out.
    year_order_count, year_net_spend, year_cost : arrays (n,) of the last 365 days, money in currency units.
    prior_year_order_count : int64 array (n,), orders of the 365 days before.
    basis : "revenue" values an order by its net spend, "margin" by net spend less cost.

    Raises
    ------
    ValueError : ``basis`` is unknown.
    """
    if basis not in ("revenue", "margin"):
        raise ValueError('basis must be "revenue" or "margin"')
    size = len(segments) + 1
    codes = segment[has_order].astype(np.int64)
    codes[codes < 0] = size - 1
    year_orders = year_order_count[has_order]
    money = money_units(year_net_spend[has_order])
    if basis == "margin":
        money = money - money_units(year_cost[has_order])
    was_buyer = prior_year_order_count[has_order] > 0
    return SegmentSums(
        customers=np.bincount(codes, minlength=size),
        orders=np.bincount(codes, weights=year_orders, minlength=size).astype(np.int64),
        prior_buyers=np.bincount(codes[was_buyer], minlength=size),
        lost_buyers=np.bincount(codes[was_buyer & (year_orders == 0)], minlength=size),
        value_units=np.bincount(codes, weights=money, minlength=size).astype(np.float64),
    )


def fit_textbook(
    sums: SegmentSums, segments: tuple[str, ...], *, basis: Basis = "revenue", lifespan_years: float = 3.0
) -> TextbookFit:
    """Find each segment's average order value, purchase frequency and lifespan.

    Parameters
    ----------
    sums, segments, basis : of ``sum_segments``.
    lifespan_years : years, above 0, of a segment with fewer than 30 prior buyers.

    Returns
    -------
    TextbookFit

    Raises
    ------
    ValueError : ``lifespan_years`` is not above 0.

    Notes
    -----
    Source: the textbook formula, as in Gupta and Lehmann, Managing Customers as Investments (2005).

    Examples
    --------
    >>> sums = sum_segments(segment=np.array([0, 0]), segments=("champions",), has_order=np.array([True, True]),
    ...                     year_order_count=np.array([3, 1]), year_net_spend=np.array([70.0, 10.0]),
    ...                     year_cost=np.zeros(2), prior_year_order_count=np.array([0, 0]))
    >>> champions = fit_textbook(sums, ("champions",)).segments["champions"]
    >>> champions.average_order_value, champions.purchase_frequency, champions.lifespan_years
    (20.0, 2.0, 3.0)
    """
    if not lifespan_years > 0:
        raise ValueError("lifespan_years must be above 0")

    def group(rows: slice) -> TextbookGroup:
        counted = sums.customers, sums.orders, sums.prior_buyers, sums.lost_buyers
        customers, orders, prior, lost = (int(count[rows].sum()) for count in counted)
        money = float(sums.value_units[rows].sum()) / UNITS_PER_CURRENCY
        share = lost / prior if prior >= FEWEST_PRIOR_BUYERS else None
        if share is None:
            lifespan = float(lifespan_years)
        elif share == 0:
            lifespan = LONGEST_LIFESPAN_YEARS
        else:
            lifespan = min(max(prior / lost, SHORTEST_LIFESPAN_YEARS), LONGEST_LIFESPAN_YEARS)
        return TextbookGroup(
            customers=customers,
            orders=orders,
            value=money,
            average_order_value=money / orders if orders else None,
            purchase_frequency=orders / customers if customers else 0.0,
            prior_buyers=prior,
            lost_buyers=lost,
            churn_share=share,
            lifespan_years=lifespan,
        )

    return TextbookFit(
        basis=basis,
        segments={name: group(slice(code, code + 1)) for code, name in enumerate(segments)},
        overall=group(slice(None)),
    )


def value_textbook(
    fit: TextbookFit, *, segment: NDArray[np.int8], has_order: NDArray[np.bool_], horizon_days: int = 365
) -> TextbookValues:
    """Value customers by the figures of their segment; rows in any order.

    predicted = average order value × purchase frequency × min(horizon / 365, lifespan).

    Parameters
    ----------
    fit : of a population.
    segment : integer array (n,) of codes in the order of the fit's segments, −1 for none.
    has_order : bool array (n,).
    horizon_days : above 0.

    Returns
    -------
    TextbookValues : a customer without a segment, or of a segment that was empty when fitted, has the values of
        all customers together. A segment without orders in the year is worth 0, its value of an order null. All is
        null without a counted order, and where nobody was fitted.

    Raises
    ------
    ValueError : ``horizon_days`` is not above 0.

    Examples
    --------
    >>> group = TextbookGroup(2, 4, 80.0, 20.0, 2.0, 0, 0, None, 3.0)
    >>> fit = TextbookFit("revenue", {"champions": group}, group)
    >>> value_textbook(fit, segment=np.array([0]), has_order=np.array([True]), horizon_days=730).predicted.tolist()
    [80.0]
    """
    if not horizon_days > 0:
        raise ValueError("horizon_days must be above 0")
    order_value, frequency, lifespan = fit._table
    purchases = frequency * np.minimum(horizon_days / YEAR_DAYS, lifespan)
    predicted = order_value * purchases
    predicted[purchases == 0] = 0.0
    values = TextbookValues(predicted[segment], purchases[segment], order_value[segment])
    without = ~has_order
    values.predicted[without] = np.nan
    values.expected_purchases[without] = np.nan
    values.expected_purchase_value[without] = np.nan
    return values
