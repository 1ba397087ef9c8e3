"""Erased customers: what is deleted of them wherever it is, and the hashes by which they stay known.

No statement here needs more than the customer's own rows, but for one index of those who name another as a referrer.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.engine import DriverStatement
from app.store.tables import PROFILE

# ---- Hashes ---------------------------------------------------------------------------------------------------------

_ANY_ERASED = DriverStatement(
    "SELECT EXISTS (SELECT FROM erased_customers WHERE workspace_id = :workspace_id) AS any_erased"
)
_FIND_ERASED = DriverStatement(
    "SELECT customer_hash FROM erased_customers"
    " WHERE workspace_id = :workspace_id AND customer_hash = ANY(CAST(:customer_hashes AS bytea[]))"
)


async def any_erased(connection: AsyncConnection, workspace_id: int) -> bool:
    """Whether the workspace has erased anyone; in a transaction that has begun."""
    (row,) = await _ANY_ERASED.fetch(connection, {"workspace_id": workspace_id})
    return bool(row["any_erased"])


async def find_erased(
    connection: AsyncConnection, workspace_id: int, customer_hashes: Collection[bytes]
) -> frozenset[bytes]:
    """Those of the hashes that are of erased customers; in a transaction that has begun."""
    rows = await _FIND_ERASED.fetch(
        connection, {"workspace_id": workspace_id, "customer_hashes": list(customer_hashes)}
    )
    return frozenset(row["customer_hash"] for row in rows)


async def count_erased(connection: AsyncConnection, workspace_id: int) -> int:
    """How many customers the workspace has erased; the number never falls."""
    count: int = (
        await connection.execute(
            text("SELECT count(*) FROM erased_customers WHERE workspace_id = :workspace_id"),
            {"workspace_id": workspace_id},
        )
    ).scalar_one()
    return count


async def insert_erased(connection: AsyncConnection, workspace_id: int, customer_hash: bytes) -> None:
    await connection.execute(
        text(
            "INSERT INTO erased_customers (workspace_id, customer_hash, erased_at)"
            " VALUES (:workspace_id, :customer_hash, clock_timestamp()) ON CONFLICT DO NOTHING"
        ),
        {"workspace_id": workspace_id, "customer_hash": customer_hash},
    )


# ---- Locks ----------------------------------------------------------------------------------------------------------


async def begin_erasing(connection: AsyncConnection, workspace_id: int) -> None:
    """Until the transaction ends no other erases, no run of the workspace ends, and nobody is named as a referrer."""
    await connection.execute(
        text("SELECT id FROM workspaces WHERE id = :workspace_id FOR NO KEY UPDATE"), {"workspace_id": workspace_id}
    )


async def hold_off_erasing(connection: AsyncConnection, workspace_id: int) -> None:
    """Wait for whoever erases in the workspace; until the transaction ends no other begins."""
    await connection.execute(
        text("SELECT id FROM workspaces WHERE id = :workspace_id FOR SHARE"), {"workspace_id": workspace_id}
    )


# ---- Customers ------------------------------------------------------------------------------------------------------


async def customer_exists(connection: AsyncConnection, workspace_id: int, customer_id: str) -> bool:
    found = await connection.execute(
        text(
            "SELECT customer_id FROM customer_summary WHERE workspace_id = :workspace_id AND customer_id = :customer_id"
        ),
        {"workspace_id": workspace_id, "customer_id": customer_id},
    )
    return found.first() is not None


async def find_customer_before(connection: AsyncConnection, workspace_id: int, customer_id: str) -> str | None:
    """The last of the customers whose ids come before this one ("C" collation)."""
    return (
        await connection.execute(
            text(
                "SELECT customer_id FROM customer_summary"
                " WHERE workspace_id = :workspace_id AND customer_id < :customer_id"
                " ORDER BY customer_id DESC LIMIT 1"
            ),
            {"workspace_id": workspace_id, "customer_id": customer_id},
        )
    ).scalar_one_or_none()


OWN_TABLES = ("customer_summary", "customer_profiles", "events", "churn_labels", "score_history")
"""Where a customer's rows are found by workspace and customer."""


async def delete_customer(connection: AsyncConnection, workspace_id: int, customer_id: str) -> None:
    """Delete what is stored of a customer, whose lock the caller holds, but for scores and staged rows."""
    for table in OWN_TABLES:
        await connection.execute(
            text(f"DELETE FROM {table} WHERE workspace_id = :workspace_id AND customer_id = :customer_id"),
            {"workspace_id": workspace_id, "customer_id": customer_id},
        )


async def delete_scores(connection: AsyncConnection, workspace_id: int, customer_id: str) -> None:
    """Delete the customer's scores of all runs whose scores are kept; there are few."""
    of_workspace = {"workspace_id": workspace_id}
    kept = await connection.execute(
        text("SELECT id, partition FROM runs WHERE workspace_id = :workspace_id AND kept ORDER BY id"), of_workspace
    )
    for run in kept.all():
        await delete_scores_of_run(connection, workspace_id, run.id, run.partition, customer_id)


async def delete_scores_of_run(
    connection: AsyncConnection, workspace_id: int, run_id: int, partition: int, customer_id: str
) -> None:
    await connection.execute(
        text(
            "DELETE FROM scores WHERE workspace_id = :workspace_id AND partition = :partition AND run_id = :run_id"
            " AND customer_id = :customer_id"
        ),
        {"workspace_id": workspace_id, "partition": partition, "run_id": run_id, "customer_id": customer_id},
    )


