"""The course of each complaint, from its events: open, closed, settled, or answered without satisfaction."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

OPENED, REOPENED, RESOLVED = range(3)
OPEN, CLOSED, SETTLED, UNSATISFIED = range(4)
"""States: open; resolved without a word on satisfaction; resolved to satisfaction; resolved, but not satisfied."""

UNSTATED, DISSATISFIED, SATISFIED = -1, 0, 1


@dataclass(frozen=True, slots=True)
class Complaints:
    """Complaints, and the events they are made of in the order of their course.

    Parameters
    ----------
    rows : ndarray of int, shape (m,)
        Positions in the input, sorted by customer, complaint, moment, and at one moment opened, reopened, resolved.
    complaint : ndarray of int, shape (m,)
        The complaint each row belongs to, 0 to c − 1.
    state : ndarray of int, shape (m,)
        State from that row on.
    final : ndarray of int, shape (c,)
        State after the last row.
    last : ndarray of int, shape (c,)
        Position in the input of the last row.
    customer : ndarray of int, shape (c,)
    first_opened : ndarray of float, shape (c,)
        Moment of the first event that opened it, in days; NaN where no opening is known.
    ended : ndarray of float, shape (c,)
        Moment of the last resolution, in days; NaN where the complaint is open.
    """

    rows: IntArray
    complaint: IntArray
    state: IntArray
    final: IntArray
    last: IntArray
    customer: IntArray
    first_opened: FloatArray
    ended: FloatArray


def follow_complaints(
    customer: IntArray, subject: IntArray, occurred_at: FloatArray, step: IntArray, satisfied: IntArray
) -> Complaints:
    """Follow each complaint through its events.

    Parameters
    ----------
    customer, subject : ndarray of int, shape (m,)
        Together they name the complaint; `subject` is any integer, unique within the customer.
    occurred_at : ndarray of float, shape (m,)
        Days.
    step : ndarray of int, shape (m,)
        0 opened, 1 reopened, 2 resolved.
    satisfied : ndarray of int, shape (m,)
        Of a resolution: 1 satisfied, 0 not, −1 not told.
    """
    # Of resolutions at one moment the better verdict stands, so that the order of the input never matters.
    rows = np.lexsort((satisfied, step, occurred_at, subject, customer)).astype(np.int64)
    who, what, when, how = customer[rows], subject[rows], occurred_at[rows], step[rows]
    starts = np.ones(rows.size, dtype=bool)
    starts[1:] = (who[1:] != who[:-1]) | (what[1:] != what[:-1])
    complaint = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    last = np.append(first[1:], rows.size)[: first.size] - 1
    by_verdict = np.array([CLOSED, UNSATISFIED, SETTLED])
    state = np.where(how == RESOLVED, by_verdict[satisfied[rows] + 1], OPEN)
    final = state[last]
    first_opened = np.full(first.size, np.inf)
    np.minimum.at(first_opened, complaint, np.where(how == OPENED, when, np.inf))
    return Complaints(
        rows=rows,
        complaint=complaint,
        state=state,
        final=final,
        last=rows[last],
        customer=who[first],
        first_opened=np.where(np.isfinite(first_opened), first_opened, np.nan),
        ended=np.where(final == OPEN, np.nan, when[last]),
    )
