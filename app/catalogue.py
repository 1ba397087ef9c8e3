"""The catalogue of interaction events: the fields of each, what it speaks for, how strongly and how fast it fades.

``python -m app.catalogue`` writes ``docs/churn.md`` from it; ``--check`` only says whether the page is up to date.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.analytics import reading
from app.analytics.event_columns import DETAILS, EVENT_CODE, SERVQUAL, EventColumns, event_columns
from app.analytics.lexicon import TEXT_LIMIT
from app.analytics.signals import (
    CAP,
    HINT_PRIOR,
    HINTS,
    MARGIN,
    PRIOR,
    PRIOR_WHY,
    SIGNAL_INDEX,
    SIGNALS,
    SUBTYPES,
    TYPES,
    SignalKind,
)

FieldKind = Literal["id", "label", "text", "choice", "number", "boolean", "moment"]
CUSTOM_WEIGHT_LIMIT = CAP
_DAY_US = 86_400 * 1_000_000
PAGE = Path(__file__).parent.parent / "docs" / "churn.md"


@dataclass(frozen=True, slots=True)
class EventField:
    """A field of an event's data.

    Parameters
    ----------
    name : str
    kind : str
        id; label, a text of at most 100 characters; text, of at most 2,000; choice, one of `values`; number; boolean;
        moment, RFC 3339.
    meaning : str
    required : bool
    values : tuple of str
        Of a choice.
    low, high : float or None
        Inclusive limits of a number.
    """

    name: str
    kind: FieldKind
    meaning: str = ""
    required: bool = False
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class EventKind:
    """An event type: its fields, and the codes of the signals it may give, the plainest first."""

    name: str
    meaning: str
    signals: tuple[str, ...]
    fields: tuple[EventField, ...] = ()
    note: str = ""

    @property
    def speaks_for(self) -> tuple[str, ...]:
        """Types that its signals speak for, in the order of `TYPES`."""
        lifted = (
            np.array([SIGNALS[SIGNAL_INDEX[code]].weights for code in self.signals])
            .reshape(-1, 4)
            .max(axis=0, initial=0.0)
        )
        return tuple(name for name, weight in zip(TYPES, lifted.tolist(), strict=False) if weight > 0)


_SAID = tuple(signal.code for signal in SIGNALS if signal.code.startswith("said_"))
_ORDER_ID = EventField("order_id", "id", required=True)
_OPTIONAL_ORDER = EventField("order_id", "id", "The order concerned.")
_COMPLAINT_ID = EventField("complaint_id", "id", "Unique for the customer.", required=True)
_TEXT = EventField("text", "text", "The customer's own words.")
_COMPETITOR = EventField("competitor", "label", "The rival's name.")
_CHANNEL = EventField("channel", "label")

CATALOGUE = (
    EventKind(
        "customer.relocated", "The customer moved.", ("relocated", "relocated_outside", "relocated_inside"),
        (EventField("service_area", "label", "`outside` or `inside` the area served; a place's name leaves it open."),),
    ),
    EventKind("customer.deceased", "The customer died.", ("deceased",)),
    EventKind("customer.closed_business", "The customer's business closed.", ("closed_business",)),
    EventKind(
        "account.closed", "The customer closed the account.", ("account_closed", *_SAID),
        (EventField("reason", "text", "A code, a label or words; read by the lexicon."),),
    ),
    EventKind("competitor.mentioned", "The customer named a rival.", ("competitor_mentioned",),
              (_COMPETITOR, EventField("reason", "choice", values=DETAILS["competitor.chosen"]))),
    EventKind(
        "competitor.chosen", "The customer went to a rival.",
        ("competitor_chosen", *(f"competitor_chosen_{reason}" for reason in DETAILS["competitor.chosen"])),
        (_COMPETITOR, EventField("reason", "choice", values=DETAILS["competitor.chosen"])),
    ),
    EventKind("price.objected", "The customer objected to a price.", ("price_objected",), (_COMPETITOR,)),
    EventKind(
        "complaint.opened", "The customer complained.", ("complaint_open", *_SAID),
        (_COMPLAINT_ID, EventField("severity", "choice", "Medium if not told.", values=DETAILS["complaint.opened"]),
         EventField("topic", "label", "Read by the lexicon."), _TEXT),
        "Low severity counts half, high one and a half times. Open: in full; resolved without a word on satisfaction: "
        "35 %; resolved to satisfaction: not at all; resolved but not satisfied, or reopened: in full, and more.",
    ),
    EventKind("complaint.resolved", "We resolved a complaint.", ("complaint_unsatisfied",),
              (_COMPLAINT_ID, EventField("satisfied", "boolean", "Whether the customer was satisfied."))),
    EventKind("complaint.reopened", "The complaint was not resolved after all.", ("complaint_reopened",),
              (_COMPLAINT_ID,)),
    EventKind("delivery.failed", "A delivery failed.", ("delivery_failed",), (_ORDER_ID,)),
    EventKind(
        "order.delivered", "An order arrived.", ("delivery_late",),
        (_ORDER_ID, EventField("promised_at", "moment", "When it was promised.")),
        "Late if delivered on a later calendar day than promised, in the workspace's time zone: 0.6 of the weight a "
        "day late, 1.2 a week, 1.6 from eleven days on.",
    ),
    EventKind("support.unresolved", "Support did not solve a question.", ("support_unresolved",),
              (EventField("topic", "label"), _CHANNEL)),
    EventKind(
        "payment.failed", "A payment failed.",
        ("payment_failed", "card_expired", "payment_forgotten", "funds_insufficient", "payment_stopped_in_anger"),
        (EventField("reason", "choice", values=DETAILS["payment.failed"]), _OPTIONAL_ORDER),
    ),
    EventKind("payment.overdue", "A payment is overdue.",
              ("payment_overdue", "overdue_pattern", "payment_stopped_in_anger"), (_OPTIONAL_ORDER,)),
    EventKind("payment.withheld", "The customer withholds a payment.",
              ("payment_withheld", "payment_withheld_in_anger"), (_OPTIONAL_ORDER,)),
    EventKind("payment.disputed", "The customer disputes a payment.",
              ("payment_disputed", "payment_stopped_in_anger"), (_OPTIONAL_ORDER,)),
    EventKind("renewal.missed", "A renewal was due and did not come.", ("renewal_missed",)),
    EventKind("fraud.flagged", "A check found fraud.", ("fraud_flagged",)),
    EventKind("credit.downgraded", "The customer's credit was graded down.", ("credit_downgraded",)),
    EventKind(
        "survey.answered", "The customer answered a survey.",
        ("nps_low", "csat_low", "effort_high", "servqual_low", *(f"servqual_low_{name}" for name in SERVQUAL),
         "value_low", "survey_content", *_SAID),
        (EventField("kind", "choice", values=("nps", "csat", "effort", "servqual")),
         EventField("score", "number", "The higher, the better; for effort: the easier.", low=0, high=100),
         EventField("scale", "number", "Top mark; if not told 10 for NPS, 5 for CSAT, else 7.", low=2, high=100),
         EventField("dimension", "label", "Of SERVQUAL: " + ", ".join(SERVQUAL) + ", or price."), _TEXT),
        "NPS up to 6 of 10, and other answers below the middle, speak against us, the lower the stronger; promoters "
        "and answers above the middle speak against negligence.",
    ),
    EventKind("exit.answered", "The customer said why they left.", _SAID,
              (EventField("reason", "text", "A code, a label or words."), _TEXT),
              "Reason and text are read by the lexicon; where they agree they count once."),
    EventKind("visit.recorded", "The customer visited.", ("visit",),
              (EventField("duration_seconds", "number", low=0, high=86_400), _CHANNEL)),
    EventKind(
        "custom.recorded", "An event of the sender's own.", tuple(f"custom_{name}" for name in TYPES[:4]),
        (EventField("name", "label", required=True), EventField("weight_for", "choice", values=TYPES[:4]),
         EventField("weight", "number", "Log-odds at age zero, 1 if not told.", low=0, high=CUSTOM_WEIGHT_LIMIT)),
        "Counts as the workspace's settings say for its name; what the event says itself counts only where the "
        "settings allow it.",
    ),
)  # fmt: skip
CATALOGUE_BY_NAME: Mapping[str, EventKind] = {kind.name: kind for kind in CATALOGUE}

DETAIL_FIELD: Mapping[str, str] = {
    "customer.relocated": "service_area",
    "competitor.chosen": "reason",
    "complaint.opened": "severity",
    "complaint.resolved": "satisfied",
    "payment.failed": "reason",
    "survey.answered": "kind",
    "custom.recorded": "weight_for",
}
"""The field that `event_columns` takes as detail, by type."""
REASON_FIELD: Mapping[str, str] = {"account.closed": "reason", "exit.answered": "reason", "complaint.opened": "topic"}
TEXT_FIELD: Mapping[str, str] = dict.fromkeys(("exit.answered", "complaint.opened", "survey.answered"), "text")
_YES_NO = {True: {"complaint.resolved": "satisfied", "customer.relocated": "inside"},
           False: {"complaint.resolved": "unsatisfied", "customer.relocated": "outside"}}  # fmt: skip
BOOLEANS: Mapping[str, tuple[str, ...]] = {name: (DETAIL_FIELD[name],) for name in _YES_NO[True]}
"""Fields of `DETAIL_FIELD` that may say no or yes, for the first and the second detail of the type."""
_DETAIL_CODE = {name: {value: code for code, value in enumerate(values)} for name, values in DETAILS.items()}
DIMENSIONS = {**{name: name for name in SERVQUAL}, "price": "price", "value": "price"}


@dataclass(frozen=True, slots=True)
class EventRow:
    """A stored event: position of its customer, type, moment and data. Orders that do not count must be left out."""

    customer: int
    type: str
    occurred_at: datetime
    data: Mapping[str, Any]


def days(moment: datetime) -> float:
    """A moment as the analytics measure it: days since 1970 in UTC."""
    return moment.timestamp() / 86_400


def _lowered(label: str) -> str:
    """In lower case, as the store does it wherever its server is: of the letters A to Z alone."""
    return label.lower() if label.isascii() else label


def local_days(moments: NDArray[np.int64], zone: tzinfo) -> NDArray[np.int64]:
    """Calendar days in ``zone``, days since 1970-01-01, of moments in microseconds since 1970 in UTC."""
    day, of_moment = np.unique(moments // _DAY_US, return_inverse=True)

    def offset(moment: int) -> int:
        at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=moment)
        return (at.astimezone(zone).utcoffset() or timedelta()) // timedelta(microseconds=1)

    begin, end = (
        np.array([offset(one * _DAY_US) for one in days_.tolist()], dtype=np.int64) for days_ in (day, day + 1)
    )
    shift = begin[of_moment]
    # On a day when the clocks are changed, every moment is asked for by itself.
    for row in np.flatnonzero((begin != end)[of_moment]).tolist():
        shift[row] = offset(int(moments[row]))
    return (moments + shift) // _DAY_US


def days_late(delivered_at: datetime, promised_at: datetime, zone: tzinfo) -> int:
    """Calendar days in `zone` from the promised day to the day of delivery; below zero if early."""
    return (delivered_at.astimezone(zone).date() - promised_at.astimezone(zone).date()).days


def encode_events(
    rows: Sequence[EventRow],
    zone: tzinfo,
    custom: Mapping[str, tuple[str, float]] | None = None,
    *,
    trust_sender: bool = False,
) -> tuple[EventColumns, list[str]]:
    """Stored events as columns, and the distinct texts that they refer to.

    Parameters
    ----------
    rows : sequence of EventRow
        Of any types; those that are not in the catalogue say nothing.
    zone : tzinfo
        The workspace's, which cuts the days.
    custom : mapping, optional
        The settings' word on custom events: name → (type, log-odds).
    trust_sender : bool, default False
        Whether a custom event that the settings do not name may say for itself what it speaks for.
    """
    texts: dict[str, int] = {}
    complaints: dict[str, int] = {}
    columns = [_encode(row, zone, custom or {}, trust_sender, texts, complaints) for row in rows]
    who, kind, when, detail, number, scale, subject, reason, text = zip(*columns, strict=True) if columns else ((),) * 9
    encoded = event_columns(
        who, kind, when, detail=detail, number=number, scale=scale, subject=subject, reason=reason, text=text
    )
    return encoded, list(texts)


def _encode(
    row: EventRow,
    zone: tzinfo,
    custom: Mapping[str, tuple[str, float]],
    trust_sender: bool,
    texts: dict[str, int],
    complaints: dict[str, int],
) -> tuple[int, int, float, int, float, float, int, int, int]:
    name, data = row.type, row.data
    detail = data.get(DETAIL_FIELD.get(name, ""))
    number: Any = None
    if isinstance(detail, bool):
        detail = _YES_NO[detail].get(name)
    if name == "survey.answered":
        number = data.get("score")
        if detail == "servqual":
            detail = DIMENSIONS.get(_lowered(str(data.get("dimension"))), detail)
    elif name == "order.delivered" and data.get("promised_at") is not None:
        promised = data["promised_at"]
        promised = promised if isinstance(promised, datetime) else datetime.fromisoformat(promised)
        number = days_late(row.occurred_at, promised, zone)
    elif name == "custom.recorded":
        if data.get("name") in custom:
            detail, number = custom[data["name"]]
        elif trust_sender:
            number = data.get("weight")
        else:
            detail = None
    complaint = data.get("complaint_id")
    said = [data.get(fields.get(name, "")) for fields in (REASON_FIELD, TEXT_FIELD)]
    reason, text = (texts.setdefault(words[:TEXT_LIMIT], len(texts)) if words else -1 for words in said)
    return (
        row.customer,
        EVENT_CODE.get(name, -1),
        days(row.occurred_at),
        _DETAIL_CODE.get(name, {}).get(_lowered(detail), -1) if isinstance(detail, str) else -1,
        np.nan if number is None else float(number),
        np.nan if data.get("scale") is None else float(data["scale"]),
        -1 if complaint is None else complaints.setdefault(complaint, len(complaints)),
        reason,
        text,
    )


# The page -------------------------------------------------------------------------------------------------------------

_INTRODUCTION = """\
# Why customers leave