async def delete_history_of_run(connection: AsyncConnection, workspace_id: int, run_id: int, customer_id: str) -> None:
    await connection.execute(
        text(
            "DELETE FROM score_history"
            " WHERE workspace_id = :workspace_id AND customer_id = :customer_id AND run_id = :run_id"
        ),
        {"workspace_id": workspace_id, "customer_id": customer_id, "run_id": run_id},
    )


async def find_scored_without_summary(
    connection: AsyncConnection, workspace_id: int, run_id: int, partition: int
) -> list[str]:
    """Whom a run scored that are no customers any more."""
    rows = await connection.execute(
        text(
            "SELECT customer_id FROM scores WHERE workspace_id = :workspace_id AND partition = :partition"
            " AND run_id = :run_id AND NOT EXISTS (SELECT FROM customer_summary AS summary"
            " WHERE summary.workspace_id = scores.workspace_id AND summary.customer_id = scores.customer_id)"
            " ORDER BY customer_id"
        ),
        {"workspace_id": workspace_id, "run_id": run_id, "partition": partition},
    )
    return list(rows.scalars())


async def delete_staged_rows(connection: AsyncConnection, workspace_id: int, customer_id: str) -> None:
    """Delete what imports have staged of the customer. Rows that an import is at work on are left to it: it stores
    them as events, which it may not for an erased customer, or ends without them."""
    for table, key in (("import_lines", "line"), ("import_orders", "position")):
        await connection.execute(
            text(
                f"DELETE FROM {table} WHERE (import_id, {key}) IN ("
                f"SELECT import_id, {key} FROM {table} WHERE customer_id = :customer_id AND import_id IN"
                " (SELECT id FROM imports WHERE workspace_id = :workspace_id AND status = 'running')"
                " FOR UPDATE SKIP LOCKED)"
            ),
            {"workspace_id": workspace_id, "customer_id": customer_id},
        )


# ---- Whom others name -----------------------------------------------------------------------------------------------

_NAMES_REFERRER = f"workspace_id = :workspace_id AND {PROFILE} AND (data ->> 'referred_by') = :customer_id"


async def find_referred(connection: AsyncConnection, workspace_id: int, customer_id: str) -> list[str]:
    """Customers of whom an event says that this one referred them."""
    rows = await connection.execute(
        text(f"SELECT DISTINCT customer_id FROM events WHERE {_NAMES_REFERRER} ORDER BY customer_id"),
        {"workspace_id": workspace_id, "customer_id": customer_id},
    )
    return list(rows.scalars())


async def blank_referrer(connection: AsyncConnection, workspace_id: int, customer_id: str) -> None:
    """Let no event name the customer as a referrer: as if it had said null. Its fingerprint stays, so that the same
    event sent again is still a duplicate."""
    await connection.execute(
        text(f"UPDATE events SET data = data || jsonb_build_object('referred_by', NULL) WHERE {_NAMES_REFERRER}"),
        {"workspace_id": workspace_id, "customer_id": customer_id},
    )


# ---- Stored fits ----------------------------------------------------------------------------------------------------


async def find_fits_naming(connection: AsyncConnection, workspace_id: int, customer_id: str) -> Sequence[Row[Any]]:
    """Number and fit, as JSON text, of the runs whose fit names the customer."""
    return (
        await connection.execute(
            text(
                "SELECT id, CAST(fitted AS text) AS fitted FROM runs WHERE workspace_id = :workspace_id"
                " AND jsonb_path_exists(fitted, '$.**.customer_id ? (@ == $named)', jsonb_build_object('named',"
                " CAST(:customer_id AS text))) ORDER BY id"
            ),
            {"workspace_id": workspace_id, "customer_id": customer_id},
        )
    ).all()


async def replace_fit(connection: AsyncConnection, run_id: int, fitted: Mapping[str, Any]) -> None:
    await connection.execute(
        text("UPDATE runs SET fitted = CAST(:fitted AS jsonb) WHERE id = :run_id"),
        {"run_id": run_id, "fitted": json.dumps(fitted)},
    )


# ---- What the planner keeps -----------------------------------------------------------------------------------------

_SAMPLED = (*OWN_TABLES, "import_lines", "import_orders", "runs")


async def find_tables_sampled_before(connection: AsyncConnection) -> list[str]:
    """Tables of customers whose statistics are older than the last erasure, or as old: they may hold its values."""
    rows = await connection.execute(
        text(
            "SELECT CAST(relid AS regclass)::text FROM pg_stat_user_tables"
            " WHERE (relid = ANY(CAST(:tables AS regclass[]))"
            " OR relid IN (SELECT relid FROM pg_partition_tree('scores')))"
            " AND greatest(last_analyze, last_autoanalyze)"
            " < (SELECT max(erased_at) FROM erased_customers) + INTERVAL '1 minute'"
            " ORDER BY 1"
        ),
        {"tables": list(_SAMPLED)},
    )
    return list(rows.scalars())


async def sample_anew(connection: AsyncConnection, table: str) -> None:
    """Replace a table's statistics; of an empty table, forget them where the server can (from PostgreSQL 18 on)."""
    can_forget = await connection.execute(text("SELECT to_regproc('pg_clear_attribute_stats') IS NOT NULL"))
    if can_forget.scalar_one():
        await connection.execute(
            text(
                "SELECT pg_clear_attribute_stats(schemaname, tablename, attname, inherited) FROM pg_stats"
                " WHERE CAST(format('%I.%I', schemaname, tablename) AS regclass) = CAST(:name AS regclass)"
            ),
            {"name": table},
        )
    await connection.execute(text(f"ANALYZE {table}"))
