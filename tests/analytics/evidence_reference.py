"""The evidence model said again in plain Python, one customer at a time: what the vectorised code is held to."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.analytics.event_columns import DETAILS, EVENT_CODE, EventColumns, event_columns
from app.analytics.signals import HINTS, SIGNAL_INDEX, SIGNALS, TYPES, default_weights

THEMES = ("gone", "price", "rival", "oversight", "withholding", "bad_credit", "failing")
SHARE = {"open": 1.0, "closed": 0.35, "settled": 0.0, "unsatisfied": 1.0}
CHANNEL = {"exit.answered": 1.0, "account.closed": 0.9, "competitor.chosen": 0.5, "survey.answered": 0.6,
           "complaint.opened": 0.25}  # fmt: skip
PLAIN = {
    "customer.deceased": "deceased",
    "customer.closed_business": "closed_business",
    "account.closed": "account_closed",
    "competitor.mentioned": "competitor_mentioned",
    "price.objected": "price_objected",
    "delivery.failed": "delivery_failed",
    "support.unresolved": "support_unresolved",
    "renewal.missed": "renewal_missed",
    "fraud.flagged": "fraud_flagged",
    "credit.downgraded": "credit_downgraded",
    "payment.overdue": "payment_overdue",
    "payment.withheld": "payment_withheld",
    "payment.disputed": "payment_disputed",
    "complaint.opened": "complaint_open",
    "complaint.reopened": "complaint_reopened",
    "visit.recorded": "visit",
}
FAILED = {"expired_card": "card_expired", "insufficient_funds": "funds_insufficient", "forgotten": "payment_forgotten"}
SURVEYS = {"nps": "nps_low", "csat": "csat_low", "effort": "effort_high", "servqual": "servqual_low",
           "price": "value_low"}  # fmt: skip


@dataclass(frozen=True)
class Happened:
    """One event, with its details by name."""

    type: str
    at: float
    detail: str | None = None
    number: float = math.nan
    scale: float = math.nan
    subject: int = 0
    reason: int = -1
    text: int = -1


def to_columns(stories: Sequence[Sequence[Happened]]) -> EventColumns:
    rows = [(who, event) for who, story in enumerate(stories) for event in story]
    return event_columns(
        [who for who, _ in rows],
        [EVENT_CODE[event.type] for _, event in rows],
        [event.at for _, event in rows],
        detail=[DETAILS[event.type].index(event.detail) if event.detail else -1 for _, event in rows],
        number=[event.number for _, event in rows],
        scale=[event.scale for _, event in rows],
        subject=[event.subject for _, event in rows],
        reason=[event.reason for _, event in rows],
        text=[event.text for _, event in rows],
    )


def _complaint_states(story: Sequence[Happened], until: float) -> dict[int, tuple[str, bool]]:
    """By complaint: its state at a moment, and whether it stands then."""
    rank = {"complaint.opened": 0, "complaint.reopened": 1, "complaint.resolved": 2}
    verdict = {None: 0, "unsatisfied": 1, "satisfied": 2}
    events = sorted(
        (event for event in story if event.type in rank and event.at <= until),
        key=lambda event: (event.at, rank[event.type], verdict[event.detail] if rank[event.type] == 2 else 0),
    )
    states: dict[int, tuple[str, bool]] = {}
    for event in events:
        state = "open"
        if event.type == "complaint.resolved":
            state = {"satisfied": "settled", "unsatisfied": "unsatisfied", None: "closed"}[event.detail]
        states[event.subject] = (state, state in ("open", "unsatisfied"))
    return states


def _angry(story: Sequence[Happened], payment: Happened, as_of: float) -> bool:
    final = _complaint_states(story, as_of)
    standing = any(
        stands and final[subject][0] != "settled"
        for subject, (_, stands) in _complaint_states(story, payment.at).items()
    )
    stirred = [
        event.at
        for event in story
        if event.type.startswith("complaint.")
        and event.at <= payment.at
        and final[event.subject][0] != "settled"
        and (event.type != "complaint.resolved" or event.detail == "unsatisfied")
    ]
    return standing and bool(stirred) and payment.at - max(stirred) <= 365


def _survey(event: Happened) -> tuple[str, float] | None:
    if event.detail is None or math.isnan(event.number):
        return None
    kind = event.detail
    top = event.scale if event.scale > 1 else {"nps": 10, "csat": 5}.get(kind, 7)
    bottom = 0 if kind == "nps" else 1
    good = min(max((event.number - bottom) / (top - bottom), 0), 1)
    low = SURVEYS.get(kind, f"servqual_low_{kind}")
    if kind == "nps":
        if good > 0.9 - 1e-9:
            return "survey_content", 1.0
        return (low, 1 - min(good, 0.6)) if good < 0.7 - 1e-9 else None
    if 2 * good - 1 > 1e-9:
        return "survey_content", 2 * good - 1
    return low, 1 - 2 * good


def signals_of(
    story: Sequence[Happened], as_of: float, themes: NDArray[np.float64], last_order: float = math.nan
) -> list[tuple[str, float, float]]:
    """Signal, age and strength of everything that speaks."""
    story = [event for event in story if event.at <= as_of]
    final = _complaint_states(story, as_of)
    orders = [event.at for event in story if event.type == "order.placed"]
    ordered = max([*orders, last_order if last_order <= as_of else -math.inf])
    downgraded = [event.at for event in story if event.type == "credit.downgraded"]
    near = [e for e in story if e.type == "payment.overdue" and downgraded and abs(e.at - max(downgraded)) <= 365]
    found: list[tuple[str, float, float]] = []
    for event in story:
        share = SHARE[final[event.subject][0]] if event.type.startswith("complaint.") else 1.0
        given: list[tuple[str, float]] = []
        signal = PLAIN.get(event.type)
        if signal:
            severity = {"low": 0.5, "high": 1.5}.get(event.detail or "", 1.0)
            given.append((signal, severity if event.type == "complaint.opened" else 1.0))
        elif event.type == "complaint.resolved" and event.detail == "unsatisfied":
            given.append(("complaint_unsatisfied", 1.0))
        elif event.type == "customer.relocated":
            given.append((f"relocated_{event.detail}" if event.detail else "relocated", 1.0))
        elif event.type == "competitor.chosen":
            given.append((f"competitor_chosen_{event.detail}" if event.detail else "competitor_chosen", 1.0))
        elif event.type == "payment.failed":
            given.append((FAILED.get(event.detail or "", "payment_failed"), 1.0))
        elif event.type == "order.delivered" and event.number > 0:
            given.append(("delivery_late", min(0.5 + 0.1 * event.number, 1.6)))
        elif event.type == "survey.answered" and (answer := _survey(event)):
            given.append(answer)
        elif event.type == "custom.recorded" and event.detail:
            given.append((f"custom_{event.detail}", 1.0 if math.isnan(event.number) else event.number))
        causeless = event.type == "payment.failed" and event.detail in (None, "other")
        if event.type == "payment.overdue" and event in near and len(near) >= 2:
            given = [("overdue_pattern", 1.0)]
        elif (event.type in ("payment.overdue", "payment.withheld", "payment.disputed") or causeless) and _angry(
            story, event, as_of
        ):
            name = "payment_withheld_in_anger" if event.type == "payment.withheld" else "payment_stopped_in_anger"
            given = [(name, 1.0)]
        for column, theme in enumerate(THEMES):
            said = max(themes[row][column] if row >= 0 else 0.0 for row in (event.reason, event.text))
            given.append((f"said_{theme}", said * CHANNEL.get(event.type, 0.0)))
        for name, strength in given:
            after = SIGNALS[SIGNAL_INDEX[name]].after_order if ordered > event.at else 1.0
            if strength * share * after > 0:
                found.append((name, as_of - event.at, strength * share * after))
    return found


def verdict(signals: Sequence[tuple[str, float, float]]) -> tuple[list[float], str, str | None]:
    """Probabilities, type, and subtype of passive."""
    weights = default_weights()
    sums: dict[str, float] = defaultdict(float)
    for name, age, strength in signals:
        half_life = SIGNALS[SIGNAL_INDEX[name]].half_life_days
        sums[name] += strength * (0.5 ** (age / half_life) if half_life else 1.0)
    scores, hints = list(weights.prior), [*weights.hint_prior, 0.0, 0.0]
    for name, total in sums.items():
        signal, counted = SIGNALS[SIGNAL_INDEX[name]], min(total, weights.cap)
        for column in range(4):
            scores[column] += counted * signal.weights[column]
        for column in range(5):
            hints[column] += counted * signal.hints[column]
    odds = [math.exp(score) for score in scores]
    probabilities = [odd / sum(odds) for odd in odds]
    first, second = sorted(probabilities, reverse=True)[:2]
    named = TYPES[probabilities.index(first)] if first - second >= weights.margin else "unknown"
    return probabilities, named, HINTS[hints.index(max(hints[:3]))] if named == "passive" else None
