"""The job of the worker: work an import's chunks off.

Each step is a transaction that stores events (or stages lines), deletes what it read, and moves the import's position,
under the lock of the import's row. So a job may be cut short at any moment, by kill -9 too, and done again: it goes on
where the last committed step ended, and nothing is lost or counted twice.
"""

import asyncio
import contextlib
import json
import logging
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.candidates import Candidates, prepare
from app.imports.mapping import ImportMapping, find_columns
from app.imports.orders import MOST_ITEMS, Unfit, event_id, order_event
from app.imports.progress import LISTED_BAD_ROWS
from app.imports.reading import Line, Note, Reading, RowReader, order_events, read_event_lines
from app.ingest import refusals
from app.recording import StoredForm, form_ahead, record_rows
from app.rejections import Rejection
from app.store import imports as store
from app.store import queue, wall
from app.store import workspaces as workspace_store
from app.store.engine import autocommit, is_outage
from app.store.imports import BadRow
from app.store.workspaces import Workspace
from app.transactions import committed

logger = logging.getLogger(__name__)

BATCH_EVENTS = 10_000
"""Of a chunk that was begun, the number of batches done is stored: with another bound it would mean other events."""

BATCH_ORDERS = 5_000
MAX_FRUITLESS_STARTS = 20
"""So often an import is begun without getting anywhere, before it is given up: its worker is killed each time."""

ABANDONED_AFTER = timedelta(hours=1)

# Where the columns of a mapping end up in an event, for the details of bad rows.
_FIELD_OF_POINTER = {
    "/id": "order_id",
    "/customer_id": "customer_id",
    "/occurred_at": "occurred_at",
    "/data/order_id": "order_id",
    "/data/amount": "amount",
    "/data/cost": "cost",
    "/data/currency": "currency",
    "/data/exchange_rate": "exchange_rate",
    "/data/channel": "channel",
    "/data/campaign_id": "campaign_id",
}


@dataclass(slots=True)
class Batch:
    """What one transaction stores: candidates, the line that each came from, and what is told of the rest."""

    candidates: Candidates = field(default_factory=Candidates)
    form: StoredForm | None = None
    line_of: Sequence[int] = ()
    bad: list[BadRow] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lines: list[Line] = field(default_factory=list)


async def run_import_job(engine: AsyncEngine, payload: bytes, ending: asyncio.Event) -> None:
    """Do a queued import, or go on with one that was cut short."""
    import_id = payload.decode()
    async with engine.begin() as connection:
        row = await store.start_import(connection, import_id, datetime.now(UTC))
        if row is None:
            return
        workspace = await workspace_store.get_workspace(connection, row.workspace_id)
    try:
        if row.fruitless_starts > MAX_FRUITLESS_STARTS:
            await _fail(engine, import_id, "interrupted", "The import was cut short again and again at the same place.")
            return
        with wall.inside(workspace.id):
            await _Work(engine, workspace, row, ending).run()
    except queue.Interrupted:
        async with engine.begin() as connection:
            await store.record_progress(connection, import_id, {}, {}, datetime.now(UTC))
        raise
    except Exception as error:
        if is_outage(error):
            raise
        logger.exception("import %s failed", import_id)
        await _fail(engine, import_id, "internal_error", "Something went wrong on our side.")


async def remove_abandoned_uploads(engine: AsyncEngine) -> None:
    """Remove what a web process that was killed left of an upload."""
    async with engine.begin() as connection:
        await store.delete_abandoned_uploads(connection, datetime.now(UTC), ABANDONED_AFTER)


async def _fail(engine: AsyncEngine, import_id: str, code: str, detail: str) -> None:
    async with engine.begin() as connection:
        await store.fail_import(connection, import_id, code, detail, datetime.now(UTC))


