"""Values that were computed before: live scores ask for few customers at a time, over and over with the same fit.

A customer's value depends on the fit, the horizon and the history alone, so what is remembered is never stale; many
customers share a history (one purchase, so many days ago), and every customer keeps theirs for a day. What is
remembered is bounded, the oldest goes first.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields, replace
from threading import Lock
from typing import Any

import numpy as np

from app.analytics.clv import ClvFit, ClvValues, mean_purchase_value, value_clv
from app.analytics.summary import CustomerFigures
from app.analytics.tabulation import KeptTables
from app.bounded import forget_oldest

MOST_HISTORIES = 65_536
"""About 30 MB."""

_FIGURES = tuple(ClvValues.__slots__)


class RememberedValues:
    """Values by `value_clv` of customers whose histories recur. May be asked by several threads."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[float, ...]] = {}
        self._tables = KeptTables()
        self._lock = Lock()

    def value(
        self,
        name: Hashable,
        fit: ClvFit,
        figures: CustomerFigures,
        *,
        horizon_days: int,
        discount_rate: float,
        interval_level: float,
        churn_horizon_days: int,
    ) -> ClvValues:
        """The same as `value_clv` of a predictive fit.

        Parameters
        ----------
        name : of the fit and its rates, told apart from all others that are asked for.
        fit : with a predictive model; the textbook's values are looked up faster than remembered.
        """
        histories = self._histories((name, horizon_days), fit, figures)
        missing = [row for row, history in enumerate(histories) if history not in self._known]
        rows = {history: self._known.get(history) for history in histories}
        if missing:
            # One row a history: customers that share it are valued once.
            first = list({histories[row]: row for row in reversed(missing)}.values())
            new = value_clv(
                fit,
                _rows_of(figures, np.array(first)),
                np.full(len(first), -1, dtype=np.int8),
                horizon_days=horizon_days,
                discount_rate=discount_rate,
                interval_level=interval_level,
                churn_horizon_days=churn_horizon_days,
                kept=self._tables.of((name, horizon_days)),
            )
            told = zip(*(getattr(new, figure).tolist() for figure in _FIGURES), strict=True)
            found = dict(zip((histories[row] for row in first), told, strict=True))
            rows |= found
            with self._lock:
                self._known |= found
                forget_oldest(self._known, MOST_HISTORIES)
        columns = np.array([rows[history] for history in histories], dtype=np.float64).reshape(-1, len(_FIGURES))
        return ClvValues(*columns.T)

    def _histories(self, name: Hashable, fit: ClvFit, figures: CustomerFigures) -> list[Hashable]:
        """What the value of each customer depends on; None for those who never bought."""
        amount = figures.monetary_value
        mean = amount if fit.basis == "revenue" else mean_purchase_value(figures, fit.basis)
        columns = (figures.frequency, figures.recency_days, figures.T_days, mean, amount)
        return [
            (name, *history) if has_order else (name, None)
            for has_order, *history in zip(
                figures.has_order.tolist(), *(column.tolist() for column in columns), strict=True
            )
        ]


def _rows_of(figures: CustomerFigures, rows: Any) -> CustomerFigures:
    columns = (field.name for field in fields(figures) if field.name != "as_of_day")
    return replace(figures, **{name: getattr(figures, name)[rows] for name in columns})
