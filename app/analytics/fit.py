"""What every fitted model shares: the fitted record, its refusals, and the maximiser.

The likelihoods of this package are maximised over the logarithms of their positive parameters by Newton's method with
analytic derivatives. Four parameters need about ten steps, so one step may afford exact curvature, and the same
curvature gives the standard errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.signedinteger[Any]]

MINIMUM_CUSTOMERS = 50
"""Fewer customers than this say nothing about how customers differ: four parameters of two distributions are asked."""

MINIMUM_REPEATERS = 20
"""Every parameter but one is learned from repeat purchases alone; five repeaters a parameter is the least."""

SMALLEST_PARAMETER = 1e-4
LARGEST_PARAMETER = 1e5
"""A positive parameter outside these bounds (times in days) has run off: the likelihood is flat there, and what is
fitted is a limit (all customers alike, or nobody ever returns), not a member of the family."""

MAXIMUM_STEPS = 200

FLAT = 1e-11
"""Ratio of least to greatest curvature below which a maximum is lost in rounding."""


class FitError(ValueError):
    """A model that cannot be fitted. `code` is machine-readable, the message a sentence."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class NotConverged(FitError):
    """The likelihood has no interior maximum that could be found, so there is nothing to score with."""


class TooLittleData(FitError):
    """The data cannot determine the parameters: too few customers, no repeat purchase, no time, all alike."""


@dataclass(frozen=True)
class FittedModel:
    """A fitted purchase model, small and plain enough to be stored with a run and read back to score.

    Attributes
    ----------
    model : str
        Code of the model, a key of `predictive.MODELS`.
    params : dict of str to float
        Parameters by the letters of the source paper; times in days.
    log_likelihood : float
        Sum over customers, for times in days.
    standard_errors : dict of str to float
        From the inverse Hessian of the log-likelihood, in the scale of `params`.
    covariance : tuple of tuple of float
        The same inverse Hessian in full, in the order of `standard_errors`.
    customers : int
        Number of customers fitted on.
    components : tuple of Component
        Only for a blend of models: its members with their weights.
    """

    model: str
    params: dict[str, float]
    log_likelihood: float
    standard_errors: dict[str, float]
    covariance: tuple[tuple[float, ...], ...]
    customers: int
    components: tuple[Component, ...] = ()

    @cached_property
    def moved_params(self) -> tuple[dict[str, float], ...]:
        """Parameters one standard deviation off along each axis of the covariance of their logarithms.

        The squared changes of a logarithmic figure over the axes add up to its variance, exactly where it is linear in
        them. Empty without a covariance.
        """
        if not self.covariance:
            return ()
        names = list(self.standard_errors)
        theta = np.array([self.params[name] for name in names])
        axes = np.linalg.cholesky(np.array(self.covariance) / np.outer(theta, theta))
        points = np.clip(theta * np.exp(axes.T), SMALLEST_PARAMETER, max(LARGEST_PARAMETER, float(theta.max())))
        return tuple(self.params | dict(zip(names, point, strict=True)) for point in points.tolist())

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers that JSON can hold; `from_dict` is the inverse."""
        return {
            "model": self.model,
            # Told apart, because a store may keep the names of an object in an order of its own.
            "order": list(self.standard_errors),
            "params": dict(self.params),
            "log_likelihood": self.log_likelihood,
            "standard_errors": dict(self.standard_errors),
            "covariance": [list(row) for row in self.covariance],
            "customers": self.customers,
            "components": [
                {"weights": list(part.weights), "fitted": part.fitted.to_dict()} for part in self.components
            ],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> FittedModel:
        """Read back what `to_dict` wrote."""
        return cls(
            model=str(stored["model"]),
            params={str(name): float(value) for name, value in stored["params"].items()},
            log_likelihood=float(stored["log_likelihood"]),
            standard_errors={str(name): float(stored["standard_errors"][name]) for name in stored["order"]},
            covariance=tuple(tuple(float(value) for value in row) for row in stored["covariance"]),
            customers=int(stored["customers"]),
            components=tuple(
                Component(cls.from_dict(part["fitted"]), tuple(float(weight) for weight in part["weights"]))
                for part in stored.get("components", ())
            ),
        )


@dataclass(frozen=True)
class Component:
    """A member of a blend: the fitted model, and its weight for customers with 0, 1, ... repeat purchase days.

    The last weight holds for that frequency and all above. Over the members of a blend the weights sum to one.
    """

    fitted: FittedModel
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Maximum:
    """An interior maximum: `theta` natural parameters, `value` the mean log-likelihood, `hessian` in natural scale."""

    theta: FloatArray
    value: float
    hessian: FloatArray
    steps: int


Objective = Callable[[FloatArray], tuple[float, FloatArray, FloatArray]]
"""Natural parameters to (value, gradient, Hessian) of the mean log-likelihood."""


def check_customers(
    frequency: ArrayLike, recency_days: ArrayLike, T_days: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the three arrays as float64 of one shape (n,), or say what is wrong with them.

    Raises
    ------
    ValueError
        For other shapes, values that are not finite, negative counts or times, counts that are not whole, a recency
        beyond T, or a recency without a repeat purchase.
    """
    x, t_x, T = (np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in (frequency, recency_days, T_days))
    if x.ndim != 1 or x.shape != t_x.shape or x.shape != T.shape:
        raise ValueError("frequency, recency_days and T_days must be one-dimensional and of equal length")
    # A NaN fails every comparison, and T finite bounds recency.
    if not ((x >= 0) & (x < np.inf) & (t_x >= 0) & (t_x <= T) & (np.inf > T)).all():
        raise ValueError("need finite values with frequency >= 0 and 0 <= recency_days <= T_days")
    if (x != np.floor(x)).any():
        raise ValueError("frequency counts purchase days and must be whole")
    if ((x == 0) & (t_x > 0)).any():
        raise ValueError("recency_days must be 0 where frequency is 0")
    return x, t_x, T


