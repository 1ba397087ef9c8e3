import json
from datetime import date
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.analytics.rfm import (
    SEGMENTS,
    Preset,
    RfmFit,
    RfmScores,
    RfmSettings,
    Ties,
    months_before,
    score_rfm,
    score_text,
    score_texts,
)
from tests.analytics.populations import fit_rfm_of

Row = tuple[int, int, float, bool]
Population = tuple[list[str], list[Row]]

# Ids that "C" collation, locale collations and UTF-16 order differently.
ids_strategy = st.sets(st.text("aAbBzZ019-_é中\U0001f600\uffee", min_size=1, max_size=3), min_size=1, max_size=40)


@st.composite
def populations(draw: st.DrawFn) -> Population:
    ids = sorted(draw(ids_strategy), key=lambda customer_id: customer_id.encode())
    rows = [
        (
            draw(st.integers(0, 400)),
            draw(st.integers(0, 4)),
            draw(st.integers(-50_000, 3_000_000)) / 10_000,
            draw(st.booleans()),
        )
        for _ in ids
    ]
    return ids, rows


def arrays(ids: list[str] | None, rows: list[Row]) -> dict[str, Any]:
    return {
        "days_since_last_order": np.array([row[0] for row in rows], dtype=np.int64),
        "order_count": np.array([row[1] for row in rows], dtype=np.int64),
        "net_spend": np.array([row[2] for row in rows], dtype=np.float64),
        "has_order": np.array([row[3] for row in rows], dtype=np.bool_),
        "customer_ids": ids,
    }


def day(text: str) -> int:
    return date.fromisoformat(text).toordinal() - date(1970, 1, 1).toordinal()


def fit_and_score(
    settings: RfmSettings, ids: list[str], rows: list[Row], as_of_day: int = 0, parts: int = 1
) -> tuple[RfmFit, RfmScores]:
    fit = fit_rfm_of(settings, **arrays(ids, rows), parts=parts)
    return fit, score_rfm(fit, as_of_day=as_of_day, **arrays(ids, rows))


def reference_scores(k: int, ties: Ties, ids: list[str], rows: list[Row]) -> list[tuple[int, int, int]]:
    """The definition, one customer after another."""
    population = [(customer_id, *row) for customer_id, row in zip(ids, rows, strict=True) if row[3]]
    ranks = {row[0]: rank for rank, row in enumerate(sorted(population, key=lambda r: (r[2], r[0].encode())), 1)}

    def frequency(customer_id: str, order_count: int) -> int:
        return ranks[customer_id] if ties == "first" else order_count

    answer = []
    for customer_id, (days, orders, spend, has_order) in zip(ids, rows, strict=True):
        if not has_order:
            answer.append((-1, -1, -1))
            continue
        r_cuts = [np.quantile([row[1] for row in population], i / k) for i in range(1, k)]
        f_cuts = [np.quantile([frequency(row[0], row[2]) for row in population], i / k) for i in range(1, k)]
        m_cuts = [np.quantile([row[3] for row in population], i / k) for i in range(1, k)]
        answer.append(
            (
                k - sum(cut < days for cut in r_cuts),
                1 + sum(cut < frequency(customer_id, orders) for cut in f_cuts),
                1 + sum(cut < spend for cut in m_cuts),
            )
        )
    return answer


def triples(scores: RfmScores) -> list[tuple[int, int, int]]:
    return list(zip(scores.r.tolist(), scores.f.tolist(), scores.m.tolist(), strict=True))


@settings(max_examples=60, deadline=None)
@given(populations(), st.integers(2, 10), st.sampled_from(["equal", "first"]), st.integers(1, 5))
def test_scores_follow_the_definition_customer_by_customer_in_any_number_of_parts(
    population: Population, k: int, ties: Ties, parts: int
) -> None:
    ids, rows = population
    _, scores = fit_and_score(RfmSettings(k=k, ties=ties), ids, rows, parts=parts)
    assert triples(scores) == reference_scores(k, ties, ids, rows)


@settings(max_examples=60, deadline=None)
@given(populations(), st.integers(2, 10), st.sampled_from(["equal", "first"]), st.randoms())
def test_a_live_score_equals_that_of_the_run_for_unchanged_figures(
    population: Population, k: int, ties: Ties, random: Random
) -> None:
    ids, rows = population
    fit, scores = fit_and_score(RfmSettings(k=k, ties=ties), ids, rows)
    stored = RfmFit.from_dict(json.loads(json.dumps(fit.to_dict())))
    assert stored == fit
    row = random.randrange(len(ids))
    live = score_rfm(stored, as_of_day=0, **arrays(ids[row : row + 1], rows[row : row + 1]))
    assert triples(live) == [triples(scores)[row]]
    assert live.segment.tolist() == [scores.segment[row]]


