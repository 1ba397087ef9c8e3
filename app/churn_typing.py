"""Churn types from events: interactions of some customers, read, weighed and told. Pure; the store brings the events.

The reading and weighing are of ``app.analytics``; here stored events become columns, and codes become words.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, tzinfo
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.analytics.actions import ClvTiers
from app.analytics.churn_learning import Learned, learn_weights
from app.analytics.event_columns import DETAILS, EVENT_CODE, EVENT_TYPES, EventColumns, event_columns
from app.analytics.evidence import Verdicts, evidence_sums, type_in_silence, weigh_evidence
from app.analytics.lexicon import THEMES, TextReadings, read_texts
from app.analytics.reading import LATER_ORDER, Signals, read_events
from app.analytics.signals import SIGNALS, TYPES, EvidenceWeights, default_weights
from app.catalogue import EventRow, days, encode_events, local_days
from app.scalars import microseconds_of
from app.workspace_settings import ChurnPart

_THEME_OF = {code: code.removeprefix("said_") for code in (signal.code for signal in SIGNALS) if "said_" in code}


@cache
def expert_weights() -> EvidenceWeights:
    return default_weights()


@dataclass(frozen=True, slots=True)
class StoredEvents:
    """The interactions of some customers as the store tells them, a row each: int64 or float64 arrays (m,).

    Parameters
    ----------
    event_ids : m ids, as objects.
    customer : the customer's place among those asked for.
    kind, detail : as in ``EventColumns``; but the detail of a custom event that the settings name at place i is −2 − i.
    moment : microseconds since 1970 in UTC.
    number : as in ``EventColumns``; but of a delivery the moment for which it was promised, as ``moment``.
    scale, subject : as in ``EventColumns``.
    reason, text : hashes of words, which ``words`` has by hash; any other hash says that there are none.
    """

    event_ids: NDArray[np.object_]
    customer: NDArray[np.int64]
    kind: NDArray[np.int64]
    moment: NDArray[np.int64]
    detail: NDArray[np.int64]
    number: NDArray[np.float64]
    scale: NDArray[np.float64]
    subject: NDArray[np.int64]
    reason: NDArray[np.int64]
    text: NDArray[np.int64]
    words: Mapping[int, str]


@dataclass(frozen=True)
class Interactions:
    """The interactions of n customers up to a moment, as columns, and what their texts say.

    ``event_ids`` and ``moments`` (microseconds since 1970) are of the events, row by row.
    """

    customers: int
    as_of: datetime
    zone: tzinfo
    event_ids: Sequence[str] | NDArray[np.object_]
    moments: NDArray[np.int64]
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
    """Stored rows (customer_id, event_id, type, occurred_at, data) as columns; customers by their place in the ids.

    For few customers; ``encoded_interactions`` takes what the store has encoded itself.
    """
    place = {customer_id: index for index, customer_id in enumerate(customer_ids)}
    rows = [row for row in rows if row.customer_id in place]
    rows.sort(key=lambda row: (place[row.customer_id], row.occurred_at, row.event_id))
    columns, texts = encode_events(
        [
            EventRow(place[row.customer_id], row.type, row.occurred_at, json.loads(row.data) if row.data else {})
            for row in rows
        ],
        zone,
        custom_weights(settings),
        trust_sender=settings.trust_custom_events,
    )
    moments = np.array([microseconds_of(row.occurred_at) for row in rows], dtype=np.int64)
    ids = [row.event_id for row in rows]
    return Interactions(len(customer_ids), as_of, zone, ids, moments, columns, read_texts(texts))


def custom_weights(settings: ChurnPart) -> dict[str, tuple[str, float]]:
    """What the settings say of custom events: name → (type, log-odds)."""
    return {name: (event.speaks_for, event.weight) for name, event in settings.custom_events.items()}


def encoded_interactions(
    stored: StoredEvents, customers: int, as_of: datetime, zone: tzinfo, settings: ChurnPart
) -> Interactions:
    """The same for many customers, without a look at each event."""
    stored = _in_order(stored)
    detail, number = stored.detail.copy(), stored.number.copy()
    delivered = np.flatnonzero((stored.kind == EVENT_CODE["order.delivered"]) & np.isfinite(number))
    promised = local_days(number[delivered].astype(np.int64), zone)
    number[delivered] = local_days(stored.moment[delivered], zone) - promised
    named = np.flatnonzero(detail <= -2)
    if named.size:
        known = [(DETAILS["custom.recorded"].index(kind), weight) for kind, weight in custom_weights(settings).values()]
        codes, weights = (np.array(column) for column in zip(*known, strict=True))
        place = -2 - detail[named]
        detail[named], number[named] = codes[place], weights[place]
    hashes = np.array(sorted(stored.words), dtype=np.int64)

    def place_of(words: NDArray[np.int64]) -> NDArray[np.int64]:
        if not hashes.size:
            return np.full(words.size, -1)
        place = np.minimum(np.searchsorted(hashes, words), hashes.size - 1)
        return np.where(hashes[place] == words, place, -1)

    columns = event_columns(
        stored.customer,
        stored.kind,
        stored.moment / 1e6 / 86_400,
        detail=detail,
        number=number,
        scale=stored.scale,
        subject=stored.subject,
        reason=place_of(stored.reason),
        text=place_of(stored.text),
    )
    texts = read_texts([stored.words[found] for found in hashes.tolist()])
    return Interactions(customers, as_of, zone, stored.event_ids, stored.moment, columns, texts)


def _in_order(stored: StoredEvents) -> StoredEvents:
    """By customer, moment and id, so that of evidence of equal weight the same is named whoever asks."""
    order = np.lexsort((stored.moment, stored.customer))
    same = (np.diff(stored.customer[order]) == 0) & (np.diff(stored.moment[order]) == 0)
    if same.any():
        rows = order[np.append(same, False) | np.append(False, same)].tolist()
        rank = np.zeros(order.size, dtype=np.int64)
        rank[sorted(rows, key=lambda row: stored.event_ids[row])] = np.arange(len(rows))
        order = np.lexsort((rank, stored.moment, stored.customer))
    columns = {field.name: getattr(stored, field.name) for field in fields(stored)}
    arrays: dict[str, Any] = {name: column[order] for name, column in columns.items() if isinstance(column, np.ndarray)}
    return replace(stored, **arrays)


@dataclass(frozen=True)
class ChurnTypes:
    """The answer for n customers: verdicts, and the evidence of each in the contract's words, as JSON or None."""

    verdicts: Verdicts
    evidence: list[str | None]


