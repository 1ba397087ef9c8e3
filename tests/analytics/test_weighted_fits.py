# ruff: noqa: N806
"""Fits to rows that stand for several customers each equal the fits to the customers one by one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import ArrayLike

from app.analytics import betageometric, paretonbd, predictive
from app.analytics.fit import FittedModel, FloatArray, IntArray, TooLittleData, check_weights, require_enough
from app.analytics.gamma_gamma import FittedSpend, fit_credible_mean, fit_gamma_gamma, fit_spend
from app.analytics.grouping import group_customers

Columns = tuple[FloatArray, FloatArray, FloatArray]


def histories(customers: int = 3000, seed: int = 6) -> Columns:
    """Frequency, recency and T of customers who buy rather regularly, in whole weeks; in days, shape (n,) each."""
    random = np.random.default_rng(seed)
    T = 7 * random.integers(1, 12, customers).astype(np.float64) ** 2
    mean_wait, chance = 60 / random.gamma(1.5, 1, customers), random.beta(1, 4, customers)
    x, t_x, day = np.zeros(customers), np.zeros(customers), np.zeros(customers)
    alive = random.random(customers) > chance
    while alive.any():
        day += 7 * np.maximum(1, np.round(mean_wait * random.gamma(3, 1 / 3, customers) / 7))
        alive &= day <= T
        x += alive
        t_x = np.where(alive, day, t_x)
        alive &= random.random(customers) > chance
    return x, t_x, T


def spends(p: float = 5, q: float = 4, v: float = 10) -> tuple[tuple[FloatArray, FloatArray], IntArray]:
    """Frequency and mean spend of rows, and how many customers each stands for; more where the spend is low."""
    random = np.random.default_rng(7)
    x: FloatArray = random.geometric(0.4, 300) - np.ones(300)
    mean: FloatArray = random.gamma(p * np.maximum(x, 1)) / np.maximum(x, 1) / random.gamma(q, 1 / v, 300)
    return (x, mean), random.integers(1, 4, 300) + 6 * (mean < np.median(mean))


def in_two_parts(columns: Columns) -> tuple[Columns, IntArray]:
    """Return the distinct rows of either half of the customers, one after the other, with how many share each."""
    size = columns[0].size // 2
    parts = [np.unique(half, axis=1, return_counts=True) for half in np.split(np.stack(columns), [size], axis=1)]
    rows = np.concatenate([found for found, _ in parts], axis=1).astype(np.float64)
    return (rows[0], rows[1], rows[2]), np.concatenate([counts for _, counts in parts])


def repeated(x: FloatArray, mean: FloatArray, customers: IntArray) -> tuple[FloatArray, FloatArray]:
    return np.repeat(x, customers), np.repeat(mean, customers)


def assert_equal_fits(found: FittedModel, wanted: FittedModel) -> None:
    assert found.model == wanted.model
    assert found.customers == wanted.customers
    assert found.params == pytest.approx(wanted.params, rel=1e-6)
    assert found.log_likelihood == pytest.approx(wanted.log_likelihood, rel=1e-9)
    assert found.standard_errors == pytest.approx(wanted.standard_errors, rel=1e-5)


def assert_equal_spend(found: FittedSpend, wanted: FittedSpend) -> None:
    assert (found.method, found.reason) == (wanted.method, wanted.reason)
    assert (found.correlation is None) == (wanted.correlation is None)
    for name in ("correlation", "mean", "within", "between"):
        np.testing.assert_allclose(getattr(found, name) or 0, getattr(wanted, name) or 0, rtol=1e-6, err_msg=name)
    assert (found.gamma_gamma is None) == (wanted.gamma_gamma is None)
    if found.gamma_gamma is not None and wanted.gamma_gamma is not None:
        assert_equal_fits(found.gamma_gamma, wanted.gamma_gamma)


@pytest.mark.parametrize("model", predictive.MODELS)
@pytest.mark.parametrize("warm", [False, True])
def test_rows_that_stand_for_several_customers_fit_as_the_customers_would(
    model: str, warm: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if warm:
        for module in (betageometric, paretonbd):
            monkeypatch.setattr(module, "WARM_START_ROWS", 100)
            monkeypatch.setattr(module, "WARM_START_CUSTOMERS", 800)
    columns = histories()
    rows, customers = in_two_parts(columns)
    assert rows[0].size < 0.6 * columns[0].size
    found = predictive.fit_model(model, *rows, customers=customers)
    assert_equal_fits(found, predictive.fit_model(model, *columns))
    each = predictive.log_likelihood(found, *columns)
    assert found.log_likelihood == pytest.approx(each.sum(), rel=1e-9)


@pytest.mark.parametrize("model", predictive.MODELS)
def test_a_hundred_million_customers_in_few_rows_fit_as_few_customers_do(model: str) -> None:
    columns = histories()
    few = predictive.fit_model(model, *columns)
    many = predictive.fit_model(model, *columns, customers=np.full(3000, 40_000))
    assert many.customers == 120_000_000
    assert many.params == pytest.approx(few.params, rel=1e-6)
    assert many.log_likelihood == pytest.approx(few.log_likelihood * 40_000, rel=1e-9)
    assert many.standard_errors == pytest.approx({name: s / 200 for name, s in few.standard_errors.items()}, rel=1e-5)


@pytest.mark.parametrize("model", predictive.MODELS)
def test_models_are_fitted_to_few_rows_of_enough_customers(model: str) -> None:
    columns = histories(49, seed=24)
    customers = np.arange(49) % 5 + 1
    with pytest.raises(TooLittleData) as refused:
        predictive.fit_model(model, *columns)
    assert refused.value.code == "too_few_customers"
    found = predictive.fit_model(model, *columns, customers=customers)
    assert_equal_fits(found, predictive.fit_model(model, *(np.repeat(column, customers) for column in columns)))


def test_gamma_gamma_fits_rows_as_their_customers() -> None:
    rows, customers = spends()
    assert_equal_fits(
        fit_gamma_gamma(*rows, customers=customers),
        fit_gamma_gamma(*repeated(*rows, customers)),
    )


@pytest.mark.parametrize(
    "reason",
    [None, "frequency_correlates", "zero_spend", "no_finite_mean", "too_few_repeaters", "not_converged"],
)
def test_spend_of_rows_is_predicted_as_of_their_customers(reason: str | None) -> None:
    (x, mean), customers = spends(*(2, 0.7) if reason == "no_finite_mean" else (5, 4))
    if reason == "frequency_correlates":
        # Among the rows it is not so.
        customers = np.where((x > 2) == (mean > np.median(mean)), 40, 1)
    elif reason == "zero_spend":
        # Few rows, but of many customers.
        free = (x > 0) & (np.arange(x.size) < 20)
        assert free.sum() < 0.1 * np.count_nonzero(x)
        mean, customers = np.where(free, 0.0, mean), np.where(free, 12, 1)
    elif reason == "no_finite_mean":
        customers = 1 + np.arange(x.size) % 7
    elif reason == "too_few_repeaters":
        x, mean, customers = np.array([0.0, 1, 1, 2, 2]), np.array([0.0, 10, 20, 20, 10]), np.array([90, 5, 4, 5, 5])
    elif reason == "not_converged":
        mean = np.full_like(mean, 25.0)
    found = fit_spend(x, mean, customers=customers)
    assert found.reason == reason
    assert_equal_spend(found, fit_spend(*repeated(x, mean, customers)))


def test_two_rows_of_several_customers_have_a_correlation() -> None:
    found = fit_spend([1, 2], [10, 20], customers=[3, 2])
    assert found.correlation == 1
    assert_equal_spend(found, fit_spend([1, 1, 1, 2, 2], [10, 10, 10, 20, 20]))
    assert fit_spend([1, 2], [10, 20]).correlation is None


def test_margins_of_rows_are_predicted_as_of_their_customers() -> None:
    (x, mean), customers = spends()
    margin = mean - 2.5
    found = fit_credible_mean(x, margin, "negative_margin", customers=customers)
    once, worth = repeated(x, margin, customers)
    assert found.between > 0
    assert_equal_spend(found, fit_credible_mean(once, worth, "negative_margin"))


def test_few_rows_of_enough_customers_are_enough() -> None:
    x, t_x, T = np.array([0.0, 2.0]), np.array([0.0, 3.0]), np.array([9.0, 9.0])

    def refusal(*customers: float) -> tuple[str, str]:
        with pytest.raises(TooLittleData) as refused:
            require_enough(x, t_x, T, np.array(customers))
        return refused.value.code, refused.value.reason

    require_enough(x, t_x, T, np.array([30.0, 20.0]))
    code, reason = refusal(29, 20)
    assert code == "too_few_customers"
    assert reason.startswith("49 customers")
    code, reason = refusal(40, 19)
    assert code == "too_few_repeaters"
    assert reason.startswith("19 customers")
    with pytest.raises(TooLittleData) as refused:
        require_enough(x[1:], t_x[1:], T[1:], np.array([1000.0]))
    assert refused.value.code == "all_alike"


@pytest.mark.parametrize("customers", [[1], [[1, 2]], [1, 0], [1, 1.5], [1, np.nan], [1, np.inf], [1, -2]])
def test_numbers_of_customers_that_cannot_be_are_refused_by_name(customers: ArrayLike) -> None:
    two = [1.0, 2.0]
    with pytest.raises(ValueError, match=r"^customers "):
        check_weights(customers, 2)
    for model in predictive.MODELS:
        with pytest.raises(ValueError, match=r"^customers "):
            predictive.fit_model(model, two, two, two, customers=customers)
    with pytest.raises(ValueError, match=r"^customers "):
        fit_gamma_gamma(two, two, customers=customers)
    with pytest.raises(ValueError, match=r"^customers "):
        fit_spend(two, two, customers=customers)
    with pytest.raises(ValueError, match=r"^customers "):
        fit_credible_mean(np.array(two), np.array(two), "negative_margin", customers=customers)


def test_the_parts_of_a_population_add_up_to_its_groups() -> None:
    columns = histories()
    rows, customers = in_two_parts(columns)
    found = group_customers(*rows, customers=customers.astype(float))
    wanted = group_customers(*columns)
    for name in vars(wanted):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
