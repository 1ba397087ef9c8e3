"""Accuracy and calibration on cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from app.analytics.calibration import Accuracy, CalibrationGroup, accuracy, calibration


def test_accuracy_by_hand() -> None:
    found = accuracy([1, 2, 3], [1, 4, 3])
    assert found.rmse == pytest.approx(np.sqrt(4 / 3))
    assert found.mae == pytest.approx(2 / 3)
    assert found.correlation == pytest.approx(np.corrcoef([1, 2, 3], [1, 4, 3])[0, 1])
    assert found.aggregate_error == pytest.approx(6 / 8 - 1)


def test_accuracy_says_nothing_where_there_is_nothing_to_say() -> None:
    assert accuracy([2.0], [0.0]) == Accuracy(2.0, 2.0, None, None)
    assert accuracy([1, 1], [0, 5]).correlation is None


def test_deciles_are_equal_in_size_and_rise() -> None:
    forecast = np.random.default_rng(1).permutation(1000.0 + np.arange(1000))
    groups = calibration(forecast, forecast * 2)
    assert [group.customers for group in groups] == [100] * 10
    for group in groups:
        assert group.actual == pytest.approx(2 * group.forecast)
    assert np.all(np.diff([group.forecast for group in groups]) > 0)


def test_customers_of_equal_forecast_stay_together() -> None:
    groups = calibration([5.0] * 60 + [1.0] * 40, [1.0] * 60 + [0.0] * 40)
    assert groups == [CalibrationGroup(40, 1.0, 0.0), CalibrationGroup(60, 5.0, 1.0)]


@pytest.mark.parametrize(("forecast", "actual"), [([], []), ([1], [1, 2]), ([np.nan], [1]), ([[1]], [[1]])])
def test_impossible_forecasts_are_refused(forecast: list[float], actual: list[float]) -> None:
    with pytest.raises(ValueError, match="forecast and actual"):
        calibration(forecast, actual)
    with pytest.raises(ValueError, match="forecast and actual"):
        accuracy(forecast, actual)


def test_at_least_one_group() -> None:
    with pytest.raises(ValueError, match="groups"):
        calibration([1.0], [1.0], 0)
