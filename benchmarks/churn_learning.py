"""Learning churn weights from labels that known weights made: what is recovered, and what it gains on the expert.

    python -m benchmarks.churn_learning [--repeats 20] [--labels 10 100 1000]

Customers get one to six random events in 400 days. The true weights are the expert's, moved at random by a standard
deviation of --distance in every weight (at 0 the expert is right). Losses are mean −ln P(type | known) on 20,000 fresh
customers; recovery is the share of the squared distance from expert to truth that learning has covered, over the
contrasts that labels can tell. Learned weights of fewer labels than the service asks for are shown, but never serve.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from app.analytics.churn_learning import MIN_LABELS, evaluate, learn_weights
from app.analytics.event_columns import EVENT_CODE, EVENT_TYPES, event_columns
from app.analytics.evidence import evidence_sums, type_probabilities
from app.analytics.reading import read_events
from app.analytics.signals import EvidenceWeights, default_weights

FloatArray = NDArray[np.float64]
HORIZON = 400.0


def customers(count: int, rng: np.random.Generator, weights: EvidenceWeights) -> FloatArray:
    """Signal sums of random customers."""
    events = rng.integers(1, 7, count)
    who = np.repeat(np.arange(count), events)
    silent = {"order.placed", "custom.recorded", "visit.recorded", "exit.answered", "account.closed"}
    kinds = [EVENT_CODE[name] for name in EVENT_TYPES if name not in silent]
    kind = rng.choice(kinds, who.size)
    late = kind == EVENT_CODE["order.delivered"]
    columns = event_columns(
        who,
        kind,
        rng.uniform(0, HORIZON, who.size),
        detail=rng.integers(-1, 6, who.size),
        number=np.where(late, rng.integers(-3, 15, who.size), rng.integers(0, 11, who.size)),
        subject=rng.integers(0, 3, who.size),
    )
    return evidence_sums(read_events(columns, count, HORIZON), count, weights)


def verdicts(sums: FloatArray, truth: EvidenceWeights, rng: np.random.Generator) -> NDArray[np.int64]:
    known = softmax(np.asarray(truth.prior)[:4] + sums @ truth.matrix, axis=1)
    drawn: NDArray[np.int64] = (rng.random((len(sums), 1)) > known.cumsum(axis=1)).sum(axis=1)
    return np.minimum(drawn, 3)


def contrasts(weights: EvidenceWeights, seen: NDArray[np.int64]) -> FloatArray:
    matrix = weights.matrix[seen]
    centred: FloatArray = matrix - matrix.mean(axis=1, keepdims=True)
    return centred


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 30, 100, 1_000])
    parser.add_argument("--distance", type=float, nargs="+", default=[1.5, 0.0])
    options = parser.parse_args()
    expert = default_weights()
    print(f"{'distance':>8} {'labels':>7} {'expert':>7} {'truth':>7} {'learned':>8} {'served':>7} {'serves':>7} "
          f"{'recovery':>8} {'acc. expert':>11} {'acc. served':>11} {'seconds':>8}")  # fmt: skip
    for distance in options.distance:
        for labels in options.labels:
            rows = []
            for repeat in range(options.repeats):
                rng = np.random.default_rng([repeat, labels])
                fresh = customers(20_000, rng, expert)
                seen = np.flatnonzero((fresh > 0).any(axis=0))
                moved = expert.matrix + rng.normal(0, distance, expert.matrix.shape)
                truth = replace(expert, weights=tuple(tuple(row) for row in moved.tolist()))
                of_fresh = verdicts(fresh, truth, rng)
                sums = customers(labels, rng, expert)
                started = time.perf_counter()
                learned = learn_weights(sums, verdicts(sums, truth, rng), expert, min_labels=10)
                seconds = time.perf_counter() - started
                candidate = learned.candidate or expert
                serving = learned.weights if labels >= MIN_LABELS else expert
                judged = {
                    name: evaluate(type_probabilities(fresh, weights), of_fresh, expert.margin)
                    for name, weights in
                    (("expert", expert), ("truth", truth), ("learned", candidate), ("served", serving))
                }  # fmt: skip
                far = np.square(contrasts(expert, seen) - contrasts(truth, seen)).sum()
                left = np.square(contrasts(candidate, seen) - contrasts(truth, seen)).sum()
                rows.append((
                    *(judged[name].log_loss for name in ("expert", "truth", "learned", "served")),
                    serving is not expert, 1 - left / far if far else np.nan,
                    judged["expert"].accuracy, judged["served"].accuracy, seconds,
                ))  # fmt: skip
            mean = np.mean(rows, axis=0)
            print(f"{distance:8.1f} {labels:7d} {mean[0]:7.3f} {mean[1]:7.3f} {mean[2]:8.3f} {mean[3]:7.3f} "
                  f"{mean[4]:7.0%} {mean[5]:8.0%} {mean[6]:11.3f} {mean[7]:11.3f} {mean[8]:8.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
