# ruff: noqa: N803, N806
"""BG/NBD against the published fit of CDNOW, and where fits must refuse."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from app.analytics import betageometric, bgnbd
from app.analytics.fit import FloatArray, NotConverged, TooLittleData
from app.analytics.grouping import group_customers
from tests.analytics.clv_references import DAYS, cdnow, in_weeks, log_likelihood_in_weeks


def test_reproduces_published_cdnow_parameters() -> None:
    x, t_x, T, _ = cdnow()
    fitted = bgnbd.fit(x, t_x, T)
    weeks = in_weeks(fitted.params)
    # Fader, Hardie and Lee (2005), to the digits printed.
    assert {name: round(value, 3) for name, value in weeks.items()} == {
        "r": 0.243,
        "alpha": 4.414,
        "a": 0.793,
        "b": 2.426,
    }
    log_likelihood = log_likelihood_in_weeks(fitted.log_likelihood, x)
    assert round(log_likelihood, 1) == -9582.4
    # Later packages print more digits; both stopped a little short of the maximum.
    assert round(log_likelihood, 3) == -9582.429
    for name, value in {"r": 0.2425945, "alpha": 4.4136019, "a": 0.7929199, "b": 2.4258881}.items():
        assert weeks[name] == pytest.approx(value, rel=1e-5)
    assert fitted.customers == 2357


def test_published_forecasts_for_cdnow() -> None:
    params = {"r": 0.2425967, "alpha": 4.413659 * DAYS, "a": 0.7929869, "b": 2.426164}

    def expected(x: float, t_x: float, T: float, weeks: float) -> float:
        rows = [np.array([x]), np.array([t_x * DAYS]), np.array([T * DAYS])]
        ends, one = np.array([weeks * DAYS]), np.ones((1, 1))
        growth = bgnbd.growth_if_alive(params, rows[0], rows[1], rows[2], ends, one)[0, 0]
        return float(growth * bgnbd.p_alive(params, *rows)[0])

    assert round(expected(0, 0, 0, 52), 6) == 1.444004
    assert expected(26, 216 / 7, 31, 52) == pytest.approx(25.75659, abs=1e-5)
    for x, published in {10: 0.3474606, 15: 0.04283391, 20: 0.004158973, 25: 0.0003583685}.items():
        assert expected(x, 20, 39, 52) == pytest.approx(published, rel=5e-7)


def test_published_chances_of_counts_of_a_new_customer() -> None:
    params = {"r": 0.243, "alpha": 4.414, "a": 0.793, "b": 2.426}
    new = np.zeros(1)
    nothing = bgnbd.log_pmf_if_alive(params, new, new, new, 39.0, np.array([0.0]))[0]
    assert np.exp(nothing) == pytest.approx(0.5737864, rel=1e-6)
    ten = bgnbd.log_pmf_if_alive(params, new, new, new, 2.0, np.array([10.0]))[0]
    assert np.exp(ten) == pytest.approx(1.07869e-07, rel=1e-5)


@pytest.mark.parametrize(
    ("x", "t_x", "T", "published", "first_may_leave"),
    [
        (0, 0, 40, -0.59947382, False),
        (200, 38, 40, 100.7957, False),
        (0, 0, 40, -0.41792826, True),
        (200, 38, 40, 100.7869, True),
    ],
)
def test_log_likelihood_equals_published_anchors(
    x: float, t_x: float, T: float, published: float, first_may_leave: bool
) -> None:
    params = {"r": 0.25, "alpha": 4.0, "a": 0.8, "b": 2.5}
    rows = [np.array([float(value)]) for value in (x, t_x, T)]
    found = betageometric.log_likelihood(params, *rows, first_may_leave=first_may_leave)[0]
    assert found == pytest.approx(published, rel=1e-6)


@pytest.mark.parametrize("first_may_leave", [False, True])
def test_derivatives_equal_differences_of_the_log_likelihood(first_may_leave: bool) -> None:
    x, t_x, T, _ = cdnow()
    groups = group_customers(x, t_x, T)
    theta = np.array([0.5, 40.0, 1.3, 2.0])

    def mean(values: FloatArray) -> float:
        params = dict(zip(bgnbd.NAMES, values.tolist(), strict=True))
        return float(betageometric.log_likelihood(params, x, t_x, T, first_may_leave=first_may_leave).mean())

    value, gradient, hessian = betageometric._objective(theta, groups, first_may_leave)
    assert value == pytest.approx(mean(theta), rel=1e-13)
    for i in range(4):
        step = np.where(np.arange(4) == i, 1e-5 * theta, 0)
        slope = (mean(theta + step) - mean(theta - step)) / (2 * step[i])
        assert gradient[i] == pytest.approx(slope, rel=1e-6)
        ahead = betageometric._objective(theta + step, groups, first_may_leave)[1]
        behind = betageometric._objective(theta - step, groups, first_may_leave)[1]
        np.testing.assert_allclose(hessian[i], (ahead - behind) / (2 * step[i]), rtol=1e-6)


def test_the_gradient_vanishes_at_the_fit() -> None:
    x, t_x, T, _ = cdnow()
    fitted = bgnbd.fit(x, t_x, T)
    theta = np.array(list(fitted.params.values()))
    _, gradient, _ = betageometric._objective(theta, group_customers(x, t_x, T), False)
    assert np.abs(gradient * theta).max() < 1e-12


def test_equal_customers_count_as_often_as_they_occur() -> None:
    x, t_x, T, _ = cdnow()
    once = bgnbd.fit(x, t_x, T)
    # Above the size from which fits start from a subset, which must not show.
    thrice = bgnbd.fit(*(np.tile(values, 30) for values in (x, t_x, T)))
    assert thrice.params == pytest.approx(once.params, rel=1e-9)
    assert thrice.log_likelihood == pytest.approx(30 * once.log_likelihood, rel=1e-12)
    assert thrice.standard_errors["r"] == pytest.approx(once.standard_errors["r"] / np.sqrt(30), rel=1e-6)


def test_fractional_days_fit_as_well() -> None:
    x, t_x, T, _ = cdnow()
    weeks = bgnbd.fit(x, t_x / DAYS, T / DAYS)
    assert weeks.params == pytest.approx(in_weeks(bgnbd.fit(x, t_x, T).params), rel=1e-8)


def test_one_time_buyers_are_always_alive() -> None:
    rows = [np.array([0.0]), np.array([0.0]), np.array([5000.0])]
    assert bgnbd.p_alive({"r": 0.2, "alpha": 30.0, "a": 0.8, "b": 2.4}, *rows)[0] == 1


def refusal(x: ArrayLike, t_x: ArrayLike, T: ArrayLike) -> str:
    with pytest.raises((TooLittleData, NotConverged)) as refused:
        bgnbd.fit(x, t_x, T)
    assert refused.value.reason.endswith(".")
    return refused.value.code


def test_too_little_data_is_refused_with_its_reason() -> None:
    ones, many = np.ones(200), np.arange(200.0)
    assert refusal(np.ones(1), np.ones(1), np.ones(1) * 9) == "too_few_customers"
    assert refusal(np.zeros(200), np.zeros(200), np.zeros(200)) == "no_elapsed_time"
    assert refusal(np.zeros(200), np.zeros(200), many) == "no_repeat_purchases"
    assert refusal((many > 190) * 1.0, (many > 190) * 3.0, many + 5) == "too_few_repeaters"
    assert refusal(3 * ones, 50 * ones, 90 * ones) == "all_alike"


def test_customers_without_differences_in_rate_or_lifetime_do_not_converge() -> None:
    # One rate for all, and nobody ever leaves: r and alpha, a and b run off together.
    random = np.random.default_rng(5)
    T = random.integers(200, 400, 3000).astype(float)
    x = random.poisson(T / 20).astype(float)
    t_x = np.where(x > 0, np.floor(T * random.beta(np.maximum(x, 1), 1)), 0)
    assert refusal(x, t_x, T) in {"parameters_ran_off", "flat_likelihood", "no_progress"}
