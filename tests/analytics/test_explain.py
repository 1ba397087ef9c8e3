from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.analytics.churn import STATES, ChurnLimits, state_by_inactivity
from app.analytics.explain import (
    LifecycleExplanation,
    RfmExplanation,
    explain_abc,
    explain_churn,
    explain_lifecycle,
    explain_rfm,
)
from app.analytics.lifecycle import STATUSES, LifecycleLimits, lifecycle_stage, lifecycle_status
from app.analytics.pareto import GRADES, AbcFit, grade_by_boundaries
from app.analytics.rfm import Preset, RfmFit, RfmSettings, Ties, score_rfm
from tests.analytics.populations import fit_rfm_of, grade_abc

Population = tuple[list[str], list[tuple[int, int, int]]]
Row = tuple[int, int, int]

AS_OF = 15_000
ids_strategy = st.lists(st.text("abcé中", min_size=1, max_size=3), min_size=1, max_size=25, unique=True).map(sorted)


@st.composite
def populations(draw: st.DrawFn) -> Population:
    ids = draw(ids_strategy)
    rows = [(draw(st.integers(0, 300)), draw(st.integers(1, 4)), draw(st.integers(-10, 10**6))) for _ in ids]
    return ids, rows


def rfm_arrays(ids: list[str], rows: list[Row]) -> dict[str, Any]:
    return {
        "days_since_last_order": np.array([row[0] for row in rows]),
        "order_count": np.array([row[1] for row in rows]),
        "net_spend": np.array([row[2] for row in rows]) / 10_000,
        "has_order": np.ones(len(rows), dtype=bool),
        "customer_ids": ids,
    }


def rfm_score(fit: RfmFit, customer_id: str, days: int, orders: int, units: int) -> tuple[int, int, int]:
    scores = score_rfm(fit, as_of_day=AS_OF, **rfm_arrays([customer_id], [(days, orders, units)]))
    return int(scores.r[0]), int(scores.f[0]), int(scores.m[0])


@settings(max_examples=150, deadline=None)
@given(
    populations(),
    st.integers(2, 10),
    st.sampled_from(["equal", "first"]),
    st.sampled_from(["quantiles", "thirds"]),
    st.randoms(),
)
def test_rfm_distances_are_the_least_that_better_a_score(
    population: Population, k: int, ties: Ties, preset: Preset, random: Random
) -> None:
    ids, rows = population
    fit = fit_rfm_of(RfmSettings(k=k, ties=ties, preset=preset), **rfm_arrays(ids, rows))
    row = random.randrange(len(ids))
    customer_id, (days, orders, units) = ids[row], rows[row]
    why = explain_rfm(
        fit,
        as_of_day=AS_OF,
        days_since_last_order=days,
        order_count=orders,
        net_spend=units / 10_000,
        customer_id=customer_id,
    )
    r, f, m = rfm_score(fit, customer_id, days, orders, units)
    assert (why.r.score, why.f.score, why.m.score) == (r, f, m)
    assert (why.r.figure, why.f.figure, why.m.figure) == (days, orders, units / 10_000)

    if why.r.distance is None or why.r.next_score is None:
        assert (why.r.distance, why.r.next_score) == (None, None)
        assert rfm_score(fit, customer_id, 0, orders, units)[0] == r
    else:
        sooner = int(why.r.distance)
        assert rfm_score(fit, customer_id, days - sooner, orders, units)[0] == why.r.next_score > r
        assert rfm_score(fit, customer_id, days - sooner + 1, orders, units)[0] == r

    if why.f.distance is None or why.f.next_score is None:
        assert (why.f.distance, why.f.next_score) == (None, None)
        assert f == fit.k
    else:
        more = int(why.f.distance)
        assert rfm_score(fit, customer_id, days, orders + more, units)[1] == why.f.next_score > f
        assert rfm_score(fit, customer_id, days, orders + more - 1, units)[1] == f

    if why.m.distance is None or why.m.next_score is None:
        assert (why.m.distance, why.m.next_score) == (None, None)
        assert m == fit.k
    else:
        spend = round(why.m.distance * 10_000)
        assert rfm_score(fit, customer_id, days, orders, units + spend)[2] == why.m.next_score > m
        assert rfm_score(fit, customer_id, days, orders, units + spend - 1)[2] == m


def explained(
    fit: RfmFit, days: int | None = 5, orders: int = 2, spend: float = 10.0, customer_id: str = "m"
) -> RfmExplanation:
    return explain_rfm(
        fit,
        as_of_day=AS_OF,
        days_since_last_order=days,
        order_count=orders,
        net_spend=spend,
        customer_id=customer_id,
    )


