"""Start and stop the embedded server, whatever state a former one left the data folder in."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from app.embedded.binaries import MAJOR_VERSION, programs_for
from app.embedded.child import signalled_on_parent_death
from app.embedded.folder import (
    Account,
    EmbeddedServerError,
    account_for,
    lock_for_launcher,
    may,
    own_folder,
    prepare_data_dir,
    remedy,
    socket_dir,
    temporary_folder,
    try_lock,
)
from app.embedded.memory import memory_bytes, memory_settings

DATABASE = "perennial"
CLUSTER = f"postgresql-{MAJOR_VERSION}"
# The server inherits this lock open, and so do all its processes: while one of them lives, it is held.
SERVER_LOCK = "server.lock"
LOG = "postgres.log"
LOG_LIMIT_BYTES = 8 * 1024 * 1024

LAUNCHER_PATIENCE = 5.0
# Long, because after a hard stop the server first replays what was acknowledged.
START_PATIENCE = 300.0
FAST_STOP_PATIENCE = 60.0
HARD_STOP_PATIENCE = 10.0
POLL_INTERVAL = 0.02

POSTGRES_SETTINGS = {
    # No TCP port: the socket, in a folder of the server's user, is the only way in.
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    # An acknowledged event is on the disk.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # Room for bulk ingest between checkpoints, yet a replay of some ten seconds after a hard stop. After a checkpoint
    # the first change of any page is logged with the whole page, so frequent checkpoints double what is written.
    "wal_level": "replica",
    "min_wal_size": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "10min",
    # A new database gathers statistics within seconds of its first events, or plans would not fit their number.
    "autovacuum_naptime": "10s",
    # Customers' data stays out of the log: no statements, and no details that quote rows.
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}

# For databases that are thrown away, a test's or that of a check: they need not survive a power cut.
# Their plans do not depend on the machine.
THROWAWAY_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "effective_cache_size": "1GB",
}


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server. `url` reaches its database; `process` is its postmaster."""

    process: subprocess.Popen[bytes]
    url: str
    data_dir: Path
    sockets: Path
    log: Path
    launcher_lock: IO[str]


