"""The shared integrals against arbitrary-precision arithmetic."""

from __future__ import annotations

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.analytics.special import beta_quadrature, log_negative_binomial, power_integral, thinned_growth
from tests.analytics.clv_references import exact_growth


@pytest.mark.parametrize("c", [0.05, 1.0, 2.2, 30.243, 1000.243])
@pytest.mark.parametrize(("a", "b"), [(0.793, 2.426), (0.01, 0.05), (0.3, 0.5), (1, 2.4), (3, 1000), (300, 30), (2, 1)])
def test_thinned_growth_equals_the_hypergeometric_form(c: float, a: float, b: float) -> None:
    # Covers a = 1, a + b < 1, and c - a whole, where the hypergeometric form is singular or cancels.
    w = np.array([0.001, 0.3, 6.0, 1000.0])
    exact = [float(exact_growth(c, a, b, float(value))) for value in w]
    np.testing.assert_allclose(thinned_growth(np.array([c]), a, np.array([b]), w[None])[0], exact, rtol=2e-10)


def power(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda exponent: float(10**exponent))


@settings(max_examples=40, deadline=None)
@given(
    alpha=power(-1, 4), beta=power(-1, 4), c=power(-1.5, 3), d=power(-1.5, 2), low=power(-1, 3), length=power(-1, 3.5)
)
def test_power_integrals_equal_arbitrary_precision(
    alpha: float, beta: float, c: float, d: float, low: float, length: float
) -> None:
    high = low + length
    found = power_integral(alpha, beta, np.array([c]), d, np.array([low]), np.array([high]))[0]
    with mp.workdps(20):
        scale = min(alpha, beta) + low
        end = mp.log1p(mp.mpf(high - low) / scale)

        def integrand(y: mp.mpf) -> mp.mpf:
            u = scale * mp.expm1(y)
            return mp.exp(y - c * mp.log1p(u / (alpha + low)) - d * mp.log1p(u / (beta + low))) * scale

        # Panels that follow the fall of the integrand from its left end.
        first = min(end, mp.mpf(1) / (c + d))
        cuts = [mp.mpf(0)]
        while cuts[-1] < end and cuts[-1] < 200 * (first + 1):
            cuts.append(min(end, max(first, cuts[-1] * 2)))
        exact = mp.quad(integrand, cuts, maxdegree=7)
    assert found == pytest.approx(float(exact), rel=1e-10)


def test_the_power_integral_over_nothing_is_zero() -> None:
    assert power_integral(5.0, 5.0, np.array([3.0]), 1.0, np.array([7.0]), np.array([7.0]))[0] == 0


def test_beta_weights_sum_to_one_and_have_the_beta_moments() -> None:
    a, b = 0.2, np.array([0.3, 4.0, 900.0])
    p, weight = beta_quadrature(a, b, np.full(3, 10.0))
    np.testing.assert_allclose(weight.sum(axis=1), 1, rtol=1e-9)
    np.testing.assert_allclose((weight * p).sum(axis=1), a / (a + b), rtol=1e-9)
    np.testing.assert_allclose((weight * p**2).sum(axis=1), a * (a + 1) / ((a + b) * (a + b + 1)), rtol=1e-9)


def test_negative_binomial_mass_equals_arbitrary_precision() -> None:
    for count, shape, odds in [(0, 0.3, 2.0), (3, 0.3, 1e-6), (1000, 5.2, 300.0), (7, 1000.0, 0.01)]:
        with mp.workdps(40):
            exact = (
                mp.rf(mp.mpf(shape), count)
                / mp.factorial(count)
                * (1 + mp.mpf(odds)) ** -mp.mpf(shape)
                * (mp.mpf(odds) / (1 + mp.mpf(odds))) ** count
            )
        found = log_negative_binomial(np.array([float(count)]), np.array([shape]), np.array([odds]))[0]
        assert found == pytest.approx(float(mp.log(exact)), rel=1e-12)
