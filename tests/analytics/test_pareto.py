import json
from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.analytics.pareto import GRADES, AbcBoundary, AbcFit, AbcSettings, grade_by_boundaries
from app.analytics.population import TotalTooLarge
from tests.analytics.populations import Graded, grade_abc

Population = tuple[list[str], list[int], list[bool]]

ids_strategy = st.sets(st.text("aAbBzZ019é中\U0001f600\uffee", min_size=1, max_size=3), min_size=1, max_size=40)
# Few distinct values make ties; round ones make shares that meet the limits exactly.
spends = st.one_of(st.integers(-3, 20).map(lambda n: n * 50_000), st.integers(-(10**6), 10**12))


@st.composite
def populations(draw: st.DrawFn) -> Population:
    ids = sorted(draw(ids_strategy), key=lambda customer_id: customer_id.encode())
    return ids, [draw(spends) for _ in ids], [draw(st.booleans()) for _ in ids]


def grade_all(
    ids: list[str],
    units: list[int],
    has_order: list[bool] | None = None,
    settings: AbcSettings | None = None,
    parts: int = 1,
) -> Graded:
    ordered = np.ones(len(ids), dtype=bool) if has_order is None else np.array(has_order, dtype=bool)
    return grade_abc(ids, np.array(units, dtype=np.int64), ordered, settings, parts)


def letters(codes: NDArray[np.int8]) -> list[str | None]:
    return [None if code < 0 else GRADES[code] for code in codes]


def reference(
    ids: list[str], units: list[int], has_order: list[bool], a_share: Fraction, b_share: Fraction
) -> list[tuple[str | None, float | None]]:
    """The definition in exact fractions, one customer after another: grade and cumulative share by id."""
    population = [(n, i) for n, i, ordered in zip(units, ids, has_order, strict=True) if ordered]
    total = sum(n for n, _ in population if n > 0)
    before, answer = 0, {}
    for n, customer_id in sorted(population, key=lambda row: (-row[0], row[1].encode())):
        if n <= 0:
            answer[customer_id] = ("C", 1.0)
            continue
        share = Fraction(before, total)
        before += n
        answer[customer_id] = ("A" if share < a_share else "B" if share < b_share else "C", before / total)
    return [answer.get(customer_id, (None, None)) for customer_id in ids]


@settings(max_examples=200, deadline=None)
@given(
    populations(),
    st.sampled_from([("0.8", "0.95"), ("0.8", "0.99"), ("0.5", "1"), ("0.1", "0.3")]),
    st.integers(1, 5),
)
def test_grades_follow_the_definition_customer_by_customer_in_any_number_of_parts(
    population: Population, shares: tuple[str, str], parts: int
) -> None:
    ids, units, has_order = population
    result = grade_all(ids, units, has_order, AbcSettings(a_share=shares[0], b_share=shares[1]), parts)
    expected = reference(ids, units, has_order, Fraction(shares[0]), Fraction(shares[1]))
    assert letters(result.grade) == [grade for grade, _ in expected]
    for share, (_, wanted) in zip(result.cumulative_share, expected, strict=True):
        assert np.isnan(share) if wanted is None else share == pytest.approx(wanted, rel=1e-15)


@settings(max_examples=200, deadline=None)
@given(populations(), st.randoms())
def test_boundaries_give_every_unchanged_customer_their_grade(population: Population, random: Random) -> None:
    ids, units, has_order = population
    result = grade_all(ids, units, has_order)
    stored = AbcFit.from_dict(json.loads(json.dumps(result.fit.to_dict())))
    assert stored == result.fit
    shuffled = list(range(len(ids)))
    random.shuffle(shuffled)
    live = grade_by_boundaries(
        stored,
        np.array([units[i] for i in shuffled], dtype=np.int64),
        np.array([has_order[i] for i in shuffled], dtype=bool),
        [ids[i] for i in shuffled],
    )
    assert live.tolist() == [result.grade[i] for i in shuffled]


