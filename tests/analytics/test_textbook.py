import json
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.analytics.textbook import Basis, SegmentSums, TextbookFit, fit_textbook, sum_segments, value_textbook

Row = tuple[int, bool, int, int, int, int]

customers_strategy = st.lists(
    st.tuples(
        st.integers(-1, 2),
        st.booleans(),
        st.integers(0, 3),
        st.integers(-500_000, 5_000_000),
        st.integers(0, 1_000_000),
        st.integers(0, 1),
    ),
    max_size=120,
)


def fit_of(
    rows: list[Row],
    segments: tuple[str, ...] = ("x", "y", "z"),
    basis: Basis = "revenue",
    parts: int = 1,
    **options: Any,
) -> TextbookFit:
    """Rows are (segment, has_order, orders, net, cost, prior orders), money in ten-thousandths."""
    each = [sums_of(rows[part::parts], segments, basis) for part in range(parts)]
    return fit_textbook(SegmentSums.joined(each), segments, basis=basis, **options)


def sums_of(rows: list[Row], segments: tuple[str, ...], basis: Basis) -> SegmentSums:
    return sum_segments(
        segment=np.array([row[0] for row in rows], dtype=np.int8),
        segments=segments,
        has_order=np.array([row[1] for row in rows], dtype=bool),
        year_order_count=np.array([row[2] for row in rows], dtype=np.int64),
        year_net_spend=np.array([row[3] for row in rows], dtype=float) / 10_000,
        year_cost=np.array([row[4] for row in rows], dtype=float) / 10_000,
        prior_year_order_count=np.array([row[5] for row in rows], dtype=np.int64),
        basis=basis,
    )


def value_of(fit: TextbookFit, segment: int, has_order: bool = True, horizon_days: int = 365) -> tuple[float, ...]:
    values = value_textbook(
        fit, segment=np.array([segment], dtype=np.int8), has_order=np.array([has_order]), horizon_days=horizon_days
    )
    return tuple(
        float(part[0]) for part in (values.predicted, values.expected_purchases, values.expected_purchase_value)
    )


def reference(
    rows: list[tuple[int, int, int, int]], basis: Basis, lifespan_years: float, horizon_days: int
) -> tuple[float, float, float]:
    """The definition for one group of (orders, net, cost, prior orders): predicted, purchases, order value."""
    orders = sum(row[0] for row in rows)
    money = sum(row[1] - (row[2] if basis == "margin" else 0) for row in rows) / 10_000
    prior = [row for row in rows if row[3] > 0]
    lifespan = lifespan_years
    if len(prior) >= 30:
        q = sum(row[0] == 0 for row in prior) / len(prior)
        lifespan = 5 if q == 0 else min(5, max(1, 1 / q))
    if orders == 0:
        return 0.0, 0.0, float("nan")
    years = min(horizon_days / 365, lifespan)
    return money / orders * (orders / len(rows)) * years, orders / len(rows) * years, money / orders


@settings(max_examples=150, deadline=None)
@given(
    customers_strategy,
    st.sampled_from(["revenue", "margin"]),
    st.sampled_from([0.5, 3.0]),
    st.sampled_from([90, 365, 3650]),
)
def test_values_follow_the_definition_segment_by_segment(
    rows: list[Row], basis: Basis, lifespan_years: float, horizon_days: int
) -> None:
    fit = fit_of(rows, basis=basis, lifespan_years=lifespan_years)
    everyone = [row[2:] for row in rows if row[1]]
    for code in (-1, 0, 1, 2):
        members = everyone if code < 0 else [row[2:] for row in rows if row[1] and row[0] == code]
        group = members or everyone
        if not group:
            assert np.isnan(value_of(fit, code, horizon_days=horizon_days)).all()
            continue
        expected = reference(group, basis, lifespan_years, horizon_days)
        assert value_of(fit, code, horizon_days=horizon_days) == pytest.approx(expected, rel=1e-12, nan_ok=True)


@settings(max_examples=50, deadline=None)
@given(customers_strategy, st.randoms(), st.integers(1, 5))
def test_the_fit_depends_neither_on_the_order_of_rows_nor_on_parts(rows: list[Row], random: Random, parts: int) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert fit_of(shuffled, parts=parts) == fit_of(rows)


