"""The contest on CDNOW: nothing after week 39 is shown to it, and what it chooses is judged on weeks 40 to 78."""

from __future__ import annotations

import gc
import json
import weakref

import numpy as np
import pytest

from app.analytics import contest, origins, predictive
from app.analytics.calibration import accuracy
from app.analytics.fit import TooLittleData
from tests.analytics.clv_references import CALIBRATION_END, HOLDOUT_END, cdnow_purchases, outcome

HORIZON = float(HOLDOUT_END - CALIBRATION_END)


def test_cut_counts_what_was_known_and_what_followed() -> None:
    # Customer 0 buys on days 0, 10, 40 and 41, customer 1 on day 36, the origin itself, customer 2 on day 70, too late.
    customer, day = np.array([0, 2, 0, 0, 1, 0]), np.array([10, 70, 0, 40, 36, 41])
    (split,) = origins.cut(customer, day, 60, origins=[0.6])
    assert split.holdout_days == 24
    np.testing.assert_array_equal(split.frequency, [1, 0])
    np.testing.assert_array_equal(split.recency_days, [10, 0])
    np.testing.assert_array_equal(split.T_days, [36, 0])
    np.testing.assert_array_equal(split.purchases, [2, 0])


def test_cut_leaves_out_holdouts_that_are_too_short() -> None:
    assert origins.cut(np.array([0, 1]), np.array([0, 10]), 12) == []
    assert origins.cut(np.array([], dtype=int), np.array([], dtype=int), 12) == []


def test_cut_judges_on_a_part_of_very_many_customers() -> None:
    many = np.arange(3 * origins.CONTEST_CUSTOMERS)
    (split,) = origins.cut(np.repeat(many, 2), np.tile([0, 50], many.size), 100, origins=[0.7])
    assert split.frequency.size == origins.CONTEST_CUSTOMERS


def test_the_choice_forecasts_unseen_weeks_better_than_any_single_model() -> None:
    purchases, actual = cdnow_purchases(), outcome(cdnow_purchases())
    history = actual[:3]
    fitted, record = contest.choose(origins.cut(purchases.customer, purchases.day, CALIBRATION_END), *history)
    forecast = predictive.expected_purchases(fitted, *history, HORIZON)
    assert accuracy(forecast, actual.purchases).rmse <= 1.603

    def log_score(model: predictive.FittedModel) -> float:
        return float(predictive.log_predictive(model, *history, HORIZON, actual.purchases).mean())

    singles = {name: predictive.fit_model(name, *history) for name in ("bg_nbd", "mbg_nbd", "pareto_nbd")}
    assert log_score(fitted) >= max(log_score(single) for single in singles.values())
    # Known errors of the single models on these weeks.
    for name, rmse in {"bg_nbd": 1.60798, "mbg_nbd": 1.60718, "pareto_nbd": 1.60285}.items():
        single = predictive.expected_purchases(singles[name], *history, HORIZON)
        assert accuracy(single, actual.purchases).rmse == pytest.approx(rmse, abs=1e-5)

    assert record.winner == fitted.model == contest.BLEND
    scores = {entry.model: entry.log_score for entry in record.entries}
    assert scores[contest.BLEND] == max(score for score in scores.values() if score is not None)
    assert json.loads(json.dumps(record.to_dict()))["winner"] == contest.BLEND
    for group in range(contest.CLASSES):
        assert sum(weights[group] for weights in record.weights.values()) == pytest.approx(1)


def test_the_choice_does_not_depend_on_what_comes_later() -> None:
    purchases, actual = cdnow_purchases(), outcome(cdnow_purchases())
    known = purchases.day <= CALIBRATION_END
    all_days = origins.cut(purchases.customer, purchases.day, CALIBRATION_END)
    known_days = origins.cut(purchases.customer[known], purchases.day[known], CALIBRATION_END)
    for one, other in zip(all_days, known_days, strict=True):
        for name in vars(one):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert actual.x.size == 2357


