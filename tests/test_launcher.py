"""The launcher: what it starts ends together, and comes up again."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.embedded.folder import PROJECT_DIR, temporary_folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed launcher leaves its children")

PATIENCE = 60.0


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with temporary_folder("perennial-test-") as folder:
        yield folder


class Launcher:
    """A launcher under test, and what it prints."""

    def __init__(self, data_dir: Path, *arguments: str, **settings: str) -> None:
        self.output = data_dir / "launcher.out"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PERENNIAL_")}
        environment |= {"PERENNIAL_DATA_DIR": str(data_dir / "data"), "PORT": "0"} | settings
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                arguments or (sys.executable, "-m", "app.launcher"),
                cwd=PROJECT_DIR,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> "Launcher":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(PATIENCE)

    def until_printed(self, pattern: str) -> str:
        deadline = time.monotonic() + PATIENCE
        ended = False
        while time.monotonic() < deadline and not ended:
            ended = self.process.poll() is not None
            if found := re.search(pattern, self.output.read_text()):
                return found[1] if found.groups() else found[0]
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} was not printed, but: {self.output.read_text()}")

    def until_serving(self) -> str:
        return self.until_printed(r"Perennial serves on (http://127\.0\.0\.1:\d+)\n")

    def processes(self) -> dict[str, int]:
        """Process ids by part."""
        words = {"uvicorn": "web", "app.worker": "worker", "postgres": "postgres"}
        parts = {"launcher": self.process.pid}
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            parts |= {part: int(child) for word, part in words.items() if word in command}
        return parts


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def fetch(data_dir: Path, statement: str) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(f"postgresql://perennial@/perennial?host={data_dir}/data/socket")
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def until_ended(processes: dict[str, int]) -> None:
    deadline = time.monotonic() + 10
    running = processes
    while running := {part: pid for part, pid in running.items() if is_running(pid)}:
        assert time.monotonic() < deadline, f"still running: {running}"
        time.sleep(0.05)


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_all_end_with_each_and_come_up_again(data_dir: Path) -> None:
    keys_shown = []
    for round_number, killed in enumerate(("launcher", "web", "worker", "postgres")):
        with Launcher(data_dir) as launcher:
            assert status_of(launcher.until_serving() + "/health/ready") == 200
            keys_shown += re.findall(r"key of the first workspace, shown this once: \S+", launcher.output.read_text())
            processes = launcher.processes()
            assert processes.keys() == {"launcher", "web", "worker", "postgres"}
            fetch(data_dir, f"CREATE TABLE mark_{round_number} ()")
            os.kill(processes[killed], signal.SIGKILL)
            assert launcher.process.wait(PATIENCE) != 0
            until_ended(processes)
            if killed != "launcher":
                assert re.search(rf"(?i){killed}\w* process .* was killed by SIGKILL", launcher.output.read_text())
    assert len(keys_shown) == 1
    with Launcher(data_dir) as launcher:
        launcher.until_serving()
        assert fetch(data_dir, "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'mark\\__'") == 4
    assert launcher.process.returncode == 0


def test_the_launcher_ends_with_its_parent(data_dir: Path) -> None:
    command = f"{sys.executable} -m app.launcher --with-parent & echo launcher $! && wait"
    with Launcher(data_dir, "/bin/sh", "-c", command) as parent:
        launcher = int(parent.until_printed(r"launcher (\d+)"))
        parent.until_serving()
        parent.process.kill()
        until_ended({"launcher": launcher})
    assert "Perennial ends." in parent.output.read_text()


def test_a_taken_port_and_a_taken_folder_are_told(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Launcher(data_dir, PORT=str(port)) as launcher:
            launcher.until_printed(f"Port {port} on 127.0.0.1 is in use")
            assert launcher.process.wait(PATIENCE) == 1
    assert not (data_dir / "data").exists()


def test_invalid_settings_are_told_without_their_values(data_dir: Path) -> None:
    with Launcher(data_dir, PERENNIAL_DATABASE_URL="mysql://me:secret@host/db") as launcher:
        launcher.until_printed("The settings are not valid. database_url: ")
        assert launcher.process.wait(PATIENCE) == 1
    assert "secret" not in launcher.output.read_text()


def test_a_variable_that_is_no_setting_is_told_without_its_value(data_dir: Path) -> None:
    with Launcher(data_dir, PERENNIAL_WEB_CONCURRENCY="secret", PERENNIAL_DATABASE_URL="mysql://host/db") as launcher:
        launcher.until_printed(
            "PERENNIAL_WEB_CONCURRENCY is not a setting, and changes nothing. Is WEB_CONCURRENCY meant?"
        )
        launcher.process.wait(PATIENCE)
    assert "secret" not in launcher.output.read_text()


def test_an_external_database_is_waited_for(data_dir: Path) -> None:
    # This port is bound but nobody listens: connections are refused.
    with socket.socket() as closed, socket.socket() as free:
        closed.bind(("127.0.0.1", 0))
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        url = f"postgresql://nobody@127.0.0.1:{closed.getsockname()[1]}/none"
        with Launcher(data_dir, PERENNIAL_DATABASE_URL=url, PORT=str(port)) as launcher:
            launcher.until_printed("The database cannot be reached yet")
            assert status_of(f"http://127.0.0.1:{port}/health/live") == 200
            assert status_of(f"http://127.0.0.1:{port}/health/ready") == 503
    assert launcher.process.returncode == 0
    assert not (data_dir / "data").exists()