*Made from `app/catalogue.py` by `python -m app.catalogue`. Do not edit.*

From what happened to a customer, Perennial says which kind of loss it is, how sure, on what evidence, and what to do.

| type | what it is | what to do |
|---|---|---|
| `natural` | nobody's fault: moved away, died, closed business; rare | close kindly |
| `competitive` | a rival won them, by price or by service | win back on price or service |
| `negligent` | our own failings made them unhappy | mend the failing, apologise, compensate |
| `passive` | lost without their choosing, or they stopped paying | \
`non_malicious`: remind; `retaliatory`: settle fast; `malicious`: do not keep |
| `unknown` | nothing speaks, or nothing wins clearly | ask |

## How evidence is weighed

An event gives *signals*. Each adds weight × strength × 2^(−age ÷ half-life) to the log-odds of the types, over the
prior; the softmax of the five sums gives the probabilities. Strength is 1 unless the event says how grave it is, and
one signal counts at most {cap:g} full-strength events for a customer. A type is named if its probability exceeds every
other, unknown among them, by at least {margin:.2f}; else the answer is `unknown`. The kind of passive loss has log-odds
of its own, over a prior of {hint_prior}.

Prior: {prior}. {prior_why}

What would win a customer back (price or service) is summed in the same way, for the recommended action.

