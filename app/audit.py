"""Use case: the audit trail. Every act of an administrator leaves a row, in the transaction of the act itself."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.store import audit as store
from app.store.engine import autocommit
from app.store.workspaces import Workspace

Action = Literal[
    "workspace.created", "key.created", "key.rotated", "key.revoked", "settings.changed", "customer.erased"
]


@dataclass(frozen=True, slots=True)
class Act:
    """Who did what to what. ``actor_key_id`` is None where it was no key of the workspace."""

    number: int
    at: datetime
    actor_key_id: str | None
    action: str
    target: str


async def note(
    connection: AsyncConnection,
    workspace_id: int,
    actor_key_id: str | None,
    action: Action,
    target: str,
    at: datetime,
) -> None:
    """Add an act to the trail, in the transaction that does it. ``target`` must not be personal data."""
    await store.insert_act(connection, workspace_id, actor_key_id, action, target, at)


async def list_acts(engine: AsyncEngine, workspace: Workspace, before: int | None, limit: int) -> list[Act]:
    """The workspace's acts, newest first, from the one before ``before`` on."""
    async with autocommit(engine).connect() as connection:
        rows = await store.list_acts(connection, workspace.id, before, limit)
    return [Act(row.id, row.at, row.actor_key_id, row.action, row.target) for row in rows]
