"""Reasons in words against a telecom's own categories.

    python -m benchmarks.churn_telco --data telco.csv.gz

Takes columns "Churn Category" and "Churn Reason" (and the reasons of another edition, "Churn Reason (33col edition)",
where they stand beside). Each reason goes through the whole model as an exit answer of today. The expected type is that
of the category, and of the reason for the category Other. These are some twenty short labels, written by one hand: the
set tells whether the lexicon reads such labels, not how it fares with free text, and it has nothing on how behaviour
foretells the type.
"""

import argparse
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.analytics.event_columns import EVENT_CODE, event_columns
from app.analytics.evidence import Verdicts, weigh_evidence
from app.analytics.lexicon import TextReadings, read_texts
from app.analytics.reading import read_events
from app.analytics.signals import COMPETITIVE, NATURAL, NEGLIGENT, TYPES, UNKNOWN, default_weights

BY_CATEGORY = {
    "Competitor": COMPETITIVE,
    "Price": COMPETITIVE,
    "Attitude": NEGLIGENT,
    "Dissatisfaction": NEGLIGENT,
}
BY_REASON = {"Moved": NATURAL, "Deceased": NATURAL, "Don't know": UNKNOWN}
"""Within the category Other; any other reason there says nothing of a type, so unknown is expected."""


def judge(reasons: Sequence[str]) -> tuple[TextReadings, Verdicts]:
    count = len(reasons)
    texts = read_texts(reasons)
    every = np.arange(count)
    events = event_columns(every, np.full(count, EVENT_CODE["exit.answered"]), np.zeros(count), reason=every)
    return texts, weigh_evidence(read_events(events, count, 0.0, texts.themes), count, default_weights())


def report(title: str, reasons: Sequence[str], expected: NDArray[np.int64]) -> None:
    texts, verdicts = judge(reasons)
    named = verdicts.type
    told = verdicts.probabilities[np.arange(expected.size), expected]
    print(f"\n{title}: {expected.size} customers, {len(set(reasons))} reasons")
    print(f"accuracy {np.mean(named == expected):.3f}, log loss {-np.log(told).mean():.3f} "
          f"(always the prior: {_prior_loss(expected):.3f})")  # fmt: skip
    print(f"{'type':12} {'customers':>9} {'precision':>9} {'recall':>7}")
    for code, name in enumerate(TYPES):
        right = int(np.sum((named == code) & (expected == code)))
        is_named, is_so = int(np.sum(named == code)), int(np.sum(expected == code))
        precision = f"{right / is_named:9.3f}" if is_named else f"{'-':>9}"
        recall = f"{right / is_so:7.3f}" if is_so else f"{'-':>7}"
        print(f"{name:12} {is_so:9d} {precision} {recall}")
    wrong = Counter(
        (reasons[i], TYPES[expected[i]], TYPES[named[i]], ", ".join(phrase.words for phrase in texts.phrases[i]))
        for i in np.flatnonzero(named != expected).tolist()
    )
    for (reason, want, got, phrases), count in wrong.most_common():
        print(f"  {count:4d} × {reason!r}: {want} expected, {got} named, by {phrases or 'nothing'}")


def _prior_loss(expected: NDArray[np.int64]) -> float:
    prior = np.exp(np.asarray(default_weights().prior))
    return float(-np.log((prior / prior.sum())[expected]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    frame = pd.read_csv(parser.parse_args().data)
    frame = frame[frame["Churn Reason"].notna()]

    def expect(category: str, reason: str) -> int:
        return BY_REASON.get(reason, UNKNOWN) if category == "Other" else BY_CATEGORY[category]

    pairs = list(zip(frame["Churn Category"], frame["Churn Reason"], strict=True))
    report(
        "Reasons beside their categories", frame["Churn Reason"].tolist(), np.array([expect(*pair) for pair in pairs])
    )

    other = "Churn Reason (33col edition)"
    if other in frame:
        # That edition has no categories: take for each reason the type it mostly has in the first.
        by_reason: dict[str, Counter[int]] = {}
        for category, reason in pairs:
            by_reason.setdefault(reason, Counter())[expect(category, reason)] += 1
        usual = {reason: counts.most_common(1)[0][0] for reason, counts in by_reason.items()}
        rows = frame[frame[other].isin(usual)]
        report(
            "Reasons of the other edition", rows[other].tolist(), np.array([usual[reason] for reason in rows[other]])
        )
        differs = np.mean([usual[one] != expect(*pair) for one, pair in zip(frame[other], pairs, strict=True)])
        print(f"\nThe two editions give different types for {differs:.1%} of the customers.")

    categories = sorted(set(frame["Churn Category"]))
    _, verdicts = judge(categories)
    print("\nCategories alone: " + ", ".join(
        f"{name} → {TYPES[code]}" for name, code in zip(categories, verdicts.type.tolist(), strict=True)
    ))  # fmt: skip


if __name__ == "__main__":
    main()
