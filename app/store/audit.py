"""The trail of what administrators did: a row is written in the transaction of its act, and never changed."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection


async def insert_act(
    connection: AsyncConnection, workspace_id: int, actor_key_id: str | None, action: str, target: str, at: datetime
) -> None:
    await connection.execute(
        text(
            "INSERT INTO admin_acts (workspace_id, actor_key_id, action, target, at)"
            " VALUES (:workspace_id, :actor_key_id, :action, :target, :at)"
        ),
        {"workspace_id": workspace_id, "actor_key_id": actor_key_id, "action": action, "target": target, "at": at},
    )


async def list_acts(
    connection: AsyncConnection, workspace_id: int, before: int | None, limit: int
) -> Sequence[Row[Any]]:
    """Newest first."""
    return (
        await connection.execute(
            text(
                "SELECT id, actor_key_id, action, target, at FROM admin_acts"
                " WHERE workspace_id = :workspace_id AND (CAST(:before AS bigint) IS NULL OR id < :before)"
                " ORDER BY id DESC LIMIT :limit"
            ),
            {"workspace_id": workspace_id, "before": before, "limit": limit},
        )
    ).all()
