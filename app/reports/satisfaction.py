"""Use case: satisfaction figures of a workspace, of its months, and of a customer, from the events themselves."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.analytics.event_columns import DETAILS, EVENT_CODE, event_columns
from app.analytics.satisfaction import satisfaction
from app.catalogue import EventRow, days, encode_events
from app.customers import unknown_customer
from app.reports.churn_parts import Month
from app.reports.months import day_start, last_months, month_text
from app.scalars import Instant
from app.store import customers as customer_store
from app.store import interactions as interaction_store
from app.store import report_queries as store
from app.store.engine import autocommit
from app.store.workspaces import Workspace

_PLACES = 6
"""Of a day: a tenth of a second."""

_TYPES = ("complaint.opened", "complaint.reopened", "complaint.resolved", "survey.answered", "order.delivered")


@dataclass(frozen=True, slots=True)
class SatisfactionFigures:
    """How content customers were, as far as they said. Shares are 0 to 1; null of nothing."""

    complaints: Annotated[int, Field(description="A complaint counts when its first event happened.", examples=[12])]
    complaints_open: Annotated[int, Field(description="Those of them not resolved at `as_of`.", examples=[3])]
    resolution_days: Annotated[
        float | None,
        Field(description="Median, from opening to last resolution, of those resolved at `as_of`.", examples=[2.5]),
    ]
    csat_answers: Annotated[int, Field(examples=[80])]
    csat: Annotated[float | None, Field(description="Share of marks in the upper part: 4, 5 of 5.", examples=[0.85])]
    nps_answers: Annotated[int, Field(examples=[60])]
    nps: Annotated[
        float | None, Field(description="Per cent promoters less per cent detractors: -100 to 100.", examples=[31])
    ]
    deliveries: Annotated[int, Field(description="With a promised day.", examples=[240])]
    late_share: Annotated[float | None, Field(description="Of them, on a later day.", examples=[0.08])]


@dataclass(frozen=True, slots=True)
class SatisfactionMonth:
    """A calendar month in the workspace's time zone; the last one up to `as_of`."""

    month: Month
    figures: SatisfactionFigures


@dataclass(frozen=True, slots=True)
class SatisfactionReport:
    """Satisfaction of all customers at a moment, from the events themselves; no run is needed."""

    as_of: Instant
    time_zone: Annotated[str, Field(examples=["Europe/Berlin"])]
    figures: Annotated[SatisfactionFigures, Field(description="Of all time up to `as_of`.")]
    months: Annotated[list[SatisfactionMonth], Field(description="Oldest first, empty ones too.")]


@dataclass(frozen=True, slots=True)
class CustomerSatisfaction:
    """Satisfaction of one customer at a moment."""

    customer_id: Annotated[str, Field(examples=["c-42"])]
    as_of: Instant
    figures: SatisfactionFigures


async def satisfaction_report(
    engine: AsyncEngine, workspace: Workspace, as_of: datetime, months: int
) -> SatisfactionReport:
    """Figures of all time up to ``as_of``, and of its last ``months`` calendar months."""
    shown = last_months(workspace.local_day(as_of), months)
    async with autocommit(engine).connect() as connection:
        complaints = await store.count_complaints(connection, workspace.id, as_of, shown[0])
        answers = await store.count_answers(connection, workspace.id, as_of, shown[0])
        every_day, starts = _days(workspace, await store.event_span(connection, workspace.id))
        deliveries = await store.count_deliveries(connection, workspace.id, as_of, shown[0], every_day, starts)
    # The last place is of all time.
    place: dict[date | None, int] = {month: number for number, month in enumerate(shown)}
    found = await asyncio.to_thread(_figures, complaints, answers, deliveries, place)
    return SatisfactionReport(
        as_of=as_of,
        time_zone=workspace.time_zone.key,
        figures=found[-1],
        months=[
            SatisfactionMonth(month_text(month), figures) for month, figures in zip(shown, found[:-1], strict=True)
        ],
    )


def _days(workspace: Workspace, span: Row[Any]) -> tuple[list[date], list[datetime]]:
    """Every day from the first event to the last, and when each began in the workspace."""
    if span.first is None:
        return [], []
    first, last = workspace.local_day(span.first), workspace.local_day(span.last)
    every_day = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return every_day, [day_start(day, workspace.time_zone) for day in every_day]