def test_hand_worked_rfm_distances() -> None:
    fit = RfmFit(k=3, customers=9, r_cuts=(2.5, 2.9), f_cuts=(2, 3.5), m_cuts=(10, 10))
    why = explained(fit)
    assert (why.r.score, why.r.next_score, why.r.distance) == (1, 3, 3)
    assert (why.f.score, why.f.next_score, why.f.distance) == (1, 2, 1)
    assert (why.m.score, why.m.next_score, why.m.distance) == (1, 3, 0.0001)
    assert why.r.cut_points == (2.5, 2.9)


def test_money_too_large_for_small_steps_is_passed_all_the_same() -> None:
    cut = 5e12
    fit = RfmFit(k=2, customers=9, m_cuts=(cut,))
    why = explained(fit, spend=cut)
    assert (why.m.score, why.m.next_score) == (1, 2)
    assert why.m.distance is not None
    assert cut + why.m.distance > cut


def test_the_best_scores_have_no_next() -> None:
    fit = RfmFit(k=3, customers=9, r_cuts=(5, 8), f_cuts=(1, 1), m_cuts=(1, 2))
    why = explained(fit)
    for part in (why.r, why.f, why.m):
        assert (part.score, part.next_score, part.distance) == (3, None, None)


def test_days_below_zero_are_out_of_reach() -> None:
    beyond = explained(RfmFit(k=3, customers=9, r_cuts=(-2, -1)), days=4).r
    assert (beyond.score, beyond.next_score, beyond.distance) == (1, None, None)
    assert explained(RfmFit(k=3, customers=9, r_cuts=(0, 1)), days=1).r.distance == 1


def test_calendar_months_are_shown_in_days() -> None:
    why = explained(RfmFit(k=3, customers=9, r_months=(4, 8)), days=400)
    assert why.r.cut_points == tuple(sorted(why.r.cut_points))
    assert why.r.distance == 400 - why.r.cut_points[1]


def test_among_equal_counts_the_id_decides_how_many_orders_are_missing() -> None:
    fit = RfmFit(k=3, customers=9, f_pairs=((2, "m"), (4, "m")))
    assert explained(fit, customer_id="m").f.distance == 1
    assert explained(fit, customer_id="n").f.score == 2
    assert explained(fit, customer_id="n").f.distance == 2
    assert explained(fit, customer_id="a", orders=3).f.distance == 2
    assert explained(fit).f.cut_points == (2.0, 4.0)


def test_without_orders_or_a_population_there_is_no_score_to_explain() -> None:
    fit = RfmFit(k=3, customers=9, r_cuts=(1, 2), f_cuts=(1, 2), m_cuts=(1, 2))
    why = explained(fit, days=None)
    assert (why.m.figure, why.m.score, why.m.cut_points, why.m.distance) == (None, None, (1, 2), None)
    nobody = explained(RfmFit(k=3, customers=0))
    for part in (nobody.r, nobody.f, nobody.m):
        assert (part.score, part.cut_points, part.next_score, part.distance) == (None, (), None, None)


def abc_letter(fit: AbcFit, units: int, customer_id: str) -> str:
    return GRADES[grade_by_boundaries(fit, np.array([units]), np.array([True]), [customer_id])[0]]


@settings(max_examples=150, deadline=None)
@given(ids_strategy, st.data())
def test_abc_distances_are_the_least_that_better_a_grade(ids: list[str], data: st.DataObject) -> None:
    spends = st.one_of(st.integers(-1, 3), st.integers(-(10**4), 10**9))
    units = [data.draw(spends) for _ in ids]
    fit = grade_abc(ids, np.array(units), np.ones(len(ids), dtype=bool)).fit
    own, customer_id = data.draw(spends), data.draw(st.sampled_from([*ids, "bb", "文"]))
    why = explain_abc(fit, net_spend_units=own, has_order=True, customer_id=customer_id)
    assert why.grade == abc_letter(fit, own, customer_id)
    assert (why.last_a, why.last_b) == (fit.last_a, fit.last_b)
    if why.distance_units is None:
        assert why.grade == "A" or fit.last_a is None
    else:
        assert why.distance_units > 0
        assert abc_letter(fit, own + why.distance_units, customer_id) == why.next_grade
        assert str(why.next_grade) < why.grade
        assert abc_letter(fit, own + why.distance_units - 1, customer_id) == why.grade


def test_no_grade_without_an_order_or_a_population() -> None:
    fit = grade_abc(["a"], np.array([5]), np.array([True])).fit
    assert explain_abc(fit, net_spend_units=-3, has_order=False, customer_id="a").grade is None
    empty = grade_abc(["a"], np.array([5]), np.array([False])).fit
    assert explain_abc(empty, net_spend_units=9, has_order=True, customer_id="a").grade is None


