# ruff: noqa: N803, N806
"""The facade, over all models: exact figures, wide grids, single customers, storage."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.analytics import predictive
from app.analytics.fit import Component, FittedModel
from tests.analytics.clv_references import EXACT, NEW_CUSTOMER, PARAMS, cdnow

NAMES = sorted(PARAMS)


def given_params(model: str, params: dict[str, float]) -> FittedModel:
    return FittedModel(model, params, 0.0, {}, (), 1)


def history(x: float, t_x: str | float, T: str | float) -> tuple[list[float], list[float], list[float]]:
    return [float(x)], [float(t_x)], [float(T)]


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("case", sorted(EXACT))
def test_scores_equal_50_digit_values(model: str, case: str) -> None:
    customer, exact = EXACT[case]
    fitted, rows = given_params(model, PARAMS[model]), history(*customer)
    log_likelihood, alive, in_39, in_52 = (float(value) for value in exact[model])
    assert predictive.log_likelihood(fitted, *rows)[0] == pytest.approx(log_likelihood, rel=1e-11)
    assert predictive.p_alive(fitted, *rows)[0] == pytest.approx(alive, rel=1e-9)
    assert predictive.expected_purchases(fitted, *rows, 39)[0] == pytest.approx(in_39, rel=1e-9)
    assert predictive.expected_purchases(fitted, *rows, 52)[0] == pytest.approx(in_52, rel=1e-9)


@pytest.mark.parametrize("model", NAMES)
def test_a_new_customer_equals_50_digit_values(model: str) -> None:
    fitted = given_params(model, PARAMS[model])
    for weeks, exact in NEW_CUSTOMER[model].items():
        assert predictive.expected_purchases(fitted, [0], [0], [0], weeks)[0] == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("model", NAMES)
def test_one_customer_gets_the_figure_that_a_batch_gives(model: str) -> None:
    x, t_x, T, _ = cdnow()
    fitted = predictive.fit_model(model, x, t_x, T)
    batch = predictive.score(fitted, x, t_x, T, 365)
    for row in range(0, x.size, 97):
        one = predictive.score(fitted, x[row : row + 1], t_x[row : row + 1], T[row : row + 1], 365)
        for name in ("expected_purchases", "discounted_purchases", "p_alive"):
            assert getattr(one, name)[0] == pytest.approx(getattr(batch, name)[row], rel=1e-13)


@pytest.mark.parametrize("model", NAMES)
def test_score_agrees_with_the_single_functions(model: str) -> None:
    x, t_x, T, _ = cdnow()
    fitted = predictive.fit_model(model, x, t_x, T)
    scores = predictive.score(fitted, x, t_x, T, 100, 0.2)
    np.testing.assert_allclose(
        scores.expected_purchases, predictive.expected_purchases(fitted, x, t_x, T, 100), rtol=1e-10
    )
    np.testing.assert_allclose(
        scores.discounted_purchases, predictive.discounted_purchases(fitted, x, t_x, T, 100, 0.2), rtol=1e-10
    )
    np.testing.assert_allclose(scores.p_alive, predictive.p_alive(fitted, x, t_x, T), rtol=1e-14)
    np.testing.assert_allclose(
        predictive.chance_of_purchase(scores, 60),
        predictive.probability_of_purchase(fitted, x, t_x, T, 60),
        rtol=1e-14,
    )


@pytest.mark.parametrize("model", NAMES)
def test_discounting_follows_its_definition(model: str) -> None:
    fitted, rows = given_params(model, PARAMS[model]), history(5, 30, 40)
    ends = [30.0, 60.0, 90.0, 100.0]
    expected = [float(predictive.expected_purchases(fitted, *rows, end)[0]) for end in ends]
    steps = np.diff([0.0, *expected])
    by_hand = sum(step * 1.1 ** (-end / 365) for step, end in zip(steps, ends, strict=True))
    assert predictive.discounted_purchases(fitted, *rows, 100)[0] == pytest.approx(by_hand, rel=1e-10)
    undiscounted = predictive.discounted_purchases(fitted, *rows, 100, 0.0)[0]
    assert undiscounted == pytest.approx(expected[-1], rel=1e-10)


@pytest.mark.parametrize("horizon", [7.0, 30.0, 60.0, 365.0, 3650.0])
def test_the_last_step_ends_at_the_horizon(horizon: float) -> None:
    ends, coefficients = predictive.discount_steps(horizon, 0.1)
    assert ends[-1] == horizon
    assert (np.diff(ends) > 0).all()
    assert len(ends) == int(np.ceil(horizon / 30))
    # For E(t) = t, one purchase a day, the sum is that of the discounted step lengths.
    by_hand = float(np.sum(np.diff(ends, prepend=0.0) * 1.1 ** (-ends / 365)))
    assert float(ends @ coefficients[:, 1]) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("customer", [(0, 0, 0), (0, 0, 40), (2, 30, 40), (26, 31, 31), (100, 90, 100)])
def test_the_predictive_distribution_has_mass_one_and_the_mean_of_the_closed_form(
    model: str, customer: tuple[int, int, int]
) -> None:
    fitted = given_params(model, PARAMS[model])
    count = np.arange(1500.0)
    x, t_x, T = (np.full(count.size, float(value)) for value in customer)
    mass = np.exp(predictive.log_predictive(fitted, x, t_x, T, 52, count))
    rows = history(*customer)
    assert mass.sum() == pytest.approx(1, abs=1e-9)
    assert mass @ count == pytest.approx(predictive.expected_purchases(fitted, *rows, 52)[0], rel=1e-9)
    assert 1 - mass[0] == pytest.approx(predictive.probability_of_purchase(fitted, *rows, 52)[0], rel=1e-9)


positive = st.floats(min_value=-2.5, max_value=3.5).map(lambda power: 10**power)
whole = st.one_of(st.integers(0, 5), st.integers(0, 3000))


@pytest.mark.parametrize("model", NAMES)
@settings(max_examples=150, deadline=None)
@given(
    params=st.tuples(positive, positive, positive, positive),
    x=whole,
    T=st.integers(0, 20_000),
    share=st.floats(0, 1),
    horizon=st.floats(0.1, 5000),
)
def test_every_score_is_finite_and_in_its_range_anywhere(
    model: str, params: tuple[float, float, float, float], x: int, T: int, share: float, horizon: float
) -> None:
    fitted = given_params(model, dict(zip(PARAMS[model], params, strict=True)))
    rows = history(x, T * share if x else 0, T)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = predictive.score(fitted, *rows, horizon)
        assert np.isfinite(predictive.log_likelihood(fitted, *rows)).all()
    assert 0 <= scores.p_alive[0] <= 1
    chance = predictive.chance_of_purchase(scores, horizon)
    assert 0 <= chance[0] <= 1
    assert 0 <= scores.discounted_purchases[0] <= scores.expected_purchases[0] * (1 + 1e-9)
    assert np.isfinite(scores.expected_purchases[0])
    # Nobody is expected to buy more often than the rate of a customer who is alive and never leaves.
    r, alpha = params[:2]
    assert scores.expected_purchases[0] <= (r + x) / (alpha + T) * horizon * (1 + 1e-9)
    # Markov: at least one purchase is no likelier than the expected number.
    assert chance[0] <= scores.expected_purchases[0] * (1 + 1e-9)


def test_a_fit_survives_storage_as_json() -> None:
    x, t_x, T, _ = cdnow()
    fitted = predictive.fit_model("bg_nbd", x, t_x, T)
    assert FittedModel.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


def test_a_blend_scores_the_weighted_mean_of_its_members() -> None:
    members = [given_params(model, PARAMS[model]) for model in NAMES]
    weights = (0.5, 0.3, 0.2)
    parts = tuple(Component(member, (0.1, weight)) for member, weight in zip(members, weights, strict=True))
    mixture = FittedModel("blend", {}, 0.0, {}, (), 1, parts)
    rows = history(3, 30, 40)
    mean = sum(w * predictive.expected_purchases(m, *rows, 52)[0] for m, w in zip(members, weights, strict=True))
    assert predictive.expected_purchases(mixture, *rows, 52)[0] == pytest.approx(mean, rel=1e-12)
    assert predictive.score(mixture, *rows, 52).expected_purchases[0] == pytest.approx(mean, rel=1e-10)
    mass = sum(w * np.exp(predictive.log_predictive(m, *rows, 52, 2)[0]) for m, w in zip(members, weights, strict=True))
    assert np.exp(predictive.log_predictive(mixture, *rows, 52, 2)[0]) == pytest.approx(mass, rel=1e-12)
    assert FittedModel.from_dict(json.loads(json.dumps(mixture.to_dict()))) == mixture
    with pytest.raises(ValueError, match="blend"):
        predictive.log_likelihood(mixture, *rows)


@pytest.mark.parametrize(
    "rows",
    [
        ([1], [5], [4]),
        ([-1], [0], [4]),
        ([1.5], [2], [4]),
        ([0], [2], [4]),
        ([1], [np.nan], [4]),
        ([1], [2], [np.inf]),
        ([1, 2], [2], [4]),
    ],
)
def test_impossible_histories_are_refused(rows: tuple[list[float], list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match=r"frequency|recency|shape"):
        predictive.p_alive(given_params("bg_nbd", PARAMS["bg_nbd"]), *rows)


@pytest.mark.parametrize(
    ("horizon", "rate"), [(0, 0.1), (-1, 0.1), (np.inf, 0.1), (np.nan, 0.1), (30, -1), (30, np.nan)]
)
def test_impossible_horizons_and_rates_are_refused(horizon: float, rate: float) -> None:
    with pytest.raises(ValueError, match=r"horizon_days|annual_rate"):
        predictive.score(given_params("bg_nbd", PARAMS["bg_nbd"]), [0], [0], [1], horizon, rate)


@pytest.mark.parametrize("model", NAMES)
@given(
    histories=st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 900), st.integers(0, 900)), min_size=1, max_size=12
    ),
    scales=st.lists(st.tuples(*[st.floats(0.5, 2.0)] * 4), min_size=1, max_size=5),
    horizon=st.sampled_from([1.0, 39.0, 365.0, 3_650.0]),
)
def test_a_few_customers_have_by_many_parameters_what_they_have_by_each(
    model: str,
    histories: list[tuple[int, int, int]],
    scales: list[tuple[float, ...]],
    horizon: float,
) -> None:
    x = np.array([float(count if t_x else 0) for count, t_x, _ in histories])
    t_x = np.array([float(at if count else 0) for count, at, _ in histories])
    T = t_x + np.array([float(since) for _, _, since in histories])
    names = ("r", "alpha", "s", "beta") if model == "pareto_nbd" else ("r", "alpha", "a", "b")
    points = [
        PARAMS[model] | {name: PARAMS[model][name] * scale for name, scale in zip(names, each, strict=True)}
        for each in scales
    ]
    found = predictive.expected_by_each(predictive.MODELS[model], points, x, t_x, T, horizon)
    for point, each in zip(points, found, strict=True):
        alone = predictive.expected_purchases(given_params(model, point), x, t_x, T, horizon)
        assert each == pytest.approx(alone, rel=1e-9, abs=1e-300)