## What events mean together

- A complaint resolved to satisfaction stops speaking. Resolved without a word on satisfaction it keeps {closed:.0%} of
  its weight. Resolved but not satisfied, or reopened, it speaks in full, and the new event adds to it.
- A payment withheld while a complaint stands unsettled (`payment_withheld_in_anger`), or one overdue, disputed or
  failed without a cause of its own (`payment_stopped_in_anger`), is retaliatory. The complaint must have been opened,
  reopened or badly answered at most {anger:g} days before, and not have been settled to satisfaction since. A card that
  expired, money that lacked and a payment forgotten stay what they are.
- {count} or more payments overdue within {pattern:g} days of the latest credit downgrade are a pattern of bad credit
  (`overdue_pattern`), whether or not a complaint stands.
- An order that counts after the evidence contradicts it where the table says "after an order": the weight is multiplied
  by that share, and the evidence names what contradicts it.
- Events after the moment asked for are not seen.

## Words

Exit reasons and texts, in English and Chinese, are read by a lexicon of phrases, the longest first. A negation takes a
phrase back ("not the price", 不是价格), and what is good speaks when negated ("never helpful", 不专业). Words that give
several types spread their weight. Words count in full in an exit answer, {closed_account:g} of it in the reason of a
closed account, {survey:g} in a survey, {complaint:g} in a complaint, which is evidence already. At most {limit:,}
characters are stored and read; texts are never logged.