@settings(max_examples=40, deadline=None)
@given(populations(), st.randoms())
def test_scoring_does_not_depend_on_the_order_of_rows(population: Population, random: Random) -> None:
    ids, rows = population
    fit, scores = fit_and_score(RfmSettings(ties="first"), ids, rows)
    shuffled = list(range(len(ids)))
    random.shuffle(shuffled)
    again = score_rfm(fit, as_of_day=0, **arrays([ids[i] for i in shuffled], [rows[i] for i in shuffled]))
    assert triples(again) == [triples(scores)[i] for i in shuffled]


def test_five_customers_in_a_row_get_five_grades() -> None:
    rows = [
        (10, 5, 500.0, True),
        (20, 4, 400.0, True),
        (30, 3, 300.0, True),
        (40, 2, 200.0, True),
        (50, 1, 100.0, True),
    ]
    fit, scores = fit_and_score(RfmSettings(), list("abcde"), rows)
    assert fit.r_cuts == (18.0, 26.0, 34.0, 42.0)
    assert fit.f_cuts == pytest.approx((1.8, 2.6, 3.4, 4.2))
    assert score_texts(scores, 5).tolist() == ["555", "444", "333", "222", "111"]


def test_a_figure_that_equals_a_cut_point_stays_below_it() -> None:
    fit = RfmFit(k=5, customers=9, r_cuts=(10, 20, 30, 40), f_cuts=(1, 2, 3, 4), m_cuts=(1, 2, 3, 4))
    scores = score_rfm(
        fit,
        as_of_day=0,
        days_since_last_order=np.array([10, 11, 40, 41]),
        order_count=np.array([1, 2, 4, 5]),
        net_spend=np.array([1.0, 1.0001, 4.0, 4.0001]),
        has_order=np.ones(4, dtype=bool),
    )
    assert triples(scores) == [(5, 1, 1), (4, 2, 2), (2, 4, 4), (1, 5, 5)]


def test_equal_figures_may_skip_grades() -> None:
    rows = [(1, orders, 1.0, True) for orders in (1, 1, 1, 1, 1, 1, 1, 2, 3, 4)]
    _, scores = fit_and_score(RfmSettings(), list("abcdefghij"), rows)
    assert scores.f.tolist() == [1, 1, 1, 1, 1, 1, 1, 4, 5, 5]


def test_ranked_ties_make_even_grades_in_the_order_of_ids() -> None:
    rows = [(1, 1, 1.0, True)] * 10
    fit, scores = fit_and_score(RfmSettings(ties="first"), list("ABCDEabcde"), rows)
    assert scores.f.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert fit.f_pairs == ((1, "B"), (1, "D"), (1, "a"), (1, "c"))


def test_ranked_live_customers_are_placed_by_figure_and_then_id() -> None:
    fit = RfmFit(k=3, customers=9, r_cuts=(1, 2), f_pairs=((2, "m"), (4, "é")), m_cuts=(1, 2))

    def f(order_count: int, customer_id: str) -> int:
        row = [(1, order_count, 1.0, True)]
        return int(score_rfm(fit, as_of_day=0, **arrays([customer_id], row)).f[0])

    assert [f(1, "z"), f(2, "l"), f(2, "m"), f(2, "ma"), f(3, "a")] == [1, 1, 1, 2, 2]
    assert [f(4, "z"), f(4, "é"), f(4, "中"), f(5, "a")] == [2, 2, 3, 3]


def test_ids_that_are_needed_and_missing_are_refused() -> None:
    rows = [(1, 1, 1.0, True)] * 2
    fit, _ = fit_and_score(RfmSettings(ties="first"), ["a", "b"], rows)
    with pytest.raises(ValueError, match="needed"):
        score_rfm(fit, as_of_day=0, **arrays(None, rows))
    with pytest.raises(ValueError, match="one id a customer"):
        score_rfm(fit, as_of_day=0, **arrays(["a"], rows))


@pytest.mark.parametrize("ties", ["equal", "first"])
def test_one_customer_is_recent_and_otherwise_lowest(ties: Ties) -> None:
    fit, scores = fit_and_score(RfmSettings(ties=ties), ["a"], [(400, 7, 12.5, True)])
    assert triples(scores) == [(5, 1, 1)]
    assert fit.segments[scores.segment[0]] == "new_customers"


def test_customers_all_alike_score_alike() -> None:
    _, scores = fit_and_score(RfmSettings(), list("abcdefg"), [(3, 2, 9.99, True)] * 7)
    assert set(triples(scores)) == {(5, 1, 1)}


