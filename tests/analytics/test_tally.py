"""Tallies of parts add up to that of the whole."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.analytics.counted import Counted
from app.analytics.tally import Histories, PurchaseTally, PurchaseValues, RankTally

Row = tuple[int, int, int, int, int]

rows_strategy = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(0, 4), st.integers(-3, 3), st.integers(0, 2)),
    max_size=40,
)


def columns(rows: list[Row]) -> list[Any]:
    """Rows are (frequency, recency, days since, spend, cost)."""
    x, t_x, *rest = (np.array([row[column] for row in rows], dtype=np.int64) for column in range(5))
    return [x, np.where(x > 0, t_x, 0), *rest]


def ranks_of(rows: list[Row], window: bool) -> RankTally:
    x, t_x, since, spend, _ = columns(rows)
    of_all = Counted.of(spend)
    days = Counted.of(t_x + since), Counted.of(since)
    return RankTally(*days, Counted.of(x + 1), Counted.of(spend // 2) if window else of_all, of_all)


def purchases_of(rows: list[Row], margin: bool) -> PurchaseTally:
    x, t_x, since, spend, cost = columns(rows)
    some = np.flatnonzero(x > 0)
    revenue = PurchaseValues.of(x[some], spend[some] / 2)
    values = PurchaseValues.of(x[some], (spend - cost)[some] / 2) if margin else revenue
    return PurchaseTally(Histories.of(x, t_x, t_x + since), values, revenue)


def listed(tally: Any) -> dict[str, Any]:
    return {
        f"{name}.{field}": getattr(getattr(tally, name), field).tolist()
        for name in tally.__dataclass_fields__
        for field in getattr(tally, name).__dataclass_fields__
    }


@given(rows_strategy, st.integers(1, 4), st.booleans(), st.booleans())
def test_parts_add_up_to_the_whole_whatever_they_are(rows: list[Row], parts: int, margin: bool, window: bool) -> None:
    cut = [rows[part::parts] for part in range(parts)]
    ranks = [RankTally.from_arrays(ranks_of(part, window).to_arrays()) for part in cut]
    assert listed(RankTally.joined(ranks)) == listed(ranks_of(rows, window))
    purchases = [PurchaseTally.from_arrays(purchases_of(part, margin).to_arrays()) for part in cut]
    assert listed(PurchaseTally.joined(purchases)) == listed(purchases_of(rows, margin))


@given(rows_strategy)
def test_customers_alike_are_one_row_and_counted(rows: list[Row]) -> None:
    x, t_x, since, _, _ = columns(rows)
    told = listed(purchases_of(rows, margin=True))
    own = list(zip(x.tolist(), t_x.tolist(), (t_x + since).tolist(), strict=True))
    names = ("frequency", "recency_days", "T_days")
    histories = list(zip(*(told[f"histories.{name}"] for name in names), strict=True))
    assert sorted(histories) == sorted(set(own))
    assert told["histories.customers"] == [own.count(history) for history in histories]
    assert purchases_of(rows, margin=False).histories.days_since_last_order.size == len(rows)
    worth = [(row[0], (row[3] - row[4]) / 2) for row in rows if row[0]]
    pairs = list(zip(told["values.frequency"], told["values.mean"], strict=True))
    assert pairs == sorted(set(worth))
    assert told["values.customers"] == [worth.count(pair) for pair in pairs]


@pytest.mark.parametrize("differs", [True, False])
def test_what_is_the_same_is_kept_once(differs: bool) -> None:
    rows = [(1, 2, 3, 4, 1), (0, 1, 2, 3, 0)]
    ranks, purchases = ranks_of(rows, window=differs).to_arrays(), purchases_of(rows, margin=differs).to_arrays()
    assert ("graded_spend.values" in ranks, "spend.mean" in purchases) == (differs, differs)
    joined = RankTally.joined([RankTally.from_arrays(ranks), RankTally.from_arrays(ranks)])
    assert (joined.graded_spend is joined.net_spend) is not differs