def check_weights(customers: ArrayLike | None, rows: int) -> FloatArray | None:
    """Return how many customers each row stands for as float64 of shape (rows,); None, one each, stays None.

    Raises
    ------
    ValueError
        For another shape, and for numbers that are not whole or less than one.
    """
    if customers is None:
        return None
    weight = np.atleast_1d(np.asarray(customers, dtype=np.float64))
    if weight.shape != (rows,):
        raise ValueError("customers must be one-dimensional and have a number for each row")
    # A NaN fails every comparison.
    if not ((weight >= 1).all() and (weight < np.inf).all() and (weight == np.floor(weight)).all()):
        raise ValueError("customers counts those whom a row stands for and must be whole and at least 1")
    return weight


def require_enough(
    frequency: FloatArray, recency_days: FloatArray, T_days: FloatArray, customers: FloatArray | None = None
) -> None:
    """Raise TooLittleData unless there are customers, repeaters, time and differences enough to fit.

    Parameters
    ----------
    frequency, recency_days, T_days : arrays, shape (n,)
        See `check_customers`; times in days.
    customers : array, shape (n,), optional
        How many customers each row stands for, see `check_weights`; one each if left out.
    """
    total = frequency.size if customers is None else int(customers.sum())
    if total < MINIMUM_CUSTOMERS:
        raise TooLittleData(
            "too_few_customers", f"{total} customers with a purchase; at least {MINIMUM_CUSTOMERS} are needed."
        )
    if not (T_days > 0).any():
        raise TooLittleData("no_elapsed_time", "No customer has been observed for a whole day yet.")
    repeaters = int(np.count_nonzero(frequency) if customers is None else customers @ (frequency > 0))
    if repeaters == 0:
        raise TooLittleData("no_repeat_purchases", "Nobody has bought on a second day.")
    if repeaters < MINIMUM_REPEATERS:
        raise TooLittleData(
            "too_few_repeaters", f"{repeaters} customers bought again; at least {MINIMUM_REPEATERS} are needed."
        )
    if not (np.ptp(frequency) or np.ptp(recency_days) or np.ptp(T_days)):
        raise TooLittleData("all_alike", "All customers have the same purchase history.")


