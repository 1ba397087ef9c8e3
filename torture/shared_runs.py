"""A run is shared by workers that are killed over it, one after another, and says what an undisturbed one says."""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator

from sqlalchemy.ext.asyncio import AsyncEngine

from app import runs
from app.embedded.folder import PROJECT_DIR, temporary_folder
from app.migrate import migrate
from app.store.engine import create_engine
from app.store.workspaces import Workspace
from benchmarks.simulated_shop import AS_OF, add_shop, fill
from torture.findings import Finding, Scale, kept_as_far
from torture.mutants import settings_for
from torture.service import PATIENCE_S, OwnDatabase, own_database

PROMISE = "a run survives its workers"
WORKERS = 3
HEARTBEAT_S = 2.0
_SAID = """
SELECT md5(string_agg(CAST(to_jsonb(told) - 'run_id' - 'partition' AS text), chr(10) ORDER BY customer_id))
       || ' of ' || count(*)
FROM {table} AS told WHERE run_id = $1
"""


class Workers:
    """Some workers, of which one is killed now and then, and another started."""

    def __init__(self, database_url: str, mutant: str | None) -> None:
        self._environment = os.environ | settings_for(mutant) | {
            "PERENNIAL_DATABASE_URL": database_url, "PERENNIAL_LOG_LEVEL": "error",
        }  # fmt: skip
        self._processes: list[subprocess.Popen[bytes]] = []

    def fill_up(self) -> None:
        while len(self._processes) < WORKERS:
            command = [sys.executable, "-m", "app.worker", "--heartbeat", str(HEARTBEAT_S)]
            self._processes.append(subprocess.Popen(command, cwd=PROJECT_DIR, env=self._environment))

    def kill_one(self) -> None:
        process = self._processes.pop(random.randrange(len(self._processes)))
        process.kill()
        process.wait(PATIENCE_S)

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait(PATIENCE_S)
        self._processes.clear()


@contextlib.contextmanager
def workers(database: OwnDatabase, mutant: str | None) -> Iterator[Workers]:
    some = Workers(database.url, mutant)
    some.fill_up()
    try:
        yield some
    finally:
        some.end()


async def _do_run(
    engine: AsyncEngine, workspace: Workspace, some: Workers, until: float, *, kill_every_s: float | None
) -> tuple[int, str, int]:
    """A run's number, how it ended, and how many workers were killed over it."""
    async with engine.begin() as connection:
        asked = await runs.add_run(connection, workspace, AS_OF)
    killed = 0
    while time.monotonic() < until:
        await asyncio.sleep(random.uniform(0.5, 1.5) * kill_every_s if kill_every_s else 0.1)
        record = await runs.get_run(engine, workspace, asked.id)
        if record.status in ("succeeded", "failed"):
            return asked.number, record.status, killed
        if kill_every_s:
            some.kill_one()
            some.fill_up()
            killed += 1
    return asked.number, "not ended in time", killed


async def _said(database: OwnDatabase, run: int) -> list[str | None]:
    found = [await database.fetch(_SAID.format(table=table), run) for table in ("scores", "score_history")]
    return [rows[0][0] for rows in found]


async def killed(scale: Scale, mutant: str | None = None) -> Finding:
    customers, rounds = (30_000, 2) if scale.small else (300_000, 20)
    until = time.monotonic() + scale.seconds
    with temporary_folder() as folder, own_database(folder) as database:
        await migrate(database.url)
        engine = create_engine(database.url, statement_timeout_ms=0)
        workspace = await add_shop(engine, "shop")
        await fill(database.url, "shop", customers, end=AS_OF)
        done = deaths = differ = failed = 0
        with workers(database, None) as some:
            begun = time.monotonic()
            run, status, _ = await _do_run(engine, workspace, some, until, kill_every_s=None)
            alone_s = time.monotonic() - begun
            expected = await _said(database, run)
        with workers(database, mutant) as some:
            while status == "succeeded" and done < rounds and time.monotonic() < until:
                # Some kills a run: more often, and with signs of life this far apart nobody would come to an end.
                run, ended, killed_over_it = await _do_run(
                    engine, workspace, some, until, kill_every_s=max(alone_s / 3, HEARTBEAT_S)
                )
                done, deaths = done + 1, deaths + killed_over_it
                failed += ended != "succeeded"
                differ += ended == "succeeded" and await _said(database, run) != expected
        left = (await database.fetch("SELECT (SELECT count(*) FROM run_parts) + (SELECT count(*) FROM runs_at_work)"))[
            0
        ][0]
        await engine.dispose()
    return Finding(
        PROMISE, f"{WORKERS} workers share a run of {customers:,} customers; kill −9 of any of them, {deaths} times",
        f"{done} runs of {rounds}: {failed} failed, {differ} differ from an undisturbed one; {left} rows left in hand",
        "0 failed, 0 differ, 0 left", kept_as_far(failed + differ + left == 0 and deaths > 0, done == rounds),
    )  # fmt: skip
