"""The class of a row of scores, held to what it says in words."""

from math import floor, log10

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.score_columns import Moneys, Names, ScoreColumns
from app.store.scores import CLASS_WORDS, score_classes

_NAMES = {
    "segment": tuple(f"segment-{number}" for number in range(100)),
    "abc_grade": ("A", "B", "C"),
    "churn_state": ("active", "at_risk"),
    "churn_type": ("natural", "negligent"),
    "lifecycle_status": ("new", "active"),
}
_SPENT = st.integers(-(10**19), 10**19) | st.integers(-30_000, 30_000) | st.integers(0, 18).map(lambda power: 10**power)
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
    for code, (*named, money) in zip(score_classes(scores).tolist(), rows, strict=True):
        magnitude = floor(2 * log10(money / 10_000)) if money >= 10_000 else None
        assert told.setdefault(code, (named, magnitude)) == (named, magnitude)
    assert len(told) == len({str(one) for one in told.values()})
