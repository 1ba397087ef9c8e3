"""From events to signals: what happened to a customer, read together, as far as a moment.

Most events are a signal by themselves. Some mean something else in company: a complaint settled to satisfaction stops
speaking, a payment withheld while a complaint stands is anger, repeated overdue payments around a credit downgrade are
bad credit, and an order after a death was reported shows that the report was wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from app.analytics import complaints as course
from app.analytics.complaints import BoolArray, Complaints, FloatArray, IntArray
from app.analytics.event_columns import DETAILS, EVENT_CODE, EVENT_TYPES, NPS, SERVQUAL, EventColumns, survey_goodness
from app.analytics.signals import SIGNAL_INDEX, SIGNALS

_PLAIN: Mapping[tuple[str, str | None], str] = {
    ("order.delivered", None): "delivery_late",
    ("customer.relocated", None): "relocated",
    ("customer.relocated", "outside"): "relocated_outside",
    ("customer.relocated", "inside"): "relocated_inside",
    ("customer.deceased", None): "deceased",
    ("customer.closed_business", None): "closed_business",
    ("account.closed", None): "account_closed",
    ("competitor.mentioned", None): "competitor_mentioned",
    ("competitor.chosen", None): "competitor_chosen",
    ("competitor.chosen", "price"): "competitor_chosen_price",
    ("competitor.chosen", "service"): "competitor_chosen_service",
    ("competitor.chosen", "product"): "competitor_chosen_product",
    ("price.objected", None): "price_objected",
    ("complaint.opened", None): "complaint_open",
    ("complaint.reopened", None): "complaint_reopened",
    ("complaint.resolved", "unsatisfied"): "complaint_unsatisfied",
    ("delivery.failed", None): "delivery_failed",
    ("support.unresolved", None): "support_unresolved",
    ("payment.failed", None): "payment_failed",
    ("payment.failed", "expired_card"): "card_expired",
    ("payment.failed", "insufficient_funds"): "funds_insufficient",
    ("payment.failed", "forgotten"): "payment_forgotten",
    ("payment.overdue", None): "payment_overdue",
    ("payment.withheld", None): "payment_withheld",
    ("payment.disputed", None): "payment_disputed",
    ("renewal.missed", None): "renewal_missed",
    ("fraud.flagged", None): "fraud_flagged",
    ("credit.downgraded", None): "credit_downgraded",
    ("survey.answered", "nps"): "nps_low",
    ("survey.answered", "csat"): "csat_low",
    ("survey.answered", "effort"): "effort_high",
    ("survey.answered", "servqual"): "servqual_low",
    ("survey.answered", "price"): "value_low",
    **{("survey.answered", name): f"servqual_low_{name}" for name in SERVQUAL},
    ("visit.recorded", None): "visit",
    **{("custom.recorded", name): f"custom_{name}" for name in DETAILS["custom.recorded"]},
}
"""The signal of an event by type and detail; a detail without a row of its own takes that of the type."""

SEVERITY: Mapping[str, float] = {"low": 0.5, "medium": 1.0, "high": 1.5}
ANGER_DAYS = 365.0
"""A complaint explains a stopped payment for a year after it was last opened, reopened or badly answered."""
PATTERN_DAYS = 365.0
PATTERN_COUNT = 2
"""Overdue payments within a year of the latest credit downgrade, and how many of them make a pattern."""
RETAINED = np.array([1.0, 0.35, 0.0, 1.0])
"""Share of a complaint's weight by its state: open, closed, settled, unsatisfied."""
CHANNEL: Mapping[str, float] = {
    "exit.answered": 1.0,
    "account.closed": 0.9,
    "competitor.chosen": 0.5,
    "survey.answered": 0.6,
    "complaint.opened": 0.25,
}
"""How much words count by where they were said: an exit answer gives the reason, a complaint is evidence already."""

NO_EVENT, LATER_ORDER = -1, -2
"""Values of `contradicted_by` that are no row: nothing contradicts; an order known only by its moment does."""


def _table(values: Mapping[tuple[str, str | None], float], default: float) -> FloatArray:
    """Event types × (details + 1) as an array; column 0 is "no detail"."""
    table = np.full((len(EVENT_TYPES), 1 + max(map(len, DETAILS.values()))), default)
    for code, (name, details) in enumerate(DETAILS.items()):
        table[code] = values.get((name, None), default)
        for column, detail in enumerate(details, start=1):
            table[code, column] = values.get((name, detail), table[code, 0])
    return table


