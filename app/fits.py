"""What a process has read of runs and settings, kept because none of it ever changes."""

from sqlalchemy.ext.asyncio import AsyncConnection

from app.bounded import forget_oldest
from app.runs import fitted_run, unknown_run
from app.scoring import FittedRun
from app.store import runs as run_store
from app.store.score_classes import ScoreClass, read_classes
from app.store.workspaces import Workspace
from app.stored_run import succeeded_run
from app.workspace_settings import WorkspaceSettings

MOST_FITS = 256
MOST_SETTINGS = 1_024


class Fits:
    """The fits and settings that this process has read. Neither a succeeded run nor a version of a workspace's settings
    ever changes, so what is here is never stale."""

    def __init__(self) -> None:
        self._runs: dict[int, FittedRun] = {}
        self._settings: dict[tuple[int, int], WorkspaceSettings] = {}
        self._classes: dict[int, tuple[ScoreClass, ...] | None] = {}

    async def get(self, connection: AsyncConnection, run_id: int) -> FittedRun:
        found = self._runs.get(run_id)
        if found is None:
            row = await run_store.find_run_by_number(connection, run_id)
            if row is None:
                raise unknown_run()
            found = self._runs[run_id] = fitted_run(row)
            forget_oldest(self._runs, MOST_FITS)
        return found

    async def of(self, connection: AsyncConnection, workspace: Workspace, run_name: str | None) -> FittedRun | None:
        """The run of that name, or the latest; None where there is none yet.

        Raises ``NotFound`` for an unknown name, ``Conflict`` for a run that has not succeeded.
        """
        if run_name is None:
            return None if workspace.latest_run_id is None else await self.get(connection, workspace.latest_run_id)
        return await self.get(connection, (await succeeded_run(connection, workspace, run_name)).id)

    async def classes(self, connection: AsyncConnection, run: FittedRun) -> tuple[ScoreClass, ...] | None:
        """The classes of a run's scores, where pages are merged from them."""
        if run.id not in self._classes:
            self._classes[run.id] = await read_classes(connection, run.id)
            forget_oldest(self._classes, MOST_FITS)
        return self._classes[run.id]

    async def settings(self, connection: AsyncConnection, workspace: Workspace) -> WorkspaceSettings:
        """The workspace's settings, of the version that the look-up of the key told, or a later one."""
        found = self._settings.get((workspace.id, workspace.settings_version))
        if found is None:
            row = await run_store.read_settings(connection, workspace.id)
            found = WorkspaceSettings.model_validate_json(row.settings)
            self._settings[workspace.id, row.settings_version] = found
            forget_oldest(self._settings, MOST_SETTINGS)
        return found
