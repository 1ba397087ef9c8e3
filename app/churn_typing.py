"""Churn types from events: interactions of some customers, read, weighed and told. Pure; the store brings the events.

The reading and weighing are of ``app.analytics``; here stored events become columns, and codes become words.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, tzinfo
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.analytics.actions import ClvTiers
from app.analytics.churn_learning import Learned, learn_weights
from app.analytics.event_columns import EventColumns
from app.analytics.evidence import Verdicts, decide, evidence_sums, type_probabilities, weigh_evidence
from app.analytics.lexicon import THEMES, TextReadings, read_texts
from app.analytics.reading import LATER_ORDER, Signals, read_events
from app.analytics.signals import SIGNALS, TYPES, EvidenceWeights, default_weights
from app.catalogue import EventRow, days, encode_events
from app.scalars import show_instant
from app.workspace_settings import ChurnPart

_THEME_OF = {code: code.removeprefix("said_") for code in (signal.code for signal in SIGNALS) if "said_" in code}


@cache
def expert_weights() -> EvidenceWeights:
    return default_weights()


@dataclass(frozen=True)
class StoredInteraction:
    """An interaction as the store has it; ``customer`` is the position of its customer."""

    customer: int
    event_id: str
    type: str
    occurred_at: datetime
    data: str | None


@dataclass(frozen=True)
class Interactions:
    """The interactions of n customers up to a moment, as columns, and what their texts say."""

    customers: int
    as_of: datetime
    zone: tzinfo
    events: Sequence[StoredInteraction]
    columns: EventColumns
    texts: TextReadings

    def signals(self, last_purchase_day: NDArray[np.int64], has_order: NDArray[np.bool_]) -> Signals:
        """What they say together, and in the light of the customers' last purchase days (days since 1970)."""
        # An order on the day of an event need not have come after it, so an order counts from the day's beginning.
        offset = self.as_of.astimezone(self.zone).utcoffset()
        shift = offset.total_seconds() / 86_400 if offset else 0.0
        last_order_at = np.where(has_order, last_purchase_day - shift, np.nan)
        return read_events(self.columns, self.customers, days(self.as_of), self.texts.themes, last_order_at)


def interactions_of(
    rows: Sequence[Any], customer_ids: Sequence[str], as_of: datetime, zone: tzinfo, settings: ChurnPart
) -> Interactions:
    """Stored rows (customer_id, event_id, type, occurred_at, data) as columns; customers by their place in the ids."""
    place = {customer_id: index for index, customer_id in enumerate(customer_ids)}
    events = [
        StoredInteraction(place[row.customer_id], row.event_id, row.type, row.occurred_at, row.data)
        for row in rows
        if row.customer_id in place
    ]
    custom = {name: (event.speaks_for, event.weight) for name, event in settings.custom_events.items()}
    columns, texts = encode_events(
        [
            EventRow(event.customer, event.type, event.occurred_at, json.loads(event.data) if event.data else {})
            for event in events
        ],
        zone,
        custom,
        trust_sender=settings.trust_custom_events,
    )
    return Interactions(len(customer_ids), as_of, zone, events, columns, read_texts(texts))


@dataclass(frozen=True)
class ChurnTypes:
    """The answer for n customers: verdicts, and the evidence of each in the contract's words."""

    verdicts: Verdicts
    evidence: list[list[dict[str, Any]]]


def silent_types(customers: int, weights: EvidenceWeights) -> ChurnTypes:
    """The answer for customers of whom nothing speaks: the prior, and so unknown."""
    nothing = np.zeros(0, dtype=np.int64)
    probabilities = type_probabilities(np.zeros((1, len(weights.signals))), weights)
    none = np.full(customers, -1, dtype=np.int64)
    verdicts = Verdicts(
        probabilities=np.repeat(probabilities, customers, axis=0),
        type=np.repeat(decide(probabilities, weights.margin), customers),
        subtype=none,
        lever=none,
        offsets=np.zeros(customers + 1, dtype=np.int64),
        event=nothing,
        signal=nothing,
        weight=np.zeros(0),
        speaks_for=nothing,
        contradicted_by=nothing,
    )
    return ChurnTypes(verdicts, [[] for _ in range(customers)])


