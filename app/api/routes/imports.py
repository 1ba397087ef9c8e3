"""Importing files."""

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import ClientDisconnect

from app.api import bodies
from app.api.cursors import decode_cursor, encode_cursor
from app.api.dependencies import Cursor, Engine, EventsWriter, Limit
from app.api.idempotency import Once
from app.api.problems import responses
from app.api.routes import make_router
from app.errors import InvalidRequest, MalformedBody, UnsupportedMediaType
from app.imports import progress, receiving
from app.imports.mapping import ImportMapping, read_mapping
from app.imports.progress import ImportRecord
from app.scalars import EPOCH, MICROSECOND, Id, Instant, microseconds_of

router = make_router("imports")

_FORMATS: dict[str, receiving.Format] = {
    "application/x-ndjson": "ndjson",
    "application/ndjson": "ndjson",
    "text/csv": "csv",
}


class ImportCounts(BaseModel):
    """What became of the file's lines, as far as it is worked off."""

    lines: Annotated[int, Field(description="Records read, without the header and blank lines.")]
    accepted: Annotated[int, Field(description="Events stored now. Lines of one order make one event.")]
    duplicates: Annotated[int, Field(description="Events that were stored before, with the same content.")]
    rejected: Annotated[int, Field(description="Lines and orders that were not taken; `bad_rows` says why.")]
    skipped_without_customer: int
    dropped_cancellations: Annotated[int, Field(description="Lines that cancel, where the mapping drops those.")]
    dropped_duplicate_lines: Annotated[
        int, Field(description="Lines equal to an earlier one in every field, where the mapping drops those.")
    ]
    rounded_amounts: Annotated[
        int, Field(description="Lines whose money had more than four decimals: rounded half to even.")
    ]


class ImportError(BaseModel):
    """Why the import failed. What it stored before stays; sending the file again is safe."""

    code: str
    detail: str


class ImportSummary(BaseModel):
    id: Annotated[str, Field(examples=["imp_5f0c7d1e2a9b4c63"])]
    status: Annotated[str, Field(description="`queued`, `running`, `succeeded` or `failed`.", examples=["running"])]
    format: Annotated[str, Field(description="`ndjson` or `csv`.", examples=["csv"])]
    mapping: Annotated[ImportMapping | None, Field(description="Null for NDJSON.")]
    created_at: Instant
    started_at: Instant | None
    finished_at: Instant | None
    received_bytes: Annotated[int, Field(description="After decompression.")]
    received_lines: int
    progress: Annotated[float, Field(ge=0, le=1)]
    counts: ImportCounts
    error: ImportError | None


class ImportBadRow(BaseModel):
    """A line that was not taken, or the first line of an order that was not."""

    line: Annotated[int, Field(description="In the file, from 1.", examples=[4711])]
    code: Annotated[str, Field(description="Stable.", examples=["invalid_value"])]
    detail: Annotated[str, Field(examples=['Column "UnitPrice": must be a number such as 12.50.'])]


class Import(ImportSummary):
    bad_rows: Annotated[list[ImportBadRow], Field(description="The first 1,000; `counts.rejected` counts all.")]


class ImportPage(BaseModel):
    data: list[ImportSummary]
    next_cursor: Annotated[str | None, Field(description="Null on the last page.")]


def _fields(record: ImportRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "status": record.status,
        "format": record.format,
        "mapping": record.mapping,
        "created_at": record.created_at,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "received_bytes": record.received_bytes,
        "received_lines": record.received_lines,
        "progress": record.progress,
        "counts": ImportCounts(**record.counts),
        "error": ImportError(code=record.error.code, detail=record.error.detail) if record.error else None,
    }


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file, of any size. `Content-Encoding: gzip` is understood. NDJSON has one event a line; "
        "CSV has a header and needs `mapping`.",
        "content": {
            "application/x-ndjson": {"schema": {"type": "string", "format": "binary"}},
            "text/csv": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


async def _pieces(request: Request, content: "hashlib._Hash") -> AsyncIterator[bytes]:
    try:
        async for piece in bodies.decompressed(request):
            content.update(piece)
            yield piece
    except ClientDisconnect:
        raise MalformedBody("The upload broke off.", code="upload_broken_off") from None


@router.post(
    "/v1/imports",
    status_code=202,
    summary="Import a file",
    response_model=Import,
    responses=responses(400, 409, 413, 415),
    openapi_extra=_BODY,
)
async def create_import(
    holder: EventsWriter,
    engine: Engine,
    request: Request,
    once: Once,
    mapping: Annotated[
        str,
        Query(
            max_length=10_000,
            description="For CSV, and only there: an `ImportMapping` as JSON, which tells what the columns mean.",
            examples=[
                '{"kind":"orders","columns":{"order_id":"Order","customer_id":"Customer","occurred_at":"Date",'
                '"amount":"Total"}}'
            ],
        ),
    ] = "",
) -> Response:
    """The answer comes once the whole file is safe in the database; a worker then stores its events.

    Good rows are stored and bad rows listed. Sending the same file again is always safe: it adds nothing twice.
    """
    kind = _FORMATS.get(bodies.media_type(request))
    if kind is None:
        raise UnsupportedMediaType("Content-Type must be application/x-ndjson or text/csv.")
    if kind == "csv" and not mapping:
        raise InvalidRequest("mapping is required for CSV.", code="mapping_required", pointer="mapping")
    if kind == "ndjson" and mapping:
        raise InvalidRequest("mapping must be left out for NDJSON.", pointer="mapping")
    read = read_mapping(mapping) if kind == "csv" else None
    content = hashlib.sha256()

    async def commit(complete: receiving.Completion) -> Response:
        async def told(connection: AsyncConnection) -> Import:
            return Import.model_construct(**_fields(await complete(connection)), bad_rows=[])

        return await once.answer(
            holder, 202, told, content_digest=content.digest(), location=lambda made: f"/v1/imports/{made.id}"
        )

    return await receiving.receive_import(engine, holder.workspace, kind, read, _pieces(request, content), commit)


@router.get("/v1/imports", summary="List imports", response_model=ImportPage, responses=responses())
async def list_imports(holder: EventsWriter, engine: Engine, limit: Limit = 100, cursor: Cursor = "") -> ImportPage:
    """Newest first, without their bad rows."""
    before = None
    if cursor:
        microseconds, import_id = decode_cursor("imports", {}, cursor, int, str)
        before = (EPOCH + microseconds * MICROSECOND, import_id)
    records = await progress.list_imports(engine, holder.workspace, before, limit + 1)
    page = records[:limit]
    next_cursor = None
    if len(records) > limit:
        last = page[-1]
        next_cursor = encode_cursor("imports", {}, [microseconds_of(last.created_at), last.id])
    return ImportPage.model_construct(
        data=[ImportSummary.model_construct(**_fields(record)) for record in page], next_cursor=next_cursor
    )


@router.get("/v1/imports/{import_id}", summary="One import", response_model=Import, responses=responses(404))
async def get_import(holder: EventsWriter, engine: Engine, import_id: Id) -> Import:
    """How far it is, what became of its lines, and its first bad rows."""
    record, bad_rows = await progress.get_import(engine, holder.workspace, import_id)
    return Import.model_construct(
        **_fields(record),
        bad_rows=[ImportBadRow(line=row.line, code=row.code, detail=row.detail) for row in bad_rows],
    )
