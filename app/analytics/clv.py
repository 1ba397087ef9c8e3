"""Customer lifetime value: one fit and one valuation, whatever the model behind them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.analytics.summary import CustomerFigures
from app.analytics.textbook import Basis, TextbookFit, fit_textbook, value_textbook


@dataclass(frozen=True)
class ClvFit:
    """A fitted population: the model in use, and the textbook's figures, which always stand beside it.

    ``fallback_reason`` says why ``model`` is not the one that was asked for.
    """

    model: str
    basis: Basis
    textbook: TextbookFit
    customers: int
    fallback_reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it, in the shape of the contract; ``from_dict`` reads it back."""
        return {
            "model": self.model,
            "basis": self.basis,
            "params": {},
            "log_likelihood": None,
            "customers": self.customers,
            "gamma_gamma": None,
            "fallback_reason": self.fallback_reason,
            "textbook": self.textbook.to_dict(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "ClvFit":
        return cls(
            model=stored["model"],
            basis=stored["basis"],
            textbook=TextbookFit.from_dict(stored["textbook"]),
            customers=stored["customers"],
            fallback_reason=stored["fallback_reason"],
        )


@dataclass(frozen=True, slots=True)
class ClvValues:
    """Values of n customers over a horizon: float64 arrays (n,), NaN for null. Money in currency units."""

    predicted: NDArray[np.float64]
    expected_purchases: NDArray[np.float64]
    expected_purchase_value: NDArray[np.float64]
    p_alive: NDArray[np.float64]
    interval_low: NDArray[np.float64]
    interval_high: NDArray[np.float64]


def fit_clv(
    figures: CustomerFigures,
    segment: NDArray[np.int8],
    segments: tuple[str, ...],
    *,
    basis: Basis,
    lifespan_years: float,
) -> ClvFit:
    """Fit the population's lifetime value."""
    textbook = fit_textbook(
        segment=segment,
        segments=segments,
        has_order=figures.has_order,
        year_order_count=figures.year_order_count,
        year_net_spend=figures.year_net_spend,
        year_cost=figures.year_cost,
        prior_year_order_count=figures.prior_year_order_count,
        basis=basis,
        lifespan_years=lifespan_years,
    )
    return ClvFit("textbook", basis, textbook, int(np.count_nonzero(figures.has_order)))


def value_clv(
    fit: ClvFit, figures: CustomerFigures, segment: NDArray[np.int8], *, horizon_days: int
) -> ClvValues:
    """Value customers by a fit; rows in any order. All is null without a counted order."""
    values = value_textbook(
        fit.textbook, segment=segment, has_order=figures.has_order, horizon_days=horizon_days
    )
    unknown = np.full(segment.shape, np.nan)
    return ClvValues(
        values.predicted, values.expected_purchases, values.expected_purchase_value, unknown, unknown, unknown
    )
