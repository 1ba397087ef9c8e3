"""Receive a file: a stream of any size becomes compressed chunks in the database, each committed as it comes."""

import asyncio
import contextlib
import csv
import io
import logging
import secrets
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.errors import InvalidRequest, MalformedBody
from app.imports.cutting import PIECE_BYTES, Chunk, RecordCutter
from app.imports.mapping import MAX_COLUMNS, ImportMapping, find_columns
from app.imports.progress import ImportRecord, record_of
from app.store import imports as store
from app.store import queue
from app.store.workspaces import Workspace

logger = logging.getLogger(__name__)

Format = Literal["ndjson", "csv"]
Answered = TypeVar("Answered")
Completion = Callable[[AsyncConnection], Awaitable[ImportRecord]]

JOB = "import"
_BOM = b"\xef\xbb\xbf"
_COMPRESSION_LEVEL = 1
# What other files begin with, and what to do about it.
_OTHER_FILES = (
    (b"\x1f\x8b", "is gzip: send it with Content-Encoding: gzip."),
    (b"PK\x03\x04", "is a zip file or a spreadsheet: export it as CSV."),
    (b"\xd0\xcf\x11\xe0", "is a spreadsheet: export it as CSV."),
    (b"%PDF", "is a PDF."),
    (b"\xff\xfe", "is UTF-16: convert it to UTF-8."),
    (b"\xfe\xff", "is UTF-16: convert it to UTF-8."),
)


@dataclass(slots=True)
class _Start:
    """What the first chunk tells, and what of it remains to be read."""

    header: list[str] | None
    chunk: Chunk


async def receive_import(
    engine: AsyncEngine,
    workspace: Workspace,
    file_format: Format,
    mapping: ImportMapping | None,
    stream: AsyncIterator[bytes],
    commit: Callable[[Completion], Awaitable[Answered]],
) -> Answered:
    """Take a file in and queue its import. A file that can't be taken whole leaves nothing behind.

    ``commit`` does the last step in a transaction and answers what the caller is told. Where it finds that the same
    upload was completed before, and leaves the step out, this upload is dropped.

    Raises ``MalformedBody`` where the file is not what it says, and ``InvalidRequest`` where the mapping does not fit.
    """
    if mapping is not None:
        check_currency(mapping, workspace)
    import_id = f"imp_{secrets.token_hex(8)}"
    cutter = RecordCutter(mapping.delimiter if mapping else None)
    numbers = 0
    begun = False

    async def keep(chunk: Chunk) -> None:
        nonlocal begun, numbers
        if not begun:
            start = await asyncio.to_thread(read_start, file_format, mapping, chunk)
            chunk = start.chunk
            async with engine.begin() as connection:
                document = mapping.model_dump_json(exclude_unset=True) if mapping else None
                await store.insert_import(
                    connection, import_id, workspace.id, file_format, document, start.header, datetime.now(UTC)
                )
            begun = True
        if not chunk.content:
            return
        content = await asyncio.to_thread(zlib.compress, chunk.content, _COMPRESSION_LEVEL)
        async with engine.begin() as connection:
            taken = await store.insert_chunk(
                connection, import_id, numbers, chunk.first_line, content, datetime.now(UTC)
            )
        if not taken:
            raise MalformedBody("The upload paused for too long; nothing was imported.", code="upload_timed_out")
        numbers += 1

    try:
        async for piece in _located(stream, cutter):
            chunk = await asyncio.to_thread(cutter.feed, piece) if len(piece) > 4096 else cutter.feed(piece)
            if chunk is not None:
                await keep(chunk)
        last = cutter.finish()
        if last is not None:
            await keep(last)
        if not begun:
            raise MalformedBody("The file is empty.", code="empty_file")
        completed = False

        async def complete(connection: AsyncConnection) -> ImportRecord:
            nonlocal completed
            row = await store.complete_upload(connection, import_id, numbers, cutter.received_bytes, cutter.line)
            if row is None:
                raise MalformedBody("The upload paused for too long; nothing was imported.", code="upload_timed_out")
            # The imports of a workspace follow one another, so that the first acknowledged wins.
            await queue.enqueue(connection, JOB, import_id.encode(), sequence=f"imports of {workspace.id}")
            completed = True
            return record_of(row)

        answered = await commit(complete)
        if not completed:
            await _discard(engine, import_id)
        return answered
    except BaseException:
        if begun:
            # Also when the request was cancelled; what stays nevertheless is removed by the worker later.
            with contextlib.suppress(Exception):
                await asyncio.shield(_discard(engine, import_id))
        raise


