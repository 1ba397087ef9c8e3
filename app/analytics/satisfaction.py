"""Satisfaction figures: complaints and how long they last, CSAT, NPS and late deliveries, of any groups of events.

A group is whatever the caller counts by: a customer, a period, or everybody.
"""

from dataclasses import dataclass

import numpy as np

from app.analytics import complaints as course
from app.analytics.complaints import BoolArray, FloatArray, IntArray
from app.analytics.event_columns import CSAT, EVENT_CODE, NPS, EventColumns, survey_goodness

_OPENED, _REOPENED, _RESOLVED = (EVENT_CODE[f"complaint.{step}"] for step in ("opened", "reopened", "resolved"))
_SURVEY, _DELIVERED = EVENT_CODE["survey.answered"], EVENT_CODE["order.delivered"]


@dataclass(frozen=True, slots=True)
class Satisfaction:
    """Figures of g groups, shape (g,) each; counts are int, the rest float with NaN where there is nothing to tell.

    Parameters
    ----------
    complaints, complaints_open : ndarray of int
        Complaints, and those of them not resolved at `as_of`. A complaint belongs to the group of its first event.
    resolution_days : ndarray of float
        Median days from the first opening to the last resolution, of complaints resolved at `as_of`.
    csat_answers : ndarray of int
    csat : ndarray of float
        Share of CSAT answers in the upper part of the scale (4 and 5 of 5), 0 to 1.
    nps_answers : ndarray of int
    nps : ndarray of float
        Net Promoter Score (Reichheld, 2003): per cent promoters (9 and 10 of 10) less per cent detractors (0 to 6),
        −100 to 100.
    deliveries : ndarray of int
        With a promised day.
    late_share : ndarray of float
        Share of them that came on a later day, 0 to 1.
    """

    complaints: IntArray
    complaints_open: IntArray
    resolution_days: FloatArray
    csat_answers: IntArray
    csat: FloatArray
    nps_answers: IntArray
    nps: FloatArray
    deliveries: IntArray
    late_share: FloatArray


def satisfaction(events: EventColumns, group: IntArray, groups: int, as_of: float) -> Satisfaction:
    """Figures of each group, of events up to `as_of`.

    Another scale than 0 to 10 (NPS) or 1 to 5 (CSAT) is brought to it in proportion.

    Parameters
    ----------
    events : EventColumns
        In any order. `customer` and `subject` name a complaint; texts are not looked at.
    group : ndarray of int, shape (m,)
        Group of each event, 0 to g − 1: `events.customer` for figures by customer, zeros for all together, a period.
    groups : int
        g.
    as_of : float
        Days, on the axis of `occurred_at`.

    Raises
    ------
    ValueError
        If `group` has another length or is out of range.
    """
    if group.shape != events.customer.shape:
        raise ValueError("group must have one element an event")
    if group.size and not (group.min() >= 0 and group.max() < groups):
        raise ValueError("groups must be from 0 to groups - 1")
    past = events.occurred_at <= as_of
    kind = events.kind

    complaint = np.flatnonzero(past & ((kind == _OPENED) | (kind == _REOPENED) | (kind == _RESOLVED)))
    step = np.select([kind[complaint] == _OPENED, kind[complaint] == _REOPENED], [0, 1], 2)
    satisfied = np.where((step == course.RESOLVED) & (events.detail[complaint] <= 1), events.detail[complaint], -1)
    courses = course.follow_complaints(
        events.customer[complaint], events.subject[complaint], events.occurred_at[complaint], step, satisfied
    )
    first = np.flatnonzero(np.diff(courses.complaint, prepend=-1))
    of_group = group[complaint[courses.rows[first]]]
    is_open = courses.final == course.OPEN
    lasted = courses.ended - courses.first_opened
    resolved = np.isfinite(lasted)

    survey = np.flatnonzero(past & (kind == _SURVEY) & np.isfinite(events.number))
    goodness = survey_goodness(events.detail[survey], events.number[survey], events.scale[survey])
    is_nps, is_csat = events.detail[survey] == NPS, events.detail[survey] == CSAT
    net = np.where(goodness > 0.9 - 1e-9, 1.0, np.where(goodness < 0.7 - 1e-9, -1.0, 0.0))
    content = (goodness > 0.75 - 1e-9).astype(np.float64)
    nps_answers, nps = _mean(group[survey], net, is_nps, groups)
    csat_answers, csat = _mean(group[survey], content, is_csat, groups)

    promised = np.flatnonzero(past & (kind == _DELIVERED) & np.isfinite(events.number))
    late = (events.number[promised] > 0).astype(np.float64)
    deliveries, late_share = _mean(group[promised], late, np.ones(promised.size, dtype=bool), groups)
    return Satisfaction(
        complaints=np.bincount(of_group, minlength=groups),
        complaints_open=np.bincount(of_group[is_open], minlength=groups),
        resolution_days=_median(of_group[resolved], lasted[resolved], groups),
        csat_answers=csat_answers,
        csat=csat,
        nps_answers=nps_answers,
        nps=100 * nps,
        deliveries=deliveries,
        late_share=late_share,
    )


def _mean(group: IntArray, values: FloatArray, which: BoolArray, groups: int) -> tuple[IntArray, FloatArray]:
    """Count and mean of the values of each group; NaN for an empty one."""
    count = np.bincount(group[which], minlength=groups)
    total = np.bincount(group[which], weights=values[which], minlength=groups)
    return count, np.divide(total, count, out=np.full(groups, np.nan), where=count > 0)


def _median(group: IntArray, values: FloatArray, groups: int) -> FloatArray:
    """Median of the values of each group; NaN for an empty one."""
    order = np.lexsort((values, group))
    count = np.bincount(group, minlength=groups)
    start = np.cumsum(count) - count
    some = count > 0
    lower, upper = start + np.maximum(count - 1, 0) // 2, start + count // 2
    median = np.full(groups, np.nan)
    median[some] = (values[order[lower[some]]] + values[order[upper[some]]]) / 2
    return median
