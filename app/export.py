"""Use case: all that is stored of a customer, in pages, so that no connection is held while one is read."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app import stored_values
from app.customers import CustomerRecord, EventRecord, get_customer, list_events
from app.errors import Gone, NotFound
from app.fits import Fits
from app.scalars import show_decimal
from app.store import interactions as interaction_store
from app.store import runs as run_store
from app.store import scores as score_store
from app.store.engine import autocommit
from app.store.workspaces import Workspace
from app.value import Value

EVENTS_A_PAGE = 1_000
HISTORY_A_PAGE = 1_000

Kind = Literal["profile", "summary", "event", "label", "score", "history"]


@dataclass(frozen=True, slots=True)
class Label:
    """A person's verdict on why the customer left."""

    type: str
    subtype: str | None
    labelled_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """Something that is stored of the customer: of the kinds ``profile`` and ``summary`` the customer's record."""

    kind: Kind
    content: CustomerRecord | EventRecord | Label | Value | Mapping[str, Any]


async def export_customer(
    engine: AsyncEngine, fits: Fits, workspace: Workspace, customer_id: str
) -> AsyncIterator[list[ExportRecord]]:
    """Begin an export: the pages of what is stored of the customer, each read when it is asked for.

    Raises ``NotFound`` for a customer that there is not, before the first page is asked for.
    """
    customer = await get_customer(engine, workspace, customer_id)
    return _pages(engine, fits, workspace, customer)


async def _pages(
    engine: AsyncEngine, fits: Fits, workspace: Workspace, customer: CustomerRecord
) -> AsyncIterator[list[ExportRecord]]:
    yield [ExportRecord("profile", customer), ExportRecord("summary", customer)]
    async for events in _events(engine, workspace, customer.customer_id):
        yield [ExportRecord("event", event) for event in events]
    async with autocommit(engine).connect() as connection:
        label = await interaction_store.find_label(connection, workspace.id, customer.customer_id)
        kept = await run_store.list_kept_runs(connection, workspace.id)
    if label is not None:
        yield [ExportRecord("label", Label(label.type, label.subtype, label.labelled_at, label.recorded_at))]
    for run_name in kept:
        try:
            value = await stored_values.cached_value(engine, fits, workspace, customer.customer_id, run_name)
        except (NotFound, Gone):
            # Not one of those whom the run scored, or a newer run has come meanwhile.
            continue
        yield [ExportRecord("score", value)]
    async for page in _history(engine, workspace, customer.customer_id):
        yield [ExportRecord("history", _history_content(row)) for row in page]


async def _events(engine: AsyncEngine, workspace: Workspace, customer_id: str) -> AsyncIterator[list[EventRecord]]:
    before = None
    while True:
        try:
            page = await list_events(engine, workspace, customer_id, before, EVENTS_A_PAGE)
        except NotFound:
            # Erased while it was read.
            return
        if page:
            yield page
        if len(page) < EVENTS_A_PAGE:
            return
        before = (page[-1].occurred_at, page[-1].id)


async def _history(engine: AsyncEngine, workspace: Workspace, customer_id: str) -> AsyncIterator[list[Row[Any]]]:
    after = 0
    while True:
        async with autocommit(engine).connect() as connection:
            page = await score_store.list_history(connection, workspace.id, customer_id, after, HISTORY_A_PAGE)
        if page:
            yield list(page)
        if len(page) < HISTORY_A_PAGE:
            return
        after = page[-1].run_id


def _history_content(row: Row[Any]) -> dict[str, Any]:
    return {
        "run_id": row.run_name,
        "as_of": row.as_of,
        "r": row.r,
        "f": row.f,
        "m": row.m,
        "segment": row.segment,
        "abc_grade": row.abc_grade,
        "net_spend": show_decimal(row.net_spend),
        "clv_total": None if row.clv_total is None else show_decimal(row.clv_total),
        "churn_state": row.churn_state,
        "churn_type": row.churn_type,
    }