async def _discard(engine: AsyncEngine, import_id: str) -> None:
    async with engine.begin() as connection:
        await store.delete_upload(connection, import_id)


async def _located(stream: AsyncIterator[bytes], cutter: RecordCutter) -> AsyncIterator[bytes]:
    """The stream in pieces for the cutter; an error in it tells the line that was reached."""
    try:
        async for piece in stream:
            for start in range(0, len(piece), PIECE_BYTES):
                yield piece[start : start + PIECE_BYTES]
    except MalformedBody as error:
        raise MalformedBody(
            f"{error.detail} It can be read up to line {cutter.line}; nothing was imported.", code=error.code
        ) from None


def check_currency(mapping: ImportMapping, workspace: Workspace) -> None:
    """Refuse at once what every row would be refused for."""
    if mapping.kind == "cancellations" or mapping.columns.currency is not None:
        return
    is_foreign = mapping.currency not in (None, workspace.currency)
    has_rate = mapping.exchange_rate is not None or mapping.columns.exchange_rate is not None
    if is_foreign and not has_rate:
        raise InvalidRequest(
            "mapping: exchange_rate is required where currency is not the workspace's.",
            code="exchange_rate_required",
            pointer="mapping/exchange_rate",
        )
    if not is_foreign and mapping.exchange_rate not in (None, 1):
        raise InvalidRequest(
            "mapping: exchange_rate must be left out, or 1, in the workspace's own currency.",
            code="exchange_rate_not_one",
            pointer="mapping/exchange_rate",
        )


def read_start(file_format: Format, mapping: ImportMapping | None, chunk: Chunk) -> _Start:
    """Look at how a file begins, before anything is kept. Raises like ``receive_import``."""
    content = chunk.content
    for mark, advice in _OTHER_FILES:
        if content.startswith(mark):
            raise MalformedBody(f"The file {advice}", code="wrong_format")
    if b"\x00" in content:
        line = chunk.first_line + content.count(b"\n", 0, content.index(b"\x00"))
        raise MalformedBody(f"Line {line}: the file is binary, or not in UTF-8.", code="wrong_format")
    content = content.removeprefix(_BOM)
    text_start = content.lstrip()[:1]
    if mapping is None:
        if text_start and text_start != b"{":
            line = chunk.first_line + content[: len(content) - len(content.lstrip())].count(b"\n")
            advice = "is a JSON array, not NDJSON" if text_start == b"[" else "is not NDJSON"
            raise MalformedBody(
                f"Line {line}: the file {advice}. NDJSON has one event, a JSON object, a line.", code="wrong_format"
            )
        if not text_start:
            raise MalformedBody("The file is empty.", code="empty_file")
        return _Start(None, Chunk(chunk.first_line, content))
    if text_start in (b"{", b"["):
        raise MalformedBody("Line 1: the file is JSON, not CSV with a header.", code="wrong_format")
    if not text_start:
        raise MalformedBody("The file is empty: it has no header.", code="empty_file")
    return _read_header(mapping, Chunk(chunk.first_line, content))


def _read_header(mapping: ImportMapping, chunk: Chunk) -> _Start:
    # A header is short; reading all of the chunk as text would take longer than finding it.
    rows = csv.reader(
        io.TextIOWrapper(io.BytesIO(chunk.content), mapping.encoding, "surrogateescape", newline="\n"),
        delimiter=mapping.delimiter,
    )
    header: list[str] = []
    try:
        while not header:
            header = [title.strip() for title in next(rows)]
    except (csv.Error, StopIteration):
        raise MalformedBody("Line 1: the header can't be read as CSV.", code="malformed_csv") from None
    if any("\ud800" <= character <= "\udfff" for title in header for character in title):
        raise MalformedBody(
            f"Line 1: the header is not in {mapping.encoding}; name the file's encoding in the mapping.",
            code="wrong_encoding",
        )
    if len(header) > MAX_COLUMNS:
        raise MalformedBody(f"The header has more than {MAX_COLUMNS} columns.", code="malformed_csv")
    find_columns(mapping, header)
    end = 0
    for _ in range(rows.line_num):
        end = chunk.content.index(b"\n", end) + 1
    return _Start(header, Chunk(chunk.first_line + rows.line_num, chunk.content[end:]))
