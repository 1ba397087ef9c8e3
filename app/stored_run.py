"""The stored run that values and reports speak of."""

from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import Conflict, Gone
from app.runs import unknown_run
from app.scoring import FittedRun
from app.store import runs as run_store
from app.store.workspaces import Workspace


def no_run() -> Conflict:
    return Conflict("There is no succeeded run yet: start one with POST /v1/runs.", code="no_run")


async def succeeded_run(connection: AsyncConnection, workspace: Workspace, name: str | None) -> Row[Any]:
    """The run of that name, or the latest, as it is stored now."""
    if name is None:
        if workspace.latest_run_id is None:
            raise no_run()
        row = await run_store.find_run_by_number(connection, workspace.latest_run_id)
    else:
        row = await run_store.find_run(connection, workspace.id, name)
    if row is None:
        raise unknown_run()
    if row.status != "succeeded":
        raise Conflict("The run has not succeeded.", code="run_not_succeeded")
    return row


async def require_kept(connection: AsyncConnection, workspace: Workspace, run: FittedRun) -> None:
    """Raises ``Gone`` where a run's scores are no longer there: asked after reading them, since they go all at once."""
    if not (await succeeded_run(connection, workspace, run.name)).kept:
        raise Gone("The scores of this run are no longer kept: start again without it.", code="run_gone")
