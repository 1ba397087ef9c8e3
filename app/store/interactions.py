"""Interactions: the events that speak of churn; and the verdicts that people gave on it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.tables import INTERACTION


async def read_interactions(
    connection: AsyncConnection, workspace_id: int, customer_ids: Sequence[str], as_of: datetime
) -> Sequence[Row[Any]]:
    """The interactions of the customers up to ``as_of``, with their data as JSON text."""
    return (
        await connection.execute(
            text(
                "SELECT customer_id, event_id, type, occurred_at, CAST(data AS text) AS data FROM events"
                " WHERE workspace_id = :workspace_id AND customer_id = ANY(CAST(:customer_ids AS text[]))"
                f" AND {INTERACTION} AND occurred_at <= :as_of"
            ),
            {"workspace_id": workspace_id, "customer_ids": customer_ids, "as_of": as_of},
        )
    ).all()


async def read_interactions_of_range(
    connection: AsyncConnection, workspace_id: int, first: str, last: str, as_of: datetime
) -> Sequence[Row[Any]]:
    """The same for the customers from the id ``first`` to the id ``last``."""
    return (
        await connection.execute(
            text(
                "SELECT customer_id, event_id, type, occurred_at, CAST(data AS text) AS data FROM events"
                " WHERE workspace_id = :workspace_id AND customer_id BETWEEN :first AND :last"
                f" AND {INTERACTION} AND occurred_at <= :as_of"
            ),
            {"workspace_id": workspace_id, "first": first, "last": last, "as_of": as_of},
        )
    ).all()


async def write_label(
    connection: AsyncConnection,
    workspace_id: int,
    customer_id: str,
    churn_type: str,
    subtype: str | None,
    labelled_at: datetime,
    recorded_at: datetime,
) -> None:
    """Record a person's verdict on a customer; the last one holds."""
    await connection.execute(
        text(
            "INSERT INTO churn_labels (workspace_id, customer_id, type, subtype, labelled_at, recorded_at)"
            " VALUES (:workspace_id, :customer_id, :type, :subtype, :labelled_at, :recorded_at)"
            " ON CONFLICT (workspace_id, customer_id) DO UPDATE SET type = excluded.type, subtype = excluded.subtype,"
            " labelled_at = excluded.labelled_at, recorded_at = excluded.recorded_at"
        ),
        {
            "workspace_id": workspace_id,
            "customer_id": customer_id,
            "type": churn_type,
            "subtype": subtype,
            "labelled_at": labelled_at,
            "recorded_at": recorded_at,
        },
    )


async def find_label(connection: AsyncConnection, workspace_id: int, customer_id: str) -> Row[Any] | None:
    return (
        await connection.execute(
            text(
                "SELECT type, subtype, labelled_at, recorded_at FROM churn_labels"
                " WHERE workspace_id = :workspace_id AND customer_id = :customer_id"
            ),
            {"workspace_id": workspace_id, "customer_id": customer_id},
        )
    ).one_or_none()


async def read_labels(
    connection: AsyncConnection, workspace_id: int, as_of: datetime, limit: int
) -> Sequence[Row[Any]]:
    """Verdicts up to ``as_of``, the newest ones where there are more than ``limit``."""
    return (
        await connection.execute(
            text(
                "SELECT customer_id, type, subtype, labelled_at FROM churn_labels"
                " WHERE workspace_id = :workspace_id AND labelled_at <= :as_of"
                " ORDER BY labelled_at DESC, customer_id LIMIT :limit"
            ),
            {"workspace_id": workspace_id, "as_of": as_of, "limit": limit},
        )
    ).all()