def type_customers(
    interactions: Interactions,
    last_purchase_day: NDArray[np.int64],
    has_order: NDArray[np.bool_],
    weights: EvidenceWeights,
) -> ChurnTypes:
    """Weigh the evidence of n customers."""
    signals = interactions.signals(last_purchase_day, has_order)
    verdicts = weigh_evidence(signals, interactions.customers, weights)
    return ChurnTypes(verdicts, _evidence(interactions, verdicts))


def _evidence(interactions: Interactions, verdicts: Verdicts) -> list[list[dict[str, Any]]]:
    told = []
    columns = (verdicts.event, verdicts.signal, verdicts.weight, verdicts.speaks_for, verdicts.contradicted_by)
    for row, signal, weight, speaks_for, against in zip(*(column.tolist() for column in columns), strict=True):
        event = interactions.events[row]
        told.append(
            {
                "event_id": event.event_id,
                "event_type": event.type,
                "occurred_at": show_instant(event.occurred_at),
                "weight": round(weight, 4),
                "speaks_for": TYPES[speaks_for],
                "phrase": _phrase(interactions, row, SIGNALS[signal].code),
                "contradicted_by": _contradiction(interactions, against),
            }
        )
    bounds = verdicts.offsets.tolist()
    return [told[start:stop] for start, stop in pairwise(bounds)]


def _phrase(interactions: Interactions, row: int, signal: str) -> str | None:
    """The words that a signal was found in, where it was found in words."""
    theme = _THEME_OF.get(signal)
    if theme not in THEMES:
        return None
    for text in (int(interactions.columns.reason[row]), int(interactions.columns.text[row])):
        found = (phrase.words for phrase in interactions.texts.phrases[text] if phrase.theme == theme)
        words = next(found, None) if text >= 0 else None
        if words is not None:
            return words
    return None


def _contradiction(interactions: Interactions, row: int) -> str | None:
    if row >= 0:
        return interactions.events[row].event_id
    return "later_order" if row == LATER_ORDER else None


def learn_from_labels(
    interactions: Interactions,
    last_purchase_day: NDArray[np.int64],
    has_order: NDArray[np.bool_],
    verdicts: Sequence[str],
) -> Learned:
    """Learn weights from the verdicts on the customers of ``interactions``, in their order."""
    expert = expert_weights()
    sums = evidence_sums(interactions.signals(last_purchase_day, has_order), interactions.customers, expert)
    return learn_weights(sums, np.array([TYPES.index(verdict) for verdict in verdicts], dtype=np.int64), expert)


@dataclass(frozen=True)
class ChurnFit:
    """How a run tells churn: the method of the state, and the weights of the types.

    ``learning`` is what learning from labels came to; ``tiers`` bound the lifetime values that recommended actions
    tell apart.
    """

    method: str
    horizon_days: int
    weights: EvidenceWeights
    learning: Mapping[str, Any]
    calibration: Mapping[str, Any] | None
    tiers: ClvTiers | None

    def to_dict(self) -> dict[str, Any]:
        learned = self.weights is not expert_weights()
        return {
            "method": self.method,
            "horizon_days": self.horizon_days,
            "weights": self.weights.to_dict() if learned else None,
            "learning": dict(self.learning),
            "calibration": dict(self.calibration) if self.calibration else None,
            "clv_tiers": asdict(self.tiers) if self.tiers else None,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "ChurnFit":
        return cls(
            method=stored["method"],
            horizon_days=stored["horizon_days"],
            weights=EvidenceWeights.from_dict(stored["weights"]) if stored["weights"] else expert_weights(),
            learning=stored["learning"],
            calibration=stored["calibration"],
            tiers=ClvTiers(**stored["clv_tiers"]) if stored["clv_tiers"] else None,
        )
