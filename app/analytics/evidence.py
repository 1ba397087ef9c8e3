"""Why a customer leaves: evidence weighed into probabilities of the churn types.

Each signal adds log-odds to the types, weight × strength × 2^(−age / half-life), over a stated prior; the softmax of
the sums over natural, competitive, passive, negligent and unknown is the answer. Unknown has no evidence of its own:
it is what is left where nothing speaks clearly. The subtype of passive loss, and what would win a customer back, have
log-odds of their own. The form is that of a multinomial logistic model, so that weights can be learned from verdicts
(`app.analytics.churn_learning`) and served by the same function.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from app.analytics.complaints import FloatArray, IntArray
from app.analytics.reading import Signals
from app.analytics.signals import PASSIVE, SUBTYPES, UNKNOWN, EvidenceWeights

NONE = -1


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The answer for n customers, and the evidence for it.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n, 5)
        Of natural, competitive, passive, negligent, unknown; each row sums to 1.
    type : ndarray of int, shape (n,)
        0 to 4; 4, unknown, where no type wins by the margin.
    subtype : ndarray of int, shape (n,)
        Of passive: 0 non_malicious, 1 retaliatory, 2 malicious; −1 for every other type.
    lever : ndarray of int, shape (n,)
        What would win the customer back: 0 price, 1 service; −1 where evidence for neither prevails.
    offsets : ndarray of int, shape (n + 1,)
        Evidence of customer i is at offsets[i] to offsets[i + 1], strongest first.
    event : ndarray of int, shape (e,)
        Row of the event columns.
    signal : ndarray of int, shape (e,)
        Row of `app.analytics.signals.SIGNALS`.
    weight : ndarray of float, shape (e,)
        Log-odds added to `speaks_for`, after age, repetition and contradiction; below zero speaks against.
    speaks_for : ndarray of int, shape (e,)
        The type that the signal moves most, 0 to 3.
    contradicted_by : ndarray of int, shape (e,)
        Row of the event that took weight away; −1 none; −2 a later order known only by its moment.
    """

    probabilities: FloatArray
    type: IntArray
    subtype: IntArray
    lever: IntArray
    offsets: IntArray
    event: IntArray
    signal: IntArray
    weight: FloatArray
    speaks_for: IntArray
    contradicted_by: IntArray


def _present(signals: Signals, customers: int, weights: EvidenceWeights) -> tuple[FloatArray, FloatArray]:
    """Strength today of every row, and of every customer by signal, both within the cap."""
    count = len(weights.signals)
    strength = signals.strength * np.exp2(-signals.age_days * weights.fading[signals.signal])
    cell = signals.customer * count + signals.signal
    sums = np.bincount(cell, weights=strength, minlength=customers * count).astype(np.float64, copy=False)
    over = sums > weights.cap
    if over.any():
        share = np.ones_like(sums)
        share[over] = weights.cap / sums[over]
        strength = strength * share[cell]
        sums[over] = weights.cap
    return strength, sums.reshape(customers, count)


def evidence_sums(signals: Signals, customers: int, weights: EvidenceWeights) -> FloatArray:
    """Strength of each signal for each customer: what the weights multiply, and what learning learns from.

    Parameters
    ----------
    signals : Signals
    customers : int
        n.
    weights : EvidenceWeights
        Gives half-lives and cap; its weights have no part.

    Returns
    -------
    ndarray of float, shape (n, s)
        From 0 to the cap.
    """
    return _present(signals, customers, weights)[1]


def type_probabilities(sums: FloatArray, weights: EvidenceWeights) -> FloatArray:
    """Probabilities of the five types, shape (n, 5), from signal sums, shape (n, s)."""
    return _softmax(sums @ weights.matrix, weights.prior)


@lru_cache(maxsize=64)
def type_in_silence(prior: tuple[float, ...], margin: float) -> tuple[FloatArray, int]:
    """Probabilities, shape (1, 5), and type of a customer of whom nothing speaks."""
    probabilities = _softmax(np.zeros((1, UNKNOWN)), prior)
    return probabilities, int(decide(probabilities, margin)[0])