class _Work:
    """One import in work. ``_chunk``, ``_batch`` and ``_orders`` are the position up to which all is committed."""

    def __init__(self, engine: AsyncEngine, workspace: Workspace, row: Row[Any], ending: asyncio.Event) -> None:
        self._engine = engine
        self._workspace = workspace
        self._id: str = row.id
        self._ending = ending
        # Verdicts of the clock are those of the moment the file came, however late it is worked off.
        self._received_at: datetime = row.created_at
        self._chunk_count: int = row.chunk_count
        self._chunk: int = row.chunks_done
        self._batch: int = row.batches_done
        self._order_count: int | None = row.order_count
        self._orders: int = row.orders_done
        self._reader: RowReader | None = None
        if row.mapping:
            mapping = ImportMapping.model_validate_json(row.mapping)
            self._reader = RowReader(mapping, find_columns(mapping, row.header), workspace, self._received_at)

    async def run(self) -> None:
        await self._work_off_chunks()
        if self._reader is not None and self._reader.is_staged:
            await self._sum_lines(self._reader)
            await self._store_orders(self._reader)
        async with self._engine.begin() as connection:
            await store.succeed_import(connection, self._id, datetime.now(UTC))

    def _pause(self) -> None:
        """A safe point, after a step: all that was read is committed, or waits."""
        if self._ending.is_set():
            raise queue.Interrupted

    # ---- Chunks ----

    async def _work_off_chunks(self) -> None:
        """Store one chunk while the next is read in a thread."""
        upcoming = asyncio.ensure_future(self._read_chunk(self._chunk))
        try:
            while self._chunk < self._chunk_count:
                batches = await upcoming
                if self._batch >= len(batches):
                    # Better a failed import, which can be sent again, than one that leaves out what is not stored.
                    raise RuntimeError(f"chunk {self._chunk} has {len(batches)} batches, and {self._batch} are done")
                upcoming = asyncio.ensure_future(self._read_chunk(self._chunk + 1))
                while self._batch < len(batches):
                    is_last = self._batch == len(batches) - 1
                    await committed(
                        self._engine, partial(self._store_batch, batch=batches[self._batch], is_last=is_last)
                    )
                    self._batch += 1
                    self._pause()
                self._chunk += 1
                self._batch = 0
        finally:
            upcoming.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await upcoming

    async def _read_chunk(self, number: int) -> list[Batch]:
        if number >= self._chunk_count:
            return []
        async with autocommit(self._engine).connect() as connection:
            chunk = await store.find_chunk(connection, self._id, number)
        if chunk is None:
            # Whoever else is at work on this import has come further.
            raise queue.Interrupted
        reader = self._reader
        if reader is None:
            return await asyncio.to_thread(self._event_batches, chunk.content, chunk.first_line)
        reading = await asyncio.to_thread(lambda: reader.read(zlib.decompress(chunk.content), chunk.first_line))
        if reader.mapping.kind == "cancellations":
            events = await self._cancelled_orders(reading)
            return await asyncio.to_thread(self._batches, events, reading)
        if reader.is_staged:
            return [Batch(lines=reading.lines, bad=reading.bad, counts=reading.counts)]
        return await asyncio.to_thread(lambda: self._batches(order_events(reading, reader.mapping), reading))

    def _event_batches(self, content: bytes, first_line: int) -> list[Batch]:
        events = list(read_event_lines(zlib.decompress(content), first_line))
        return self._batches(events, Reading(counts=Counter(lines=len(events))))

    async def _cancelled_orders(self, reading: Reading) -> list[tuple[int, Any]]:
        """An event for each order that a note names; an order id that several customers have names all of them."""
        order_ids = sorted({note.order_id for note in reading.notes})
        found: dict[str, list[tuple[str, datetime]]] = {}
        async with autocommit(self._engine).connect() as connection:
            for order in await store.find_orders_anywhere(connection, self._workspace.id, order_ids):
                found.setdefault(order.order_id, []).append((order.customer_id, order.occurred_at))
        events: list[tuple[int, Any]] = []
        for note in reading.notes:
            orders = _orders_of(note, found)
            if not orders:
                detail = "The workspace has no such order; a note without its customer and time must name a known one."
                reading.bad.append(BadRow(note.line, "order_not_found", detail))
            for customer_id, occurred_at in orders:
                events.append(
                    (
                        note.line,
                        {
                            "id": event_id("cancel", note.order_id),
                            "type": "order.cancelled",
                            "occurred_at": occurred_at.isoformat(),
                            "customer_id": customer_id,
                            "data": {"order_id": note.order_id},
                        },
                    )
                )
        return events

    def _batches(self, events: Sequence[tuple[int, Any]], reading: Reading) -> list[Batch]:
        """Valid events in batches of even size; at least one batch, which tells what is wrong with the rest."""
        count = max(1, -(-len(events) // BATCH_EVENTS))
        size = -(-len(events) // count)
        batches = []
        for start in range(0, max(1, len(events)), max(1, size)):
            part = events[start : start + size]
            lines = [line for line, _ in part]
            candidates, rejections = prepare(self._workspace, [event for _, event in part], self._received_at)
            # Made while the batch before is on its way to the database.
            form = form_ahead(self._workspace, candidates.rows)
            batches.append(Batch(candidates, form, lines, self._bad_rows(rejections, lines)))
        batches[0].bad += reading.bad
        batches[0].counts = reading.counts
        return batches

    def _bad_rows(self, rejections: Iterable[Rejection], line_of: Sequence[int]) -> list[BadRow]:
        return [BadRow(line_of[one.index], one.code, self._detail(one)) for one in rejections]

    def _detail(self, rejection: Rejection) -> str:
        name = _FIELD_OF_POINTER.get(rejection.pointer)
        if self._reader is None:
            return f"{rejection.pointer}: {rejection.detail}" if rejection.pointer else rejection.detail
        if name is None or getattr(self._reader.mapping.columns, name) is None:
            return rejection.detail
        return f"{self._reader.name_column(name)}: {rejection.detail}"

    async def _store_batch(self, connection: AsyncConnection, tries: int, batch: Batch, is_last: bool) -> None:
        held = await self._hold(connection)
        if (held.chunks_done, held.batches_done) != (self._chunk, self._batch):
            raise queue.Interrupted
        if batch.lines:
            await store.stage_lines(connection, ((self._id, *line) for line in batch.lines))
        position = {"batches_done": self._batch + 1}
        if is_last:
            await store.delete_chunk(connection, self._id, self._chunk)
            position = {"chunks_done": self._chunk + 1, "batches_done": 0}
        await self._store_events(connection, tries, held.rejected, batch, position)

    async def _hold(self, connection: AsyncConnection) -> Row[Any]:
        held = await store.lock_import(connection, self._id)
        if held is None:
            # Somebody else has ended it; started again, this job finds nothing to do.
            raise queue.Interrupted
        return held

    async def _store_events(
        self, connection: AsyncConnection, tries: int, rejected_before: int, batch: Batch, position: dict[str, int]
    ) -> None:
        """Store what is new of the batch, and tell how far the import is."""
        counts, bad = Counter(batch.counts), list(batch.bad)
        if batch.candidates.rows:
            verdicts = await record_rows(
                connection, self._workspace, batch.candidates.rows, self._received_at, tries, batch.form
            )
            counts.update(accepted=verdicts.count("accepted"), duplicates=verdicts.count("duplicate"))
            bad += self._bad_rows(refusals(batch.candidates, verdicts), batch.line_of)
        listed = sorted(bad)[: max(0, LISTED_BAD_ROWS - rejected_before)]
        if listed:
            await store.insert_bad_rows(connection, self._id, rejected_before, listed)
        counts["rejected"] += len(bad)
        await store.record_progress(connection, self._id, position, counts, datetime.now(UTC))

    # ---- Lines that become orders ----

    async def _sum_lines(self, reader: RowReader) -> None:
        if self._order_count is not None:
            return
        mapping = reader.mapping
        async with self._engine.begin() as connection:
            held = await self._hold(connection)
            if held.order_count is not None:
                raise queue.Interrupted
            dropped = 0
            if mapping.duplicates == "drop":
                dropped = await store.drop_repeated_lines(connection, self._id)
            if mapping.columns.order_id is None:
                await store.number_rows_without_id(connection, self._id)
            self._order_count = await store.sum_lines(connection, self._id, items=mapping.items, most_items=MOST_ITEMS)
            await store.record_progress(
                connection,
                self._id,
                {"order_count": self._order_count},
                {"dropped_duplicate_lines": dropped},
                datetime.now(UTC),
            )
        self._pause()

    async def _store_orders(self, reader: RowReader) -> None:
        """Orders come a customer's together and in the order of time: few customers a batch, and sums that add up."""
        while True:
            async with autocommit(self._engine).connect() as connection:
                rows = await store.list_orders(connection, self._id, self._orders, BATCH_ORDERS)
            if not rows:
                return
            batch = await asyncio.to_thread(self._order_batch, reader, rows)
            until: int = rows[-1].position
            await committed(self._engine, partial(self._store_order_batch, batch=batch, until=until))
            self._orders = until
            self._pause()

    async def _store_order_batch(self, connection: AsyncConnection, tries: int, batch: Batch, until: int) -> None:
        held = await self._hold(connection)
        if held.orders_done != self._orders:
            raise queue.Interrupted
        await store.delete_orders(connection, self._id, until)
        await self._store_events(connection, tries, held.rejected, batch, {"orders_done": until})

    def _order_batch(self, reader: RowReader, rows: Sequence[Row[Any]]) -> Batch:
        reading = Reading()
        events: list[tuple[int, Any]] = []
        for row in rows:
            try:
                if row.is_mixed:
                    raise Unfit("mixed_currencies", "The order's lines are in several currencies or at several rates.")
                items = json.loads(row.items) if row.items else None
                event = order_event(row, reader.mapping, items)
            except Unfit as unfit:
                reading.bad.append(BadRow(row.first_line, unfit.code, unfit.detail))
                continue
            if event is None:
                reading.counts["dropped_cancellations"] += row.line_count
            else:
                events.append((row.first_line, event))
        (batch,) = self._batches(events, reading)
        return batch


def _orders_of(note: Note, found: dict[str, list[tuple[str, datetime]]]) -> list[tuple[str, datetime]]:
    """Customer and moment of the orders that a note cancels: known ones, or the one that it describes in full."""
    if note.customer_id is not None and note.occurred_at is not None:
        return [(note.customer_id, note.occurred_at)]
    return [
        (customer_id, note.occurred_at or occurred_at)
        for customer_id, occurred_at in found.get(note.order_id, [])
        if note.customer_id in (None, customer_id)
    ]