def test_hand_worked_value() -> None:
    # Two customers, 3 orders of 120 in all: AOV 40, frequency 1.5; a horizon of half a year.
    fit = fit_of([(0, True, 2, 900_000, 300_000, 0), (0, True, 1, 300_000, 0, 0)])
    assert value_of(fit, 0, horizon_days=365) == pytest.approx((60.0, 1.5, 40.0))
    assert value_of(fit, 0, horizon_days=73) == pytest.approx((12.0, 0.3, 40.0))
    margin = fit_of([(0, True, 2, 900_000, 300_000, 0), (0, True, 1, 300_000, 0, 0)], basis="margin")
    assert value_of(margin, 0) == pytest.approx((45.0, 1.5, 30.0))


def test_the_horizon_counts_no_further_than_the_lifespan() -> None:
    fit = fit_of([(0, True, 1, 100_000, 0, 0)], lifespan_years=2)
    assert value_of(fit, 0, horizon_days=730)[0] == pytest.approx(20.0)
    assert value_of(fit, 0, horizon_days=731)[0] == pytest.approx(20.0)
    assert value_of(fit, 0, horizon_days=729)[0] == pytest.approx(10.0 * 729 / 365)


@pytest.mark.parametrize(
    ("prior", "lost", "share", "lifespan"),
    [
        (29, 29, None, 3.0),
        (30, 30, 1.0, 1.0),
        (30, 0, 0.0, 5.0),
        (30, 1, 1 / 30, 5.0),
        (30, 6, 0.2, 5.0),
        (30, 7, 7 / 30, 30 / 7),
        (40, 20, 0.5, 2.0),
        (40, 38, 0.95, 40 / 38),
    ],
)
def test_the_lifespan_is_one_over_the_share_of_lost_buyers(
    prior: int, lost: int, share: float | None, lifespan: float
) -> None:
    rows = [(0, True, 0 if row < lost else 1, 10_000, 0, 1) for row in range(prior)]
    newcomers = [(0, True, 1, 10_000, 0, 0), (0, True, 0, 0, 0, 0)]
    group = fit_of(rows + newcomers).segments["x"]
    assert (group.prior_buyers, group.lost_buyers) == (prior, lost)
    assert group.churn_share == share
    assert group.lifespan_years == pytest.approx(lifespan)


def test_a_segment_without_orders_in_the_year_is_worth_nothing() -> None:
    fit = fit_of([(0, True, 0, 0, 0, 1), (1, True, 1, 50_000, 0, 0)])
    predicted, purchases, order_value = value_of(fit, 0)
    assert (predicted, purchases) == (0.0, 0.0)
    assert np.isnan(order_value)
    assert fit.segments["x"].average_order_value is None


def test_refunds_alone_in_a_year_leave_a_segment_without_value() -> None:
    fit = fit_of([(0, True, 0, -50_000, 0, 1)])
    assert value_of(fit, 0)[0] == 0.0


def test_a_segment_that_was_empty_when_fitted_is_valued_as_all_customers() -> None:
    fit = fit_of([(0, True, 2, 100_000, 0, 0), (-1, True, 0, 0, 0, 0)])
    assert value_of(fit, 1) == value_of(fit, -1) == pytest.approx((5.0, 1.0, 5.0))
    assert value_of(fit, 0) == pytest.approx((10.0, 2.0, 5.0))


def test_without_segments_all_customers_are_one_group() -> None:
    fit = fit_of([(-1, True, 2, 100_000, 0, 0), (-1, True, 0, 0, 0, 0)], segments=())
    assert fit.segments == {}
    assert value_of(fit, -1) == pytest.approx((5.0, 1.0, 5.0))


def test_customers_without_orders_have_no_value_and_count_nowhere() -> None:
    rows = [(0, True, 1, 100_000, 0, 0)]
    fit = fit_of([*rows, (-1, False, 0, -70_000, 0, 0)])
    assert fit == fit_of(rows)
    assert np.isnan(value_of(fit, -1, has_order=False)).all()


def test_a_stored_fit_values_the_same() -> None:
    fit = fit_of([(0, True, 2, 123_456, 7, 1), (2, True, 1, 1, 0, 0)], basis="margin")
    stored = TextbookFit.from_dict(json.loads(json.dumps(fit.to_dict())))
    assert stored == fit
    assert list(stored.segments) == ["x", "y", "z"]
    assert value_of(stored, 2) == value_of(fit, 2)


def test_nonsense_is_refused() -> None:
    for years in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="lifespan_years"):
            fit_of([], lifespan_years=years)
    with pytest.raises(ValueError, match="basis"):
        fit_of([], basis="profit")  # type: ignore[arg-type]
    for horizon in (0, -30):
        with pytest.raises(ValueError, match="horizon_days"):
            value_of(fit_of([]), 0, horizon_days=horizon)
