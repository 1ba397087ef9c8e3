"""Workspaces and their keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.engine import DriverStatement


@dataclass(frozen=True, slots=True)
class Workspace:
    """The tenant. ``id`` keys every row and never leaves the service; ``name`` is the id that callers know."""

    id: int
    name: str
    currency: str
    time_zone: ZoneInfo
    erasure_key: bytes = field(repr=False, compare=False)
    """Of the hashes by which erased customers are known."""
    latest_run_id: int | None = None
    settings_version: int = 1

    def local_day(self, moment: datetime) -> date:
        """The calendar day of a moment in the workspace's time zone."""
        return moment.astimezone(self.time_zone).date()

    def local_days(self, moments: Sequence[datetime]) -> list[date]:
        """The same of many moments in UTC."""
        if self.time_zone.key == "UTC":
            return list(map(datetime.date, moments))
        return [moment.astimezone(self.time_zone).date() for moment in moments]


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Whoever presents a key: its workspace and what it may do."""

    key_id: str
    workspace: Workspace
    scopes: frozenset[str]


VALID_KEY = "k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())"
"""What makes a key of ``api_keys AS k`` work, by the database's clock alone."""

KEY_HOLDERS = f"""
SELECT k.key_hash, k.id AS key_id, k.scopes, w.id, w.name, w.currency, w.time_zone, w.latest_run_id,
       w.settings_version, w.erasure_key
FROM api_keys AS k JOIN workspaces AS w ON w.id = k.workspace_id
WHERE k.key_hash = ANY(CAST(:key_hashes AS bytea[])) AND {VALID_KEY}
"""
_KEY_HOLDERS = DriverStatement(KEY_HOLDERS)


async def find_key_holders(connection: AsyncConnection, key_hashes: Sequence[bytes]) -> dict[bytes, KeyHolder]:
    """Who holds the keys, by hash; without those that are not known or were revoked."""
    rows = await _KEY_HOLDERS.fetch(connection, {"key_hashes": key_hashes})
    return {row["key_hash"]: KeyHolder(row["key_id"], _workspace(row), frozenset(row["scopes"])) for row in rows}


def _workspace(row: Mapping[Any, Any]) -> Workspace:
    return Workspace(
        row["id"],
        row["name"],
        row["currency"],
        ZoneInfo(row["time_zone"]),
        row["erasure_key"],
        row["latest_run_id"],
        row["settings_version"],
    )


async def get_workspace(connection: AsyncConnection, workspace_id: int) -> Workspace:
    rows = await connection.execute(
        text(
            "SELECT id, name, currency, time_zone, latest_run_id, settings_version, erasure_key FROM workspaces"
            " WHERE id = :workspace_id"
        ),
        {"workspace_id": workspace_id},
    )
    return _workspace(rows.mappings().one())


async def any_workspace(connection: AsyncConnection) -> bool:
    return bool((await connection.execute(text("SELECT EXISTS (SELECT FROM workspaces)"))).scalar_one())


async def insert_workspace(
    connection: AsyncConnection, name: str, currency: str, time_zone: str, created_at: datetime
) -> int | None:
    """The new workspace's number, or None where the name is taken."""
    return (
        await connection.execute(
            text(
                "INSERT INTO workspaces (name, currency, time_zone, created_at)"
                " VALUES (:name, :currency, :time_zone, :created_at)"
                " ON CONFLICT (name) DO NOTHING RETURNING id"
            ),
            {"name": name, "currency": currency, "time_zone": time_zone, "created_at": created_at},
        )
    ).scalar_one_or_none()


async def insert_key(
    connection: AsyncConnection,
    workspace_id: int,
    key_id: str,
    key_hash: bytes,
    scopes: Sequence[str],
    created_at: datetime,
    expires_at: datetime | None = None,
) -> None:
    await connection.execute(
        text(
            "INSERT INTO api_keys (id, workspace_id, key_hash, scopes, created_at, expires_at)"
            " VALUES (:id, :workspace_id, :key_hash, :scopes, :created_at, :expires_at)"
        ),
        {
            "id": key_id,
            "workspace_id": workspace_id,
            "key_hash": key_hash,
            "scopes": list(scopes),
            "created_at": created_at,
            "expires_at": expires_at,
        },
    )


async def list_keys(
    connection: AsyncConnection, workspace_id: int, after: str | None, limit: int
) -> Sequence[Row[Any]]:
    """The keys that work, in the order of their ids."""
    return (
        await connection.execute(
            text(
                "SELECT k.id, k.scopes, k.created_at, k.expires_at FROM api_keys AS k"
                f" WHERE k.workspace_id = :workspace_id AND {VALID_KEY}"
                " AND (CAST(:after AS text) IS NULL OR k.id > :after)"
                " ORDER BY k.id LIMIT :limit"
            ),
            {"workspace_id": workspace_id, "after": after, "limit": limit},
        )
    ).all()


async def lock_key(connection: AsyncConnection, workspace_id: int, key_id: str) -> Row[Any] | None:
    """A key that works, held against change until the transaction ends; None where there is none."""
    return (
        await connection.execute(
            text(
                "SELECT k.id, k.scopes, k.expires_at, k.replaced_by FROM api_keys AS k"
                f" WHERE k.workspace_id = :workspace_id AND k.id = :id AND {VALID_KEY} FOR UPDATE"
            ),
            {"workspace_id": workspace_id, "id": key_id},
        )
    ).one_or_none()


async def replace_key(
    connection: AsyncConnection,
    workspace_id: int,
    key_id: str,
    replaced_by: str,
    replaced_at: datetime,
    grace_seconds: int,
) -> datetime | None:
    """End a key for its successor, at once or after the grace; answers when it ends, None for at once.

    Never later than it would have ended anyway, and by the database's clock, which is the one that keys are judged by.
    """
    ends_at: datetime | None = (
        await connection.execute(
            text(
                "UPDATE api_keys SET replaced_by = :replaced_by,"
                " revoked_at = CASE WHEN :grace_seconds = 0 THEN CAST(:replaced_at AS timestamptz) END,"
                " expires_at = LEAST(expires_at, now() + make_interval(secs => :grace_seconds))"
                " WHERE workspace_id = :workspace_id AND id = :id"
                " RETURNING CASE WHEN revoked_at IS NULL THEN expires_at END"
            ),
            {
                "workspace_id": workspace_id,
                "id": key_id,
                "replaced_by": replaced_by,
                "replaced_at": replaced_at,
                "grace_seconds": grace_seconds,
            },
        )
    ).scalar_one()
    return ends_at


async def revoke_key(connection: AsyncConnection, workspace_id: int, key_id: str, revoked_at: datetime) -> bool:
    """Whether there was such a key to revoke."""
    result = await connection.execute(
        text(
            "UPDATE api_keys SET revoked_at = :revoked_at"
            " WHERE workspace_id = :workspace_id AND id = :id AND revoked_at IS NULL RETURNING id"
        ),
        {"workspace_id": workspace_id, "id": key_id, "revoked_at": revoked_at},
    )
    return result.first() is not None
