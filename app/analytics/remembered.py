"""Histories that were valued before: live scores ask for few customers at a time, over and over with the same fit.

What is valued of a history depends on the fit and the horizon alone, so what is remembered is never stale; many
customers share a history (all who bought on the same two days, whatever they spent), and every customer keeps theirs
for a day. What is remembered is bounded, the oldest goes first.
"""

from __future__ import annotations

from collections.abc import Hashable
from threading import Lock

import numpy as np

from app.analytics.clv import ClvFit
from app.analytics.summary import CustomerFigures
from app.analytics.tabulation import KeptTables
from app.analytics.valuation import ClvValues, HistoryValues, ValuationTerms, value_histories, value_spending
from app.bounded import forget_oldest

MOST_HISTORIES = 65_536
"""About 35 MB."""


class RememberedValues:
    """Values by `value_clv` of customers whose histories recur. May be asked by several threads."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[float, ...]] = {}
        self._tables = KeptTables()
        self._lock = Lock()

    def value(self, name: Hashable, fit: ClvFit, figures: CustomerFigures, terms: ValuationTerms) -> ClvValues:
        """The same as `value_clv` of a predictive fit.

        Parameters
        ----------
        name : of the fit, told apart from all others that are asked for.
        fit : with a predictive model; the textbook's values are looked up faster than remembered.
        """
        buyers = np.flatnonzero(figures.has_order)
        columns = [column[buyers] for column in (figures.frequency, figures.recency_days, figures.T_days)]
        histories = list(zip(*(column.tolist() for column in columns), strict=True))
        known = {history: self._known.get((name, terms, history)) for history in histories}
        missing = [history for history, values in known.items() if values is None]
        if missing:
            x, t_x, T = np.array(missing, dtype=np.float64).T
            new = value_histories(fit, x, t_x, T, terms, self._tables.of((name, terms.horizon_days)))
            found = dict(zip(missing, map(tuple, new.to_columns().T.tolist()), strict=True))
            known |= found
            with self._lock:
                self._known.update(((name, terms, history), values) for history, values in found.items())
                forget_oldest(self._known, MOST_HISTORIES)
        if not histories:
            return ClvValues.unknown(figures.has_order.size)
        rows = np.array([known[history] for history in histories], dtype=np.float64)
        return value_spending(fit, figures, buyers, HistoryValues.from_columns(terms.interval_level, rows.T))
