"""Gamma-Gamma against the published fit of CDNOW; what is predicted where it does not hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import optimize, stats

from app.analytics import gamma_gamma
from app.analytics.fit import FittedModel, FloatArray, TooLittleData
from app.analytics.gamma_gamma import FittedSpend, fit_gamma_gamma, fit_spend, purchase_value, spend_distribution
from tests.analytics.clv_references import cdnow


def simulated(customers: int, p: float, q: float, v: float, seed: int = 3) -> tuple[FloatArray, FloatArray]:
    random = np.random.default_rng(seed)
    x = random.geometric(0.3, customers).astype(float)
    nu = random.gamma(q, 1 / v, customers)
    return x, random.gamma(p * x) / x / nu


def test_reproduces_published_cdnow_parameters() -> None:
    customers = cdnow()
    fitted = fit_gamma_gamma(customers.x, customers.monetary)
    assert {name: round(value, 2) for name, value in fitted.params.items()} == pytest.approx(
        {"p": 6.25, "q": 3.74, "v": 15.44}, abs=0.011
    )
    assert fitted.log_likelihood == pytest.approx(-4055.92, abs=0.01)
    assert fitted.customers == 946


def test_expected_spend_equals_published_and_exact_values() -> None:
    fitted = FittedSpend(
        "gamma_gamma",
        None,
        None,
        35.2189781021898,
        0.0,
        0.0,
        FittedModel("gamma_gamma", {"p": 6.25, "q": 3.74, "v": 15.44}, 0.0, {}, (), 1),
    )
    x = np.array([2.0, 1, 0, 7, 2])
    mean = np.array([22.35, 11.77, 0, 73.74, 25.55])
    exact = [24.6637139107612, 18.916852057842, 35.2189781021898, 71.4696708969671, 27.2883858267717]
    np.testing.assert_allclose(purchase_value(fitted, x, mean), exact, rtol=1e-13)
    customers = cdnow()
    published = [24.65, 18.91, 35.17, 35.17, 35.17, 71.46, 18.91, 35.17, 27.28, 35.17]
    found = purchase_value(fit_spend(customers.x, customers.monetary), customers.x[:10], customers.monetary[:10])
    np.testing.assert_allclose(found, published, atol=0.011)


def test_derivatives_equal_differences() -> None:
    x, mean = simulated(400, 4, 3, 20)
    weight = np.random.default_rng(5).integers(1, 9, x.size).astype(float)
    total, logs = x * mean, (float(weight * x @ np.log(x * mean)), float(weight @ np.log(mean)))
    x_values, place = np.unique(x, return_inverse=True)
    x_weights = np.bincount(place, weights=weight).astype(np.float64)
    theta = np.array([3.0, 2.0, 9.0])

    def at(values: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        return gamma_gamma._objective(values, weight, weight * x, total, logs, x_values, x_weights)

    _, gradient, hessian = at(theta)
    for i in range(3):
        step = np.where(np.arange(3) == i, 1e-5 * theta, 0)
        assert gradient[i] == pytest.approx((at(theta + step)[0] - at(theta - step)[0]) / (2 * step[i]), rel=1e-6)
        np.testing.assert_allclose(hessian[i], (at(theta + step)[1] - at(theta - step)[1]) / (2 * step[i]), rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6, 1e9])
def test_amounts_of_any_size_fit_alike(unit: float) -> None:
    customers = cdnow()
    one, other = (fit_gamma_gamma(customers.x, customers.monetary * scale) for scale in (1.0, unit))
    assert other.params["p"] == pytest.approx(one.params["p"], rel=1e-8)
    assert other.params["v"] == pytest.approx(one.params["v"] * unit, rel=1e-8)
    assert other.standard_errors["v"] == pytest.approx(one.standard_errors["v"] * unit, rel=1e-5)
    assert other.log_likelihood == pytest.approx(one.log_likelihood - 946 * np.log(unit), rel=1e-9)


def test_a_heavy_tail_falls_back_to_the_mean_and_never_goes_negative() -> None:
    x, mean = simulated(3000, 5, 0.7, 10)
    spend = fit_spend(x, mean)
    assert (spend.method, spend.reason) == ("mean", "no_finite_mean")
    assert (purchase_value(spend, x, mean) >= 0).all()


def test_spend_that_grows_with_frequency_falls_back_to_the_mean() -> None:
    x, mean = simulated(2000, 5, 4, 10)
    spend = fit_spend(x, mean * x)
    assert (spend.method, spend.reason) == ("mean", "frequency_correlates")
    assert spend.correlation is not None
    assert spend.correlation > gamma_gamma.INDEPENDENCE_LIMIT


def test_free_purchases_are_left_out_of_the_fit_or_rule_it_out() -> None:
    x, mean = simulated(1000, 5, 4, 10)
    few, most = mean.copy(), mean.copy()
    few[:20], most[:500] = 0, 0
    spend = fit_spend(x, few)
    assert spend.method == "gamma_gamma"
    assert (purchase_value(spend, x, few) > 0).all()
    assert fit_spend(x, most).reason == "zero_spend"
    assert (purchase_value(fit_spend(x, most), x, most) >= 0).all()


def test_equal_spend_of_all_is_predicted_as_such() -> None:
    spend = fit_spend(np.tile([1.0, 2.0, 3.0], 100), np.full(300, 25.0))
    assert (spend.method, spend.reason) == ("mean", "not_converged")
    np.testing.assert_allclose(purchase_value(spend, np.array([0.0, 5.0]), np.array([0.0, 25.0])), 25)


def test_nobody_repeating_is_too_little() -> None:
    with pytest.raises(TooLittleData):
        fit_spend(np.zeros(100), np.zeros(100))
    assert fit_spend(np.ones(5), np.arange(5.0)).reason in {"too_few_repeaters", "zero_spend"}


def test_who_has_not_bought_again_is_expected_to_spend_the_mean_even_where_single_purchases_do_not_vary() -> None:
    spend = FittedSpend("mean", "too_few_repeaters", None, 40.0, 0.0, 0.25, None)
    assert purchase_value(spend, np.array([0.0, 1.0]), np.array([0.0, 70.0])).tolist() == [40.0, 70.0]


def test_credibility_recovers_known_variances() -> None:
    x, mean = simulated(200_000, 4, 6, 50)
    within, between = gamma_gamma._variances(x, mean, np.ones_like(x), 40.0)
    # Relative to the squared mean p v / (q - 1): between 1 / (q - 2), within (1 + 1 / (q - 2)) / p.
    assert between == pytest.approx(1 / 4, rel=0.05)
    assert within == pytest.approx((1 + 1 / 4) / 4, rel=0.1)


@pytest.mark.parametrize("seed", range(20))
def test_variances_are_the_best_line_without_a_negative_part(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, mean = random.integers(1, 5, 12).astype(float), random.gamma(2, 20, 12)
    weight = random.integers(1, 4, 12).astype(float)
    overall = float((weight * x) @ mean / (weight @ x))
    design = np.stack([1 / x, np.ones_like(x)], axis=1) * np.sqrt(weight)[:, None]
    best, _ = optimize.nnls(design, (mean / overall - 1) ** 2 * np.sqrt(weight))
    assert gamma_gamma._variances(x, mean, weight, overall) == pytest.approx(tuple(best), abs=1e-12)


def test_variances_of_equal_frequencies_show_no_difference_of_customers() -> None:
    within, between = gamma_gamma._variances(np.full(4, 3.0), np.array([10.0, 20.0, 30.0, 40.0]), np.ones(4), 25.0)
    assert within == pytest.approx(3 * 0.2)
    assert between == 0


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    values = np.array([3.0, 1.0, 3.0, 0.5, 3.0, 1.0])
    np.testing.assert_array_equal(gamma_gamma._ranks(values, np.ones(6)), stats.rankdata(values))
    customers = np.array([2, 1, 1, 5, 3, 4])
    ranks = gamma_gamma._ranks(values, customers.astype(float))
    np.testing.assert_array_equal(np.repeat(ranks, customers), stats.rankdata(np.repeat(values, customers)))


@pytest.mark.parametrize("seed", range(5))
def test_the_correlation_is_spearmans_of_the_customers(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, mean = random.integers(1, 5, 40).astype(float), random.integers(1, 9, 40).astype(float)
    customers = random.integers(1, 6, 40)
    found = gamma_gamma._rank_correlation(x, mean, customers.astype(float))
    assert found == pytest.approx(stats.spearmanr(np.repeat(x, customers), np.repeat(mean, customers)).statistic)


def test_the_distribution_of_spend_equals_simulation_and_has_the_predicted_mean() -> None:
    customers = cdnow()
    spend = fit_spend(customers.x, customers.monetary)
    assert spend.gamma_gamma is not None
    p, q, v = spend.gamma_gamma.params.values()
    x, mean, purchases = 3.0, 50.0, 4.0
    random = np.random.default_rng(1)
    nu = random.gamma(p * x + q, 1 / (v + x * mean), 200_000)
    value = random.gamma(p * purchases, 1, 200_000) / nu
    one = purchase_value(spend, np.array([x]), np.array([mean]))[0]
    assert value.mean() == pytest.approx(purchases * one, rel=0.01)
    test = stats.kstest(value / one, lambda share: spend_distribution(spend, np.array(x), np.array(purchases), share))
    assert test.pvalue > 0.001


def test_the_fallback_distribution_is_centred_on_the_mean() -> None:
    spend = FittedSpend("mean", "frequency_correlates", 0.5, 40.0, 0.4, 0.2, None)
    share = np.linspace(0, 60, 20_001)
    chance = spend_distribution(spend, np.array(2.0), np.array(5.0), share)
    assert np.trapezoid(1 - chance, share) == pytest.approx(5, rel=1e-3)


def test_a_spend_fit_survives_storage_as_json() -> None:
    customers = cdnow()
    for spend in (fit_spend(customers.x, customers.monetary), fit_spend(customers.x, customers.x)):
        assert FittedSpend.from_dict(json.loads(json.dumps(spend.to_dict()))) == spend


@pytest.mark.parametrize(("x", "mean"), [([1], [-1]), ([1], [np.nan]), ([1, 2], [1]), ([-1], [1])])
def test_impossible_spend_is_refused(x: list[float], mean: list[float]) -> None:
    with pytest.raises(ValueError, match="frequency and monetary_value"):
        fit_spend(x, mean)
