"""Imports: what was received, what is staged, how far the work is, and the bad rows."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.engine import driver_connection, translated_errors
from app.store.tables import PLACED

COUNTS = (
    "lines",
    "accepted",
    "duplicates",
    "rejected",
    "skipped_without_customer",
    "dropped_cancellations",
    "dropped_duplicate_lines",
    "rounded_amounts",
)
_COLUMNS = (
    "id, workspace_id, status, format, CAST(mapping AS text) AS mapping, header, created_at, started_at, finished_at,"
    " received_bytes, received_lines, chunk_count, chunks_done, batches_done, order_count, orders_done,"
    " fruitless_starts, error_code, error_detail, " + ", ".join(COUNTS)
)


STAGED_COLUMNS = (
    "import_id",
    "line",
    "customer_id",
    "order_id",
    "cancels",
    "occurred_at",
    "amount",
    "cost",
    "currency",
    "exchange_rate",
    "channel",
    "campaign_id",
    "item",
    "fingerprint",
)


class BadRow(NamedTuple):
    line: int
    code: str
    detail: str


# ---- Receiving ------------------------------------------------------------------------------------------------------


async def insert_import(
    connection: AsyncConnection,
    import_id: str,
    workspace_id: int,
    file_format: str,
    mapping: str | None,
    header: Sequence[str] | None,
    now: datetime,
) -> None:
    """An import that is being received: nobody sees it until it is complete."""
    await connection.execute(
        text(
            "INSERT INTO imports (id, workspace_id, status, format, mapping, header, created_at, touched_at)"
            " VALUES (:id, :workspace_id, 'receiving', :format, CAST(:mapping AS jsonb), CAST(:header AS text[]),"
            " :now, :now)"
        ),
        {
            "id": import_id,
            "workspace_id": workspace_id,
            "format": file_format,
            "mapping": mapping,
            "header": None if header is None else list(header),
            "now": now,
        },
    )


async def insert_chunk(
    connection: AsyncConnection, import_id: str, number: int, first_line: int, content: bytes, now: datetime
) -> bool:
    """Whether the import is still there to take it."""
    result = await connection.execute(
        text(
            "WITH receiving AS (UPDATE imports SET touched_at = :now WHERE id = :id AND status = 'receiving'"
            " RETURNING id)"
            " INSERT INTO import_chunks (import_id, number, first_line, content)"
            " SELECT id, CAST(:number AS int), CAST(:first_line AS bigint), CAST(:content AS bytea) FROM receiving"
            " RETURNING number"
        ),
        {"id": import_id, "number": number, "first_line": first_line, "content": content, "now": now},
    )
    return result.first() is not None


async def complete_upload(
    connection: AsyncConnection, import_id: str, chunk_count: int, received_bytes: int, received_lines: int
) -> Row[Any] | None:
    return (
        await connection.execute(
            text(
                "UPDATE imports SET status = 'queued', chunk_count = :chunk_count, received_bytes = :received_bytes,"
                f" received_lines = :received_lines WHERE id = :id AND status = 'receiving' RETURNING {_COLUMNS}"
            ),
            {
                "id": import_id,
                "chunk_count": chunk_count,
                "received_bytes": received_bytes,
                "received_lines": received_lines,
            },
        )
    ).one_or_none()


async def delete_upload(connection: AsyncConnection, import_id: str) -> None:
    await connection.execute(text("DELETE FROM imports WHERE id = :id AND status = 'receiving'"), {"id": import_id})


async def delete_abandoned_uploads(connection: AsyncConnection, now: datetime, patience: timedelta) -> None:
    await connection.execute(
        text("DELETE FROM imports WHERE status = 'receiving' AND touched_at < CAST(:before AS timestamptz)"),
        {"before": now - patience},
    )


# ---- Reading --------------------------------------------------------------------------------------------------------


async def find_import(connection: AsyncConnection, workspace_id: int, import_id: str) -> Row[Any] | None:
    return (
        await connection.execute(
            text(
                f"SELECT {_COLUMNS} FROM imports"
                " WHERE id = :id AND workspace_id = :workspace_id AND status <> 'receiving'"
            ),
            {"id": import_id, "workspace_id": workspace_id},
        )
    ).one_or_none()


async def list_imports(
    connection: AsyncConnection, workspace_id: int, before: tuple[datetime, str] | None, limit: int
) -> Sequence[Row[Any]]:
    """Newest first; ``before`` is the (created_at, id) of the last one seen."""
    created_at, import_id = before or (None, None)
    return (
        await connection.execute(
            text(
                f"SELECT {_COLUMNS} FROM imports WHERE workspace_id = :workspace_id AND status <> 'receiving'"
                + (" AND (created_at, id) < (:created_at, :id)" if before else "")
                + " ORDER BY created_at DESC, id DESC LIMIT :limit"
            ),
            {
                "workspace_id": workspace_id,
                "limit": limit,
                **({"created_at": created_at, "id": import_id} if before else {}),
            },
        )
    ).all()


async def list_bad_rows(connection: AsyncConnection, import_id: str) -> list[BadRow]:
    rows = await connection.execute(
        text("SELECT line, code, detail FROM import_bad_rows WHERE import_id = :id ORDER BY line, number"),
        {"id": import_id},
    )
    return [BadRow(row.line, row.code, row.detail) for row in rows]


async def find_chunk(connection: AsyncConnection, import_id: str, number: int) -> Row[Any] | None:
    return (
        await connection.execute(
            text("SELECT first_line, content FROM import_chunks WHERE import_id = :id AND number = :number"),
            {"id": import_id, "number": number},
        )
    ).one_or_none()


async def find_orders_anywhere(
    connection: AsyncConnection, workspace_id: int, order_ids: Sequence[str]
) -> Sequence[Row[Any]]:
    """The orders of these ids, whoever's they are. No index helps: one pass over the orders answers for all."""
    return (
        await connection.execute(
            text(
                "SELECT order_id, customer_id, occurred_at FROM events"
                f" WHERE workspace_id = :workspace_id AND {PLACED} AND order_id = ANY(CAST(:order_ids AS text[]))"
                " ORDER BY order_id, customer_id"
            ),
            {"workspace_id": workspace_id, "order_ids": list(order_ids)},
        )
    ).all()


