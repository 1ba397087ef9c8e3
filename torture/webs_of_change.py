"""Webs of change: a migration runs while the version before it serves, and nobody notices.

The version before each migration comes out of the repository's history; where there is none, this can't be tried.
"""

import asyncio
import io
import os
import socket
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import httpx
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory

from app import migrate
from app.embedded.folder import PROJECT_DIR, temporary_folder
from torture.findings import Finding, Scale
from torture.service import KEY, OwnDatabase, client, own_database, until_ready

PROMISE = "webs of change"
FOLDER = "migrations/versions"
LOCK_BOUND_S = 5.0
FIRST = 4
"""Older versions had no event indexes that could be replaced beside them."""


async def under_traffic(scale: Scale, _mutant: str | None = None) -> list[Finding]:
    scripts = list(ScriptDirectory.from_config(migrate._config()).walk_revisions())
    versions = _versions({script.revision for script in scripts})
    # Migrations that came together are one step from the version before them.
    steps: dict[str | None, Script] = {}
    for script in reversed(scripts):
        if int(script.revision) >= FIRST:
            steps[max((head for head in versions if head < script.revision), default=None)] = script
    findings = []
    for head, script in list(steps.items())[-1:] if scale.small else steps.items():
        if head is None:
            findings.append(Finding(PROMISE, f"up to {script.revision} under the version before",
                                    "no history to take it from", "0 lost, 0 5xx", None))  # fmt: skip
            continue
        before = versions[head]
        with temporary_folder() as folder:
            _unpack(before, folder / "before")
            with own_database(folder) as database:
                findings.append(await _migrate_beside(database, folder / "before", script, scale))
    return findings


def _git(*arguments: str) -> bytes | None:
    done = subprocess.run(
        ["git", *arguments], cwd=PROJECT_DIR, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    return done.stdout if done.returncode == 0 else None


def _versions(revisions: Collection[str]) -> dict[str, str]:
    """By its latest migration the newest commit of the history that ends with it."""
    found: dict[str, str] = {}
    for commit in (_git("rev-list", "HEAD", "--", FOLDER) or b"").decode().split():
        files = (_git("ls-tree", "--name-only", commit, f"{FOLDER}/") or b"").decode().split()
        head = max(Path(file).name.partition("_")[0] for file in files)
        if head in revisions:
            found.setdefault(head, commit)
    return found


def _unpack(commit: str, folder: Path) -> None:
    archive = _git("archive", commit)
    assert archive is not None
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


async def _migrate_beside(database: OwnDatabase, before: Path, script: Any, scale: Scale) -> Finding:
    """Fill the database by the version before; migrate while it takes events in and answers."""

    def run_old(*arguments: str) -> list[str]:
        return [sys.executable, *arguments]

    environment = {name: value for name, value in os.environ.items() if not name.startswith("PERENNIAL_")}
    environment |= {"PERENNIAL_DATABASE_URL": database.url, "PERENNIAL_LOG_LEVEL": "error"}
    await asyncio.to_thread(
        subprocess.run, run_old("-m", "app.migrate"), cwd=before, env=environment, check=True, timeout=120
    )
    made = (
        f"import asyncio; from app.migrate import bootstrap; asyncio.run(bootstrap({database.url!r}, {KEY!r}, 'USD'))"
    )
    await asyncio.to_thread(subprocess.run, run_old("-c", made), cwd=before, env=environment, check=True, timeout=120)
    statuses: Counter[str] = Counter()
    acknowledged: set[str] = set()
    slowest = 0.0
    stop = asyncio.Event()

    async def writer(http: httpx.AsyncClient, number: int) -> None:
        nonlocal slowest
        count = 0
        while not stop.is_set():
            count += 1
            allowed = {200}
            events: list[dict[str, Any]] = [
                {"id": f"e-{number}-{count}-{place}", "type": "order.placed",
                 "customer_id": f"c-{(count + place) % 500}", "occurred_at": "2025-01-01T00:00:00Z",
                 "data": {"order_id": f"o-{number}-{count}-{place}", "amount": "1", "currency": "USD"}}
                for place in range(20)
            ]  # fmt: skip
            begun = time.monotonic()
            if count % 4 == 0:
                response = await http.get(f"/v1/customers/c-{(count + 1) % 500}/value")
                allowed.add(404)
            else:
                response = await http.post("/v1/events", json={"events": events})
                if response.status_code == 200:
                    acknowledged.update(event["id"] for event in events)
            slowest = max(slowest, time.monotonic() - begun)
            statuses["as it should" if response.status_code in allowed else str(response.status_code)] += 1

    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        port = listener.getsockname()[1]
        web = subprocess.Popen(
            run_old("-m", "uvicorn", "app.main:create_app", "--factory", "--fd", str(listener.fileno()),
                    "--log-level", "error", "--ws", "none"),
            cwd=before, env=environment, pass_fds=(listener.fileno(),), stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        async with client(f"http://127.0.0.1:{port}") as http:
            await until_ready(http)
            writers = [asyncio.create_task(writer(http, number)) for number in range(4)]
            await asyncio.sleep(1.0 if scale.small else 5.0)
            begun = time.monotonic()

            def upgrade(config: Config) -> None:
                command.upgrade(config, script.revision)

            await migrate._with_connection(database.url, upgrade)
            took = time.monotonic() - begun
            await asyncio.sleep(1.0)
            stop.set()
            await asyncio.gather(*writers)
    finally:
        web.kill()
        web.wait()
    stored = {row[0] for row in await database.fetch("SELECT event_id FROM events")}
    lost = len(acknowledged - stored)
    others = sum(statuses.values()) - statuses["as it should"]
    return Finding(
        PROMISE,
        f"up to migration {script.revision}, while the version before writes and reads",
        f"{len(acknowledged):,} events acknowledged, {lost} lost; {others} of {sum(statuses.values()):,} answers"
        f" other than they should; it took {took:.1f} s, the slowest answer {slowest:.1f} s",
        f"0 lost, 0 others; no answer waits longer than {LOCK_BOUND_S:g} s for a lock",
        lost == 0 and others == 0 and slowest <= LOCK_BOUND_S + 1,
    )
