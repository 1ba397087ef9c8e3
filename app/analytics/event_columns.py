"""Interaction events as columns: the types, what their codes count through, and the arrays that reading takes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from app.analytics.complaints import FloatArray, IntArray

SERVQUAL = ("reliability", "responsiveness", "assurance", "empathy", "tangibles")

DETAILS: Mapping[str, tuple[str, ...]] = {
    "order.placed": (),
    "order.delivered": (),
    "customer.relocated": ("outside", "inside"),
    "customer.deceased": (),
    "customer.closed_business": (),
    "account.closed": (),
    "competitor.mentioned": (),
    "competitor.chosen": ("price", "service", "product"),
    "price.objected": (),
    "complaint.opened": ("low", "medium", "high"),
    "complaint.reopened": (),
    "complaint.resolved": ("unsatisfied", "satisfied"),
    "delivery.failed": (),
    "support.unresolved": (),
    "payment.failed": ("expired_card", "insufficient_funds", "forgotten", "other"),
    "payment.overdue": (),
    "payment.withheld": (),
    "payment.disputed": (),
    "renewal.missed": (),
    "fraud.flagged": (),
    "credit.downgraded": (),
    "survey.answered": ("nps", "csat", "effort", "servqual", "price", *SERVQUAL),
    "exit.answered": (),
    "visit.recorded": (),
    "custom.recorded": ("natural", "competitive", "passive", "negligent"),
}
"""Event types, and of each the values its `detail` code counts through. A survey's is its kind, but for SERVQUAL its
dimension if that is known; `price` is the dimension price or value."""

EVENT_TYPES = tuple(DETAILS)
EVENT_CODE: Mapping[str, int] = {name: code for code, name in enumerate(EVENT_TYPES)}


NPS = DETAILS["survey.answered"].index("nps")
CSAT = DETAILS["survey.answered"].index("csat")
_DEFAULT_SCALE = np.array([10.0, 5.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0])


@dataclass(frozen=True, slots=True)
class EventColumns:
    """Events of n customers as columns, in any order; see `event_columns`."""

    customer: IntArray
    kind: IntArray
    occurred_at: FloatArray
    detail: IntArray
    number: FloatArray
    scale: FloatArray
    subject: IntArray
    reason: IntArray
    text: IntArray


def event_columns(
    customer: ArrayLike,
    kind: ArrayLike,
    occurred_at: ArrayLike,
    *,
    detail: ArrayLike | None = None,
    number: ArrayLike | None = None,
    scale: ArrayLike | None = None,
    subject: ArrayLike | None = None,
    reason: ArrayLike | None = None,
    text: ArrayLike | None = None,
) -> EventColumns:
    """Event columns with what is left out filled in.

    Parameters
    ----------
    customer : array_like of int, shape (m,)
        0 to n − 1.
    kind : array_like of int, shape (m,)
        Position in `EVENT_TYPES`. Orders that do not count must be left out.
    occurred_at : array_like of float, shape (m,)
        Days since any fixed moment.
    detail : array_like of int, optional
        Position in `DETAILS` of the type; −1 where not told.
    number : array_like of float, optional
        `order.delivered`: calendar days from the promised day to the day of delivery; `survey.answered`: the score;
        `custom.recorded`: log-odds, 1 if not told. NaN where not told.
    scale : array_like of float, optional
        Top mark of a survey's scale; NaN for the usual one (NPS 10, CSAT 5, effort and SERVQUAL 7).
    subject : array_like of int, optional
        The complaint of a complaint event: any integer, unique within the customer.
    reason, text : array_like of int, optional
        Rows of the read texts; −1 where nothing was said.

    Raises
    ------
    ValueError
        If lengths differ.
    """
    who = np.asarray(customer, dtype=np.int64)

    def ints(values: ArrayLike | None) -> IntArray:
        return np.full(who.size, -1) if values is None else np.asarray(values, dtype=np.int64)

    def floats(values: ArrayLike | None) -> FloatArray:
        return np.full(who.size, np.nan) if values is None else np.asarray(values, dtype=np.float64)

    columns = EventColumns(
        who, ints(kind), floats(occurred_at), ints(detail), floats(number), floats(scale), ints(subject),
        ints(reason), ints(text),
    )  # fmt: skip
    shapes = {getattr(columns, name).shape for name in EventColumns.__slots__}
    if shapes != {(who.size,)}:
        raise ValueError("event columns must be one-dimensional and of one length")
    return columns


def survey_goodness(detail: IntArray, score: FloatArray, scale: FloatArray) -> FloatArray:
    """How good a survey's answer is, 0 worst to 1 best; NaN where it cannot be told.

    NPS runs from 0, every other scale from 1. Effort is read as the Customer Effort Score 2.0: the higher, the easier.

    Parameters
    ----------
    detail : ndarray of int, shape (m,)
        Position in `DETAILS["survey.answered"]`; −1 makes the answer NaN.
    score, scale : ndarray of float, shape (m,)
        Mark given, and top mark (NaN for the usual one).
    """
    top = np.where(np.isfinite(scale) & (scale > 1), scale, _DEFAULT_SCALE[np.maximum(detail, 0)])
    bottom = np.where(detail == NPS, 0.0, 1.0)
    goodness = np.clip((score - bottom) / (top - bottom), 0.0, 1.0)
    return np.where(detail >= 0, goodness, np.nan)