# ---- Working off ----------------------------------------------------------------------------------------------------


async def start_import(connection: AsyncConnection, import_id: str, now: datetime) -> Row[Any] | None:
    """The import as it stands, now running; None where it is done or gone."""
    return (
        await connection.execute(
            text(
                "UPDATE imports SET status = 'running', started_at = coalesce(started_at, :now), touched_at = :now,"
                " fruitless_starts = fruitless_starts + 1"
                f" WHERE id = :id AND status IN ('queued', 'running') RETURNING {_COLUMNS}"
            ),
            {"id": import_id, "now": now},
        )
    ).one_or_none()


async def lock_import(connection: AsyncConnection, import_id: str) -> Row[Any] | None:
    """How far a running import is, locked until the transaction ends: whoever holds it is alone at work on it."""
    return (
        await connection.execute(
            text(
                "SELECT chunks_done, batches_done, order_count, orders_done, rejected FROM imports"
                " WHERE id = :id AND status = 'running' FOR UPDATE"
            ),
            {"id": import_id},
        )
    ).one_or_none()


async def record_progress(
    connection: AsyncConnection,
    import_id: str,
    position: Mapping[str, int],
    counts: Mapping[str, int],
    now: datetime,
) -> None:
    """Move the import to ``position`` (columns of places) and add to its counts."""
    places = "".join(f"{name} = :{name}, " for name in position)
    sums = "".join(f"{name} = {name} + :{name}, " for name in counts)
    await connection.execute(
        text(f"UPDATE imports SET {places}{sums}fruitless_starts = 0, touched_at = :now WHERE id = :id"),
        {"id": import_id, "now": now, **position, **counts},
    )


async def delete_chunk(connection: AsyncConnection, import_id: str, number: int) -> None:
    await connection.execute(
        text("DELETE FROM import_chunks WHERE import_id = :id AND number = :number"),
        {"id": import_id, "number": number},
    )


async def insert_bad_rows(connection: AsyncConnection, import_id: str, number: int, rows: Sequence[BadRow]) -> None:
    """Rows of numbers from ``number`` on."""
    await connection.execute(
        text(
            "INSERT INTO import_bad_rows (import_id, number, line, code, detail)"
            " SELECT :id, :number + ordinality - 1, line, code, detail"
            " FROM unnest(CAST(:lines AS bigint[]), CAST(:codes AS text[]), CAST(:details AS text[]))"
            " WITH ORDINALITY AS bad (line, code, detail, ordinality)"
        ),
        {
            "id": import_id,
            "number": number,
            "lines": [row.line for row in rows],
            "codes": [row.code for row in rows],
            "details": [row.detail for row in rows],
        },
    )


async def stage_lines(connection: AsyncConnection, lines: Iterable[tuple[Any, ...]]) -> None:
    """Keep lines, of ``STAGED_COLUMNS``, until their orders are complete."""
    driver = await driver_connection(connection)
    with translated_errors(driver):
        await driver.copy_records_to_table("import_lines", records=lines, columns=STAGED_COLUMNS)


