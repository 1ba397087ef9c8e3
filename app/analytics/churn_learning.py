"""Learning the weights of evidence from verdicts that people gave.

A multinomial logistic regression over natural, competitive, passive and negligent, with a Gaussian prior whose mean is
the expert weights: with few labels the weights stay where the experts put them, with many they follow the labels. The
model is conditional on the reason being known, so labels never teach it that losses have no unknown reasons: the
probability of unknown where nothing speaks stays that of the prior. Half-lives, hints and cap are the expert's.

The estimate is the usual posterior mode (Bishop, Pattern Recognition and Machine Learning, 2006, section 4.3.4, with a
shifted prior mean), found by Newton's method.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy.special import logsumexp

from app.analytics.complaints import FloatArray, IntArray
from app.analytics.evidence import decide, type_probabilities
from app.analytics.signals import UNKNOWN, EvidenceWeights

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Precisions of the prior to choose from: standard deviations of a weight about the expert's from 1.8 to 0.1."""
MIN_LABELS = 30
_ITERATIONS = 50
_TOLERANCE = 1e-4
NESTED_LIMIT = 5_000
"""Labels up to which the strength is chosen anew for every held-out fold; beyond, choosing among a few strengths
flatters the learned weights by far less than the standard error, and costs much."""

Reason = Literal["better", "not_better", "too_few_labels", "one_type", "no_evidence"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well weights foretell verdicts that they have not seen.

    Parameters
    ----------
    log_loss, log_loss_se : float
        Mean of −ln P(verdict | the reason is known) over held-out labels, in nats, and its standard error.
    accuracy : float
        Share of labels whose type the decision rule names; answering unknown counts as wrong.
    confusion : tuple of tuples of int, 4 × 5
        Rows: the verdict, natural to negligent. Columns: the answer, natural to unknown.
    """

    log_loss: float
    log_loss_se: float
    accuracy: float
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Learned:
    """What learning came to.

    Parameters
    ----------
    serves : {"expert", "learned"}
        Which weights are to serve.
    reason : str
        better: the learned ones win; not_better: their gain is within one standard error; too_few_labels; one_type: all
        verdicts agree; no_evidence: no labelled customer has any.
    weights : EvidenceWeights
        The weights to serve: the expert's unless `serves` is "learned".
    candidate : EvidenceWeights or None
        The learned weights, serving or not; None where nothing could be learned.
    labels : tuple of int
        Labels by type, natural to negligent; verdicts of unknown are left out.
    strength : float or None
        Precision of the prior that was chosen.
    expert, learned : Evaluation or None
        On the same held-out labels.
    gain, gain_se : float or None
        Mean over labels of the expert's loss less the learned one's, and the standard error of that mean.
    """

    serves: Literal["expert", "learned"]
    reason: Reason
    weights: EvidenceWeights
    candidate: EvidenceWeights | None
    labels: tuple[int, ...]
    strength: float | None = None
    expert: Evaluation | None = None
    learned: Evaluation | None = None
    gain: float | None = None
    gain_se: float | None = None

    def summary(self) -> dict[str, Any]:
        """What a run tells of its learning, fit for JSON; the weights are not in it."""

        def told(evaluation: Evaluation | None) -> dict[str, Any] | None:
            if evaluation is None:
                return None
            return {
                "log_loss": evaluation.log_loss,
                "log_loss_se": evaluation.log_loss_se,
                "accuracy": evaluation.accuracy,
                "confusion": [list(row) for row in evaluation.confusion],
            }

        return {
            "serves": self.serves,
            "reason": self.reason,
            "labels": list(self.labels),
            "strength": self.strength,
            "expert": told(self.expert),
            "learned": told(self.learned),
            "gain": self.gain,
            "gain_se": self.gain_se,
        }


def learn_weights(
    sums: FloatArray,
    verdicts: IntArray,
    expert: EvidenceWeights,
    *,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    min_labels: int = MIN_LABELS,
    margin_se: float = 1.0,
    seed: int = 0,
) -> Learned:
    """Learn weights from verdicts, and say whether they should serve.

    The strength of the prior is the greatest whose cross-validated log loss is within a standard error of the least.
    The comparison with the expert weights is by
    nested cross-validation: each held-out fold is judged by weights whose strength was chosen without it. The learned
    weights serve only if their gain in log loss exceeds `margin_se` standard errors.

    Parameters
    ----------
    sums : ndarray of float, shape (m, s)
        Signal strengths of the labelled customers at the moment of the verdict: `evidence_sums`.
    verdicts : ndarray of int, shape (m,)
        0 to 3; 4, unknown, is passed over.
    expert : EvidenceWeights
        Prior mean, half-lives and all that is not learned.
    strengths : sequence of float
        Grid of prior precisions, > 0.
    folds : int, default 5
        At least 2; each holds every type in proportion.
    min_labels : int, default 30
        Below it nothing is learned.
    margin_se : float, default 1.0
    seed : int, default 0
        Of the shuffle into folds; with the same order of rows the answer is the same.

    Returns
    -------
    Learned

    Raises
    ------
    ValueError
        If shapes disagree, a verdict is out of range, or folds or strengths make no sense.
    """
    if sums.shape != (len(verdicts), len(expert.signals)):
        raise ValueError("sums must have one row a verdict and one column a signal")
    if verdicts.size and not (verdicts.min() >= 0 and verdicts.max() <= UNKNOWN):
        raise ValueError("verdicts must be from 0 to 4")
    if folds < 2 or not strengths or min(strengths) <= 0:
        raise ValueError("at least two folds and a positive strength are needed")
    known = verdicts != UNKNOWN
    sums, verdicts = sums[known], verdicts[known]
    counts = np.bincount(verdicts, minlength=UNKNOWN)
    labels = tuple(int(count) for count in counts)

    def refused(reason: Reason) -> Learned:
        return Learned("expert", reason, expert, None, labels)

    if verdicts.size < max(min_labels, 2 * folds):
        return refused("too_few_labels")
    if np.count_nonzero(counts) < 2:
        return refused("one_type")
    if not sums.any():
        return refused("no_evidence")

    grid = sorted(strengths, reverse=True)
    fold = _stratified(verdicts, folds, seed)
    held_out = np.empty((len(grid), verdicts.size, 5))
    chosen = np.zeros(verdicts.size, dtype=np.int64)
    for one in range(folds):
        inside, outside = fold != one, fold == one
        path = _path(sums[inside], verdicts[inside], expert, grid)
        held_out[:, outside] = [type_probabilities(sums[outside], fitted) for fitted in path]
        if verdicts.size <= NESTED_LIMIT:
            chosen[outside] = _choose(sums[inside], verdicts[inside], expert, grid, folds, seed + 1)
    best = _strongest_as_good(np.stack([_losses(probabilities, verdicts) for probabilities in held_out]))
    if verdicts.size > NESTED_LIMIT:
        chosen[:] = best
    by_learned = held_out[chosen, np.arange(verdicts.size)]
    candidate = _path(sums, verdicts, expert, grid[: best + 1])[-1]

    by_expert = type_probabilities(sums, expert)
    gains = _losses(by_expert, verdicts) - _losses(by_learned, verdicts)
    gain, gain_se = float(gains.mean()), _standard_error(gains)
    better = gain > margin_se * gain_se
    return Learned(
        serves="learned" if better else "expert",
        reason="better" if better else "not_better",
        weights=candidate if better else expert,
        candidate=candidate,
        labels=labels,
        strength=grid[best],
        expert=evaluate(by_expert, verdicts, expert.margin),
        learned=evaluate(by_learned, verdicts, expert.margin),
        gain=gain,
        gain_se=gain_se,
    )


def evaluate(probabilities: FloatArray, verdicts: IntArray, margin: float) -> Evaluation:
    """Judge probabilities, shape (m, 5), by verdicts, shape (m,), 0 to 3 and at least one."""
    losses = _losses(probabilities, verdicts)
    named = decide(probabilities, margin)
    confusion = np.bincount(verdicts * 5 + named, minlength=20).reshape(4, 5)
    return Evaluation(
        log_loss=float(losses.mean()),
        log_loss_se=_standard_error(losses),
        accuracy=float((named == verdicts).mean()),
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
    )


def _losses(probabilities: FloatArray, verdicts: IntArray) -> FloatArray:
    known = probabilities[:, :UNKNOWN]
    mine: FloatArray = known[np.arange(verdicts.size), verdicts]
    losses: FloatArray = -np.log(np.maximum(mine, 1e-15) / np.maximum(known.sum(axis=1), 1e-15))
    return losses


def _standard_error(values: FloatArray) -> float:
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else 0.0


def _stratified(verdicts: IntArray, folds: int, seed: int) -> IntArray:
    """Fold of each label: shuffled, then dealt out type after type."""
    shuffled = np.random.default_rng(seed).permutation(verdicts.size)
    dealt = shuffled[np.argsort(verdicts[shuffled], kind="stable")]
    fold = np.empty(verdicts.size, dtype=np.int64)
    fold[dealt] = np.arange(verdicts.size) % folds
    return fold


def _choose(
    sums: FloatArray, verdicts: IntArray, expert: EvidenceWeights, grid: Sequence[float], folds: int, seed: int
) -> int:
    """Position in the grid that cross-validation chooses."""
    fold = _stratified(verdicts, folds, seed)
    losses = np.empty((len(grid), verdicts.size))
    for one in range(folds):
        inside, outside = fold != one, fold == one
        path = _path(sums[inside], verdicts[inside], expert, grid)
        losses[:, outside] = [_losses(type_probabilities(sums[outside], fitted), verdicts[outside]) for fitted in path]
    return _strongest_as_good(losses)


def _strongest_as_good(losses: FloatArray) -> int:
    """The first row, so the strongest prior, whose loss is within a standard error of the least.

    The one-standard-error rule (Breiman et al., 1984), of paired differences: in doubt stay with the expert.
    """
    best = losses[losses.mean(axis=1).argmin()]
    excess = [(float((row - best).mean()), _standard_error(row - best)) for row in losses]
    return next(i for i, (mean, error) in enumerate(excess) if mean <= error)


def _path(
    sums: FloatArray, verdicts: IntArray, expert: EvidenceWeights, grid: Sequence[float]
) -> list[EvidenceWeights]:
    """Weights for each strength of the prior, strongest first, each fit beginning where the last ended."""
    seen = np.flatnonzero((sums > 0).any(axis=0))
    features = np.column_stack((np.ones(len(sums)), sums[:, seen]))
    prior = np.asarray(expert.prior)
    offset = prior[:UNKNOWN] + sums @ expert.matrix
    change = np.zeros((features.shape[1], UNKNOWN))
    fitted = []
    for strength in grid:
        change = _fit(features, offset, verdicts, strength, change)
        intercepts = prior[:UNKNOWN] + change[0]
        intercepts += logsumexp(prior[:UNKNOWN]) - logsumexp(intercepts)
        matrix = expert.matrix.copy()
        matrix[seen] += change[1:]
        fitted.append(
            replace(
                expert,
                prior=(*(float(x) for x in intercepts), float(prior[UNKNOWN])),
                weights=tuple(tuple(float(x) for x in row) for row in matrix),
            )
        )
    return fitted


def objective(
    change: FloatArray, features: FloatArray, offset: FloatArray, verdicts: IntArray, strength: float
) -> tuple[float, FloatArray, FloatArray]:
    """Negative log posterior of a change of the weights, its gradient, shape (p, 4), and the probabilities, (m, 4).

    Parameters
    ----------
    change : ndarray of float, shape (p, 4)
        Weights less the expert's; the first row is the intercepts.
    features : ndarray of float, shape (m, p)
    offset : ndarray of float, shape (m, 4)
        The expert's log-odds.
    verdicts : ndarray of int, shape (m,)
    strength : float
        Precision of the Gaussian prior.
    """
    rows = np.arange(verdicts.size)
    log_p = offset + features @ change
    log_p -= log_p.max(axis=1, keepdims=True)
    p = np.exp(log_p)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    value = np.log(total).sum() - log_p[rows, verdicts].sum() + 0.5 * strength * np.square(change).sum()
    excess = p.copy()
    excess[rows, verdicts] -= 1.0
    return float(value), features.T @ excess + strength * change, p


def _fit(
    features: FloatArray, offset: FloatArray, verdicts: IntArray, strength: float, start: FloatArray
) -> FloatArray:
    """The change that minimises `objective`, which is convex: Newton's method with halved steps."""
    change = start
    value, gradient, p = objective(change, features, offset, verdicts, strength)
    for _ in range(_ITERATIONS):
        if np.abs(gradient).max() < _TOLERANCE:
            break
        step = _newton_step(gradient, features, p, strength)
        downhill = float((step * gradient).sum())
        size = 1.0
        while True:
            trial, trial_gradient, trial_p = objective(change - size * step, features, offset, verdicts, strength)
            if trial <= value - 1e-4 * size * downhill or size < 1e-8:
                break
            size /= 2
        if trial >= value:
            break
        change, value, gradient, p = change - size * step, trial, trial_gradient, trial_p
    return change


def _newton_step(gradient: FloatArray, features: FloatArray, p: FloatArray, strength: float) -> FloatArray:
    """Solve curvature · step = gradient by conjugate gradients, scaled by the curvature's diagonal.

    The curvature is never formed: its product with a direction costs as much as a gradient. (SciPy's minimisers call
    threaded BLAS on vectors of a few dozen numbers, which beside other busy processes is ten times slower.)
    """
    scale = 1.0 / (np.square(features).T @ (p * (1 - p)) + strength)
    step = np.zeros_like(gradient)
    residual = gradient.copy()
    scaled = scale * residual
    direction, product = scaled, float((residual * scaled).sum())
    enough = product * min(0.01, float(np.sqrt(product)))
    for _ in range(gradient.size):
        moved = p * (features @ direction)
        moved -= p * moved.sum(axis=1, keepdims=True)
        curved = features.T @ moved + strength * direction
        length = product / float((direction * curved).sum())
        step = step + length * direction
        residual = residual - length * curved
        scaled = scale * residual
        before, product = product, float((residual * scaled).sum())
        if product <= enough:
            break
        direction = scaled + product / before * direction
    return step