def maximise(
    objective: Objective, start: Sequence[float] | FloatArray, names: Sequence[str], tolerance: float = 1e-13
) -> Maximum:
    """Maximise a mean log-likelihood over positive parameters by damped Newton steps in their logarithms.

    Parameters
    ----------
    objective : callable
        See `Objective`.
    start : sequence of float, shape (k,)
        Positive starting parameters.
    names : sequence of str
        Names of the parameters, for a refusal.
    tolerance : float
        Take the last step when its expected gain falls below this.

    Raises
    ------
    NotConverged
        With code `parameters_ran_off`, `not_finite`, `no_progress` or `flat_likelihood`.
    """
    log_theta = np.log(np.asarray(start, dtype=np.float64))
    lower, upper = np.log(SMALLEST_PARAMETER), np.log(LARGEST_PARAMETER)
    value, gradient, hessian, natural_hessian = _in_logarithms(objective, log_theta)
    if not np.isfinite(value):
        raise NotConverged("not_finite", "The likelihood is not finite at the starting parameters.")
    for steps in range(MAXIMUM_STEPS):
        curvature, axes = np.linalg.eigh(-hessian)
        # Where the surface bends upwards Newton would walk downhill; the absolute curvature points uphill.
        safe = np.maximum(np.abs(curvature), 1e-7 * np.abs(curvature).max() + 1e-300)
        direction = axes @ ((axes.T @ gradient) / safe)
        gain = float(gradient @ direction) / 2
        length = float(np.abs(direction).max())
        if gain <= tolerance and curvature[0] > 0:
            if curvature[0] <= FLAT * curvature[-1]:
                raise NotConverged("flat_likelihood", "The likelihood is flat in some direction of its parameters.")
            # Newton's error squares with each step: the last one needs no other look at the data.
            return Maximum(np.exp(log_theta + direction), value + gain, natural_hessian, steps + 1)
        # How much of the step the bounds leave room for.
        bound = np.where(direction > 0, upper, lower)
        room = np.abs(bound - log_theta) / np.maximum(np.abs(direction), 1e-300)
        if room.min() < 1e-3:
            worst = int(np.argmin(room))
            raise NotConverged(
                "parameters_ran_off",
                f"Parameter {names[worst]} ran off to {np.exp(log_theta[worst]):.3g}: no member of the family is best.",
            )
        scale = min(1.0, 2.0 / length, float(room.min()))
        while True:
            trial = log_theta + scale * direction
            new = _in_logarithms(objective, trial)
            # The slack is the rounding of the sum; without it the last steps would be refused.
            if np.isfinite(new[0]) and new[0] >= value + 1e-4 * scale * gain - 1e-14 * abs(value):
                break
            scale /= 2
            if scale < 1e-9:
                raise NotConverged("no_progress", "No step raises the likelihood, yet its gradient is not zero.")
        log_theta = trial
        value, gradient, hessian, natural_hessian = new
    raise NotConverged("no_progress", f"No maximum after {MAXIMUM_STEPS} steps.")


def _in_logarithms(objective: Objective, log_theta: FloatArray) -> tuple[float, FloatArray, FloatArray, FloatArray]:
    theta = np.exp(log_theta)
    value, gradient, hessian = objective(theta)
    slope = theta * gradient
    return value, slope, hessian * np.outer(theta, theta) + np.diag(slope), hessian


def maximise_from(
    objective: Objective, starts: Sequence[Sequence[float] | FloatArray], names: Sequence[str]
) -> Maximum:
    """Maximise from each start in turn and return the first maximum; raise the last refusal if none converges."""
    for start in starts[:-1]:
        try:
            return maximise(objective, start, names)
        except NotConverged:
            continue
    return maximise(objective, starts[-1], names)


def fitted_model(model: str, names: Sequence[str], maximum: Maximum, customers: int, **fixed: float) -> FittedModel:
    """Make the record of a maximum; `fixed` are parameters that were chosen, not estimated."""
    covariance = np.linalg.inv(-maximum.hessian * customers)
    covariance = (covariance + covariance.T) / 2
    variances = np.diag(covariance)
    if not (np.isfinite(covariance).all() and (variances > 0).all()):
        raise NotConverged("flat_likelihood", "The curvature of the likelihood at its maximum cannot be inverted.")
    return FittedModel(
        model=model,
        params={name: float(value) for name, value in zip(names, maximum.theta, strict=True)} | fixed,
        log_likelihood=maximum.value * customers,
        standard_errors={name: float(value) for name, value in zip(names, np.sqrt(variances), strict=True)},
        covariance=tuple(tuple(float(value) for value in row) for row in covariance),
        customers=customers,
    )