async def drop_repeated_lines(connection: AsyncConnection, import_id: str) -> int:
    """Keep the first of lines that are equal in every field; answers how many are gone."""
    result = await connection.execute(
        text(
            "WITH repeated AS (SELECT line, row_number() OVER (PARTITION BY fingerprint ORDER BY line) AS occurrence"
            " FROM import_lines WHERE import_id = :id)"
            " DELETE FROM import_lines USING repeated"
            " WHERE import_lines.import_id = :id AND import_lines.line = repeated.line AND occurrence > 1"
        ),
        {"id": import_id},
    )
    return result.rowcount


async def number_rows_without_id(connection: AsyncConnection, import_id: str) -> None:
    """Tell rows of equal content apart by their occurrence. ``order_id`` holds a hash of what identifies the row."""
    await connection.execute(
        text(
            "WITH numbered AS (SELECT line, row_number() OVER"
            " (PARTITION BY customer_id, order_id, cancels ORDER BY fingerprint, line) AS occurrence"
            " FROM import_lines WHERE import_id = :id)"
            " UPDATE import_lines SET order_id = order_id || '-' || occurrence FROM numbered"
            " WHERE import_lines.import_id = :id AND import_lines.line = numbered.line"
        ),
        {"id": import_id},
    )


async def sum_lines(connection: AsyncConnection, import_id: str, *, items: bool, most_items: int) -> int:
    """Sum the staged lines to orders, a customer's together and in the order of time; answers how many.

    Lines that cancel become an order of their own. An order speaks at the moment of its earliest line, which also
    gives what lines can't be summed by. A cost that is missing on any line is missing for the order.
    """
    # Enough for the lines of a large shop; beyond, PostgreSQL sorts on disk.
    await connection.execute(text("SET LOCAL work_mem = '64MB'"))
    listed = "CAST(NULL AS text)"
    if items:
        first_items = f"(array_agg(item ORDER BY line) FILTER (WHERE item IS NOT NULL))[1\\:{most_items}]"
        listed = f"'[' || array_to_string({first_items}, ',') || ']'"
    result = await connection.execute(
        text(
            "INSERT INTO import_orders (import_id, position, first_line, line_count, customer_id, order_id, cancels,"
            " occurred_at, amount, cost, currency, exchange_rate, is_mixed, channel, campaign_id, items)"
            " SELECT :id, row_number() OVER (ORDER BY customer_id, min(occurred_at), order_id, cancels), min(line),"
            " count(*), customer_id, order_id, cancels, min(occurred_at), sum(amount),"
            " CASE WHEN count(cost) = count(*) THEN sum(cost) END, min(currency), min(exchange_rate),"
            " count(DISTINCT (currency, exchange_rate)) > 1,"
            " (array_agg(channel ORDER BY occurred_at, line))[1],"
            " (array_agg(campaign_id ORDER BY occurred_at, line))[1],"
            f" {listed}"
            " FROM import_lines WHERE import_id = :id GROUP BY customer_id, order_id, cancels"
        ),
        {"id": import_id},
    )
    await connection.execute(text("DELETE FROM import_lines WHERE import_id = :id"), {"id": import_id})
    return result.rowcount


async def list_orders(connection: AsyncConnection, import_id: str, after: int, limit: int) -> Sequence[Row[Any]]:
    return (
        await connection.execute(
            text(
                "SELECT position, first_line, line_count, customer_id, order_id, cancels, occurred_at, amount, cost,"
                " currency, exchange_rate, is_mixed, channel, campaign_id, items FROM import_orders"
                " WHERE import_id = :id AND position > :after ORDER BY position LIMIT :limit"
            ),
            {"id": import_id, "after": after, "limit": limit},
        )
    ).all()


async def delete_orders(connection: AsyncConnection, import_id: str, until: int) -> None:
    await connection.execute(
        text("DELETE FROM import_orders WHERE import_id = :id AND position <= :until"),
        {"id": import_id, "until": until},
    )


async def succeed_import(connection: AsyncConnection, import_id: str, now: datetime) -> None:
    """End the import, and forget the file's first line, which nothing reads any more and may be anything."""
    await connection.execute(
        text(
            "UPDATE imports SET status = 'succeeded', header = NULL, finished_at = :now, touched_at = :now"
            " WHERE id = :id AND status = 'running'"
        ),
        {"id": import_id, "now": now},
    )


async def fail_import(connection: AsyncConnection, import_id: str, code: str, detail: str, now: datetime) -> None:
    """End the import as failed, and drop what waits of it; what it stored stays."""
    result = await connection.execute(
        text(
            "UPDATE imports SET status = 'failed', header = NULL, error_code = :code, error_detail = :detail,"
            " finished_at = :now, touched_at = :now WHERE id = :id AND status IN ('queued', 'running') RETURNING id"
        ),
        {"id": import_id, "code": code, "detail": detail, "now": now},
    )
    if result.first() is None:
        return
    for table in ("import_chunks", "import_lines", "import_orders"):
        await connection.execute(text(f"DELETE FROM {table} WHERE import_id = :id"), {"id": import_id})