@settings(max_examples=50, deadline=None)
@given(populations())
def test_totals_by_grade_and_the_curve_add_up_to_the_population(population: Population) -> None:
    ids, units, has_order = population
    result = grade_all(ids, units, has_order)
    graded = letters(result.grade)
    falling = sorted((max(n, 0) for n, ordered in zip(units, has_order, strict=True) if ordered), reverse=True)
    for count, share in zip(result.curve.customers, result.curve.spend_share, strict=True):
        assert share == pytest.approx(sum(falling[:count]) / max(result.fit.positive_units, 1))
    for grade, total in zip(GRADES, result.fit.totals, strict=True):
        members = [n for n, letter in zip(units, graded, strict=True) if letter == grade]
        assert (total.customers, total.net_spend_units) == (len(members), sum(members))
    curve = result.curve
    assert curve.customers[0] == 0
    assert curve.customers[-1] == result.fit.customers
    assert (np.diff(curve.spend_share) >= 0).all()
    assert curve.spend_share[-1] == (1.0 if result.fit.positive_units else 0.0)


def test_the_customer_who_crosses_a_limit_belongs_to_the_upper_grade() -> None:
    assert letters(grade_all(list("abcd"), [70, 15, 11, 4]).grade) == ["A", "A", "B", "C"]


def test_a_share_that_equals_a_limit_is_not_below_it() -> None:
    assert letters(grade_all(list("abc"), [80, 15, 5]).grade) == ["A", "B", "C"]
    assert letters(grade_all(list("abc"), [800_000, 150_000, 50_000]).grade) == ["A", "B", "C"]


