"""Gamma-Gamma: what a purchase of a customer is worth, given the mean of the past ones.

Fader, Hardie and Lee (2005), RFM and CLV: Using Iso-Value Curves for Customer Base Analysis, Journal of Marketing
Research 42(4); Fader and Hardie (2013), The Gamma-Gamma Model of Monetary Value. Spend of a customer varies as
Gamma(p, nu) around a mean p / nu, nu differs between customers as Gamma(q, v), and neither has to do with how often
they buy. The last assumption is checked: where it fails, or the model has no finite mean, the credibility-weighted mean
of Buehlmann and Straub (1970) takes its place, which assumes no distribution at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, gammaln, polygamma
from scipy.stats import rankdata

from app.analytics.fit import (
    MINIMUM_REPEATERS,
    FittedModel,
    FloatArray,
    NotConverged,
    TooLittleData,
    fitted_model,
    maximise_from,
)
from app.analytics.grouping import distinct

NAMES = ("p", "q", "v")

INDEPENDENCE_LIMIT = 0.3
"""Largest rank correlation of frequency and mean spend among repeaters (either sign) that still counts as none. At 0.3
less than a tenth of the variance of ranks is shared; CDNOW, for which the model was made, has about 0.1."""


@dataclass(frozen=True)
class FittedSpend:
    """How the value of a purchase is predicted.

    Attributes
    ----------
    method : str
        `gamma_gamma` or `mean`.
    reason : str or None
        Why it is not Gamma-Gamma: `too_few_repeaters`, `frequency_correlates`, `no_finite_mean`, `not_converged`.
    correlation : float or None
        Spearman's rank correlation of frequency and mean spend among repeaters; None where it is not defined.
    mean : float
        Mean value of a purchase in the population, used where a customer has no repeat purchase.
    within, between : float
        Variance of single purchases around their customer's mean, and of customers' means, both relative to `mean`
        squared.
    gamma_gamma : FittedModel or None
        The fitted p, q, v.
    """

    method: str
    reason: str | None
    correlation: float | None
    mean: float
    within: float
    between: float
    gamma_gamma: FittedModel | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and numbers that JSON can hold; `from_dict` is the inverse."""
        return {
            "method": self.method,
            "reason": self.reason,
            "correlation": self.correlation,
            "mean": self.mean,
            "within": self.within,
            "between": self.between,
            "gamma_gamma": None if self.gamma_gamma is None else self.gamma_gamma.to_dict(),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> FittedSpend:
        """Read back what `to_dict` wrote."""
        inner = stored["gamma_gamma"]
        return cls(
            method=str(stored["method"]),
            reason=None if stored["reason"] is None else str(stored["reason"]),
            correlation=None if stored["correlation"] is None else float(stored["correlation"]),
            mean=float(stored["mean"]),
            within=float(stored["within"]),
            between=float(stored["between"]),
            gamma_gamma=None if inner is None else FittedModel.from_dict(inner),
        )


def fit_gamma_gamma(frequency: ArrayLike, monetary_value: ArrayLike) -> FittedModel:
    """Fit p, q, v by maximum likelihood (Fader and Hardie 2013, eq. 1a) on customers who repeated and spent.

    Parameters
    ----------
    frequency, monetary_value : array-like, shape (n,)
        Repeat purchase days and mean value of one; rows without repeat purchase or with a mean of zero or less are
        left out, for the model gives them no likelihood.

    Raises
    ------
    TooLittleData, NotConverged

    Examples
    --------
    >>> fit_gamma_gamma(frequency, monetary_value).params  # doctest: +SKIP
    {'p': 6.25, 'q': 3.74, 'v': 15.44}
    """
    x, mean = _pair(frequency, monetary_value)
    used = (x > 0) & (mean > 0)
    x, mean = x[used], mean[used]
    if x.size < MINIMUM_REPEATERS:
        raise TooLittleData(
            "too_few_repeaters", f"{x.size} customers with repeat spend; at least {MINIMUM_REPEATERS} are needed."
        )
    # Amounts may be in any currency: in units of their mean, v has the size of q and the start below fits all.
    unit = float(mean.mean())
    scaled = mean / unit
    x_values, x_index = distinct(x)
    weights = np.bincount(x_index, minlength=len(x_values)).astype(np.float64)
    log_scaled = float(x @ np.log(scaled) - np.log(scaled).sum() / 1.0) if False else 0.0
    total = x * scaled
    log_terms = (float(x @ np.log(total)), float(np.log(scaled).sum()))
    del log_scaled

    def objective(theta: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        return _gamma_gamma_objective(theta, x, total, x_values, weights, log_terms)

    maximum = maximise_from(objective, [(5.0, 4.0, 3.0), (1.0, 2.0, 2.0), (50.0, 3.0, 0.1), (0.5, 10.0, 20.0)])
    maximum.theta[2] *= unit
    maximum.hessian[2, :] /= unit
    maximum.hessian[:, 2] /= unit
    fitted = fitted_model("gamma_gamma", NAMES, maximum, int(x.size))
    return FittedModel(**{**fitted.__dict__, "log_likelihood": fitted.log_likelihood - x.size * float(np.log(unit))})
