"""How well a forecast agreed with what happened: by decile, in total, and in its probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import ArrayLike

from app.analytics.fit import FloatArray


@dataclass(frozen=True)
class CalibrationGroup:
    """Customers of similar forecast: how many, their mean forecast and their mean outcome."""

    customers: int
    forecast: float
    actual: float


@dataclass(frozen=True)
class Accuracy:
    """Errors of a forecast over customers.

    Attributes
    ----------
    rmse, mae : float
        Root of the mean squared and mean absolute error.
    correlation : float or None
        Pearson's, of forecast and outcome; None where either does not vary.
    aggregate_error : float or None
        Sum of forecasts over sum of outcomes, less one; None where nothing happened.
    """

    rmse: float
    mae: float
    correlation: float | None
    aggregate_error: float | None


def accuracy(forecast: ArrayLike, actual: ArrayLike) -> Accuracy:
    """Return the errors of a forecast, both of shape (n,) with n > 0.

    Examples
    --------
    >>> accuracy([1.0, 2.0], [1.0, 4.0]).aggregate_error
    -0.4
    """
    forecast, actual = _pair(forecast, actual)
    error = forecast - actual
    total = float(actual.sum())
    varied = forecast.size > 1 and np.ptp(forecast) > 0 and np.ptp(actual) > 0
    return Accuracy(
        rmse=sqrt(float(error @ error) / error.size),
        mae=float(np.abs(error).mean()),
        correlation=float(np.corrcoef(forecast, actual)[0, 1]) if varied else None,
        aggregate_error=float(forecast.sum()) / total - 1 if total else None,
    )


def calibration(forecast: ArrayLike, actual: ArrayLike, groups: int = 10) -> list[CalibrationGroup]:
    """Return mean forecast and mean outcome in groups of rising forecast, deciles by default.

    Customers of equal forecast stay together, so groups differ in size where many are alike, and there may be fewer.

    Parameters
    ----------
    forecast, actual : array-like, shape (n,)
        Any quantity: purchases, money, or a probability and whether it came true (0 or 1).
    groups : int
        At least 1.

    Examples
    --------
    >>> calibration([0.1, 0.1, 0.9, 0.9], [0, 0, 1, 1], 2)
    [CalibrationGroup(customers=2, forecast=0.1, actual=0.0), CalibrationGroup(customers=2, forecast=0.9, actual=1.0)]
    """
    forecast, actual = _pair(forecast, actual)
    if groups < 1:
        raise ValueError("groups must be at least 1")
    _, index, counts = np.unique(forecast, return_inverse=True, return_counts=True)
    # A value belongs to the group in which its middle rank falls.
    middle = np.cumsum(counts) - counts / 2
    group = np.minimum((middle * groups / forecast.size).astype(np.intp), groups - 1)[index]
    sizes = np.bincount(group, minlength=groups)
    used = np.flatnonzero(sizes)
    forecasts = np.bincount(group, forecast, groups)[used] / sizes[used]
    actuals = np.bincount(group, actual, groups)[used] / sizes[used]
    return [
        CalibrationGroup(int(size), float(mean), float(outcome))
        for size, mean, outcome in zip(sizes[used], forecasts, actuals, strict=True)
    ]


def _pair(forecast: ArrayLike, actual: ArrayLike) -> tuple[FloatArray, FloatArray]:
    first = np.atleast_1d(np.asarray(forecast, dtype=np.float64))
    second = np.atleast_1d(np.asarray(actual, dtype=np.float64))
    if first.ndim != 1 or first.shape != second.shape or first.size == 0:
        raise ValueError("forecast and actual must be one-dimensional, of equal length and not empty")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("forecast and actual must be finite")
    return first, second