_DETAIL_COUNT = np.array([len(details) for details in DETAILS.values()])
_SIGNAL = _table({key: SIGNAL_INDEX[code] for key, code in _PLAIN.items()}, -1).astype(np.int64)
_SEVERITY = _table({("complaint.opened", name): factor for name, factor in SEVERITY.items()}, 1.0)
_CHANNEL = _table({(name, None): factor for name, factor in CHANNEL.items()}, 0.0)[:, 0]
_AFTER_ORDER = np.array([signal.after_order for signal in SIGNALS])
_SAID = np.array([i for i, signal in enumerate(SIGNALS) if signal.code.startswith("said_")])
_STEP = np.full(len(EVENT_TYPES), -1)
_STEP[[EVENT_CODE[f"complaint.{step}"] for step in ("opened", "reopened", "resolved")]] = range(3)

_ORDER, _DELIVERED = EVENT_CODE["order.placed"], EVENT_CODE["order.delivered"]
_SURVEY, _CUSTOM = EVENT_CODE["survey.answered"], EVENT_CODE["custom.recorded"]
_WITHHELD, _OVERDUE = EVENT_CODE["payment.withheld"], EVENT_CODE["payment.overdue"]
_FAILED, _DISPUTED = EVENT_CODE["payment.failed"], EVENT_CODE["payment.disputed"]
_RESOLVED, _DOWNGRADED = EVENT_CODE["complaint.resolved"], EVENT_CODE["credit.downgraded"]
_CAUSELESS = DETAILS["payment.failed"].index("other")


@dataclass(frozen=True, slots=True)
class Signals:
    """What was read: one row a signal, shape (m,) each.

    Parameters
    ----------
    customer, signal : ndarray of int
        The customer, and the row of `app.analytics.signals.SIGNALS`.
    age_days : ndarray of float
        At `as_of`, ≥ 0.
    strength : ndarray of float
        Severity times what is left after contradiction, > 0; age is not in it.
    retained : ndarray of float
        What is left after contradiction alone, in (0, 1].
    event : ndarray of int
        Row of the event columns. Words give one row a theme, so an event may have several.
    contradicted_by : ndarray of int
        Row of the event that took weight away; −1 none; −2 a later order known only by its moment.
    """

    customer: IntArray
    signal: IntArray
    age_days: FloatArray
    strength: FloatArray
    retained: FloatArray
    event: IntArray
    contradicted_by: IntArray


def _read_surveys(detail: IntArray, goodness: FloatArray) -> tuple[BoolArray, FloatArray]:
    """Whether an answer is content, and the strength with which it speaks; 0 in the middle.

    NPS: up to 6 of 10 a detractor, from 9 a promoter. Other scales: below and above the middle.
    """
    nps = detail == NPS
    low = np.where(nps, np.where(goodness < 0.7 - 1e-9, 1.0 - goodness.clip(max=0.6), 0.0), 1 - 2 * goodness)
    high = np.where(nps, np.where(goodness > 0.9 - 1e-9, 1.0, 0.0), 2 * goodness - 1)
    content = high > 1e-9
    return content, np.nan_to_num(np.where(content, high, np.maximum(low, 0.0)))


def _late_strength(days: FloatArray) -> FloatArray:
    """0 on time; .6 a day late, 1.2 a week, 1.6 from eleven days on."""
    return np.where(days > 0, np.minimum(0.5 + 0.1 * days, 1.6), 0.0)


