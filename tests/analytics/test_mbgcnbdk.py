# ruff: noqa: N806
"""MBG/CNBD-k against its definition, MBG/NBD (k = 1), and simulated regular customers."""

from __future__ import annotations

from collections.abc import Mapping

import mpmath as mp
import numpy as np
import pytest
from scipy.special import betainc, betaln, factorial, poch

from app.analytics import mbgcnbdk, mbgnbd
from app.analytics.fit import FloatArray, NotConverged
from app.analytics.grouping import group_customers
from tests.analytics.clv_references import cdnow, simulated

HISTORIES = [(0, 0, 0), (0, 0, 200), (3, 150, 200), (3, 200, 200), (40, 290, 300), (500, 700, 730)]
PARAMS = {"r": 0.525, "alpha": 43.0, "a": 0.891, "b": 1.614}


def rows(*history: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    x, t_x, T = (np.array([float(value)]) for value in history)
    return x, t_x, T


@pytest.mark.parametrize("history", HISTORIES)
def test_k_of_one_is_mbg_nbd(history: tuple[int, int, int]) -> None:
    params, customer = PARAMS | {"k": 1.0}, rows(*history)
    np.testing.assert_allclose(
        mbgcnbdk.log_likelihood(params, *customer), mbgnbd.log_likelihood(PARAMS, *customer), rtol=1e-12
    )
    np.testing.assert_allclose(mbgcnbdk.p_alive(params, *customer), mbgnbd.p_alive(PARAMS, *customer), rtol=1e-12)
    ends, one = np.array([30.0, 365.0]), np.eye(2)
    np.testing.assert_allclose(
        mbgcnbdk.growth_if_alive(params, *customer, ends, one),
        mbgnbd.growth_if_alive(PARAMS, *customer, ends, one),
        rtol=1e-9,
    )


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("history", [(0, 0, 200), (3, 150, 200), (12, 290, 300)])
def test_likelihood_and_p_alive_equal_their_definition_in_25_digits(k: int, history: tuple[int, int, int]) -> None:
    x, t_x, T = history
    r, alpha, a, b = PARAMS.values()
    with mp.workdps(25):

        def rate_integral(wait: int, j: int) -> mp.mpf:
            """The mean over the rate of rate^(k x + j) exp(-rate (t_x + wait)) wait^j / j!."""
            mean = mp.rf(mp.mpf(r), k * x + j) * mp.mpf(alpha) ** r / mp.mpf(alpha + t_x + wait) ** (r + k * x + j)
            return mean * mp.mpf(wait) ** j / mp.factorial(j)

        stays, leaves = mp.beta(a, b + x + 1) / mp.beta(a, b), mp.beta(a + 1, b + x) / mp.beta(a, b)
        alive = stays * sum(rate_integral(T - t_x, j) for j in range(k))
        gone = leaves * rate_integral(0, 0)
        timing = mp.mpf(t_x) ** ((k - 1) * x) * mp.gamma(x) / mp.gamma(k * x) if x else mp.mpf(1)
        log_likelihood, p_alive = float(mp.log((alive + gone) * timing)), float(alive / (alive + gone))
    params = PARAMS | {"k": float(k)}
    assert mbgcnbdk.log_likelihood(params, *rows(*history))[0] == pytest.approx(log_likelihood, rel=1e-11)
    assert mbgcnbdk.p_alive(params, *rows(*history))[0] == pytest.approx(p_alive, rel=1e-10)


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("history", HISTORIES)
def test_the_distribution_of_purchases_has_mass_one_and_the_expected_mean(
    k: int, history: tuple[int, int, int]
) -> None:
    params, customer = PARAMS | {"k": float(k)}, rows(*history)
    counts = np.arange(2500.0)
    mass = np.exp(mbgcnbdk.log_pmf_if_alive(params, *customer, 365.0, counts))
    assert mass.sum() == pytest.approx(1, abs=1e-9)
    growth = mbgcnbdk.growth_if_alive(params, *customer, np.array([365.0]), np.ones((1, 1)))[0, 0]
    assert mass @ counts == pytest.approx(growth, rel=1e-9)
    assert 1 - mass[0] == pytest.approx(mbgcnbdk.chance_if_alive(params, *customer, 365.0)[0], rel=1e-9)


@pytest.mark.parametrize(("k", "j"), [(2, 0), (3, 1), (4, 3)])
def test_series_and_roots_of_unity_agree(k: int, j: int, monkeypatch: pytest.MonkeyPatch) -> None:
    w = np.linspace(0.05, 8, 9)
    series = mbgcnbdk._growth_from(k, j, 20.0 + j, 0.9, 4.0, w)
    monkeypatch.setattr(mbgcnbdk, "SERIES_TERMS", 0)
    np.testing.assert_allclose(mbgcnbdk._growth_from(k, j, 20.0 + j, 0.9, 4.0, w), series, rtol=1e-10)


def expected_by_series(params: Mapping[str, float], x: float, t_x: float, T: float, horizon: float) -> float:  # noqa: N803
    """sum_m E[(1 - p)^m] P(m purchases are due), over the events since the last purchase, in the horizon."""
    r, alpha, a, k = (params[name] for name in ("r", "alpha", "a", "k"))
    w, b = horizon / (alpha + T), params["b"] + x + 1
    wait = (T - t_x) / (alpha + T)
    stages = np.array([poch(r + k * x, j) / factorial(j) * wait**j for j in range(int(k))])
    m = np.arange(30_000)
    stays = np.exp(betaln(a, b + m) - betaln(a, b))
    due = (betainc(k - j + m * k, r + k * x + j, w / (1 + w)) @ stays for j in range(int(k)))
    return float(stages @ np.array(list(due)) / stages.sum())


@pytest.mark.parametrize("a", [0.02, 0.1, 0.8])
@pytest.mark.parametrize("history", [(0, 0, 30), (4, 200, 220), (25, 400, 410), (200, 700, 730)])
def test_what_regular_customers_are_expected_to_buy_equals_the_series_even_where_few_ever_leave(
    a: float, history: tuple[int, int, int]
) -> None:
    for k in (2.0, 4.0):
        params = {"r": 3.0, "alpha": 12.0, "a": a, "b": 4.0, "k": k}
        ends = np.array([30.0, 365.0, 3_650.0])
        found = mbgcnbdk.growth_if_alive(params, *rows(*history), ends, np.eye(3))
        expected = [expected_by_series(params, *history, horizon) for horizon in ends.tolist()]
        np.testing.assert_allclose(found[0], expected, rtol=2e-9)


def test_the_gradient_equals_differences_of_the_log_likelihood() -> None:
    x, t_x, T, _ = cdnow()
    theta = np.array([0.8, 30.0, 1.2, 2.0])

    def mean(values: FloatArray) -> float:
        params = dict(zip(mbgcnbdk.NAMES, values.tolist(), strict=True)) | {"k": 3.0}
        return float(mbgcnbdk.log_likelihood(params, x, t_x, T).mean())

    value, gradient, _ = mbgcnbdk._objective(group_customers(x, t_x, T), 3)(theta)
    assert value == pytest.approx(mean(theta), rel=1e-12)
    for i in range(4):
        step = np.where(np.arange(4) == i, 1e-5 * theta, 0)
        assert gradient[i] == pytest.approx((mean(theta + step) - mean(theta - step)) / (2 * step[i]), rel=1e-6)


def test_recovers_regularity_and_forecasts_regular_customers() -> None:
    params = {"r": 1.2, "alpha": 20.0, "a": 0.8, "b": 2.5}
    actual = simulated(8000, params, (6.0, 4.0, 16.0), 365.0, 3, k=3)
    fitted = mbgcnbdk.fit(*actual[:3])
    assert fitted.params["k"] == 3
    for name, value in params.items():
        assert abs(fitted.params[name] - value) < 4 * fitted.standard_errors[name]
    alive = mbgcnbdk.p_alive(fitted.params, *actual[:3])
    growth = mbgcnbdk.growth_if_alive(fitted.params, *actual[:3], np.array([365.0]), np.ones((1, 1)))[:, 0]
    assert (alive * growth).sum() == pytest.approx(actual.purchases.sum(), rel=0.03)


def test_purchases_without_regularity_are_refused_as_such() -> None:
    with pytest.raises(NotConverged) as refused:
        mbgcnbdk.fit(*cdnow()[:3])
    assert refused.value.code == "not_regular"
