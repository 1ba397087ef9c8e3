from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import approx_fprime
from scipy.special import logsumexp, softmax

from app.analytics.churn_learning import MIN_LABELS, evaluate, learn_weights, objective
from app.analytics.event_columns import EVENT_CODE, event_columns
from app.analytics.evidence import evidence_sums, type_probabilities, weigh_evidence
from app.analytics.reading import read_events
from app.analytics.signals import SIGNAL_INDEX, SIGNALS, EvidenceWeights, default_weights

EXPERT = default_weights()
USED = [SIGNAL_INDEX[code] for code in ("complaint_open", "competitor_mentioned", "payment_overdue", "relocated",
                                        "delivery_late", "price_objected")]  # fmt: skip
Sums = NDArray[np.float64]
Types = NDArray[np.int64]


def population(count: int, truth: EvidenceWeights, seed: int = 0) -> tuple[Sums, Types]:
    rng = np.random.default_rng(seed)
    sums = np.zeros((count, len(SIGNALS)))
    sums[:, USED] = rng.uniform(0.2, 1.5, (count, len(USED))) * (rng.random((count, len(USED))) < 0.4)
    known = softmax(np.asarray(truth.prior)[:4] + sums @ truth.matrix, axis=1)
    return sums, np.minimum((rng.random((count, 1)) > known.cumsum(axis=1)).sum(axis=1), 3)


def moved(distance: float, seed: int = 1) -> EvidenceWeights:
    matrix = EXPERT.matrix.copy()
    matrix[USED] += np.random.default_rng(seed).normal(0, distance, (len(USED), 4))
    return replace(EXPERT, weights=tuple(tuple(row) for row in matrix.tolist()))


def contrasts(weights: EvidenceWeights) -> Sums:
    matrix = weights.matrix[USED]
    centred: Sums = matrix - matrix.mean(axis=1, keepdims=True)
    return centred


def test_many_labels_bring_back_the_weights_that_made_them() -> None:
    truth = moved(2.0)
    learned = learn_weights(*population(3_000, truth), EXPERT, strengths=(0.3, 3.0), folds=3)
    assert learned.candidate is not None
    before = np.square(contrasts(EXPERT) - contrasts(truth)).sum()
    after = np.square(contrasts(learned.candidate) - contrasts(truth)).sum()
    assert after < 0.1 * before


def test_weights_that_beat_the_expert_serve() -> None:
    truth = moved(2.0)
    learned = learn_weights(*population(500, truth), EXPERT)
    assert (learned.serves, learned.reason) == ("learned", "better")
    assert learned.weights is learned.candidate
    assert learned.gain is not None
    assert learned.gain_se is not None
    assert learned.gain > learned.gain_se > 0
    fresh, verdicts = population(5_000, truth, seed=9)
    served, expert = (
        evaluate(type_probabilities(fresh, weights), verdicts, EXPERT.margin) for weights in (learned.weights, EXPERT)
    )
    assert served.log_loss < expert.log_loss
    assert served.accuracy > expert.accuracy


def test_where_the_expert_is_right_what_serves_is_hardly_worse() -> None:
    fresh, verdicts = population(5_000, EXPERT, seed=99)
    right = evaluate(type_probabilities(fresh, EXPERT), verdicts, EXPERT.margin).log_loss
    for seed in range(4):
        served = learn_weights(*population(200, EXPERT, seed), EXPERT, folds=3).weights
        assert evaluate(type_probabilities(fresh, served), verdicts, EXPERT.margin).log_loss < right + 0.03


def test_the_gain_must_exceed_the_stated_number_of_standard_errors() -> None:
    sums, verdicts = population(300, moved(1.0))
    learned = learn_weights(sums, verdicts, EXPERT, folds=3)
    assert learned.gain is not None
    assert learned.gain_se
    strict = learn_weights(sums, verdicts, EXPERT, folds=3, margin_se=learned.gain / learned.gain_se + 0.1)
    assert (strict.serves, strict.reason, strict.weights) == ("expert", "not_better", EXPERT)


def test_few_labels_change_little_and_a_stronger_prior_less() -> None:
    truth = moved(2.0)

    def change(labels: int, strength: float) -> float:
        learned = learn_weights(*population(labels, truth), EXPERT, strengths=(strength,), min_labels=10)
        assert learned.candidate is not None
        return float(np.abs(learned.candidate.matrix - EXPERT.matrix).max())

    assert change(12, 10.0) < 0.5
    assert change(12, 100.0) < change(12, 10.0) < change(1_000, 10.0)


def test_signals_without_labels_keep_their_weights() -> None:
    learned = learn_weights(*population(300, moved(2.0)), EXPERT, folds=3)
    assert learned.candidate is not None
    unused = np.setdiff1d(np.arange(len(SIGNALS)), USED)
    np.testing.assert_array_equal(learned.candidate.matrix[unused], EXPERT.matrix[unused])
    assert learned.candidate.half_life_days == EXPERT.half_life_days


