"""Scoring runs, and the settings that they take."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

_COLUMNS = (
    "id, name, workspace_id, status, as_of, CAST(settings AS text) AS settings, settings_version, progress, customers,"
    " CAST(fitted AS text) AS fitted, CAST(curve AS text) AS curve, error_code, error_detail, partition, kept,"
    " requested_at, started_at, finished_at"
)


async def read_settings(connection: AsyncConnection, workspace_id: int, *, lock: bool = False) -> Row[Any]:
    """The workspace's own settings, sparse as they were given, and their version."""
    return (
        await connection.execute(
            text(
                "SELECT CAST(settings AS text) AS settings, settings_version FROM workspaces WHERE id = :workspace_id"
                + (" FOR UPDATE" if lock else "")
            ),
            {"workspace_id": workspace_id},
        )
    ).one()


async def write_settings(connection: AsyncConnection, workspace_id: int, settings: Mapping[str, Any]) -> int:
    """Replace the settings; answers their new version."""
    version: int = (
        await connection.execute(
            text(
                "UPDATE workspaces SET settings = CAST(:settings AS jsonb), settings_version = settings_version + 1"
                " WHERE id = :workspace_id RETURNING settings_version"
            ),
            {"workspace_id": workspace_id, "settings": json.dumps(settings)},
        )
    ).scalar_one()
    return version


async def insert_run(
    connection: AsyncConnection,
    workspace_id: int,
    name: str,
    as_of: datetime,
    settings: Mapping[str, Any],
    settings_version: int,
    requested_at: datetime,
) -> Row[Any]:
    return (
        await connection.execute(
            text(
                "INSERT INTO runs (name, workspace_id, status, as_of, settings, settings_version, requested_at)"
                " VALUES (:name, :workspace_id, 'queued', :as_of, CAST(:settings AS jsonb), :settings_version,"
                f" :requested_at) RETURNING {_COLUMNS}"
            ),
            {
                "name": name,
                "workspace_id": workspace_id,
                "as_of": as_of,
                "settings": json.dumps(settings),
                "settings_version": settings_version,
                "requested_at": requested_at,
            },
        )
    ).one()


async def find_run(connection: AsyncConnection, workspace_id: int, name: str) -> Row[Any] | None:
    return (
        await connection.execute(
            text(f"SELECT {_COLUMNS} FROM runs WHERE workspace_id = :workspace_id AND name = :name"),
            {"workspace_id": workspace_id, "name": name},
        )
    ).one_or_none()


async def find_run_by_number(connection: AsyncConnection, run_id: int) -> Row[Any] | None:
    return (
        await connection.execute(text(f"SELECT {_COLUMNS} FROM runs WHERE id = :run_id"), {"run_id": run_id})
    ).one_or_none()


async def list_runs(
    connection: AsyncConnection, workspace_id: int, before: int | None, limit: int
) -> Sequence[Row[Any]]:
    """Runs, newest first."""
    return (
        await connection.execute(
            text(
                f"SELECT {_COLUMNS} FROM runs WHERE workspace_id = :workspace_id"
                " AND (CAST(:before AS int) IS NULL OR id < :before) ORDER BY id DESC LIMIT :limit"
            ),
            {"workspace_id": workspace_id, "before": before, "limit": limit},
        )
    ).all()


async def list_kept_runs(connection: AsyncConnection, workspace_id: int) -> list[str]:
    """Names of the runs whose scores are kept, newest first."""
    rows = await connection.execute(
        text("SELECT name FROM runs WHERE workspace_id = :workspace_id AND kept ORDER BY id DESC"),
        {"workspace_id": workspace_id},
    )
    return list(rows.scalars())


async def list_unfinished(connection: AsyncConnection, workspace_id: int) -> list[int]:
    """Numbers of the runs that a worker has begun and none has ended."""
    rows = await connection.execute(
        text("SELECT id FROM runs WHERE workspace_id = :workspace_id AND status = 'running' ORDER BY id"),
        {"workspace_id": workspace_id},
    )
    return list(rows.scalars())


async def start_run(connection: AsyncConnection, run_id: int, started_at: datetime) -> Row[Any] | None:
    """Take a run that is not finished; one whose worker died is taken again, and keeps the moment of its start."""
    return (
        await connection.execute(
            text(
                "UPDATE runs SET status = 'running', started_at = coalesce(started_at, :started_at), progress = 0"
                f" WHERE id = :run_id AND status IN ('queued', 'running') RETURNING {_COLUMNS}"
            ),
            {"run_id": run_id, "started_at": started_at},
        )
    ).one_or_none()


async def set_progress(connection: AsyncConnection, run_id: int, progress: float, customers: int) -> None:
    await connection.execute(
        text("UPDATE runs SET progress = greatest(progress, :progress), customers = :customers WHERE id = :run_id"),
        {"run_id": run_id, "progress": progress, "customers": customers},
    )


async def fail_run(connection: AsyncConnection, run_id: int, code: str, detail: str, finished_at: datetime) -> None:
    await connection.execute(
        text(
            "UPDATE runs SET status = 'failed', error_code = :code, error_detail = :detail, finished_at = :finished_at"
            " WHERE id = :run_id AND status IN ('queued', 'running')"
        ),
        {"run_id": run_id, "code": code, "detail": detail, "finished_at": finished_at},
    )


async def succeed_run(
    connection: AsyncConnection,
    run_id: int,
    *,
    customers: int,
    fitted: Mapping[str, Any],
    curve: Mapping[str, Any],
    partition: int,
    finished_at: datetime,
) -> None:
    """Finish a run and make it the latest of its workspace, in one statement."""
    await connection.execute(
        text(
            "WITH done AS (UPDATE runs SET status = 'succeeded', progress = 1, customers = :customers,"
            " fitted = CAST(:fitted AS jsonb), curve = CAST(:curve AS jsonb), partition = :partition, kept = true,"
            " finished_at = :finished_at WHERE id = :run_id RETURNING workspace_id)"
            " UPDATE workspaces SET latest_run_id = :run_id FROM done WHERE workspaces.id = done.workspace_id"
        ),
        {
            "run_id": run_id,
            "customers": customers,
            "fitted": json.dumps(fitted),
            "curve": json.dumps(curve),
            "partition": partition,
            "finished_at": finished_at,
        },
    )


async def release_old_runs(connection: AsyncConnection, workspace_id: int, keep: int) -> Sequence[Row[Any]]:
    """Mark the scores of all but the newest succeeded runs as gone; answers those runs, to delete their scores."""
    return (
        await connection.execute(
            text(
                "UPDATE runs SET kept = false WHERE workspace_id = :workspace_id AND kept AND id NOT IN"
                " (SELECT id FROM runs WHERE workspace_id = :workspace_id AND kept ORDER BY id DESC LIMIT :keep)"
                " RETURNING id, partition"
            ),
            {"workspace_id": workspace_id, "keep": keep},
        )
    ).all()


async def workspaces_with_schedule(connection: AsyncConnection) -> Sequence[Row[Any]]:
    """Workspaces whose settings ask for runs, and when they last asked for one."""
    return (
        await connection.execute(
            text(
                "SELECT w.id, CAST(w.settings -> 'runs' ->> 'every_hours' AS int) AS every_hours,"
                " max(r.requested_at) AS last_requested_at,"
                " coalesce(bool_or(r.status IN ('queued', 'running')), false) AS pending"
                " FROM workspaces AS w LEFT JOIN runs AS r ON r.workspace_id = w.id"
                " WHERE w.settings -> 'runs' ->> 'every_hours' IS NOT NULL GROUP BY w.id"
            )
        )
    ).all()