def read_events(
    events: EventColumns,
    customers: int,
    as_of: float,
    themes: FloatArray | None = None,
    last_order_at: FloatArray | None = None,
) -> Signals:
    """Read events into signals, as far as `as_of`.

    Parameters
    ----------
    events : EventColumns
        In any order; what is later than `as_of` is left out.
    customers : int
        n; every `events.customer` is below it.
    as_of : float
        Days, on the axis of `occurred_at`.
    themes : ndarray of float, shape (k, 7), optional
        What each distinct text says: `app.analytics.lexicon.TextReadings.themes`. Without it words are passed over.
    last_order_at : ndarray of float, shape (n,), optional
        Moment of each customer's last counted order, NaN for none: for callers that do not pass orders as events. A
        moment after `as_of` is passed over.

    Returns
    -------
    Signals
        In order of the events, then the words.

    Raises
    ------
    ValueError
        If a customer or text index is out of range.
    """
    _check(events, customers, themes)
    rows = np.flatnonzero((events.kind >= 0) & (events.kind < len(EVENT_TYPES)) & (events.occurred_at <= as_of))
    customer, kind, when = events.customer[rows], events.kind[rows], events.occurred_at[rows]
    detail = events.detail[rows]
    detail = np.where((detail >= 0) & (detail < _DETAIL_COUNT[kind]), detail, -1)
    signal, strength = _SIGNAL[kind, detail + 1], _SEVERITY[kind, detail + 1]

    late = kind == _DELIVERED
    strength[late] = _late_strength(events.number[rows[late]])
    survey = kind == _SURVEY
    goodness = survey_goodness(detail[survey], events.number[rows[survey]], events.scale[rows[survey]])
    content, strength[survey] = _read_surveys(detail[survey], goodness)
    signal[survey] = np.where(content, SIGNAL_INDEX["survey_content"], signal[survey])
    custom = kind == _CUSTOM
    strength[custom] = np.nan_to_num(events.number[rows[custom]], nan=1.0).clip(0.0)

    retained = np.ones(rows.size)
    because = np.full(rows.size, NO_EVENT)
    said = _said(events, rows, themes)
    complaint = np.flatnonzero(_STEP[kind] >= 0)
    course_of = course.follow_complaints(
        customer[complaint],
        events.subject[rows[complaint]],
        when[complaint],
        _STEP[kind[complaint]],
        np.where(kind[complaint] == _RESOLVED, detail[complaint], course.UNSTATED),
    )
    fate = course_of.final[course_of.complaint]
    retained[complaint[course_of.rows]] = RETAINED[fate]
    ended_by = rows[complaint[course_of.last[course_of.complaint]]]
    because[complaint[course_of.rows]] = np.where(RETAINED[fate] < 1, ended_by, NO_EVENT)

    payment = np.flatnonzero(
        (kind == _WITHHELD) | (kind == _OVERDUE) | (kind == _DISPUTED)
        | ((kind == _FAILED) & ((detail < 0) | (detail == _CAUSELESS)))
    )  # fmt: skip
    angry = payment[_in_anger(course_of, complaint, payment, customer, when)]
    signal[angry] = np.where(
        kind[angry] == _WITHHELD, SIGNAL_INDEX["payment_withheld_in_anger"], SIGNAL_INDEX["payment_stopped_in_anger"]
    )
    signal[_bad_credit(kind, customer, when, customers)] = SIGNAL_INDEX["overdue_pattern"]

    # Words follow the events; each takes over what became of the event that they were said in.
    part = np.concatenate((np.arange(rows.size), said[0]))
    signal = np.concatenate((signal, said[1]))
    strength = np.concatenate((strength, said[2]))
    retained, because = retained[part], because[part]
    order_at, order_row = _last_orders(kind, customer, when, rows, customers, as_of, last_order_at)
    after = _AFTER_ORDER[signal]
    refuted = (signal >= 0) & (after < 1) & (order_at[customer[part]] > when[part])
    retained = np.where(refuted, retained * after, retained)
    because = np.where(refuted, order_row[customer[part]], because)

    strength = strength * retained
    keep = np.flatnonzero((signal >= 0) & (strength > 0))
    part = part[keep]
    return Signals(
        customer[part], signal[keep], as_of - when[part], strength[keep], retained[keep], rows[part], because[keep]
    )


def _check(events: EventColumns, customers: int, themes: FloatArray | None) -> None:
    if events.customer.size and not (events.customer.min() >= 0 and events.customer.max() < customers):
        raise ValueError("customer indices must be from 0 to customers - 1")
    if themes is not None and events.customer.size:
        if themes.shape[1:] != (_SAID.size,):
            raise ValueError(f"themes must have {_SAID.size} columns")
        if max(events.reason.max(), events.text.max()) >= len(themes):
            raise ValueError("reason and text must be rows of themes")


