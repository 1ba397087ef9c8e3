"""Use case: record events. What a receipt acknowledges is committed.

A large batch is a transaction of its own. Small ones of a workspace that come at the same time share a transaction,
and so the flush of the log that every commit waits for: while one is on its way, the next gathers.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.candidates import Candidates, prepare
from app.recording import StoredForm, Verdict, form_ahead, record_rows
from app.rejections import Rejection
from app.store.engine import is_outage
from app.store.events import EventRow
from app.store.workspaces import Workspace
from app.transactions import committed

INLINE_BYTES = 50_000
"""Larger bodies are read and validated in a thread, so that other requests are answered meanwhile."""

SHARED_EVENTS = 100
"""Batches of at most so many events share a transaction, which has at most ten times as many."""


@dataclass(slots=True)
class Receipt:
    accepted: int = 0
    duplicates: int = 0
    errors: list[Rejection] = field(default_factory=list)

    @property
    def rejected(self) -> int:
        return len(self.errors)


def receipt_for(candidates: Candidates, verdicts: Sequence[Verdict], rejections: Sequence[Rejection]) -> Receipt:
    """The receipt of a batch: the verdicts on its valid events, and the rejections of the others, by their place."""
    errors = [
        Rejection(place, row.event_id, *verdict)
        for place, row, verdict in zip(candidates.places, candidates.rows, verdicts, strict=True)
        if not isinstance(verdict, str)
    ]
    errors += rejections
    return Receipt(
        verdicts.count("accepted"), verdicts.count("duplicate"), sorted(errors, key=lambda error: error.index)
    )


def _prepare_form(
    workspace: Workspace, items: Sequence[Any], received_at: datetime
) -> tuple[Candidates, list[Rejection], StoredForm | None]:
    candidates, rejections = prepare(workspace, items, received_at)
    return candidates, rejections, form_ahead(workspace, candidates.rows)


@dataclass(slots=True)
class _Waiting:
    """A small batch that waits for the next shared transaction."""

    rows: list[EventRow]
    verdicts: asyncio.Future[list[Verdict]]


class EventRecorder:
    """Records the batches that one process receives, at most `turns` transactions at a time."""

    def __init__(self, engine: AsyncEngine, turns: int) -> None:
        self._engine = engine
        # Batches wait here for their turn, not for a connection: reads must always find one.
        self._turns = asyncio.Semaphore(turns)
        self._waiting: dict[int, list[_Waiting]] = {}
        self._sharing: set[asyncio.Task[None]] = set()

    async def record(
        self, workspace: Workspace, items: Sequence[Any], received_at: datetime, size_bytes: int = 0
    ) -> Receipt:
        """Record a batch of events as they came off the wire, in so many bytes: each exactly once, for ever.

        ``items`` are JSON values (``Unreadable`` for one that is none). Invalid ones are named in the receipt and
        hurt no other. All valid ones are committed together, or none is and an error is raised.
        """
        if len(items) <= SHARED_EVENTS and size_bytes <= INLINE_BYTES:
            candidates, rejections = prepare(workspace, items, received_at)
            verdicts = await self._record_shared(workspace, candidates.rows, received_at) if candidates.rows else []
        else:
            async with self._turns:
                candidates, rejections, form = await asyncio.to_thread(_prepare_form, workspace, items, received_at)
                rows = candidates.rows
                verdicts = await self._record_alone(workspace, rows, received_at, form) if rows else []
        return receipt_for(candidates, verdicts, rejections)

    async def _record_alone(
        self, workspace: Workspace, rows: Sequence[EventRow], received_at: datetime, form: StoredForm | None = None
    ) -> list[Verdict]:
        return await committed(
            self._engine, lambda connection, again: record_rows(connection, workspace, rows, received_at, again, form)
        )

    async def _record_shared(self, workspace: Workspace, rows: list[EventRow], received_at: datetime) -> list[Verdict]:
        verdicts: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(workspace.id)
        if waiting is None:
            waiting = self._waiting[workspace.id] = []
            task = asyncio.create_task(self._share(workspace, waiting))
            self._sharing.add(task)
            task.add_done_callback(self._sharing.discard)
        waiting.append(_Waiting(rows, verdicts))
        return await verdicts

    async def _share(self, workspace: Workspace, waiting: list[_Waiting]) -> None:
        """Record all that waits, in as few transactions as fit, until nothing does."""
        while waiting:
            async with self._turns:
                group: list[_Waiting] = []
                count = 0
                while waiting and count + len(waiting[0].rows) <= 10 * SHARED_EVENTS:
                    group.append(waiting.pop(0))
                    count += len(group[-1].rows)
                await self._record_group(workspace, group)
        del self._waiting[workspace.id]

    async def _record_group(self, workspace: Workspace, group: Sequence[_Waiting]) -> None:
        rows = [row for one in group for row in one.rows]
        try:
            verdicts = await self._record_alone(workspace, rows, max(row.received_at for row in rows))
        except Exception as error:
            # One that the database refuses must not hurt the others; an outage hurts all of them alike.
            if len(group) > 1 and isinstance(error, DBAPIError) and not is_outage(error):
                for one in group:
                    await self._record_group(workspace, [one])
                return
            for one in group:
                if not one.verdicts.done():
                    one.verdicts.set_exception(error)
            return
        start = 0
        for one in group:
            if not one.verdicts.done():
                one.verdicts.set_result(verdicts[start : start + len(one.rows)])
            start += len(one.rows)