@given(st.integers(0, 400))
def test_the_churn_state_changes_on_the_day_foretold(days: int) -> None:
    def state(days: int) -> int:
        return int(state_by_inactivity(np.array([days]), np.array([True]))[0])

    why = explain_churn(days_since_last_order=days, state=state(days))
    assert why.state == STATES[state(days)]
    assert why.limits == (90, 180)
    if why.days_until_next is None:
        assert (why.state, why.next_state) == ("churned", None)
    else:
        assert STATES[state(days + why.days_until_next)] == why.next_state
        assert STATES[state(days + why.days_until_next - 1)] == why.state


def test_equal_limits_lead_from_active_to_churned() -> None:
    why = explain_churn(days_since_last_order=5, state=0, limits=ChurnLimits(active_days=9, at_risk_days=9))
    assert (why.next_state, why.days_until_next) == ("churned", 5)


def test_a_state_by_probability_shows_the_probability_and_foretells_no_day() -> None:
    why = explain_churn(days_since_last_order=5, state=1, method="probability", probability=0.6)
    assert (why.state, why.probability, why.limits) == ("at_risk", 0.6, (0.5, 0.9))
    assert (why.next_state, why.days_until_next) == (None, None)


def test_a_prospect_has_never_purchased() -> None:
    why = explain_churn(days_since_last_order=None, state=3)
    assert (why.state, why.days_until_next) == ("never_purchased", None)


def lifecycle_codes(since: int, age: int, purchase_days: int, limits: LifecycleLimits) -> int:
    """Of a customer whose purchase days all lie in the last year."""
    has_order = np.array([True])
    code = lifecycle_status(
        has_order=has_order,
        days_since_last_order=np.array([since]),
        T_days=np.array([age]),
        year_purchase_days=np.array([purchase_days]),
        limits=limits,
    )
    return int(code[0])


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 60), st.sampled_from([180, 100, 30]), st.sampled_from([180, 120]))
def test_the_status_changes_on_the_day_foretold(since: int, between: int, new_within: int, inactive_after: int) -> None:
    limits = LifecycleLimits(new_within_days=new_within, inactive_after_days=inactive_after)
    age, purchase_days = since + between, 2 if between else 1
    status = lifecycle_codes(since, age, purchase_days, limits)
    why = explain_lifecycle(
        status=status,
        stage=2,
        churn_state=0,
        days_since_last_order=since,
        T_days=age,
        year_purchase_days=purchase_days,
        half_net_spend=0.0,
        prior_half_net_spend=0.0,
        limits=limits,
    )
    if why.days_until_next is None:
        assert why.status == "inactive"
        return
    later = why.days_until_next
    assert STATUSES[lifecycle_codes(since + later, age + later, purchase_days, limits)] == why.next_status
    assert STATUSES[lifecycle_codes(since + later - 1, age + later - 1, purchase_days, limits)] == why.status


def stage_explained(
    half: float = 100.0, prior: float = 100.0, churn: int = 0, days: int = 9, age: int = 900, has_order: bool = True
) -> LifecycleExplanation:
    stage = lifecycle_stage(
        has_order=np.array([has_order]),
        churn_state=np.array([churn], dtype=np.int8),
        half_net_spend=np.array([half]),
        prior_half_net_spend=np.array([prior]),
        purchase_days=np.array([days]),
        T_days=np.array([age]),
    )
    return explain_lifecycle(
        status=3 if has_order else 0,
        stage=int(stage[0]),
        churn_state=churn,
        days_since_last_order=10 if has_order else None,
        T_days=age if has_order else None,
        year_purchase_days=days,
        half_net_spend=half,
        prior_half_net_spend=prior,
    )


@pytest.mark.parametrize(
    ("customer", "stage", "reason"),
    [
        ({"has_order": False, "churn": 3}, None, "no_order"),
        ({"churn": 1, "half": 1.0}, "decline", "churn_state"),
        ({"half": 49.0}, "decline", "spend_fell"),
        ({"days": 2}, "exploration", "few_purchase_days"),
        ({"age": 364, "half": 200.0}, "formation", "young_relationship"),
        ({"age": 365, "half": 200.0}, "formation", "spend_grew"),
        ({}, "stable", "steady"),
    ],
)
def test_a_stage_names_the_rule_that_matched(customer: dict[str, Any], stage: str | None, reason: str) -> None:
    why = stage_explained(**customer)
    assert (why.stage, why.stage_reason) == (stage, reason)


def test_a_stage_shows_the_spend_that_would_change_it() -> None:
    why = stage_explained(prior=33.33)
    assert (why.decline_below, why.growth_above) == (16.665, 36.663)
    assert (why.next_status, why.days_until_next) == ("inactive", 171)
    prospect = stage_explained(has_order=False)
    assert (prospect.status, prospect.next_status, prospect.days_until_next) == ("prospect", None, None)