@pytest.mark.parametrize("ties", ["equal", "first"])
@pytest.mark.parametrize("preset", ["quantiles", "thirds"])
def test_a_population_without_orders_scores_nobody(ties: Ties, preset: Preset) -> None:
    nobody = [(0, 0, -5.0, False)]
    fit, scores = fit_and_score(RfmSettings(ties=ties, preset=preset), ["a"], nobody)
    assert fit.customers == 0
    assert triples(scores) == [(-1, -1, -1)]
    assert score_texts(scores, fit.k).tolist() == [None]
    live = score_rfm(fit, as_of_day=0, **arrays(["a"], [(1, 1, 5.0, True)]))
    assert (live.f[0], live.m[0], live.segment[0]) == (-1, -1, -1)
    assert fit_and_score(RfmSettings(ties=ties, preset=preset), [], [])[0].customers == 0


def test_customers_without_orders_do_not_move_the_cuts() -> None:
    rows = [(10, 1, 1.0, True), (20, 2, 2.0, True)]
    alone, _ = fit_and_score(RfmSettings(), ["a", "b"], rows)
    among, scores = fit_and_score(RfmSettings(), ["a", "b", "c"], [*rows, (9999, 99, -99.0, False)])
    assert alone == among
    assert scores.segment[2] == -1


GRID = {
    "new_customers": ["51"],
    "potential_loyalists": ["52", "53", "42", "43"],
    "champions": ["54", "55"],
    "promising": ["41"],
    "loyal_customers": ["44", "45", "34", "35"],
    "about_to_sleep": ["31", "32"],
    "need_attention": ["33"],
    "hibernating": ["11", "12", "21", "22"],
    "at_risk": ["13", "14", "23", "24"],
    "cant_lose": ["15", "25"],
}


def every_cell(k: int, **options: Any) -> dict[tuple[int, int, int], str | None]:
    """Segments of all scores (r, f, m) of a fit with limits 1 … k − 1."""
    limits = tuple(range(1, k))
    fit = RfmFit(k=k, customers=1, r_cuts=limits, f_cuts=limits, m_cuts=limits, **options)
    r, f, m = (axis.ravel() for axis in np.meshgrid(*[np.arange(1, k + 1)] * 3, indexing="ij"))
    scores = score_rfm(
        fit,
        as_of_day=0,
        days_since_last_order=k + 1 - r,
        order_count=f,
        net_spend=m.astype(float),
        has_order=np.ones(r.size, dtype=bool),
    )
    assert triples(scores) == list(zip(r.tolist(), f.tolist(), m.tolist(), strict=True))
    names = [fit.segments[code] if code >= 0 else None for code in scores.segment]
    return dict(zip(triples(scores), names, strict=True))


def test_segments_of_five_grades_come_from_r_and_f() -> None:
    expected = {cell: name for name, cells in GRID.items() for cell in cells}
    assert len(expected) == 25
    assert set(SEGMENTS) == set(GRID)
    for (r, f, _), name in every_cell(5).items():
        assert name == expected[f"{r}{f}"]


def test_segments_of_three_grades_come_from_the_sum() -> None:
    for scores, name in every_cell(3).items():
        assert name == {8: "high_value", 9: "high_value", 3: "low_value", 4: "low_value"}.get(
            sum(scores), "medium_value"
        )


@pytest.mark.parametrize("k", [2, 4, 10])
def test_other_numbers_of_grades_have_no_segments_without_a_grid(k: int) -> None:
    assert set(every_cell(k).values()) == {None}


def test_an_own_grid_replaces_the_segments_and_may_leave_cells_out() -> None:
    ten = every_cell(10, grid={"10-9": "stars", "1-10": "sleepers"})
    assert ten[10, 9, 1] == "stars"
    assert ten[1, 10, 4] == "sleepers"
    assert ten[9, 10, 4] is None
    three = every_cell(3, grid={"33": "best", "11": "rest"})
    assert three[3, 3, 1] == "best"
    assert three[1, 1, 3] == "rest"
    assert three[2, 2, 2] is None


def test_own_limits_replace_the_cuts_of_their_figure_alone() -> None:
    rows = [(10, 1, 10.0, True), (20, 2, 20.0, True), (30, 3, 30.0, True)]
    fit, scores = fit_and_score(RfmSettings(k=3, r_limits=(10, 29)), list("abc"), rows)
    assert fit.r_cuts == (10.0, 29.0)
    assert fit.m_cuts == pytest.approx((16.6667, 23.3333), abs=1e-4)
    assert scores.r.tolist() == [3, 2, 1]
    ranked, _ = fit_and_score(RfmSettings(k=3, ties="first", f_limits=(1, 2)), list("abc"), rows)
    assert (ranked.f_cuts, ranked.f_pairs) == ((1.0, 2.0), None)


def test_own_limits_score_even_where_nobody_was_fitted() -> None:
    limits = (1, 2, 3, 4)
    fit, _ = fit_and_score(RfmSettings(r_limits=limits, f_limits=limits, m_limits=limits), [], [])
    assert triples(score_rfm(fit, as_of_day=0, **arrays(["a"], [(2, 2, 2.0, True)]))) == [(4, 2, 2)]


