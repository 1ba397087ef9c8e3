"""Tallies of parts add up to that of the whole."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.analytics.counted import Counted
from app.analytics.tally import Histories, PurchaseValues, Tally

Row = tuple[int, int, int, int, int]

rows_strategy = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 4), st.integers(-3, 3), st.integers(0, 2)),
    max_size=40,
)


def tally_of(rows: list[Row], margin: bool, window: bool) -> Tally:
    """Rows are (frequency, recency, days since, spend, cost)."""
    x, t_x, since, spend, cost = (np.array([row[column] for row in rows], dtype=np.int64) for column in range(5))
    t_x = np.where(x > 0, t_x, 0)
    some = np.flatnonzero(x > 0)
    of_all = Counted.of(spend)
    revenue = PurchaseValues.of(x[some], spend[some] / 2)
    return Tally(
        order_count=Counted.of(x + 1),
        net_spend=Counted.of(spend // 2) if window else of_all,
        graded_spend=of_all,
        histories=Histories.of(x, t_x, t_x + since),
        purchase_values=PurchaseValues.of(x[some], (spend - cost)[some] / 2) if margin else revenue,
        purchase_spend=revenue,
    )


def listed(tally: Tally) -> dict[str, Any]:
    return {
        f"{name}.{field}": getattr(getattr(tally, name), field).tolist()
        for name in Tally.__dataclass_fields__
        for field in type(getattr(tally, name)).__dataclass_fields__
    }


@given(rows_strategy, st.integers(1, 4), st.booleans(), st.booleans())
def test_parts_add_up_to_the_whole_whatever_they_are(rows: list[Row], parts: int, margin: bool, window: bool) -> None:
    whole = tally_of(rows, margin, window)
    cut = [tally_of(rows[part::parts], margin, window) for part in range(parts)]
    joined = Tally.joined([Tally.from_arrays(part.to_arrays()) for part in cut])
    assert listed(joined) == listed(whole)
    histories = sorted(row for row in zip(*(listed(whole)[f"histories.{name}"] for name in HISTORY), strict=True))
    assert histories == sorted({*histories})
    assert sum(listed(whole)["histories.customers"]) == len(rows)
    assert whole.histories.days_since_last_order.size == len(rows)


HISTORY = ("frequency", "recency_days", "T_days")


def test_what_is_the_same_is_kept_once() -> None:
    rows = [(1, 2, 3, 4, 1), (0, 1, 2, 3, 0)]
    for margin, window in ((False, False), (True, True)):
        arrays = tally_of(rows, margin, window).to_arrays()
        assert ("graded_spend.values" in arrays, "purchase_spend.mean" in arrays) == (window, margin)
        joined = Tally.joined([Tally.from_arrays(arrays), Tally.from_arrays(arrays)])
        assert (joined.graded_spend is joined.net_spend) is not window