## Learning

Verdicts of people (`POST /v1/customers/{{customer_id}}/churn-label`) let a run learn the weights: a multinomial
logistic regression whose Gaussian prior is centred on the weights below, so that few labels change little. Learned
weights serve only where their cross-validated log loss beats that of these by more than a standard error. Customers
whom nobody judged are not like those who were judged: label a sample, not only the clear cases.

## Limits

The weights are judgement, not measurement. A type is an account of the evidence that was sent, not of causes that left
no trace; events are taken to speak independently, which overstates certainty where one cause makes several of them.

"""


def page() -> str:
    """The text of ``docs/churn.md``."""
    introduction = _INTRODUCTION.format(
        cap=CAP,
        margin=MARGIN,
        prior=", ".join(f"{name} {share:.2f}" for name, share in zip(TYPES, PRIOR, strict=True)),
        prior_why=PRIOR_WHY,
        hint_prior=", ".join(f"{name} {share:.2f}" for name, share in zip(SUBTYPES, HINT_PRIOR, strict=True)),
        closed=float(reading.RETAINED[1]),
        anger=reading.ANGER_DAYS,
        pattern=reading.PATTERN_DAYS,
        count=reading.PATTERN_COUNT,
        limit=TEXT_LIMIT,
        closed_account=reading.CHANNEL["account.closed"],
        survey=reading.CHANNEL["survey.answered"],
        complaint=reading.CHANNEL["complaint.opened"],
    )
    return introduction + "\n".join((*_event_lines(), "", *_signal_lines())) + "\n"


def _event_lines() -> Iterator[str]:
    yield "## Events\n\nFields are optional unless marked *required*.\n"
    for kind in CATALOGUE:
        spoken = ", ".join(f"`{name}`" for name in kind.speaks_for) or "nothing by itself"
        yield f"### `{kind.name}`\n\n{kind.meaning} Speaks for: {spoken}.{' ' + kind.note if kind.note else ''}\n"
        yield f"Signals: {', '.join(f'`{code}`' for code in kind.signals)}.\n"
        for field in kind.fields:
            yield f"- `{field.name}` ({_describe(field)}){': ' + field.meaning if field.meaning else ''}"
        if kind.fields:
            yield ""


def _describe(field: EventField) -> str:
    words = {
        "label": "text, at most 100 characters",
        "text": f"text, at most {TEXT_LIMIT:,} characters",
        "choice": "one of " + ", ".join(f"`{value}`" for value in field.values),
        "number": f"number from {field.low:g} to {field.high:g}" if field.low is not None else "number",
        "moment": "RFC 3339",
    }.get(field.kind, field.kind)
    return f"{words}, *required*" if field.required else words


def _signal_lines() -> Iterator[str]:
    yield "## Signals\n\nLog-odds at full strength and age zero.\n"
    yield "| signal | speaks for | hints | half-life, days | after an order | why |\n|---|---|---|---|---|---|"
    for signal in SIGNALS:
        fades = "never fades" if signal.half_life_days is None else f"{signal.half_life_days:g}"
        left = "" if signal.after_order == 1 else f"{signal.after_order:g}"
        yield f"| `{signal.code}` | {_weights(signal)} | {_hints(signal)} | {fades} | {left} | {signal.why} |"


def _weights(signal: SignalKind) -> str:
    return ", ".join(f"{n} {w:+g}" for n, w in zip(TYPES, signal.weights, strict=False) if w) or "nothing"


def _hints(signal: SignalKind) -> str:
    return ", ".join(f"{name} {weight:+g}" for name, weight in zip(HINTS, signal.hints, strict=True) if weight)


def main(arguments: Sequence[str]) -> int:
    """Write the page, or with ``--check`` compare it."""
    if "--check" in arguments:
        return int(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
