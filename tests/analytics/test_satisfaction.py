import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.analytics.satisfaction import Satisfaction, satisfaction
from tests.analytics.evidence_reference import Happened, to_columns

NOW = 100.0


def by_customer(*stories: Sequence[Happened]) -> Satisfaction:
    columns = to_columns(stories)
    return satisfaction(columns, columns.customer, len(stories), NOW)


def opened(at: float, subject: int = 0) -> Happened:
    return Happened("complaint.opened", at, subject=subject)


def resolved(at: float, subject: int = 0, detail: str | None = None) -> Happened:
    return Happened("complaint.resolved", at, detail, subject=subject)


def answer(detail: str, mark: float, scale: float = math.nan, at: float = 1.0) -> Happened:
    return Happened("survey.answered", at, detail, number=mark, scale=scale)


def delivery(days_late: float) -> Happened:
    return Happened("order.delivered", 1.0, number=days_late)


def test_open_complaints_are_those_without_a_last_word() -> None:
    told = by_customer(
        [opened(1, 1), resolved(2, 1), opened(3, 2)],
        [opened(1), resolved(2), Happened("complaint.reopened", 3)],
        [opened(1), resolved(101)],
        [],
    )
    assert told.complaints.tolist() == [2, 1, 1, 0]
    assert told.complaints_open.tolist() == [1, 1, 1, 0]


def test_time_to_resolution_runs_from_the_first_opening_to_the_last_resolution() -> None:
    told = by_customer(
        [opened(1, 1), resolved(4, 1), opened(10, 2), resolved(11, 2)],
        [opened(1), resolved(2), Happened("complaint.reopened", 5), resolved(9, detail="unsatisfied")],
        [opened(3, 1), resolved(4, 1), opened(3, 2), resolved(5, 2), opened(3, 3), resolved(90, 3), opened(4, 4)],
        [resolved(4)],
    )
    np.testing.assert_array_equal(told.resolution_days, [2.0, 8.0, 2.0, np.nan])


def test_nps_is_promoters_less_detractors_on_any_scale() -> None:
    told = by_customer(
        [answer("nps", mark) for mark in (10, 9, 8, 7, 6, 0)],
        [answer("nps", mark, scale=5) for mark in (5, 4, 3, 1)],
        [answer("nps", mark, scale=100) for mark in (95, 100, 80, 20)],
        [answer("csat", 5)],
    )
    np.testing.assert_allclose(told.nps, [0.0, -25.0, 25.0, np.nan])
    assert told.nps_answers.tolist() == [6, 4, 4, 0]


def test_csat_is_the_share_of_the_upper_marks_on_any_scale() -> None:
    told = by_customer(
        [answer("csat", mark) for mark in (5, 4, 3, 1)],
        [answer("csat", mark, scale=10) for mark in (10, 8, 7, 2)],
        [answer("nps", 10), answer("effort", 7)],
    )
    np.testing.assert_allclose(told.csat, [0.5, 0.5, np.nan])
    assert told.csat_answers.tolist() == [4, 4, 0]


def test_a_survey_without_a_mark_is_no_answer() -> None:
    told = by_customer([answer("nps", math.nan), answer("nps", 10)])
    assert told.nps_answers.tolist() == [1]
    assert told.nps.tolist() == [100.0]


def test_late_share_counts_deliveries_with_a_promise() -> None:
    told = by_customer([delivery(1), delivery(0), delivery(-2), delivery(math.nan)], [delivery(math.nan)])
    assert told.deliveries.tolist() == [3, 0]
    np.testing.assert_allclose(told.late_share, [1 / 3, np.nan])


def test_what_comes_later_is_not_counted() -> None:
    told = by_customer([answer("nps", 0, at=101), Happened("complaint.opened", 101)])
    assert told.nps_answers.tolist() == told.complaints.tolist() == [0]


def test_periods_are_groups_and_a_complaint_belongs_to_that_of_its_first_event() -> None:
    columns = to_columns([[opened(1), answer("nps", 10, at=2), resolved(40), answer("nps", 0, at=41)]])
    month = (columns.occurred_at // 30).astype(np.int64)
    told = satisfaction(columns, month, 2, NOW)
    assert told.complaints.tolist() == [1, 0]
    np.testing.assert_array_equal(told.resolution_days, [39.0, np.nan])
    np.testing.assert_array_equal(told.nps, [100.0, -100.0])


def test_all_together_complaints_of_two_customers_stay_apart() -> None:
    columns = to_columns([[opened(1, 5)], [resolved(9, 5), opened(2, 5)]])
    told = satisfaction(columns, np.zeros(3, dtype=np.int64), 1, NOW)
    assert told.complaints.tolist() == [2]
    assert told.complaints_open.tolist() == [1]
    assert told.resolution_days.tolist() == [7.0]


def test_nobody_has_no_figures() -> None:
    assert by_customer().nps.shape == (0,)
    assert np.isnan(by_customer([]).csat).all()


def test_groups_out_of_range_or_of_another_length_are_refused() -> None:
    columns = to_columns([[opened(1)]])
    with pytest.raises(ValueError, match="from 0"):
        satisfaction(columns, np.array([1]), 1, NOW)
    with pytest.raises(ValueError, match="one element"):
        satisfaction(columns, np.array([0, 0]), 1, NOW)


happenings = st.one_of(
    st.builds(opened, st.integers(0, 20).map(float), st.integers(0, 2)),
    st.builds(resolved, st.integers(0, 20).map(float), st.integers(0, 2), st.sampled_from([None, "satisfied"])),
    st.builds(lambda at, subject: Happened("complaint.reopened", at, subject=subject),
              st.integers(0, 20).map(float), st.integers(0, 2)),
    st.builds(answer, st.sampled_from(["nps", "csat"]), st.integers(0, 10).map(float)),
    st.builds(delivery, st.sampled_from([math.nan, -1.0, 0.0, 2.0])),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(happenings, max_size=8), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_events_does_not_matter(stories: list[list[Happened]], chance: object) -> None:
    rng = np.random.default_rng(chance.getrandbits(32))  # type: ignore[attr-defined]
    one = by_customer(*stories)
    other = by_customer(*([story[i] for i in rng.permutation(len(story))] for story in stories))
    for name in Satisfaction.__slots__:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