def test_thirds_grade_r_by_calendar_months() -> None:
    as_of = day("2011-06-01")
    lasts = ["2011-06-01", "2011-02-01", "2011-01-31", "2010-10-01", "2010-09-30"]
    rows = [(as_of - day(last), 1, 1.0, True) for last in lasts]
    fit, scores = fit_and_score(RfmSettings(preset="thirds"), list("abcde"), rows, as_of)
    assert fit.k == 3
    assert scores.r.tolist() == [3, 3, 2, 2, 1]
    assert fit.r_limits(as_of) == (120.0, 243.0)


def test_thirds_follow_the_day_that_is_asked_about() -> None:
    fit, _ = fit_and_score(RfmSettings(preset="thirds"), ["a"], [(1, 1, 1.0, True)])
    # Four months before 30 June are 122 days back, before 1 June 120.
    row = arrays(["a"], [(121, 1, 1.0, True)])
    assert score_rfm(fit, as_of_day=day("2011-06-30"), **row).r.tolist() == [3]
    assert score_rfm(fit, as_of_day=day("2011-06-01"), **row).r.tolist() == [2]


def test_thirds_cut_f_and_m_by_thirds() -> None:
    rows = [(1, orders, 10.0 * orders, True) for orders in (1, 2, 3, 4, 5, 6)]
    _, scores = fit_and_score(RfmSettings(preset="thirds"), list("abcdef"), rows)
    assert scores.f.tolist() == scores.m.tolist() == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("then", "months", "expected"),
    [
        ("2011-06-01", 4, "2011-02-01"),
        ("2011-06-30", 4, "2011-02-28"),
        ("2012-06-30", 4, "2012-02-29"),
        ("2011-01-31", 4, "2010-09-30"),
        ("2011-04-15", 4, "2010-12-15"),
        ("2011-12-31", 12, "2010-12-31"),
    ],
)
def test_months_back_keep_the_day_or_end_with_the_month(then: str, months: int, expected: str) -> None:
    assert months_before(day(then), months) == day(expected)


def test_a_window_is_kept_with_the_fit_and_customers_outside_of_it_count() -> None:
    rows = [(500, 0, 0.0, True), (10, 2, 20.0, True)]
    fit, scores = fit_and_score(RfmSettings(window_days=365), ["a", "b"], rows)
    assert (fit.window_days, fit.customers) == (365, 2)
    assert triples(scores) == [(1, 1, 1), (5, 5, 5)]


def test_score_texts_have_dashes_only_with_ten_grades() -> None:
    scores = RfmScores(*(np.array([grade, -1], dtype=np.int8) for grade in (5, 4, 3, 0)))
    assert score_texts(scores, 5).tolist() == ["543", None]
    assert score_texts(scores, 10).tolist() == ["5-4-3", None]
    assert score_text(10, 10, 1, 10) == "10-10-1"
    assert score_text(9, 9, 1, 9) == "991"
    assert score_text(5, -1, 5, 5) is None


def test_a_fit_with_every_option_survives_json() -> None:
    fit = RfmFit(
        k=3,
        customers=2,
        window_days=30,
        r_months=(4, 8),
        f_pairs=((1, "é"), (2, "b")),
        m_cuts=(0.1, 0.2),
        grid={"33": "x"},
    )
    assert RfmFit.from_dict(json.loads(json.dumps(fit.to_dict()))) == fit


@pytest.mark.parametrize(
    "options",
    [
        {"k": 1},
        {"k": 11},
        {"k": 5.0},
        {"k": True},
        {"ties": "last"},
        {"preset": "halves"},
        {"window_days": 0},
        {"r_limits": (1, 2, 3)},
        {"f_limits": (1, 2, 2, 3)},
        {"m_limits": (4, 3, 2, 1)},
        {"m_limits": (1, 2, 3, float("inf"))},
        {"m_limits": (float("nan"), 1, 2, 3)},
        {"preset": "thirds", "r_limits": (1, 2, 3, 4)},
        {"grid": {}},
        {"grid": {"56": "x"}},
        {"grid": {"5-5": "x"}},
        {"grid": {"55": ""}},
        {"k": 10, "grid": {"55": "x"}},
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|thresholds"):
        RfmSettings(**options)


def test_a_wrong_number_of_limits_is_named() -> None:
    with pytest.raises(ValueError, match=r"thresholds\.f must have 4 limits"):
        RfmSettings(f_limits=(1, 2))


def test_the_limits_of_settings_are_accepted() -> None:
    assert RfmSettings(k=2).grades == 2
    assert RfmSettings(k=10, window_days=1, grid={"10-10": "x"}).grades == 10
    assert RfmSettings(k=5, preset="thirds", r_limits=(1, 2), grid={"33": "x"}).grades == 3
