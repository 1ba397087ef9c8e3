# ruff: noqa: N806
"""Intervals cover what happens as often as they say: on simulated customers, and on the unseen weeks of CDNOW."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from app.analytics import contest, origins, predictive
from app.analytics.fit import FittedModel, FloatArray
from app.analytics.gamma_gamma import FittedSpend, fit_spend
from app.analytics.interval import interval, purchase_interval, value_probability
from tests.analytics.clv_references import (
    CALIBRATION_END,
    HOLDOUT_END,
    Outcome,
    cdnow_purchases,
    outcome,
    simulated,
)

Case = tuple[Outcome, FittedModel, FittedSpend, float]


@lru_cache
def cdnow_case() -> Case:
    purchases, actual = cdnow_purchases(), outcome(cdnow_purchases())
    fitted, _ = contest.choose(origins.cut(purchases.customer, purchases.day, CALIBRATION_END), *actual[:3])
    return actual, fitted, fit_spend(actual.x, actual.monetary), float(HOLDOUT_END - CALIBRATION_END)


@lru_cache
def simulated_case() -> Case:
    actual = simulated(12_000, {"r": 0.6, "alpha": 50.0, "a": 0.8, "b": 3.0}, (6.0, 4.0, 16.0), 365.0, 7)
    return actual, predictive.fit_model("bg_nbd", *actual[:3]), fit_spend(actual.x, actual.monetary), 365.0


def part(actual: Outcome, start: int, stop: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    rows = slice(start, stop)
    return actual.x[rows], actual.t_x[rows], actual.T[rows], actual.monetary[rows]


def covered(below: FloatArray, upto: FloatArray) -> float:
    """Share of outcomes whose randomised probability lies in the central 90 %, averaged over draws."""
    random = np.random.default_rng(0)
    draws = [below + random.random(below.size) * (upto - below) for _ in range(20)]
    return float(np.mean([(draw >= 0.05) & (draw <= 0.95) for draw in draws]))


def count_probabilities(fitted: FittedModel, actual: Outcome, horizon: float) -> tuple[FloatArray, FloatArray]:
    counts = np.arange(actual.purchases.max() + 1)
    mass = np.stack([np.exp(predictive.log_predictive(fitted, *actual[:3], horizon, count)) for count in counts])
    upto = np.cumsum(mass, axis=0)[actual.purchases.astype(int), np.arange(actual.x.size)]
    return upto - mass[actual.purchases.astype(int), np.arange(actual.x.size)], upto


@pytest.mark.parametrize("case", [simulated_case, cdnow_case])
def test_ninety_percent_intervals_of_purchases_cover_ninety_percent(case: Callable[[], Case]) -> None:
    actual, fitted, _, horizon = case()
    assert 0.88 <= covered(*count_probabilities(fitted, actual, horizon)) <= 0.92
    bounds = purchase_interval(fitted, *actual[:3], horizon)
    assert np.mean((actual.purchases >= bounds.low) & (actual.purchases <= bounds.high)) >= 0.90


@pytest.mark.parametrize("case", [simulated_case, cdnow_case])
def test_ninety_percent_intervals_of_value_cover_ninety_percent(case: Callable[[], Case]) -> None:
    actual, fitted, spend, horizon = case()
    below, upto = value_probability(fitted, spend, *actual[:4], horizon, actual.value)
    assert 0.88 <= covered(below, upto) <= 0.92
    bounds = interval(fitted, spend, *actual[:4], horizon, 0.0)
    assert np.mean((actual.value >= bounds.low) & (actual.value <= bounds.high)) >= 0.90


def test_bounds_are_the_quantiles_of_a_simulated_posterior() -> None:
    _, fitted, spend, _ = simulated_case()
    x, t_x, T, mean, horizon = 6.0, 300.0, 330.0, 20.0, 365.0
    random = np.random.default_rng(11)
    draws = 100_000
    r, alpha, a, b = fitted.params.values()
    assert spend.gamma_gamma is not None
    p, q, v = spend.gamma_gamma.params.values()
    rate, leaves = random.gamma(r + x, 1 / (alpha + T), draws), random.beta(a, b + x, draws)
    alive = random.random(draws) < predictive.p_alive(fitted, [x], [t_x], [T])[0]
    counts, now = np.zeros(draws), np.zeros(draws)
    active = np.flatnonzero(alive)
    while active.size:
        now[active] += random.exponential(1 / rate[active])
        active = active[now[active] <= horizon]
        counts[active] += 1
        active = active[random.random(active.size) > leaves[active]]
    worth = random.gamma(np.maximum(p * counts, 1e-9)) / random.gamma(p * x + q, 1 / (v + x * mean), draws)
    value = np.where(counts > 0, worth, 0)
    # Without the error of the parameters, which the simulation does not have either.
    exact = replace(fitted, covariance=())
    certain = replace(spend, gamma_gamma=replace(spend.gamma_gamma, covariance=()))
    for level in (0.5, 0.8, 0.9):
        low, high = np.quantile(value, [(1 - level) / 2, (1 + level) / 2])
        found = interval(exact, certain, [x], [t_x], [T], [mean], horizon, 0.0, level)
        assert found.low[0] == pytest.approx(low, rel=0.03)
        assert found.high[0] == pytest.approx(high, rel=0.03)
        bought = purchase_interval(exact, [x], [t_x], [T], horizon, level)
        assert (bought.low[0], bought.high[0]) == tuple(np.quantile(counts, [(1 - level) / 2, (1 + level) / 2]))
    assert value_probability(exact, certain, [x], [t_x], [T], [mean], horizon, [50.0])[1][0] == pytest.approx(
        np.mean(value <= 50), abs=0.01
    )


@pytest.mark.parametrize("case", [simulated_case, cdnow_case])
def test_one_customer_gets_the_interval_that_a_batch_gives(case: Callable[[], Case]) -> None:
    actual, fitted, spend, _ = case()
    batch = interval(fitted, spend, *actual[:4], 365)
    for row in range(0, actual.x.size, 301):
        one = interval(fitted, spend, *part(actual, row, row + 1), 365)
        assert one.low[0] == pytest.approx(batch.low[row], rel=1e-9, abs=1e-12)
        assert one.high[0] == pytest.approx(batch.high[row], rel=1e-9)


def test_bounds_enclose_each_other_as_the_level_rises() -> None:
    actual, fitted, spend, _ = cdnow_case()
    history = part(actual, 0, 300)
    narrow, wide = (interval(fitted, spend, *history, 365, level=level) for level in (0.5, 0.95))
    assert (wide.low <= narrow.low).all()
    assert (wide.high >= narrow.high).all()
    assert (narrow.low >= 0).all()
    assert np.isfinite(wide.high).all()


def test_few_customers_to_learn_from_widen_the_interval() -> None:
    actual, fitted, spend, _ = simulated_case()
    few = tuple(tuple(100 * value for value in row) for row in fitted.covariance)
    history = part(actual, 0, 50)
    sure, unsure = (interval(model, spend, *history, 365) for model in (fitted, replace(fitted, covariance=few)))
    wider = unsure.high > sure.high * 1.001
    assert wider[sure.high > 0].all()
    assert (unsure.low <= sure.low).all()


def test_the_fallback_spend_has_intervals_too() -> None:
    actual, fitted, _, _ = simulated_case()
    mean = FittedSpend("mean", "frequency_correlates", 0.5, 5.0, 0.3, 0.2, None)
    found = interval(fitted, mean, *part(actual, 0, 200), 365)
    assert (found.low <= found.high).all()
    assert np.isfinite(found.high).all()


def test_regular_customers_have_intervals_that_know_when_they_last_bought() -> None:
    actual = simulated(3000, {"r": 2.0, "alpha": 20.0, "a": 0.5, "b": 3.0}, (6.0, 4.0, 16.0), 365.0, 8, k=3)
    fitted = predictive.fit_model("mbg_cnbd_k", *actual[:3])
    bounds = purchase_interval(fitted, *actual[:3], 60.0)
    assert (bounds.low <= bounds.high).all()
    bounds = purchase_interval(fitted, *actual[:3], 365.0)
    assert np.mean((actual.purchases >= bounds.low) & (actual.purchases <= bounds.high)) >= 0.90


@pytest.mark.parametrize("history", [(0, 0, 0, 0), (0, 0, 5000, 0), (1000, 10, 5000, 9.0), (1000, 1000, 1000, 1e6)])
def test_extreme_customers_have_finite_intervals(history: tuple[float, float, float, float]) -> None:
    _, fitted, spend, _ = cdnow_case()
    found = interval(fitted, spend, *(history[:1], history[1:2], history[2:3], history[3:]), 3650, level=0.99)
    assert 0 <= found.low[0] <= found.high[0] < np.inf


def test_impossible_levels_and_means_are_refused() -> None:
    _, fitted, spend, _ = simulated_case()
    with pytest.raises(ValueError, match="level"):
        interval(fitted, spend, [0], [0], [1], [0], 30, level=1.0)
    with pytest.raises(ValueError, match="monetary_value"):
        interval(fitted, spend, [1], [1], [1], [-1], 30)