def test_models_that_fail_are_recorded_and_do_not_stop_the_contest() -> None:
    purchases, actual = cdnow_purchases(), outcome(cdnow_purchases())
    _, record = contest.choose(origins.cut(purchases.customer, purchases.day, CALIBRATION_END), *actual[:3])
    entry = next(entry for entry in record.entries if entry.model == "mbg_cnbd_k")
    # Compact disks are not bought regularly.
    assert entry.code == "not_regular"
    assert entry.log_score is None


def test_a_model_that_is_refused_keeps_no_array_alive() -> None:
    purchases, actual = cdnow_purchases(), outcome(cdnow_purchases())
    x, t_x, age = (column.copy() for column in actual[:3])
    splits = origins.cut(purchases.customer, purchases.day, CALIBRATION_END)
    kept = [weakref.ref(column) for column in (x, t_x, age)]
    gc.disable()
    try:
        _, record = contest.choose(splits, x, t_x, age)
        del x, t_x, age
        assert [array() for array in kept] == [None, None, None]
    finally:
        gc.enable()
    assert [entry.model for entry in record.entries if entry.code] == ["mbg_cnbd_k"]


def test_a_single_model_can_win() -> None:
    purchases, actual = cdnow_purchases(), outcome(cdnow_purchases())
    splits = origins.cut(purchases.customer, purchases.day, CALIBRATION_END)
    fitted, record = contest.choose(splits[1:2], *actual[:3])
    assert fitted.model == record.winner == "mbg_nbd"
    assert record.weights["mbg_nbd"] == (1.0, 1.0, 1.0)
    # One origin has no other to learn weights from.
    assert contest.BLEND not in [entry.model for entry in record.entries]


@pytest.mark.parametrize(("first", "winner"), [(0, contest.BLEND), (1, "mbg_nbd")])
def test_rows_that_stand_for_several_customers_are_chosen_for_as_the_customers_would(first: int, winner: str) -> None:
    purchases, actual = cdnow_purchases(), outcome(cdnow_purchases())
    splits = origins.cut(purchases.customer, purchases.day, CALIBRATION_END)[first : 3 if first == 0 else 2]
    rows, customers = np.unique(np.stack(actual[:3]), axis=1, return_counts=True)
    assert rows.shape[1] < actual.x.size
    fitted, record = contest.choose(splits, rows[0], rows[1], rows[2], customers=customers)
    wanted, wanted_record = contest.choose(splits, *actual[:3])
    assert fitted.model == winner
    assert record == wanted_record
    assert fitted.customers == wanted.customers == 2357
    assert fitted.params == pytest.approx(wanted.params, rel=1e-6)
    assert fitted.log_likelihood == pytest.approx(wanted.log_likelihood, rel=1e-9)
    for part, wanted_part in zip(fitted.components, wanted.components, strict=True):
        assert part.weights == wanted_part.weights
        assert part.fitted.customers == 2357


def test_too_little_to_judge_by_is_refused_with_its_reason() -> None:
    actual = outcome(cdnow_purchases())
    with pytest.raises(TooLittleData) as refused:
        contest.choose([], *actual[:3])
    assert refused.value.code == "no_holdout"
    with pytest.raises(TooLittleData) as refused:
        contest.choose([], np.zeros(10), np.zeros(10), np.ones(10))
    assert refused.value.code == "too_few_customers"
    with pytest.raises(TooLittleData) as refused:
        contest.choose([], np.zeros(10), np.zeros(10), np.ones(10), customers=np.full(10, 5))
    assert refused.value.code == "no_repeat_purchases"
    with pytest.raises(ValueError, match="customers"):
        contest.choose([], *actual[:3], customers=[1])


def test_stacking_finds_the_weights_of_a_known_mixture() -> None:
    random = np.random.default_rng(4)
    centres, weights = np.array([-2.0, 1.0, 5.0]), np.array([0.5, 0.3, 0.2])
    outcomes = random.normal(centres[random.choice(3, 40_000, p=weights)], 1.0)
    log_density = -((outcomes - centres[:, None]) ** 2) / 2 - 500.0
    np.testing.assert_allclose(contest._stacking(log_density), weights, atol=0.015)
    np.testing.assert_allclose(contest._stacking(np.empty((3, 0))), 1 / 3)
