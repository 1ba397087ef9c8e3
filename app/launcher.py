"""Start and end the whole service as one: `python -m app.launcher`.

The launcher is the parent of the embedded PostgreSQL server (unless a database URL is set), of the web processes and
of the worker. When one of them dies, or when the launcher is asked to end, all of them end.
"""

import argparse
import asyncio
import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg
from pydantic import ValidationError

from app import embedded
from app.embedded.child import request_signal_on_parent_death, signalled_on_parent_death
from app.embedded.folder import PROJECT_DIR
from app.settings import Settings, unknown_settings

POLL_INTERVAL = 0.1
BIND_PATIENCE = 2.0
# How long the web processes may answer what they have begun, and the worker may bring its job to a safe point.
WEB_PATIENCE = 15.0
WORKER_PATIENCE = 15.0
POSTGRES_PATIENCE = 60.0
BRING_UP_PATIENCE = 5.0
# After a second request to end.
HASTY_PATIENCE = 0.5
DATABASE_RETRY_INTERVAL = 2.0
MOST_SOCKETS = 65_536
# Matrices are small here: a pool of threads costs more than it brings, and beside busy processes it stalls.
ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class LauncherError(Exception):
    """The service cannot run; the message says why and what to do."""


@dataclass(frozen=True)
class Child:
    """A process of the service, and how it is ended: politely, and when patience is over."""

    name: str
    process: subprocess.Popen[bytes]
    patience: float
    polite: signal.Signals = signal.SIGTERM
    hard: signal.Signals = signal.SIGKILL

    def obituary(self) -> str:
        status = self.process.returncode
        cause = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"The {self.name} process ({self.process.pid}) {cause}."


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app.launcher", description="Run Perennial.")
    parser.add_argument("--with-parent", action="store_true", help="end when the parent process dies (Linux)")
    if parser.parse_args(arguments).with_parent:
        request_signal_on_parent_death(signal.SIGTERM)
    # Until the event loop takes over, a request to end interrupts whatever is being waited for.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _run(_read_settings())
    except (LauncherError, embedded.EmbeddedServerError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return 0


def _run(settings: Settings) -> int:
    _allow_many_sockets()
    with _listen(settings.host, settings.port) as listener:
        if settings.database_url is not None:
            return asyncio.run(_serve(settings, settings.database_url, None, listener))
        server = embedded.start(
            settings.data_dir or embedded.default_data_dir(),
            postgres_settings={"max_connections": str(max(100, settings.web_concurrency * settings.pool_size + 40))},
        )
        try:
            return asyncio.run(_serve(settings, server.url, server, listener))
        finally:
            embedded.stop(server)


def _read_settings() -> Settings:
    for name, meant in unknown_settings(os.environ).items():
        _say(f"{name} is not a setting, and changes nothing." + (f" Is {meant} meant?" if meant else ""))
    try:
        return Settings()
    except ValidationError as error:
        # The values stay out of the message: a database URL may hold a password.
        problems = (f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors())
        raise LauncherError("The settings are not valid. " + "; ".join(problems)) from error


def _listen(host: str, port: int) -> socket.socket:
    """Listen here rather than in the web processes: they share one socket, and its error is told in plain words."""
    deadline = time.monotonic() + BIND_PATIENCE
    while True:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((host, port), family=family, backlog=2048)
            # Connections inherit it. Without it an answer of two packets waits 40 ms for the client's delayed ACK,
            # because the web processes don't know an inherited socket for one of TCP.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return listener
        except OSError as error:
            # The processes of a launcher that was just killed may still be ending.
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(POLL_INTERVAL)
            elif error.errno == errno.EADDRINUSE:
                raise LauncherError(
                    f"Port {port} on {host} is in use. Stop what listens there, or set PORT to another number."
                ) from error
            else:
                raise LauncherError(f"Cannot listen on {host}, port {port}: {error.strerror}") from error


async def _serve(
    settings: Settings, database_url: str, server: embedded.EmbeddedServer | None, listener: socket.socket
) -> int:
    stop, hasten = asyncio.Event(), asyncio.Event()
    _listen_to_signals(stop, hasten)
    address = f"http://{_reachable_host(settings.host)}:{listener.getsockname()[1]}"
    children: list[Child] = []
    if server is not None:
        children.append(
            Child("PostgreSQL", server.process, POSTGRES_PATIENCE, polite=signal.SIGINT, hard=signal.SIGQUIT)
        )
    metrics_dir: str | None = None
    if settings.web_concurrency > 1:
        # One of them answers for all when it is asked for metrics.
        metrics_dir = tempfile.mkdtemp(prefix="perennial-metrics-")
    children += [_spawn_web(database_url, listener, metrics_dir) for _ in range(settings.web_concurrency)]
    listener.close()  # Theirs from now on: once they end, connections are refused and not kept waiting.
    bring_up = asyncio.create_task(_bring_up(settings, database_url, server, address, children))
    try:
        while not stop.is_set():
            for child in children:
                if child.process.poll() is not None:
                    _say(f"{child.obituary()} Perennial ends.")
                    return 1
            if bring_up.done():
                bring_up.result()
            if server is not None:
                embedded.trim_log(server)
            await asyncio.sleep(POLL_INTERVAL)
        _say("Perennial ends.")
        return 0
    finally:
        bring_up.cancel()
        await asyncio.wait([bring_up], timeout=BRING_UP_PATIENCE)
        for name in ("web", "worker", "PostgreSQL"):
            await _end([child for child in children if child.name == name], hasten)
        if metrics_dir is not None:
            shutil.rmtree(metrics_dir, ignore_errors=True)


def _listen_to_signals(stop: asyncio.Event, hasten: asyncio.Event) -> None:
    def on_signal() -> None:
        (hasten if stop.is_set() else stop).set()

    asked = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # Ignored under nohup.
        asked.append(signal.SIGHUP)
    for number in asked:
        asyncio.get_running_loop().add_signal_handler(number, on_signal)


async def _bring_up(
    settings: Settings,
    database_url: str,
    server: embedded.EmbeddedServer | None,
    address: str,
    children: list[Child],
) -> None:
    """Bring the database up to date and start the worker, while the web processes already tell of their health."""
    from app.migrate import migrate  # Imported only now: its imports overlap with the web processes' own.

    await _wait_for_database(database_url)
    await migrate(database_url)
    if server is not None or settings.bootstrap_key is not None:
        # Not to be cut short: a key that is made but not shown would lock its owner out.
        first_key = asyncio.create_task(_bootstrap(settings, database_url))
        try:
            await asyncio.shield(first_key)
        except asyncio.CancelledError:
            await first_key
            raise
    children.append(_spawn_worker(database_url))
    await _wait_until_ready(address)
    print(f"Perennial serves on {address}", flush=True)


async def _bootstrap(settings: Settings, database_url: str) -> None:
    from app.migrate import bootstrap

    given = settings.bootstrap_key.get_secret_value() if settings.bootstrap_key else None
    made = await bootstrap(database_url, given, settings.currency, settings.time_zone)
    if made is not None and given is None:
        print(f"The key of the first workspace, shown this once: {made}", flush=True)


def _spawn_web(database_url: str, listener: socket.socket, metrics_dir: str | None) -> Child:
    options = (
        # One each: uvicorn would read WEB_CONCURRENCY too, and multiply it by itself.
        "--workers 1 "
        f"--factory --fd {listener.fileno()} --loop uvloop --http app.api.protocol:ProblemProtocol --ws none "
        "--no-proxy-headers --no-server-header --no-access-log --log-level warning --log-config app/uvicorn_logs.json "
        f"--timeout-graceful-shutdown {WEB_PATIENCE - 3:.0f}"
    )
    command = ["-m", "uvicorn", "app.main:create_app", *options.split()]
    metrics = {"PROMETHEUS_MULTIPROC_DIR": metrics_dir} if metrics_dir else {}
    return Child("web", _spawn(command, database_url, metrics, pass_fds=(listener.fileno(),)), WEB_PATIENCE)


def _allow_many_sockets() -> None:
    """Take as many file descriptors as we may: a thousand idle clients must not keep the next one out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_SOCKETS if hard == resource.RLIM_INFINITY else min(MOST_SOCKETS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _spawn_worker(database_url: str) -> Child:
    return Child("worker", _spawn(["-m", "app.worker"], database_url), WORKER_PATIENCE)


def _spawn(
    arguments: list[str], database_url: str, more: Mapping[str, str] | None = None, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "PERENNIAL_BOOTSTRAP_KEY"}
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        cwd=PROJECT_DIR,
        env=ONE_BLAS_THREAD | environment | {"PERENNIAL_DATABASE_URL": database_url} | dict(more or {}),
        pass_fds=pass_fds,
        # A process group of its own: a terminal's Ctrl-C goes to the launcher alone, which ends all in order.
        process_group=0,
        # Without a launcher nobody would bound a graceful end, and the port must be free for the next one.
        preexec_fn=signalled_on_parent_death(signal.SIGKILL),
    )


async def _wait_for_database(url: str) -> None:
    told = False
    while True:
        try:
            connection = await asyncpg.connect(url, timeout=10)
        except (
            OSError,
            asyncpg.PostgresConnectionError,
            asyncpg.CannotConnectNowError,
            asyncpg.TooManyConnectionsError,
        ) as error:
            if not told:
                _say(f"The database cannot be reached yet ({error}). Trying on.")
                told = True
            await asyncio.sleep(DATABASE_RETRY_INTERVAL)
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise LauncherError(f"The database refuses the connection: {error}") from error
        else:
            await connection.close()
            return


async def _wait_until_ready(address: str) -> None:
    host, port = address.removeprefix("http://").rsplit(":", 1)
    told = False
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            writer.write(f"GET /health/ready HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            if head.split()[1:2] == [b"200"]:
                return
            # What only the operator can mend; anything else passes by itself.
            if not told and b'"not_durable"' in body:
                _say(f"Perennial is not ready. {json.loads(body)['detail']}")
                told = True
        await asyncio.sleep(POLL_INTERVAL)


def _reachable_host(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]" if ":" in host else host


async def _end(children: Sequence[Child], hasten: asyncio.Event) -> None:
    """End these children, politely at first; a second request to end cuts the patience short."""
    for child in children:
        child.process.send_signal(child.polite)
    for child in children:
        begin = time.monotonic()
        while child.process.poll() is None:
            patience = min(child.patience, HASTY_PATIENCE) if hasten.is_set() else child.patience
            if time.monotonic() - begin > patience:
                break
            await asyncio.sleep(POLL_INTERVAL / 2)
        if child.process.poll() is None:
            child.process.send_signal(child.hard)
            await asyncio.to_thread(child.process.wait)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
