"""Use case: record events. What a receipt acknowledges is committed.

A large batch is a transaction of its own. Small ones of a workspace that come at the same time share a transaction,
and so the flush of the log that every commit waits for: while one is on its way, the next gathers.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from typing import Any, Literal, TypeAlias

from sqlalchemy.ext.asyncio import AsyncEngine

from app.candidates import Candidates, prepare
from app.recording import StoredForm, Verdict, form_ahead, record_rows
from app.rejections import Rejection
from app.store.engine import is_outage
from app.store.workspaces import Workspace
from app.threads import apart_if
from app.transactions import committed

INLINE_BYTES = 50_000
"""Larger bodies are read and validated in a thread, so that other requests are answered meanwhile."""

SHARED_EVENTS = 100
"""Batches of at most so many events share a transaction, which has at most ten times as many."""


def is_large(events: int, size_bytes: int) -> bool:
    """Whether so many events are too much to share a transaction, or to be read while others wait."""
    return events > SHARED_EVENTS or size_bytes > INLINE_BYTES


Outcome: TypeAlias = Literal["accepted", "duplicate"] | Rejection
"""What became of an item of a batch."""


@dataclass(slots=True)
class Receipt:
    accepted: int = 0
    duplicates: int = 0
    errors: list[Rejection] = field(default_factory=list)

    @property
    def rejected(self) -> int:
        return len(self.errors)


def refusals(candidates: Candidates, verdicts: Sequence[Verdict]) -> list[Rejection]:
    """The valid events that were not taken."""
    return [
        Rejection(place, row.event_id, *verdict)
        for place, row, verdict in zip(candidates.places, candidates.rows, verdicts, strict=True)
        if not isinstance(verdict, str)
    ]


def _outcomes(candidates: Candidates, verdicts: Sequence[Verdict], rejections: Sequence[Rejection]) -> list[Outcome]:
    """In the order of the items."""
    of_place: dict[int, Any] = dict(zip(candidates.places, verdicts, strict=True))
    for rejection in (*rejections, *refusals(candidates, verdicts)):
        of_place[rejection.index] = rejection
    return [of_place[place] for place in range(len(of_place))]


def _receipt_for(outcomes: Sequence[Outcome]) -> Receipt:
    errors = [replace(outcome, index=index) for index, outcome in enumerate(outcomes) if not isinstance(outcome, str)]
    return Receipt(outcomes.count("accepted"), outcomes.count("duplicate"), errors)


def _prepare_form(
    workspace: Workspace, items: Sequence[Any], received_at: datetime
) -> tuple[Candidates, list[Rejection], StoredForm | None]:
    candidates, rejections = prepare(workspace, items, received_at)
    return candidates, rejections, form_ahead(workspace, candidates.rows)


@dataclass(slots=True)
class _Waiting:
    """A small batch that waits for the next shared transaction."""

    items: Sequence[Any]
    size_bytes: int
    received_at: datetime
    receipt: asyncio.Future[Receipt]


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
        if not is_large(len(items), size_bytes):
            return await self._record_shared(workspace, items, received_at, size_bytes)
        async with self._turns:
            return _receipt_for(await self._record_alone(workspace, items, received_at, is_long=True))

    async def _record_alone(
        self, workspace: Workspace, items: Sequence[Any], received_at: datetime, is_long: bool
    ) -> list[Outcome]:
        """What became of each, once the valid ones are committed in one transaction."""
        candidates, rejections, form = await apart_if(is_long, _prepare_form, workspace, items, received_at)
        rows = candidates.rows
        verdicts: list[Verdict] = []
        if rows:
            verdicts = await committed(
                self._engine,
                lambda connection, tries: record_rows(connection, workspace, rows, received_at, tries, form),
            )
        return _outcomes(candidates, verdicts, rejections)

    async def _record_shared(
        self, workspace: Workspace, items: Sequence[Any], received_at: datetime, size_bytes: int
    ) -> Receipt:
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(workspace.id)
        if waiting is None:
            waiting = self._waiting[workspace.id] = []
            task = asyncio.create_task(self._share(workspace, waiting))
            self._sharing.add(task)
            task.add_done_callback(self._sharing.discard)
        waiting.append(_Waiting(items, size_bytes, received_at, receipt))
        return await receipt

    async def _share(self, workspace: Workspace, waiting: list[_Waiting]) -> None:
        """Record all that waits, in as few transactions as fit, until nothing does."""
        while waiting:
            async with self._turns:
                group: list[_Waiting] = []
                count = 0
                while waiting and count + len(waiting[0].items) <= 10 * SHARED_EVENTS:
                    group.append(waiting.pop(0))
                    count += len(group[-1].items)
                await self._record_group(workspace, group)
        del self._waiting[workspace.id]

    async def _record_group(self, workspace: Workspace, group: Sequence[_Waiting]) -> None:
        # Together they are also read in less time than one by one.
        items = [item for one in group for item in one.items]
        received_at = max(one.received_at for one in group)
        is_long = is_large(len(items), sum(one.size_bytes for one in group))
        try:
            outcomes = iter(await self._record_alone(workspace, items, received_at, is_long))
            receipts = [_receipt_for(list(islice(outcomes, len(one.items)))) for one in group]
        except Exception as error:
            # One that the database refuses must not hurt the others; an outage hurts all of them alike.
            if len(group) > 1 and not is_outage(error):
                half = len(group) // 2
                await self._record_group(workspace, group[:half])
                await self._record_group(workspace, group[half:])
                return
            for one in group:
                if not one.receipt.done():
                    one.receipt.set_exception(error)
            return
        for one, receipt in zip(group, receipts, strict=True):
            if not one.receipt.done():
                one.receipt.set_result(receipt)
