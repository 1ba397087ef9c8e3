"""The maximiser on functions whose maximum is known, and on some that have none."""

from __future__ import annotations

import numpy as np
import pytest

from app.analytics.fit import FloatArray, NotConverged, fitted_model, maximise, maximise_from

NAMES = ("one", "two")


def bowl(theta: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """A maximum of zero at (3, 0.5) in log scale, with curved level lines."""
    u = np.log(theta) - np.log([3.0, 0.5])
    value = -((u[1] - u[0] ** 2) ** 2) * 10 - u[0] ** 2
    slope = np.array([40 * u[0] * (u[1] - u[0] ** 2) - 2 * u[0], -20 * (u[1] - u[0] ** 2)])
    bend = np.array([[40 * (u[1] - u[0] ** 2) - 80 * u[0] ** 2 - 2, 40 * u[0]], [40 * u[0], -20]])
    return float(value), slope / theta, (bend - np.diag(slope)) / np.outer(theta, theta)


@pytest.mark.parametrize("start", [(1.0, 1.0), (100.0, 0.01), (0.2, 5.0)])
def test_finds_the_maximum_from_afar(start: tuple[float, float]) -> None:
    maximum = maximise(bowl, start, NAMES)
    np.testing.assert_allclose(maximum.theta, [3, 0.5], rtol=1e-9)
    assert maximum.value == pytest.approx(0, abs=1e-12)
    assert fitted_model("bowl", NAMES, maximum, 100).standard_errors["one"] == pytest.approx(3 / np.sqrt(200), rel=1e-6)


def test_a_parameter_that_runs_off_is_named() -> None:
    def slope(theta: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        value = -(np.log(theta[0]) ** 2) - 1 / theta[1]
        gradient = np.array([-2 * np.log(theta[0]) / theta[0], 1 / theta[1] ** 2])
        hessian = np.diag([(2 * np.log(theta[0]) - 2) / theta[0] ** 2, -2 / theta[1] ** 3])
        return float(value), gradient, hessian

    with pytest.raises(NotConverged, match="two ran off") as refused:
        maximise(slope, (2.0, 1.0), NAMES)
    assert refused.value.code == "parameters_ran_off"


def test_a_likelihood_that_is_not_finite_is_refused() -> None:
    def broken(theta: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        return float("nan"), theta, np.eye(2)

    with pytest.raises(NotConverged) as refused:
        maximise_from(broken, [(1.0, 1.0), (2.0, 2.0)], NAMES)
    assert refused.value.code == "not_finite"
