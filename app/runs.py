"""Use case: scoring runs, asked for, looked at and scheduled; and the settings that they take. What a run does is in
``app.run_execution``."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import audit
from app.errors import InvalidRequest, NotFound
from app.rejections import explain
from app.scoring import Fitted, FittedRun
from app.store import queue
from app.store import runs as run_store
from app.store import workspaces as workspace_store
from app.store.engine import autocommit
from app.store.workspaces import KeyHolder, Workspace
from app.workspace_settings import WorkspaceSettings, merged

RUN_JOB = "run"


@dataclass(frozen=True, slots=True)
class RunError:
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run, as callers see it."""

    id: str
    status: str
    as_of: datetime
    progress: float
    customers: int
    fitted: dict[str, Any]
    settings: dict[str, Any]
    settings_version: int
    error: RunError | None
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    number: int


@dataclass(frozen=True, slots=True)
class SettingsRecord:
    version: int
    settings: WorkspaceSettings


def _record(row: Row[Any]) -> RunRecord:
    fitted = json.loads(row.fitted) if row.fitted else dict.fromkeys(("rfm", "abc", "clv", "churn"))
    error = RunError(row.error_code, row.error_detail) if row.error_code else None
    return RunRecord(
        id=row.name,
        status=row.status,
        as_of=row.as_of,
        progress=row.progress,
        customers=row.customers,
        fitted=fitted,
        settings=json.loads(row.settings),
        settings_version=row.settings_version,
        error=error,
        requested_at=row.requested_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        number=row.id,
    )


def valid_settings(settings: Mapping[str, Any], pointer: str = "") -> WorkspaceSettings:
    """Raises ``InvalidRequest`` that names the first setting at fault; ``pointer`` is to where the settings stand."""
    try:
        return WorkspaceSettings.model_validate(settings)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        code, detail, within = explain(problem, "settings")
        raise InvalidRequest(detail, code=code, pointer=pointer + within) from None


async def read_settings(engine: AsyncEngine, workspace: Workspace) -> SettingsRecord:
    async with autocommit(engine).connect() as connection:
        row = await run_store.read_settings(connection, workspace.id)
    return SettingsRecord(row.settings_version, WorkspaceSettings.model_validate_json(row.settings))


async def change_settings(engine: AsyncEngine, holder: KeyHolder, changes: Mapping[str, Any]) -> SettingsRecord:
    """Lay changes over the workspace's settings: part by part, field by field. Raises ``InvalidRequest``."""
    workspace = holder.workspace
    async with engine.begin() as connection:
        row = await run_store.read_settings(connection, workspace.id, lock=True)
        sparse = merged(json.loads(row.settings), changes)
        settings = valid_settings(sparse)
        version = await run_store.write_settings(connection, workspace.id, sparse)
        await audit.note(
            connection, workspace.id, holder.key_id, "settings.changed", f"version {version}", datetime.now(UTC)
        )
    return SettingsRecord(version, settings)


async def add_run(
    connection: AsyncConnection,
    workspace: Workspace,
    as_of: datetime | None = None,
    settings: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> RunRecord:
    """Queue a run, in the caller's transaction. Its settings are the workspace's with ``settings`` laid over them.

    Raises ``InvalidRequest`` where the settings do not hold together.
    """
    now = now or datetime.now(UTC)
    row = await run_store.read_settings(connection, workspace.id)
    effective = valid_settings(merged(json.loads(row.settings), settings or {}), "/settings")
    run = await run_store.insert_run(
        connection,
        workspace.id,
        f"run_{secrets.token_hex(8)}",
        as_of or now,
        effective.model_dump(mode="json"),
        row.settings_version,
        now,
    )
    # One run at a time a workspace; others wait for their turn.
    await queue.enqueue(connection, RUN_JOB, str(run.id).encode(), sequence=f"runs of {workspace.id}")
    return _record(run)


async def request_run(engine: AsyncEngine, workspace: Workspace, now: datetime | None = None) -> RunRecord:
    """``add_run`` in a transaction of its own: a run of now, by the workspace's settings."""
    async with engine.begin() as connection:
        return await add_run(connection, workspace, now=now)


def unknown_run() -> NotFound:
    return NotFound("There is no such run in this workspace.", code="run_not_found")


async def get_run(engine: AsyncEngine, workspace: Workspace, name: str) -> RunRecord:
    async with autocommit(engine).connect() as connection:
        row = await run_store.find_run(connection, workspace.id, name)
    if row is None:
        raise unknown_run()
    return _record(row)


async def get_latest_run(engine: AsyncEngine, workspace: Workspace) -> RunRecord:
    """The last run that succeeded: the one that lists and live values read. Raises ``NotFound`` without any."""
    if workspace.latest_run_id is None:
        raise NotFound("No run has succeeded in this workspace yet.", code="run_not_found")
    async with autocommit(engine).connect() as connection:
        row = await run_store.find_run_by_number(connection, workspace.latest_run_id)
    if row is None:
        raise unknown_run()
    return _record(row)


async def list_runs(engine: AsyncEngine, workspace: Workspace, before: int | None, limit: int) -> list[RunRecord]:
    async with autocommit(engine).connect() as connection:
        rows = await run_store.list_runs(connection, workspace.id, before, limit)
    return [_record(row) for row in rows]


def fitted_run(row: Row[Any]) -> FittedRun:
    """A succeeded run as scoring reads it."""
    return FittedRun(
        id=row.id,
        name=row.name,
        as_of=row.as_of,
        settings=WorkspaceSettings.model_validate_json(row.settings),
        fitted=Fitted.from_dict(json.loads(row.fitted)),
        partition=row.partition,
    )


async def schedule_due_runs(engine: AsyncEngine, now: datetime | None = None) -> None:
    """Queue a run for each workspace whose settings ask for one by now."""
    now = now or datetime.now(UTC)
    async with autocommit(engine).connect() as connection:
        scheduled = await run_store.workspaces_with_schedule(connection)
    due = [
        row.id
        for row in scheduled
        if not row.pending
        and (row.last_requested_at is None or now - row.last_requested_at >= timedelta(hours=row.every_hours))
    ]
    for workspace_id in due:
        async with autocommit(engine).connect() as connection:
            workspace = await workspace_store.get_workspace(connection, workspace_id)
        await request_run(engine, workspace, now=now)