def silent_types(customers: int, weights: EvidenceWeights) -> ChurnTypes:
    """The answer for customers of whom nothing speaks: the prior, and so unknown."""
    nothing = np.zeros(0, dtype=np.int64)
    probabilities, prior_type = type_in_silence(weights.prior, weights.margin)
    none = np.full(customers, -1, dtype=np.int64)
    verdicts = Verdicts(
        probabilities=np.repeat(probabilities, customers, axis=0),
        type=np.full(customers, prior_type, dtype=np.int64),
        subtype=none,
        lever=none,
        offsets=np.zeros(customers + 1, dtype=np.int64),
        event=nothing,
        signal=nothing,
        weight=np.zeros(0),
        speaks_for=nothing,
        contradicted_by=nothing,
    )
    return ChurnTypes(verdicts, [None] * customers)


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


def _evidence(interactions: Interactions, verdicts: Verdicts) -> list[str | None]:
    quoted = json.JSONEncoder().encode
    occurred_at = [f'"{moment}"' for moment in _shown(interactions.moments[verdicts.event])]
    kinds = interactions.columns.kind[verdicts.event].tolist()
    columns = (verdicts.event, verdicts.signal, verdicts.weight, verdicts.speaks_for, verdicts.contradicted_by)
    rows = zip(*(column.tolist() for column in columns), kinds, occurred_at, strict=True)
    told = [
        f'{{"event_id": {quoted(interactions.event_ids[row])}, "event_type": "{EVENT_TYPES[kind]}",'
        f' "occurred_at": {moment}, "weight": {round(weight, 4)}, "speaks_for": "{TYPES[speaks_for]}",'
        f' "phrase": {_phrase(interactions, row, signal)}, "contradicted_by": {_contradiction(interactions, against)}}}'
        for row, signal, weight, speaks_for, against, kind, moment in rows
    ]
    bounds = verdicts.offsets.tolist()
    return [f"[{', '.join(told[start:stop])}]" if start < stop else None for start, stop in pairwise(bounds)]


def _shown(moments: NDArray[np.int64]) -> list[str]:
    """As ``app.scalars.show_instant`` shows them."""
    stamps = moments.astype("datetime64[us]")
    whole = moments % 1_000_000 == 0
    shown = np.where(whole, np.datetime_as_string(stamps, unit="s"), np.datetime_as_string(stamps, unit="us"))
    return [f"{moment}Z" for moment in shown.tolist()]


def _phrase(interactions: Interactions, row: int, signal: int) -> str:
    """The words that a signal was found in, where it was found in words, as JSON."""
    theme = _THEME_OF.get(SIGNALS[signal].code)
    if theme not in THEMES:
        return "null"
    for text in (int(interactions.columns.reason[row]), int(interactions.columns.text[row])):
        found = (phrase.words for phrase in interactions.texts.phrases[text] if phrase.theme == theme)
        words = next(found, None) if text >= 0 else None
        if words is not None:
            return json.dumps(words)
    return "null"


def _contradiction(interactions: Interactions, row: int) -> str:
    if row >= 0:
        return json.dumps(interactions.event_ids[row])
    return '"later_order"' if row == LATER_ORDER else "null"


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
