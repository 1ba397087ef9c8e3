"""What callers see of imports."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import NotFound
from app.imports.mapping import ImportMapping
from app.store import imports as store
from app.store.engine import autocommit
from app.store.imports import BadRow
from app.store.workspaces import Workspace

LISTED_BAD_ROWS = 1_000
_READING_SHARE = 0.8
"""Of the progress, where lines are first read and then stored as orders."""


@dataclass(frozen=True, slots=True)
class ImportFailure:
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class ImportRecord:
    id: str
    status: str
    format: str
    mapping: ImportMapping | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    received_bytes: int
    received_lines: int
    progress: float
    counts: dict[str, int]
    error: ImportFailure | None


def record_of(row: Row[Any]) -> ImportRecord:
    mapping = ImportMapping.model_validate_json(row.mapping) if row.mapping else None
    return ImportRecord(
        id=row.id,
        status=row.status,
        format=row.format,
        mapping=mapping,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        received_bytes=row.received_bytes,
        received_lines=row.received_lines,
        progress=_progress(row, mapping),
        counts={name: getattr(row, name) for name in store.COUNTS},
        error=ImportFailure(row.error_code, row.error_detail) if row.error_code else None,
    )


def _progress(row: Row[Any], mapping: ImportMapping | None) -> float:
    if row.status == "succeeded":
        return 1.0
    read: float = row.chunks_done / row.chunk_count if row.chunk_count else 1.0
    if mapping is None or mapping.kind == "cancellations" or (mapping.kind == "orders" and mapping.columns.order_id):
        return read
    stored = row.orders_done / row.order_count if row.order_count else 0.0
    return round(_READING_SHARE * read + (1 - _READING_SHARE) * stored, 4)


async def get_import(engine: AsyncEngine, workspace: Workspace, import_id: str) -> tuple[ImportRecord, list[BadRow]]:
    """An import and the first of its bad rows. Raises ``NotFound`` where the workspace has no such import."""
    async with autocommit(engine).connect() as connection:
        row = await store.find_import(connection, workspace.id, import_id)
        if row is None:
            raise NotFound("There is no such import in this workspace.", code="import_not_found")
        return record_of(row), await store.list_bad_rows(connection, import_id)


async def list_imports(
    engine: AsyncEngine, workspace: Workspace, before: tuple[datetime, str] | None, limit: int
) -> list[ImportRecord]:
    """Newest first."""
    async with autocommit(engine).connect() as connection:
        rows = await store.list_imports(connection, workspace.id, before, limit)
    return [record_of(row) for row in rows]