def _softmax(evidence: FloatArray, prior: tuple[float, ...]) -> FloatArray:
    scores: FloatArray = np.zeros((len(evidence), 5)) + np.asarray(prior)
    scores[:, :UNKNOWN] += evidence
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def _add_up(customer: IntArray, log_odds: Iterable[FloatArray], customers: int) -> FloatArray:
    """Sums by customer of each column.

    Rows are added one after the other, so that a customer's sum is the same to the last bit in a batch of any size,
    which a matrix product does not promise.
    """
    columns = [np.bincount(customer, weights=column, minlength=customers) for column in log_odds]
    return np.stack(columns, axis=1).astype(np.float64, copy=False)


def decide(probabilities: FloatArray, margin: float) -> IntArray:
    """The type that leads every other, unknown among them, by the margin; else unknown.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n, 5)
    margin : float
        Least lead, in probability.

    Returns
    -------
    ndarray of int, shape (n,)
    """
    first = probabilities.argmax(axis=1)
    second, top = np.partition(probabilities, 3, axis=1)[:, 3:].T
    return np.where(top - second >= margin, first, UNKNOWN)


def weigh_evidence(signals: Signals, customers: int, weights: EvidenceWeights, *, top: int = 5) -> Verdicts:
    """Weigh the evidence of n customers.

    A customer's answer depends on their own signals alone, and the order of rows does not matter but among evidence
    of equal weight. Memory is about 16 n s + 100 m bytes for s signal kinds and m rows: pass at most some hundred
    thousand customers at a time.

    Parameters
    ----------
    signals : Signals
        What `app.analytics.reading.read_events` gives.
    customers : int
        n; every `signals.customer` is below it.
    weights : EvidenceWeights
        Expert or learned.
    top : int, default 5
        Most pieces of evidence to name for a customer. They are ranked by weight before contradiction, so that what
        was withdrawn is still seen.

    Returns
    -------
    Verdicts
    """
    strength, _ = _present(signals, customers, weights)
    spoken = _add_up(signals.customer, (strength * column[signals.signal] for column in weights.matrix.T), customers)
    probabilities = _softmax(spoken, weights.prior)
    verdict = decide(probabilities, weights.margin)
    hints = _add_up(
        signals.customer, (strength * column[signals.signal] for column in weights.hint_matrix.T), customers
    )
    of_passive = len(SUBTYPES)
    subtype = (hints[:, :of_passive] + np.asarray(weights.hint_prior)).argmax(axis=1)
    price, service = hints[:, of_passive], hints[:, of_passive + 1]

    # A signal moves one type above all, whatever its strength: a property of the weights.
    main = np.abs(weights.matrix).argmax(axis=1)
    weight = strength * weights.matrix[signals.signal, main[signals.signal]]
    chosen, offsets = _strongest(signals.customer, np.abs(weight) / signals.retained, customers, top)
    return Verdicts(
        probabilities=probabilities,
        type=verdict,
        subtype=np.where(verdict == PASSIVE, subtype, NONE),
        lever=np.where(price > service, 0, np.where(service > price, 1, NONE)),
        offsets=offsets,
        event=signals.event[chosen],
        signal=signals.signal[chosen],
        weight=weight[chosen],
        speaks_for=main[signals.signal[chosen]],
        contradicted_by=signals.contradicted_by[chosen],
    )


def _strongest(customer: IntArray, size: FloatArray, customers: int, top: int) -> tuple[IntArray, IntArray]:
    """Rows of the `top` largest sizes of each customer, largest first, and where each customer's begin."""
    rows = np.flatnonzero(size > 0)
    # The bits of a positive float32 sort like the number: one integer sort instead of two float sorts.
    rank = np.int64(0x7FFFFFFF) - size[rows].astype(np.float32).view(np.int32)
    rows = rows[np.argsort(customer[rows] << 32 | rank, kind="stable")]
    who = customer[rows]
    counts = np.bincount(who, minlength=customers)
    first = np.cumsum(counts) - counts
    rows = rows[np.arange(rows.size) - first[who] < top]
    offsets = np.zeros(customers + 1, dtype=np.int64)
    np.cumsum(np.minimum(counts, top), out=offsets[1:])
    return rows, offsets