def _figures(
    complaints: Sequence[Row[Any]],
    answers: Sequence[Row[Any]],
    deliveries: Sequence[Row[Any]],
    place: dict[date | None, int],
) -> list[SatisfactionFigures]:
    """Figures of each month by its place, and last of all time. Rows of other months count for all time only."""
    size = len(place) + 1
    by_month = {size - 1 if row.overall else place[row.month]: row for row in complaints}

    def sums(rows: Sequence[Row[Any]], values: Any) -> NDArray[np.float64]:
        numbers = np.asarray(values, dtype=np.float64)
        places = np.array([place.get(row.month, size - 1) for row in rows], dtype=np.int64)
        total = np.bincount(places, weights=numbers, minlength=size).astype(np.float64)
        total[-1] = numbers.sum()
        return total

    # A mark given n times counts n times what it counts once.
    told = satisfaction(
        event_columns(
            np.zeros(len(answers)),
            np.full(len(answers), EVENT_CODE["survey.answered"]),
            np.zeros(len(answers)),
            detail=[DETAILS["survey.answered"].index(row.kind) for row in answers],
            number=[row.score for row in answers],
            scale=[np.nan if row.scale is None else row.scale for row in answers],
        ),
        np.arange(len(answers)),
        len(answers),
        0.0,
    )
    given = np.array([row.answers for row in answers], dtype=np.float64)
    csat_answers, nps_answers = (sums(answers, given * count) for count in (told.csat_answers, told.nps_answers))
    csat, nps = (sums(answers, given * np.nan_to_num(mark)) for mark in (told.csat, told.nps))
    delivered, late = (
        sums(deliveries, [row.deliveries for row in deliveries]),
        sums(deliveries, [row.late for row in deliveries]),
    )

    def one(number: int) -> SatisfactionFigures:
        row = by_month.get(number)
        return SatisfactionFigures(
            complaints=row.complaints if row else 0,
            complaints_open=row.open if row else 0,
            resolution_days=_rounded(row.resolution_days) if row and row.resolution_days is not None else None,
            csat_answers=int(csat_answers[number]),
            csat=_ratio(csat[number], csat_answers[number]),
            nps_answers=int(nps_answers[number]),
            nps=_ratio(nps[number], nps_answers[number]),
            deliveries=int(delivered[number]),
            late_share=_ratio(late[number], delivered[number]),
        )

    return [one(number) for number in range(size)]


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _rounded(value: float) -> float:
    return round(value, _PLACES)


async def customer_satisfaction(
    engine: AsyncEngine, workspace: Workspace, customer_id: str, as_of: datetime
) -> CustomerSatisfaction:
    """Figures of a customer's events up to ``as_of``. Raises ``NotFound`` where there is no such customer."""
    async with autocommit(engine).connect() as connection:
        events = await interaction_store.read_interactions(connection, workspace.id, [customer_id], as_of)
        if not events and await customer_store.find_customer(connection, workspace.id, customer_id) is None:
            raise unknown_customer()
    figures = await asyncio.to_thread(_figures_of_customer, events, workspace.time_zone, as_of)
    return CustomerSatisfaction(customer_id, as_of, figures)


def _figures_of_customer(events: Sequence[Row[Any]], zone: tzinfo, as_of: datetime) -> SatisfactionFigures:
    columns, _ = encode_events(
        [
            EventRow(0, event.type, event.occurred_at, json.loads(event.data) if event.data else {})
            for event in events
            if event.type in _TYPES
        ],
        zone,
    )
    told = satisfaction(columns, columns.customer, 1, days(as_of))

    def known(values: NDArray[np.float64]) -> float | None:
        return None if np.isnan(values[0]) else _rounded(float(values[0]))

    return SatisfactionFigures(
        complaints=int(told.complaints[0]),
        complaints_open=int(told.complaints_open[0]),
        resolution_days=known(told.resolution_days),
        csat_answers=int(told.csat_answers[0]),
        csat=known(told.csat),
        nps_answers=int(told.nps_answers[0]),
        nps=known(told.nps),
        deliveries=int(told.deliveries[0]),
        late_share=known(told.late_share),
    )