def _said(events: EventColumns, rows: IntArray, themes: FloatArray | None) -> tuple[IntArray, IntArray, FloatArray]:
    """Positions in `rows`, signals and strengths of what was said; a reason and a text that agree count once."""
    if themes is None or not len(themes):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)
    reason, text, channel = events.reason[rows], events.text[rows], _CHANNEL[events.kind[rows]]
    speaking = np.flatnonzero(((reason >= 0) | (text >= 0)) & (channel > 0))
    by_reason = np.where(reason[speaking, None] >= 0, themes[reason[speaking]], 0.0)
    by_text = np.where(text[speaking, None] >= 0, themes[text[speaking]], 0.0)
    said = np.maximum(by_reason, by_text) * channel[speaking, None]
    position, theme = np.nonzero(said)
    return speaking[position], _SAID[theme], said[position, theme]


def _in_anger(
    course_of: Complaints, complaint: IntArray, payment: IntArray, customer: IntArray, when: FloatArray
) -> BoolArray:
    """Which payments stopped while a complaint stood unsettled, one that was not settled to satisfaction since."""
    if not payment.size or not complaint.size:
        return np.zeros(payment.size, dtype=bool)
    standing = (course_of.state == course.OPEN) | (course_of.state == course.UNSATISFIED)
    standing &= course_of.final[course_of.complaint] != course.SETTLED
    before = np.zeros(standing.size, dtype=bool)
    same = course_of.complaint[1:] == course_of.complaint[:-1]
    before[1:] = standing[:-1] & same
    stirred = complaint[course_of.rows]
    positions = np.concatenate((stirred, payment))
    change = np.concatenate((standing.astype(np.int64) - before, np.zeros(payment.size, dtype=np.int64)))
    stirs = np.concatenate((standing, np.zeros(payment.size, dtype=bool)))
    is_payment = np.arange(positions.size) >= stirred.size

    by_time = np.lexsort((is_payment, when[positions], customer[positions]))
    who, moments = customer[positions[by_time]], when[positions[by_time]]
    count = np.cumsum(change[by_time])
    index = np.arange(by_time.size)
    start = np.searchsorted(who, who)
    open_now = count - np.where(start > 0, count[start - 1], 0)
    latest = np.maximum.accumulate(np.where(stirs[by_time], index, -1))
    # Where a complaint is open, the latest stir is the customer's own; elsewhere its age is not looked at.
    recent = moments - moments[np.maximum(latest, 0)] <= ANGER_DAYS
    angry = np.zeros(positions.size, dtype=bool)
    angry[by_time] = (open_now > 0) & recent
    return angry[stirred.size :]


def _bad_credit(kind: IntArray, customer: IntArray, when: FloatArray, customers: int) -> IntArray:
    """Overdue payments that with a credit downgrade make a pattern."""
    overdue, downgrade = np.flatnonzero(kind == _OVERDUE), np.flatnonzero(kind == _DOWNGRADED)
    if not overdue.size or not downgrade.size:
        return np.empty(0, dtype=np.int64)
    latest = np.full(customers, -np.inf)
    np.maximum.at(latest, customer[downgrade], when[downgrade])
    near = overdue[np.abs(when[overdue] - latest[customer[overdue]]) <= PATTERN_DAYS]
    repeated: BoolArray = np.bincount(customer[near], minlength=customers) >= PATTERN_COUNT
    pattern: IntArray = near[repeated[customer[near]]]
    return pattern


def _last_orders(
    kind: IntArray, customer: IntArray, when: FloatArray, rows: IntArray, customers: int, as_of: float,
    last_order_at: FloatArray | None,
) -> tuple[FloatArray, IntArray]:  # fmt: skip
    """Each customer's last order, and its row (−2 where only the moment is known)."""
    known = np.full(customers, -np.inf)
    if last_order_at is not None:
        known = np.where(last_order_at <= as_of, last_order_at, -np.inf)
    at, row = known, np.full(customers, LATER_ORDER)
    order = np.flatnonzero(kind == _ORDER)
    if order.size:
        order = order[np.argsort(when[order], kind="stable")]
        seen = np.full(customers, -np.inf)
        seen_row = np.full(customers, LATER_ORDER)
        seen[customer[order]], seen_row[customer[order]] = when[order], rows[order]
        later = seen >= known
        at, row = np.where(later, seen, known), np.where(later, seen_row, row)
    return at, row
