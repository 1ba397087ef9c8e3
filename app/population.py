"""Customers and their figures as of one day, exact, in the form that scoring takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.analytics.population import UNITS_PER_CURRENCY
from app.analytics.summary import COUNT_FIGURES, DAY_FIGURES, MONEY_FIGURES, CustomerFigures

EPOCH_DAY = date(1970, 1, 1)
_WORD = 2**64


def _factor(name: str) -> np.int64:
    """An odd number of 64 bits that goes with a name."""
    drawn = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)
    return np.int64(drawn | 1)


SCORES_VERSION = 2
"""To be raised with each change of the code by which the same figures and the same fit give other scores."""

_ONLY_FITTED = "prior_year_order_count"
"""Fits count its buyers; no score depends on it, and live reads, which look back a year, can't tell it."""

_FACTORS = {
    name: _factor(name)
    for name in ("scores_version", "as_of_day", *COUNT_FIGURES, *DAY_FIGURES, *MONEY_FIGURES)
    if name != _ONLY_FITTED
}


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - EPOCH_DAY).days


def as_floats(units: NDArray[Any]) -> NDArray[np.float64]:
    """Money in currency units, each the float nearest to the exact amount."""
    money: NDArray[np.float64] = units.astype(np.float64) / UNITS_PER_CURRENCY
    return money


@dataclass(frozen=True)
class Population:
    """Customers and their figures as of one day, a row each.

    ``figures`` has an integer array per name: counts, days since 1970-01-01, and money in ten-thousandths of the
    currency unit, all exact.
    """

    as_of_day: int
    customer_ids: Sequence[str]
    figures: Mapping[str, NDArray[Any]]

    @property
    def arrays(self) -> CustomerFigures:
        """As the scores read them: money as float64. Made anew each time, since for millions it takes much room."""
        money: dict[str, Any] = {name: as_floats(self.figures[name]) for name in MONEY_FIGURES}
        whole: dict[str, Any] = {name: self.figures[name] for name in COUNT_FIGURES + DAY_FIGURES}
        return CustomerFigures(as_of_day=self.as_of_day, **whole, **money)

    def on_basis(self, basis: str, net: str, cost: str) -> NDArray[Any]:
        """Exact money of a period: net spend, or net spend less cost."""
        return self.figures[net] - self.figures[cost] if basis == "margin" else self.figures[net]

    def part(self, rows: slice) -> "Population":
        """Customers that follow one another."""
        return Population(
            self.as_of_day,
            self.customer_ids[rows],
            {name: column[rows] for name, column in self.figures.items()},
        )

    def digests(self) -> NDArray[np.int64]:
        """A number for each customer, shape (n,), that tells what scores depend on, beside a run's fit, from any other:
        the figures, the day, and the version of the code.

        A sum of products with odd factors of 64 bits, as in multilinear hashing (Lemire and Kaser 2014, "Strongly
        universal string hashing is fast", eq. 1). Figures that differ share a number by a chance of some 2^-50; the
        factors are no secret, so that holds of figures as they come, not of figures that are chosen to collide.
        """
        shared = {"scores_version": np.array([SCORES_VERSION]), "as_of_day": np.array([self.as_of_day])}
        told = {**self.figures, **shared}
        digests = np.zeros(len(self.figures["order_count"]), dtype=np.int64)
        for name, factor in _FACTORS.items():
            digests += _words(told[name]) * factor
        return digests


def _words(values: NDArray[Any]) -> NDArray[np.int64]:
    """Whole numbers as 64 bits; of larger ones the last."""
    if values.dtype == np.object_:
        values = (values + _WORD // 2) % _WORD - _WORD // 2
    return values.astype(np.int64, copy=False)