def test_without_evidence_unknown_is_as_likely_as_before() -> None:
    sums, _ = population(300, EXPERT)
    learned = learn_weights(sums, np.where(np.arange(300) % 10 == 0, 3, 1), EXPERT, folds=3)
    assert learned.candidate is not None
    silent = type_probabilities(np.zeros((1, len(SIGNALS))), learned.candidate)[0]
    assert silent[4] == pytest.approx(0.55)
    assert silent[1] > 0.15
    assert logsumexp(learned.candidate.prior[:4]) == pytest.approx(logsumexp(EXPERT.prior[:4]))


@pytest.mark.parametrize(
    ("verdicts", "reason"),
    [
        ([1] * (MIN_LABELS - 1), "too_few_labels"),
        ([], "too_few_labels"),
        ([1] * 100, "one_type"),
        ([4] * 100, "too_few_labels"),
        ([1, 4] * 100, "one_type"),
    ],
)
def test_labels_that_teach_nothing_are_refused_with_the_reason(verdicts: list[int], reason: str) -> None:
    sums, _ = population(len(verdicts), EXPERT) if verdicts else (np.zeros((0, len(SIGNALS))), None)
    learned = learn_weights(sums, np.array(verdicts, dtype=np.int64), EXPERT)
    assert (learned.serves, learned.reason, learned.candidate) == ("expert", reason, None)
    assert learned.weights is EXPERT
    assert learned.summary()["expert"] is None


def test_labels_without_any_evidence_are_refused() -> None:
    assert learn_weights(np.zeros((60, len(SIGNALS))), np.arange(60) % 4, EXPERT).reason == "no_evidence"


def test_a_type_with_a_single_label_is_no_obstacle() -> None:
    sums, _ = population(40, EXPERT)
    verdicts = np.where(np.arange(40) == 7, 0, np.arange(40) % 2 + 1)
    assert learn_weights(sums, verdicts, EXPERT).labels[0] == 1


def test_verdicts_of_unknown_are_passed_over() -> None:
    sums, verdicts = population(120, moved(2.0))
    beside = learn_weights(np.repeat(sums, 2, axis=0), np.stack((verdicts, np.full(120, 4)), axis=1).ravel(), EXPERT)
    assert beside.candidate == learn_weights(sums, verdicts, EXPERT).candidate


def test_learning_is_the_same_every_time() -> None:
    sums, verdicts = population(120, moved(1.0))
    assert learn_weights(sums, verdicts, EXPERT) == learn_weights(sums, verdicts, EXPERT)


def test_confusion_and_accuracy_count_what_would_be_answered() -> None:
    probabilities = np.array([[0.9, 0.1, 0, 0, 0], [0.9, 0.1, 0, 0, 0], [0.1, 0.1, 0.1, 0.1, 0.6]])
    judged = evaluate(probabilities, np.array([0, 1, 3]), 0.1)
    assert judged.confusion == ((1, 0, 0, 0, 0), (1, 0, 0, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 1))
    assert judged.accuracy == pytest.approx(1 / 3)
    assert judged.log_loss == pytest.approx(-np.log([0.9, 0.1, 0.25]).mean())


def test_confusion_of_the_cross_validation_holds_every_label_once() -> None:
    sums, verdicts = population(150, moved(1.0))
    learned = learn_weights(sums, verdicts, EXPERT, folds=3)
    assert learned.learned is not None
    assert np.sum(learned.learned.confusion, axis=1).tolist() == np.bincount(verdicts, minlength=4).tolist()
    assert learned.summary()["learned"]["confusion"] == [list(row) for row in learned.learned.confusion]


def test_the_gradient_is_that_of_the_objective() -> None:
    rng = np.random.default_rng(3)
    features, offset = rng.normal(size=(40, 3)), rng.normal(size=(40, 4))
    verdicts, change = rng.integers(0, 4, 40), rng.normal(size=(3, 4))

    def value(flat: Sums) -> float:
        return objective(flat.reshape(3, 4), features, offset, verdicts, 0.7)[0]

    numeric = approx_fprime(change.ravel(), value, 1e-6)
    np.testing.assert_allclose(objective(change, features, offset, verdicts, 0.7)[1].ravel(), numeric, atol=1e-3)


def test_what_is_learned_serves_through_the_same_function() -> None:
    learned = learn_weights(*population(500, moved(2.0)), EXPERT, folds=3).candidate
    assert learned is not None
    kinds = [EVENT_CODE["complaint.opened"], EVENT_CODE["price.objected"]]
    signals = read_events(event_columns([0, 1], kinds, [0.0, 0.0]), 2, 50.0)
    told = weigh_evidence(signals, 2, EvidenceWeights.from_dict(learned.to_dict()))
    np.testing.assert_allclose(told.probabilities, type_probabilities(evidence_sums(signals, 2, learned), learned))


@pytest.mark.parametrize(
    ("sums", "verdicts", "options", "says"),
    [
        (np.zeros((3, 2)), [0, 1, 2], {}, "column"),
        (np.zeros((1, len(SIGNALS))), [5], {}, "0 to 4"),
        (np.zeros((1, len(SIGNALS))), [0], {"folds": 1}, "folds"),
        (np.zeros((1, len(SIGNALS))), [0], {"strengths": (0.0,)}, "strength"),
    ],
)
def test_senseless_input_is_refused(sums: Sums, verdicts: list[int], options: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        learn_weights(sums, np.array(verdicts), EXPERT, **options)  # type: ignore[arg-type]
