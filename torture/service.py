"""Services under torture: in a folder that is thrown away, on loopback, killed and started again at will."""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from app import embedded
from app.embedded import EmbeddedServer
from app.launcher import _spawn_web
from torture.mutants import settings_for

KEY = "prn_torture"
PATIENCE_S = 60.0


@contextmanager
def own_database(folder: Path, **postgres_settings: str) -> Iterator["OwnDatabase"]:
    """A PostgreSQL with the product's own settings, and so as durable, that no launcher owns."""
    database = OwnDatabase(folder / "database", postgres_settings)
    database.start()
    try:
        yield database
    finally:
        if database.server is not None:
            database.stop()


class OwnDatabase:
    def __init__(self, folder: Path, postgres_settings: Mapping[str, str]) -> None:
        self._folder = folder
        self._settings = postgres_settings
        self.server: EmbeddedServer | None = None
        self.url = ""

    def start(self) -> None:
        self.server = embedded.start(self._folder, postgres_settings=self._settings)
        self.url = self.server.url

    def stop(self) -> None:
        """A fast stop: sessions are cut."""
        assert self.server is not None
        embedded.stop(self.server)
        self.server = None

    async def fetch(self, statement: str, *values: Any) -> list[Any]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class WebProcess:
    """One web process as the launcher starts it, to be killed alone and quickly replaced."""

    def __init__(self, database_url: str, mutant: str | None = None) -> None:
        kept = dict(os.environ)
        os.environ.update(settings_for(mutant) | {"PERENNIAL_LOG_LEVEL": "error"})
        try:
            with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
                self.port: int = listener.getsockname()[1]
                self.process: subprocess.Popen[bytes] = _spawn_web(database_url, listener, None).process
        finally:
            os.environ.clear()
            os.environ.update(kept)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def end(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)


async def until_ready(http: httpx.AsyncClient) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if (await http.get("/health/ready")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.02)
    raise AssertionError("the service did not become ready")


def client(url: str, key: str = KEY, connections: int = 100) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=PATIENCE_S,
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


def memory_kib(process_id: int, field: str = "VmHWM") -> int:
    """Of a process: its resident memory now (``VmRSS``) or at its highest (``VmHWM``)."""
    for line in Path(f"/proc/{process_id}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise AssertionError(f"process {process_id} has no {field}")
