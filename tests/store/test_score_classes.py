"""The class of a row of scores, held to what it says in words."""

from decimal import Decimal
from math import floor, log10

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.score_columns import Moneys, Names, ScoreColumns
from app.store.score_classes import Amounts
from app.store.scores import CLASS_WORDS, class_codes

_NAMES = {
    "segment": tuple(f"segment-{number}" for number in range(100)),
    "abc_grade": ("A", "B", "C"),
    "churn_state": ("active", "at_risk"),
    "churn_type": ("natural", "negligent"),
    "lifecycle_status": ("new", "active"),
}
_SPENT = (
    st.integers(-(10**19), 10**19) | st.integers(-30_000, 30_000) | st.integers(0, 18).map(lambda power: 3 * 10**power)
)
_ROWS = st.lists(
    st.tuples(*(st.sampled_from((-1, 0, len(_NAMES[word]) - 1)) for word in CLASS_WORDS), _SPENT),
    min_size=1,
    max_size=40,
)


@given(_ROWS)
def test_rows_are_of_one_class_where_their_words_and_their_half_power_of_ten_are_equal(
    rows: list[tuple[int, ...]],
) -> None:
    *words, spent = zip(*rows, strict=True)
    units = np.array(spent, dtype=np.object_ if max(map(abs, spent)) >= 2**63 else np.int64)
    columns = {word: Names(np.array(codes), _NAMES[word]) for word, codes in zip(CLASS_WORDS, words, strict=True)}
    scores = ScoreColumns([""] * len(rows), {**columns, "net_spend": Moneys(units)})
    told: dict[int, tuple[list[int], int | None]] = {}
    for code, (*named, money) in zip(class_codes(scores).tolist(), rows, strict=True):
        magnitude = floor(2 * log10(money / 10_000)) if money >= 10_000 else None
        assert told.setdefault(code, (named, magnitude)) == (named, magnitude)
    assert len(told) == len({str(one) for one in told.values()})


@pytest.mark.parametrize("moved_by", [0.0, -150.0])
@pytest.mark.parametrize(("at_least", "at_most"), [(None, 90), (200, None), (80, 130), (5_000, None), (-90, 20)])
def test_the_share_of_amounts_within_bounds_is_about_that_of_a_sample(
    moved_by: float, at_least: int | None, at_most: int | None
) -> None:
    amounts = np.exp(np.random.default_rng(5).normal(4.8, 0.4, 20_000)) + moved_by
    known = Amounts(Decimal(amounts.min()), Decimal(amounts.max()), float(amounts.mean()), float(amounts.std()))
    within = np.ones(amounts.size, dtype=bool)
    if at_least is not None:
        within &= amounts >= at_least
    if at_most is not None:
        within &= amounts <= at_most
    bounds = (None if bound is None else Decimal(bound) for bound in (at_least, at_most))
    assert known.share(*bounds) == pytest.approx(within.mean(), abs=0.02 if moved_by == 0 else 0.15)


def test_all_of_equal_amounts_are_within_bounds() -> None:
    assert Amounts(Decimal(5), Decimal(5), 5.0, 0.0).share(Decimal(5), None) == 1.0