def start(data_dir: Path, *, postgres_settings: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Start the server of `data_dir`, which is made on first use, and return once it takes connections.

    `postgres_settings` go over those of the product. The server ends with this process (on Linux), or by `stop`.
    """
    settings = {**POSTGRES_SETTINGS, **memory_settings(memory_bytes()), **(postgres_settings or {})}
    data_dir = data_dir.absolute().resolve()
    account = account_for(data_dir / CLUSTER)
    try:
        prepare_data_dir(data_dir, account)
        with contextlib.ExitStack() as undo:
            launcher_lock = undo.enter_context(lock_for_launcher(data_dir, patience=LAUNCHER_PATIENCE))
            with _take_over(data_dir) as server_lock:
                programs = programs_for(account, data_dir)
                cluster = _ensure_cluster(data_dir, programs, account, server_lock, durable=settings["fsync"] != "off")
                sockets = socket_dir(data_dir, account)
                log = data_dir / LOG
                log_start = log.stat().st_size if log.exists() else 0
                process = _spawn(programs, cluster, sockets, settings, account, log, server_lock)
            undo.callback(_end, process)
            _wait_until_ready(process, cluster, log, log_start)
            undo.pop_all()
    except OSError as error:
        advice = f" {remedy()}" if isinstance(error, PermissionError) else ""
        raise EmbeddedServerError(f"The data folder {data_dir} cannot be used: {error}.{advice}") from error
    url = f"postgresql://{DATABASE}@/{DATABASE}?host={quote(str(sockets))}"
    return EmbeddedServer(process, url, data_dir, sockets, log, launcher_lock)


def stop(server: EmbeddedServer) -> None:
    """End the server: what is committed is on the disk, sessions are cut. An interrupt meanwhile hastens it."""
    _end(server.process)
    if server.sockets.parent != server.data_dir:
        with contextlib.suppress(OSError):  # It stays where something is left in it, and serves the next start.
            server.sockets.rmdir()
    server.launcher_lock.close()


@contextlib.contextmanager
def temporary_server(*, postgres_settings: Mapping[str, str] = THROWAWAY_SETTINGS) -> Iterator[EmbeddedServer]:
    """A fresh server whose data is thrown away afterwards; `postgres_settings` go over those of the product."""
    with temporary_folder() as folder:
        server = start(folder / "data", postgres_settings=postgres_settings)
        try:
            yield server
        finally:
            stop(server)


def trim_log(server: EmbeddedServer) -> None:
    """Keep the log bounded: set a full one aside, in the place of the one before."""
    if server.log.exists() and server.log.stat().st_size > LOG_LIMIT_BYTES:
        with contextlib.suppress(OSError):  # On a full disk there is no room to keep the old lines.
            shutil.copyfile(server.log, server.log.with_suffix(".log.1"))
        # The server appends, so it goes on at the new end.
        os.truncate(server.log, 0)


def _take_over(data_dir: Path) -> IO[str]:
    """Take the server's lock, ending a server that outlived its launcher."""
    path = data_dir / SERVER_LOCK
    cluster = data_dir / CLUSTER
    for number, patience in ((signal.SIGINT, FAST_STOP_PATIENCE), (signal.SIGQUIT, HARD_STOP_PATIENCE)):
        leftover = _postmaster(cluster)
        if leftover is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(leftover, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if _postmaster(cluster) is None and (lock := try_lock(path)) is not None:
                _forget_reused_process_id(cluster)
                return lock
            time.sleep(POLL_INTERVAL)
    raise EmbeddedServerError(
        f"A PostgreSQL server of the data folder {data_dir} is still running and does not end. "
        f"Its process id is in {cluster / 'postmaster.pid'}."
    )


def _forget_reused_process_id(cluster: Path) -> None:
    """Remove a stale `postmaster.pid` whose number another process bears by now: the server would refuse to start.

    Only called with the server's lock held, that is, when no process of a former server is left. Any other stale
    file is left to PostgreSQL, which knows best.
    """
    recorded = _recorded_process_id(cluster)
    if recorded is not None and _command_line(recorded) is not None:
        (cluster / "postmaster.pid").unlink()


def _postmaster(cluster: Path) -> int | None:
    """Return the process id of the running server of this folder, verified by its command line."""
    recorded = _recorded_process_id(cluster)
    command = None if recorded is None else _command_line(recorded)
    return recorded if command is not None and str(cluster) in command and "postgres" in command else None


def _recorded_process_id(cluster: Path) -> int | None:
    try:
        return int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _command_line(process_id: int) -> str | None:
    """Return the command line of a process, or None if there is no such process (or only its dead shell)."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{process_id}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ") or None
        except (FileNotFoundError, ProcessLookupError):
            return None
    listed = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(process_id)], stdout=subprocess.PIPE, text=True, check=False
    )
    return listed.stdout.strip() or None


def _ensure_cluster(data_dir: Path, programs: Path, account: Account, lock: IO[str], *, durable: bool) -> Path:
    """Make the database cluster if there is none. It gets its name when it is whole, so a kill midway is harmless."""
    cluster = data_dir / CLUSTER
    for unfinished in data_dir.glob("initdb-*"):
        shutil.rmtree(unfinished)
    if cluster.exists():
        if cluster.stat().st_uid != account.uid or not may(account, "x", cluster):
            raise EmbeddedServerError(
                f"{cluster} does not belong to user {account.name!r}, whom the PostgreSQL server runs as. "
                "Start as the user who made it, or set PERENNIAL_DATA_DIR to another folder."
            )
        return cluster
    unfinished = own_folder(Path(tempfile.mkdtemp(prefix="initdb-", dir=data_dir)), account)
    options = (
        f"--username={DATABASE} --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8 "
        "--data-checksums --auth-local=trust --auth-host=reject --no-instructions"
    ).split()
    if not durable:
        options.append("--no-sync")
    _run_to_end([programs / "initdb", "-D", unfinished, *options], account, lock)
    _run_to_end(
        [programs / "postgres", "--single", "-D", unfinished, "-c", f"fsync={'on' if durable else 'off'}", "postgres"],
        account,
        lock,
        commands=f"CREATE DATABASE {DATABASE}\n",
    )
    unfinished.rename(cluster)
    _flush_folder(data_dir)
    return cluster


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _run_to_end(command: list[Path | str], account: Account, lock: IO[str], *, commands: str = "") -> None:
    done = subprocess.run(
        command,
        input=commands,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        cwd="/",
        env=_environment(),
        process_group=0,
        pass_fds=(lock.fileno(),),
        preexec_fn=signalled_on_parent_death(signal.SIGKILL),
        **account.popen_options(),
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-8:])
        raise EmbeddedServerError(
            f"PostgreSQL's {Path(command[0]).name} ended with status {done.returncode}. Its last words:\n{tail}"
        )


def _environment() -> dict[str, str]:
    """Just what the server needs: the launcher's own environment holds secrets, and may hold PG* variables."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C"} | kept


def _spawn(
    programs: Path,
    cluster: Path,
    sockets: Path,
    settings: Mapping[str, str],
    account: Account,
    log: Path,
    lock: IO[str],
) -> subprocess.Popen[bytes]:
    quoted = str(sockets).replace('"', '""')
    arguments = [f"{name}={value}" for name, value in {**settings, "unix_socket_directories": f'"{quoted}"'}.items()]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab") as output:
        # A process group of its own keeps a terminal's Ctrl-C from the server: it must end after its clients.
        return subprocess.Popen(
            [programs / "postgres", "-D", cluster, *(part for argument in arguments for part in ("-c", argument))],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            process_group=0,
            pass_fds=(lock.fileno(),),
            preexec_fn=signalled_on_parent_death(signal.SIGINT),
            **account.popen_options(),
        )


def _wait_until_ready(process: subprocess.Popen[bytes], cluster: Path, log: Path, log_start: int) -> None:
    deadline = time.monotonic() + START_PATIENCE
    while not _is_ready(process.pid, cluster):
        if process.poll() is not None:
            raise EmbeddedServerError(
                f"PostgreSQL ended with status {process.returncode} while it started. From {log}:\n"
                f"{_log_tail(log, log_start)}"
            )
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"PostgreSQL was not ready within {START_PATIENCE:.0f} s. See {log}.")
        time.sleep(POLL_INTERVAL)


def _is_ready(process_id: int, cluster: Path) -> bool:
    """Read what the server itself records about its state (its first and eighth line)."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0] == str(process_id) and lines[7].strip() == "ready"


def _log_tail(log: Path, log_start: int) -> str:
    with log.open(errors="replace") as file:
        file.seek(log_start)
        return "".join(file.readlines()[-8:])


def _end(process: subprocess.Popen[bytes]) -> None:
    for number, patience in (
        (signal.SIGINT, FAST_STOP_PATIENCE),
        (signal.SIGQUIT, HARD_STOP_PATIENCE),
        (signal.SIGKILL, HARD_STOP_PATIENCE),
    ):
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(patience)
            return
