"""The embedded PostgreSQL server: its life, its data folder, and what it never touches."""

import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app import embedded
from app.embedded import binaries, memory, server
from app.embedded.folder import LONGEST_SOCKET_DIR, PROJECT_DIR, account_for, temporary_folder

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root lends the server another user")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a server outlives a killed launcher")


@pytest.fixture
def parent() -> Iterator[Path]:
    """A folder that the server's user can enter; pytest's own are closed to all but root."""
    with temporary_folder("perennial-test-") as folder:
        yield folder


@pytest.fixture
def data_dir(parent: Path) -> Path:
    return parent / "data"


def start(data_dir: Path) -> embedded.EmbeddedServer:
    return embedded.start(data_dir, postgres_settings=server.THROWAWAY_SETTINGS)


def fetch(url: str, statement: str) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


def mark(url: str) -> None:
    fetch(url, "CREATE TABLE mark AS SELECT 42 AS value")


def marked(url: str) -> bool:
    return bool(fetch(url, "SELECT value FROM mark") == 42)


def start_in_another_process(data_dir: Path) -> subprocess.Popen[str]:
    script = (
        "import sys, time; from pathlib import Path; from app import embedded; from app.embedded import server;"
        "print(embedded.start(Path(sys.argv[1]), postgres_settings=server.THROWAWAY_SETTINGS).url, flush=True);"
        "time.sleep(60)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, str(data_dir)], stdout=subprocess.PIPE, text=True, cwd=PROJECT_DIR
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_data_outlives_a_stop_and_nothing_outside_is_touched(data_dir: Path) -> None:
    above = [*data_dir.parents, binaries._package_dir(), *binaries._package_dir().parents]
    before = [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in above]
    first = start(data_dir)
    try:
        mark(first.url)
        assert fetch(first.url, "SHOW listen_addresses") == ""
        assert fetch(first.url, "SHOW data_checksums") == "on"
        assert fetch(first.url, "SHOW server_encoding") == "UTF8"
        assert fetch(first.url, "SHOW timezone") == "UTC"
        assert fetch(first.url, "SELECT 'Z' < 'a' AND upper('é') = 'É'")
    finally:
        embedded.stop(first)
    assert first.process.returncode == 0
    second = start(data_dir)
    try:
        assert marked(second.url)
    finally:
        embedded.stop(second)
    assert [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in above] == before
    assert mode(data_dir) & 0o007 == 0
    assert mode(data_dir / "socket") == mode(data_dir / "postgresql-18") == 0o700


def test_the_product_never_trades_durability_for_speed() -> None:
    settings = server.POSTGRES_SETTINGS
    assert [settings[name] for name in ("fsync", "full_page_writes", "synchronous_commit")] == ["on", "on", "on"]


def test_a_leftover_server_is_ended_first(data_dir: Path) -> None:
    leftover = start(data_dir)
    mark(leftover.url)
    leftover.launcher_lock.close()  # As if its launcher had died.
    successor = start(data_dir)
    try:
        assert leftover.process.wait(5) == 0
        assert marked(successor.url)
    finally:
        embedded.stop(successor)


def test_a_second_launcher_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start(data_dir)
    try:
        monkeypatch.setattr(server, "LAUNCHER_PATIENCE", 0.0)
        with pytest.raises(embedded.EmbeddedServerError, match=rf"in use by another launcher, process {os.getpid()}\."):
            start(data_dir)
        assert fetch(first.url, "SELECT 1") == 1
    finally:
        embedded.stop(first)


@as_root
def test_a_folder_out_of_reach_is_refused_and_left_alone(parent: Path) -> None:
    private = parent / "home"
    private.mkdir(mode=0o700)
    with pytest.raises(embedded.EmbeddedServerError, match=rf"cannot enter {private}, .* PERENNIAL_DATA_DIR=/var/lib"):
        start(private / "deep" / "data")
    assert mode(private) == 0o700
    assert not list(private.iterdir())


@as_root
def test_a_private_folder_of_others_is_refused_and_left_alone(parent: Path) -> None:
    private = parent / "home"
    private.mkdir(mode=0o700)
    (private / "letter").touch()
    with pytest.raises(embedded.EmbeddedServerError, match="already belongs to something else"):
        start(private)
    assert mode(private) == 0o700
    assert [path.name for path in private.iterdir()] == ["letter"]


@as_root
def test_an_empty_private_folder_is_taken(parent: Path) -> None:
    folder = parent / "made by mktemp -d with 'quotes\" and %41"
    folder.mkdir(mode=0o700)
    running = start(folder)
    try:
        assert fetch(running.url, "SELECT 1") == 1
    finally:
        embedded.stop(running)
    assert mode(folder) == 0o710


@as_root
def test_programs_out_of_reach_are_copied(data_dir: Path, parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = binaries._package_dir().parent
    private = parent / "root's home"
    for file in binaries._needed_files(installed):
        copy = private / file.relative_to(installed)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    private.chmod(0o700)
    monkeypatch.setattr(binaries, "_package_dir", lambda: private / binaries.PACKAGE)
    for _ in range(2):
        running = start(data_dir)
        try:
            assert Path(os.readlink(f"/proc/{running.process.pid}/exe")).is_relative_to(data_dir)
        finally:
            embedded.stop(running)
    assert mode(private) == 0o700


@pytest.mark.parametrize("name", ["long" * 30, "a,comma"])
def test_a_path_that_no_socket_can_have_moves_the_socket(parent: Path, name: str) -> None:
    data_dir = parent / name
    running = start(data_dir)
    try:
        assert fetch(running.url, "SELECT 1") == 1
        assert len(os.fsencode(running.sockets)) <= LONGEST_SOCKET_DIR
        assert mode(running.sockets) == 0o700
        assert running.sockets.stat().st_uid == account_for(data_dir).uid
    finally:
        embedded.stop(running)
    assert not running.sockets.exists()


def test_a_socket_folder_prepared_by_others_is_refused(data_dir: Path) -> None:
    embedded.stop(start(data_dir))
    (data_dir / "socket").chmod(0o777)
    with pytest.raises(embedded.EmbeddedServerError, match="is not a folder open to user"):
        start(data_dir)


def test_a_killed_server_comes_up_with_its_data(data_dir: Path) -> None:
    first = start(data_dir)
    mark(first.url)
    first.process.kill()
    first.process.wait()
    first.launcher_lock.close()
    second = start(data_dir)
    try:
        assert marked(second.url)
    finally:
        embedded.stop(second)


def test_a_stale_process_id_does_no_harm(data_dir: Path) -> None:
    first = start(data_dir)
    record = data_dir / "postgresql-18" / "postmaster.pid"
    stale = record.read_text().replace(str(first.process.pid), str(os.getpid()), 1)
    embedded.stop(first)
    record.write_text(stale)
    embedded.stop(start(data_dir))


@pytest.mark.parametrize("seconds", [0.25, 0.45])
def test_a_kill_while_the_cluster_is_made_does_no_harm(data_dir: Path, seconds: float) -> None:
    with start_in_another_process(data_dir) as launcher:
        time.sleep(seconds)
        launcher.kill()
    embedded.stop(start(data_dir))
    assert not list(data_dir.glob("initdb-*"))


@on_linux
def test_the_server_ends_with_a_killed_launcher(data_dir: Path) -> None:
    with start_in_another_process(data_dir) as launcher:
        assert launcher.stdout is not None
        mark(launcher.stdout.readline().strip())
        launcher.send_signal(signal.SIGKILL)
    for _ in range(200):
        if not (data_dir / "postgresql-18" / "postmaster.pid").exists():
            break
        time.sleep(0.05)
    else:
        pytest.fail("the server outlived its launcher")
    running = start(data_dir)
    try:
        assert marked(running.url)
    finally:
        embedded.stop(running)


def test_a_failing_start_says_why_and_leaves_nothing_behind(data_dir: Path) -> None:
    with pytest.raises(embedded.EmbeddedServerError, match='invalid value for parameter "max_connections"'):
        embedded.start(data_dir, postgres_settings={"max_connections": "many"})
    embedded.stop(start(data_dir))


def test_the_log_stays_bounded(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = start(data_dir)
    try:
        monkeypatch.setattr(server, "LOG_LIMIT_BYTES", 10)
        embedded.trim_log(running)
        assert running.log.stat().st_size == 0
        with pytest.raises(asyncpg.PostgresError):
            fetch(running.url, "SELECT 1 / 0")
        assert "division by zero" in running.log.read_text()
        assert "SELECT" not in running.log.read_text()
    finally:
        embedded.stop(running)


def test_a_temporary_server_leaves_nothing() -> None:
    with embedded.temporary_server() as running:
        assert fetch(running.url, "SELECT 1") == 1
    assert not running.data_dir.parent.exists()


@pytest.mark.parametrize(
    ("gigabytes", "shared_buffers"), [(0.5, "128MB"), (2, "256MB"), (8, "1024MB"), (16, "2048MB"), (256, "2048MB")]
)
def test_the_server_takes_an_eighth_of_the_memory_within_bounds(gigabytes: float, shared_buffers: str) -> None:
    assert memory.memory_settings(int(gigabytes * 2**30))["shared_buffers"] == shared_buffers


@pytest.mark.parametrize(
    ("said", "limit"), [("268435456\n", 2**28), ("max\n", None), (f"{2**63 - 4096}\n", None), (None, None)]
)
def test_a_container_has_the_memory_that_it_is_allowed(tmp_path: Path, said: str | None, limit: int | None) -> None:
    file = tmp_path / "memory.max"
    if said is not None:
        file.write_text(said)
    assert memory.memory_bytes([file]) == (limit or memory.memory_bytes([]))


def test_where_the_memory_is_not_told_it_is_taken_for_two_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> int:
        raise ValueError(f"unrecognized configuration name {name}")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert memory.memory_bytes([]) == 2**31
    monkeypatch.setattr(os, "sysconf", lambda name: -1 if name == "SC_PHYS_PAGES" else 4096)
    assert memory.memory_bytes([]) == 2**31


def test_a_server_starts_with_the_memory_of_the_machine(data_dir: Path) -> None:
    served = embedded.start(data_dir, postgres_settings={"fsync": "off"})
    try:
        megabytes = fetch(served.url, "SELECT pg_size_bytes(current_setting('shared_buffers')) / (1 << 20)")
    finally:
        embedded.stop(served)
    assert f"{megabytes}MB" == memory.memory_settings(memory.memory_bytes())["shared_buffers"]
