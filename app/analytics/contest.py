"""The contest that chooses how purchases are forecast: fit on the past of the past, forecast what is already known.

The observed time is cut at several moments (rolling origins). At each, every candidate is fitted on what was known then
and gives every customer a predictive distribution of purchase days from there to the end. Candidates are compared by
the log score, the mean log probability they gave to what happened: the proper score that rewards an honest
distribution and not only its mean (Gneiting and Raftery 2007, Strictly Proper Scoring Rules, JASA 102).

The models differ in what they believe of one-time buyers (BG/NBD: alive; Pareto/NBD: mostly gone) and of frequent ones,
and none is right about both. So a blend stands beside them: a mixture of their predictive distributions with weights
for customers of 0, 1, and 2 or more repeat purchases, chosen for the log score (stacking: Yao, Vehtari, Simpson and
Gelman 2018, Bayesian Analysis 13). To win it must beat the best single model on origins that its weights have not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from app.analytics import predictive
from app.analytics.calibration import Accuracy, accuracy
from app.analytics.fit import (
    Component,
    FitError,
    FittedModel,
    FloatArray,
    IntArray,
    TooLittleData,
    check_customers,
    check_weights,
    require_enough,
)
from app.analytics.origins import Split

CANDIDATES = ("bg_nbd", "mbg_nbd", "pareto_nbd", "mbg_cnbd_k")

MINIMUM_HOLDOUT_PURCHASES = 20
"""With fewer purchases to forecast, scores differ by chance alone."""

CLASSES = 3
"""Weights are learned for customers with 0, 1, and 2 or more repeat purchases."""

BLEND = "blend"


@dataclass(frozen=True)
class Entry:
    """A candidate's result over all origins; `reason` tells why it has none.

    `log_score` is the mean log probability of a customer's outcome, nearer to zero is better. For the blend it is of
    origins left out in learning its weights.
    """

    model: str
    log_score: float | None
    accuracy: Accuracy | None
    code: str | None
    reason: str | None


@dataclass(frozen=True)
class Origin:
    """One cut of the observed time."""

    holdout_days: float
    customers: int
    purchases: int


@dataclass(frozen=True)
class Contest:
    """The record of a contest, of plain numbers only."""

    winner: str
    origins: tuple[Origin, ...]
    entries: tuple[Entry, ...]
    weights: dict[str, tuple[float, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers that JSON can hold."""
        return asdict(self)


