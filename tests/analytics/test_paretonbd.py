# ruff: noqa: N803, N806
"""Pareto/NBD against the published fit of CDNOW, and at its removable singularities."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest

from app.analytics import paretonbd
from app.analytics.fit import FloatArray, NotConverged, TooLittleData
from app.analytics.grouping import group_customers
from tests.analytics.clv_references import DAYS, cdnow, in_weeks, log_likelihood_in_weeks


def test_reproduces_published_cdnow_parameters_and_standard_errors() -> None:
    x, t_x, T, _ = cdnow()
    fitted = paretonbd.fit(x, t_x, T)
    weeks = in_weeks(fitted.params)
    # Fader, Hardie and Lee (2005) print three digits; CLVTools five, and standard errors.
    assert weeks["r"] == pytest.approx(0.553, abs=5e-4)
    assert weeks["alpha"] == pytest.approx(10.578, abs=2e-3)
    assert weeks["s"] == pytest.approx(0.606, abs=5e-4)
    assert weeks["beta"] == pytest.approx(11.669, abs=5e-3)
    for name, value in {"r": 0.55315, "alpha": 10.57633, "s": 0.60625, "beta": 11.6715}.items():
        assert weeks[name] == pytest.approx(value, rel=1e-3)
    assert round(log_likelihood_in_weeks(fitted.log_likelihood, x), 3) == -9594.976
    errors = in_weeks(fitted.standard_errors)
    for name, value in {"r": 0.0476264, "alpha": 0.8427222, "s": 0.1872594, "beta": 6.2105448}.items():
        assert errors[name] == pytest.approx(value, rel=2e-3)


def test_published_forecasts_for_cdnow() -> None:
    customers = cdnow()
    params = in_weeks(paretonbd.fit(*customers[:3]).params)

    def expected(x: float, t_x: float, T: float) -> float:
        rows = [np.array([float(value)]) for value in (x, t_x, T)]
        growth = paretonbd.growth_if_alive(params, rows[0], rows[1], rows[2], np.array([52.0]), np.ones((1, 1)))[0, 0]
        return float(growth * paretonbd.p_alive(params, *rows)[0])

    # Printed for a fit that agrees with this one to four digits.
    assert expected(0, 0, 0) == pytest.approx(1.473434, rel=1e-5)
    assert expected(26, 216 / 7, 31) == pytest.approx(25.45647, rel=2e-4)
    for x, published in {10: 0.7062289, 15: 0.1442396, 20: 0.02250658, 25: 0.00309267}.items():
        assert expected(x, 20, 39) == pytest.approx(published, rel=1e-3)


def exact(params: dict[str, float], x: int, t_x: float, T: float, horizon: float) -> tuple[float, float, float]:
    """Log-likelihood, P(alive) and expected purchases from their defining integrals, in 30 digits."""
    with mp.workdps(30):
        r, alpha, s, beta = (mp.mpf(value) for value in params.values())
        stays = (alpha + T) ** -(r + x) * (beta + T) ** -s
        # In log time the integrand is smooth; panels follow its fall.
        start = mp.log(alpha + t_x)
        points = mp.linspace(start, mp.log(alpha + T), 12)
        leaves = mp.quad(lambda y: mp.exp(y * (1 - r - x)) * (beta - alpha + mp.exp(y)) ** -(s + 1), points) * s
        log_likelihood = (
            mp.loggamma(r + x) - mp.loggamma(r) + r * mp.log(alpha) + s * mp.log(beta) + mp.log(stays + leaves)
        )
        alive = stays / (stays + leaves)
        lived = mp.quad(lambda u: ((beta + T) / (beta + T + u)) ** s, mp.linspace(0, horizon, 5))
        return float(log_likelihood), float(alive), float(alive * (r + x) / (alpha + T) * lived)


@pytest.mark.parametrize(
    ("r", "alpha", "s", "beta"),
    [
        (0.55, 74.0, 1.0, 81.0),
        (0.55, 74.0, 0.6, 74.0),
        (1.0, 50.0, 1.0, 50.0),
        (2.0, 0.3, 1e-3, 4000.0),
        (0.01, 3000.0, 12.0, 0.5),
    ],
)
def test_equals_arbitrary_precision_at_s_of_one_and_equal_scales(r: float, alpha: float, s: float, beta: float) -> None:
    params = {"r": r, "alpha": alpha, "s": s, "beta": beta}
    for x, t_x, T in [(0, 0.0, 300.0), (1, 2.0, 300.0), (40, 290.0, 300.0), (1000, 999.0, 1000.0), (3, 0.5, 4000.0)]:
        rows = [np.array([float(x)]), np.array([t_x]), np.array([T])]
        log_likelihood, alive, expected = exact(params, x, t_x, T, 365.0)
        assert paretonbd.log_likelihood(params, *rows)[0] == pytest.approx(log_likelihood, rel=1e-11)
        assert paretonbd.p_alive(params, *rows)[0] == pytest.approx(alive, rel=1e-9)
        growth = paretonbd.growth_if_alive(params, rows[0], rows[1], rows[2], np.array([365.0]), np.ones((1, 1)))[0, 0]
        assert growth * alive == pytest.approx(expected, rel=1e-9)


def test_derivatives_equal_differences_of_the_log_likelihood() -> None:
    x, t_x, T, _ = cdnow()
    groups = group_customers(x, t_x, T)
    theta = np.array([0.5, 60.0, 0.7, 90.0])

    def mean(values: FloatArray) -> float:
        return float(
            paretonbd.log_likelihood(dict(zip(paretonbd.NAMES, values.tolist(), strict=True)), x, t_x, T).mean()
        )

    value, gradient, hessian = paretonbd._objective(theta, groups)
    assert value == pytest.approx(mean(theta), rel=1e-13)
    for i in range(4):
        step = np.where(np.arange(4) == i, 1e-5 * theta, 0)
        assert gradient[i] == pytest.approx((mean(theta + step) - mean(theta - step)) / (2 * step[i]), rel=1e-6)
        ahead, behind = (paretonbd._objective(theta + sign * step, groups)[1] for sign in (1, -1))
        np.testing.assert_allclose(hessian[i], (ahead - behind) / (2 * step[i]), rtol=1e-6)


def test_the_gradient_vanishes_at_the_fit_and_copies_of_customers_do_not_move_it() -> None:
    x, t_x, T, _ = cdnow()
    fitted = paretonbd.fit(x, t_x, T)
    theta = np.array(list(fitted.params.values()))
    assert np.abs(paretonbd._objective(theta, group_customers(x, t_x, T))[1] * theta).max() < 1e-10
    many = paretonbd.fit(*(np.tile(values, 20) for values in (x, t_x, T)))
    assert many.params == pytest.approx(fitted.params, rel=1e-6)


def test_the_scales_follow_the_unit_of_time() -> None:
    x, t_x, T, _ = cdnow()
    weeks = paretonbd.fit(x, t_x / DAYS, T / DAYS)
    assert weeks.params == pytest.approx(in_weeks(paretonbd.fit(x, t_x, T).params), rel=1e-6)


def test_fits_refuse_what_they_cannot_learn_from() -> None:
    with pytest.raises(TooLittleData, match="second day"):
        paretonbd.fit(np.zeros(100), np.zeros(100), np.arange(100.0))
    random = np.random.default_rng(5)
    T = random.integers(200, 400, 3000).astype(float)
    x = random.poisson(T / 20).astype(float)
    t_x = np.where(x > 0, np.floor(T * random.beta(np.maximum(x, 1), 1)), 0)
    with pytest.raises(NotConverged):
        paretonbd.fit(x, t_x, T)