def test_one_unit_before_a_limit_is_below_it() -> None:
    n = 10**17
    assert letters(grade_all(list("abc"), [8 * n - 1, n + n // 2, n // 2 + 1]).grade) == ["A", "A", "B"]
    assert letters(grade_all(list("abc"), [8 * n, n + n // 2 - 1, n // 2 + 1]).grade) == ["A", "B", "B"]
    assert letters(grade_all(list("abc"), [8 * n, n + n // 2, n // 2]).grade) == ["A", "B", "C"]


def test_the_literal_preset_ends_b_at_99_per_cent() -> None:
    units = [80, 15, 4, 1]
    assert letters(grade_all(list("abcd"), units, settings=AbcSettings(preset="literal")).grade) == ["A", "B", "B", "C"]
    assert letters(grade_all(list("abcd"), units).grade) == ["A", "B", "C", "C"]


def test_equal_spends_are_ordered_by_id() -> None:
    result = grade_all(["B", "a", "b", "é", "中"], [20] * 5)
    assert letters(result.grade) == ["A", "A", "A", "A", "B"]
    assert result.fit.last_a == AbcBoundary(20, "é")
    live = grade_by_boundaries(result.fit, np.array([20, 20, 20, 21]), np.ones(4, bool), ["è", "ê", "中", "文"])
    assert letters(live) == ["A", "B", "B", "A"]


def test_customers_without_positive_spend_are_c_and_without_orders_null() -> None:
    result = grade_all(list("abcd"), [100, 0, -5, -7], [True, True, True, False])
    assert letters(result.grade) == ["A", "C", "C", None]
    assert result.cumulative_share[:3].tolist() == [1.0, 1.0, 1.0]
    assert np.isnan(result.cumulative_share[3])
    assert result.fit.customers == 3
    assert result.fit.totals[2].net_spend_units == -5


def test_a_share_of_one_leaves_no_positive_spend_to_c() -> None:
    result = grade_all(list("abc"), [99, 1, 0], settings=AbcSettings(b_share=1))
    assert letters(result.grade) == ["A", "B", "C"]


def test_without_positive_spend_all_are_c_and_there_is_no_boundary() -> None:
    result = grade_all(list("ab"), [0, -5])
    assert letters(result.grade) == ["C", "C"]
    assert (result.fit.last_a, result.fit.last_b) == (None, None)
    assert result.cumulative_share.tolist() == [1.0, 1.0]
    live = grade_by_boundaries(result.fit, np.array([0, 10]), np.ones(2, bool), ["a", "b"])
    assert letters(live) == ["C", "C"]


def test_without_a_b_customers_behind_the_last_a_are_c() -> None:
    result = grade_all(list("ab"), [96, 4])
    assert letters(result.grade) == ["A", "C"]
    assert result.fit.last_b is None
    live = grade_by_boundaries(result.fit, np.array([96, 96, 95]), np.ones(3, bool), ["A", "b", "a"])
    assert letters(live) == ["A", "C", "C"]


def test_nobody_fitted_means_no_grade() -> None:
    result = grade_all(["a"], [-3], [False])
    assert letters(result.grade) == [None]
    assert result.fit.customers == 0
    assert letters(grade_by_boundaries(result.fit, np.array([5]), np.ones(1, bool), ["a"])) == [None]
    assert grade_all([], []).curve.customers.tolist() == [0]


def test_the_curve_has_at_most_200_points_and_both_boundaries() -> None:
    units = np.random.default_rng(3).lognormal(9, 2, 5_000).astype(np.int64).tolist()
    ids = [f"c{row:05}" for row in range(5_000)]
    result = grade_all(ids, units)
    a, b, _ = result.fit.totals
    assert result.curve.customers.size <= 200
    assert {a.customers, a.customers + b.customers} <= set(result.curve.customers.tolist())
    point = result.curve.customers.tolist().index(a.customers)
    assert result.curve.spend_share[point] == pytest.approx(a.net_spend_units / sum(units))
    assert result.curve.customer_share[point] == a.customers / 5_000


def test_totals_that_do_not_fit_are_refused_rather_than_wrapped() -> None:
    just_below = [4 * 10**18, 5 * 10**18 - 1]
    assert grade_all(list("ab"), just_below).fit.positive_units == 9 * 10**18 - 1
    with pytest.raises(TotalTooLarge):
        grade_all(list("ab"), [4 * 10**18, 5 * 10**18])
    with pytest.raises(TotalTooLarge):
        grade_all(list("abc"), [8 * 10**18] * 3)
    with pytest.raises(TotalTooLarge):
        grade_all(["a"], [-(2**63)])
    with pytest.raises(TotalTooLarge):
        grade_all(["a"], [-9 * 10**18])


def test_negative_totals_beyond_64_bits_stay_exact() -> None:
    result = grade_all(list("abc"), [-(8 * 10**18)] * 3)
    assert result.fit.totals[2].net_spend_units == -24 * 10**18
    assert AbcFit.from_dict(result.fit.to_dict()) == result.fit


def test_a_stored_fit_shows_money_as_decimals() -> None:
    stored = grade_all(list("abc"), [800_000, 150_000, 50_000]).fit.to_dict()
    assert stored["last_a"] == {"net_spend": "80.0000", "customer_id": "a"}
    assert stored["last_b"] == {"net_spend": "15.0000", "customer_id": "b"}
    assert stored["grades"][2] == {"grade": "C", "customers": 1, "net_spend": "5.0000"}
    assert (stored["a_share"], stored["b_share"]) == ("0.8", "0.95")


def test_as_many_ids_as_customers_are_needed() -> None:
    with pytest.raises(ValueError, match="one id a customer"):
        grade_by_boundaries(grade_all(["a"], [1]).fit, np.array([1, 2]), np.ones(2, bool), ["a"])


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "other"},
        {"a_share": 0},
        {"a_share": 0.95},
        {"a_share": 0.96},
        {"b_share": 1.01},
        {"a_share": "nan"},
        {"b_share": "inf"},
        {"a_share": "1/3"},
        {"a_share": "much"},
    ],
)
def test_shares_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"share|preset"):
        AbcSettings(**options)


def test_shares_are_the_decimals_they_are_written_as() -> None:
    assert AbcSettings(a_share=0.7, b_share=Decimal("0.9")).shares == (Fraction(7, 10), Fraction(9, 10))