def choose(
    splits: Sequence[Split],
    frequency: ArrayLike,
    recency_days: ArrayLike,
    T_days: ArrayLike,
    candidates: Sequence[str] = CANDIDATES,
    *,
    customers: ArrayLike | None = None,
) -> tuple[FittedModel, Contest]:
    """Hold the contest and fit its winner on everything.

    Parameters
    ----------
    splits : sequence of Split
        See `cut`, one row a customer. Those with too little to learn from or to forecast are left out.
    frequency, recency_days, T_days : array-like, shape (n,)
        All customers as of now, on which the winner is fitted; times in days.
    candidates : sequence of str
        Keys of `predictive.MODELS`.
    customers : array-like, shape (n,), optional
        How many customers each row as of now stands for, whole numbers >= 1; one each if left out.

    Returns
    -------
    fitted, contest
        `fitted.model` is the winner's name, or `blend`, whose members are in `fitted.components`.

    Raises
    ------
    TooLittleData
        If no origin has enough before and after it, or no candidate could be fitted, with the reason.

    Examples
    --------
    >>> fitted, contest = choose(origins.cut(customer, day, 272), frequency, recency_days, T_days)  # doctest: +SKIP
    >>> fitted.model  # doctest: +SKIP
    'blend'
    """
    x, t_x, T = check_customers(frequency, recency_days, T_days)
    weight = check_weights(customers, x.size)
    require_enough(x, t_x, T, weight)
    used = [split for split in splits if _worth_judging(split)]
    if not used:
        raise TooLittleData(
            "no_holdout",
            f"No cut of the observed time leaves enough customers before it and {MINIMUM_HOLDOUT_PURCHASES} purchases "
            "after it.",
        )
    fits: dict[str, FittedModel] = {}
    forecasts: dict[str, list[_Forecast | None]] = {}
    refusals: dict[str, _Refusal] = {}
    for name in candidates:
        try:
            fits[name] = predictive.fit_model(name, x, t_x, T, customers=weight)
        except FitError as error:
            refusals[name] = _Refusal(error.code, error.reason)
            continue
        forecasts[name] = [_forecast(name, split, refusals) for split in used]
    names, kept = _comparable(forecasts)
    if not names:
        raise TooLittleData("no_model_fits", "No purchase model could be fitted both now and as of an earlier day.")
    used = [used[index] for index in kept]
    log_density = [np.stack([_found(forecasts[name][index]).log_density for name in names]) for index in kept]
    means = [np.stack([_found(forecasts[name][index]).mean for name in names]) for index in kept]

    scores = dict(zip(names, np.mean([part.mean(axis=1) for part in log_density], axis=0).tolist(), strict=True))
    winner = max(names, key=lambda name: scores[name])
    outcomes = np.concatenate([split.purchases for split in used])
    errors = {name: accuracy(np.concatenate([mean[row] for mean in means]), outcomes) for row, name in enumerate(names)}
    weights = np.zeros((len(names), CLASSES))
    if len(names) > 1 and len(used) > 1:
        blend_score, blend_accuracy = _blend_unseen(used, log_density, means)
        scores[BLEND], errors[BLEND] = blend_score, blend_accuracy
        if blend_score > scores[winner]:
            winner = BLEND
            weights = _weights(used, log_density)
    if winner != BLEND:
        weights[names.index(winner)] = 1.0
    contest = Contest(
        winner=winner,
        origins=tuple(Origin(split.holdout_days, split.purchases.size, int(split.purchases.sum())) for split in used),
        entries=tuple(
            Entry(
                name,
                scores.get(name),
                errors.get(name),
                *(_NOT_REFUSED if name in scores else refusals.get(name, _NOT_REFUSED)),
            )
            for name in (*candidates, *((BLEND,) if BLEND in scores else ()))
        ),
        weights={name: tuple(row.tolist()) for name, row in zip(names, weights, strict=True)},
    )
    if winner != BLEND:
        return fits[winner], contest
    return _blended([fits[name] for name in names], weights, x, weight), contest


class _Refusal(NamedTuple):
    """Why a model could not be fitted. Not the error itself, which would keep all arrays on its way alive."""

    code: str | None
    reason: str | None


_NOT_REFUSED = _Refusal(None, None)


@dataclass(frozen=True)
class _Forecast:
    log_density: FloatArray
    mean: FloatArray


def _worth_judging(split: Split) -> bool:
    try:
        require_enough(split.frequency, split.recency_days, split.T_days)
    except TooLittleData:
        return False
    return float(split.purchases.sum()) >= MINIMUM_HOLDOUT_PURCHASES


def _forecast(name: str, split: Split, refusals: dict[str, _Refusal]) -> _Forecast | None:
    history = (split.frequency, split.recency_days, split.T_days)
    try:
        fitted = predictive.fit_model(name, *history)
    except FitError as error:
        refusals[name] = _Refusal(error.code, error.reason)
        return None
    log_density = predictive.log_predictive(fitted, *history, split.holdout_days, split.purchases)
    return _Forecast(log_density, predictive.expected_purchases(fitted, *history, split.holdout_days))


def _found(forecast: _Forecast | None) -> _Forecast:
    if forecast is None:
        raise LookupError("asked for a forecast that was not made")
    return forecast


def _comparable(forecasts: dict[str, list[_Forecast | None]]) -> tuple[list[str], list[int]]:
    """Return candidates and origins such that each of them was fitted at each; scores of other origins compare not."""
    names = [name for name, series in forecasts.items() if any(part is not None for part in series)]
    while names:
        kept = [
            index
            for index in range(len(forecasts[names[0]]))
            if all(forecasts[name][index] is not None for name in names)
        ]
        if kept:
            return names, kept
        names.remove(min(names, key=lambda name: sum(part is not None for part in forecasts[name])))
    return [], []


def _class_of(split: Split) -> IntArray:
    return np.minimum(split.frequency, CLASSES - 1).astype(np.intp)


def _weights(splits: Sequence[Split], log_density: Sequence[FloatArray]) -> FloatArray:
    """Return the weights that maximise the log score of the blend in each class, shape (models, classes)."""
    classes = np.concatenate([_class_of(split) for split in splits])
    stacked = np.concatenate(log_density, axis=1)
    return np.stack([_stacking(stacked[:, classes == group]) for group in range(CLASSES)], axis=1)


def _stacking(log_density: FloatArray) -> FloatArray:
    """Return the weights w that maximise sum_i log(sum_k w_k density_ki) on the simplex, shape (models,), from logs.

    One customer's worth of equal weights is added, which keeps them positive and defines those of an empty class. With
    the sum moved into the objective as -(n + 1) sum(w), its multiplier, the problem is concave without constraint, and
    Newton's method takes a dozen steps.
    """
    models, n = log_density.shape
    density = np.exp(log_density - log_density.max(axis=0, initial=-np.inf))

    def score(w: FloatArray) -> float:
        return float(np.log(w @ density).sum() + np.log(w).mean() - (n + 1) * w.sum())

    weights = np.full(models, 1 / models)
    best = score(weights)
    for _ in range(100):
        share = density / (weights @ density)
        gradient = share.sum(axis=1) + 1 / (models * weights) - (n + 1)
        step = np.linalg.solve(share @ share.T + np.diag(1 / (models * weights**2)), gradient)
        if gradient @ step < 1e-9:
            break
        scale = min(1.0, 0.9 / float(np.max(-step / weights, initial=0.9)))
        while score(weights + scale * step) < best and scale > 1e-6:
            scale /= 2
        weights = weights + scale * step
        best = score(weights)
    result: FloatArray = weights / weights.sum()
    return result


def _blend_unseen(
    splits: Sequence[Split], log_density: Sequence[FloatArray], means: Sequence[FloatArray]
) -> tuple[float, Accuracy]:
    """Return the log score and the errors of the blend at each origin, with weights from the other origins."""
    scores, forecasts = [], []
    for index, split in enumerate(splits):
        others = [other for other in range(len(splits)) if other != index]
        weights = _weights([splits[other] for other in others], [log_density[other] for other in others])
        weights = weights[:, _class_of(split)]
        scores.append(float(np.logaddexp.reduce(np.log(weights) + log_density[index]).mean()))
        forecasts.append((weights * means[index]).sum(axis=0))
    outcomes = np.concatenate([split.purchases for split in splits])
    return float(np.mean(scores)), accuracy(np.concatenate(forecasts), outcomes)


def _blended(
    fits: Sequence[FittedModel], weights: FloatArray, x: FloatArray, customers: FloatArray | None
) -> FittedModel:
    """Return the blend of fitted models. Its log-likelihood is the mean of its members', by the customers' weights."""
    sizes = np.bincount(np.minimum(x, CLASSES - 1).astype(np.intp), weights=customers, minlength=CLASSES)
    share = weights @ sizes / sizes.sum()
    return FittedModel(
        model=BLEND,
        params={f"{fitted.model}.{name}": value for fitted in fits for name, value in fitted.params.items()},
        log_likelihood=float(share @ [fitted.log_likelihood for fitted in fits]),
        standard_errors={},
        covariance=(),
        customers=int(sizes.sum()),
        components=tuple(Component(fitted, tuple(row.tolist())) for fitted, row in zip(fits, weights, strict=True)),
    )
