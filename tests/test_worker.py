"""The queue and its worker: a job is done once its transaction is committed, whatever dies meanwhile."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import worker
from app.embedded.folder import PROJECT_DIR
from app.imports import cutting
from app.settings import Settings
from app.store import queue
from tests.conftest import Client, ndjson, order

PATIENCE_S = 30.0
SECOND = timedelta(seconds=1)


async def until(condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """The first true answer of ``condition``, which may be awaited."""
    deadline = time.monotonic() + patience_s
    while True:
        answer = condition()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(url: str, heartbeat: timedelta = 10 * SECOND, **handlers: queue.Handler) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(queue.serve(url, handlers, stop, heartbeat=heartbeat, grace=SECOND / 2))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, PATIENCE_S)


async def fetch(engine: AsyncEngine, statement: str, **values: Any) -> list[Any]:
    async with engine.connect() as connection:
        return list((await connection.execute(text(statement), values)).all())


async def put(engine: AsyncEngine, job: str, *payloads: bytes, **options: Any) -> None:
    for payload in payloads:
        async with engine.begin() as connection:
            await queue.enqueue(connection, job, payload, **options)


async def waiting(engine: AsyncEngine, job: str) -> list[str]:
    return [row.status for row in await fetch(engine, "SELECT status FROM pgqueuer WHERE entrypoint = :job", job=job)]


class Recorder:
    """A handler that keeps what it was asked to do."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    async def __call__(self, payload: bytes, ending: asyncio.Event) -> None:
        self.payloads.append(payload)


async def test_the_queues_tables_are_those_of_the_installed_library(database_url: str) -> None:
    assert await queue.schema_drift(database_url) == []


async def test_a_job_exists_exactly_if_its_transaction_is_committed(database_url: str, engine: AsyncEngine) -> None:
    recorder = Recorder()
    async with serving(database_url, committed=recorder):
        connection = await engine.connect()
        transaction = await connection.begin()
        await queue.enqueue(connection, "committed", b"rolled back", sequence="s")
        await transaction.rollback()
        transaction = await connection.begin()
        await queue.enqueue(connection, "committed", b"kept")
        await asyncio.sleep(0.3)
        assert recorder.payloads == []
        await transaction.commit()
        await connection.close()
        await until(lambda: recorder.payloads)
    assert recorder.payloads == [b"kept"]
    assert await waiting(engine, "committed") == []


async def test_a_waiting_job_is_not_enqueued_twice(database_url: str, engine: AsyncEngine) -> None:
    recorder = Recorder()
    await put(engine, "deduped", b"1", b"2", dedupe_key="key")
    async with serving(database_url, deduped=recorder):
        await until(lambda: recorder.payloads)
    await put(engine, "deduped", b"3", dedupe_key="key")
    assert recorder.payloads == [b"1"]
    assert await waiting(engine, "deduped") == ["queued"]


async def test_jobs_of_a_sequence_run_one_at_a_time_and_in_order(database_url: str, engine: AsyncEngine) -> None:
    running: set[bytes] = set()
    done: list[bytes] = []

    async def handler(payload: bytes, ending: asyncio.Event) -> None:
        assert not {one for one in running if one[:1] == payload[:1]}
        running.add(payload)
        await asyncio.sleep(0.05)
        running.remove(payload)
        done.append(payload)

    for number in (b"1", b"2", b"3"):
        await put(engine, "sequenced", b"a" + number, sequence="a")
        await put(engine, "sequenced", b"b" + number, sequence="b")
    async with serving(database_url, sequenced=handler), serving(database_url, sequenced=handler):
        await until(lambda: len(done) == 6)
    for letter in (b"a", b"b"):
        assert [one for one in done if one[:1] == letter] == [letter + number for number in (b"1", b"2", b"3")]


async def test_an_outage_is_tried_again_and_another_error_is_kept(
    database_url: str, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[bytes] = []

    async def handler(payload: bytes, ending: asyncio.Event) -> None:
        calls.append(payload)
        if payload == b"outage" and calls.count(b"outage") == 1:
            raise DBAPIError("", {}, ConnectionResetError(), connection_invalidated=True)
        if payload == b"broken":
            raise ZeroDivisionError

    await put(engine, "failing", b"outage", b"broken")
    async with serving(database_url, failing=handler):
        await until(lambda: calls.count(b"outage") == 2)
    assert calls.count(b"broken") == 1
    assert await waiting(engine, "failing") == ["failed"]
    assert "ZeroDivisionError" in caplog.text


async def test_what_is_asked_to_stop_runs_again(database_url: str, engine: AsyncEngine) -> None:
    begun: list[bytes] = []

    async def handler(payload: bytes, ending: asyncio.Event) -> None:
        begun.append(payload)
        if payload == b"polite":
            await ending.wait()
            raise queue.Interrupted
        await asyncio.sleep(PATIENCE_S)

    await put(engine, "stopped", b"polite", b"deaf")
    async with serving(database_url, stopped=handler):
        await until(lambda: len(begun) == 2)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 5
    assert await waiting(engine, "stopped") == ["queued", "queued"]
    recorder = Recorder()
    async with serving(database_url, stopped=recorder):
        await until(lambda: len(recorder.payloads) == 2)
    assert set(recorder.payloads) == {b"polite", b"deaf"}


async def test_the_loss_of_all_connections_is_survived(database_url: str, engine: AsyncEngine) -> None:
    recorder = Recorder()
    async with serving(database_url, heartbeat=2 * SECOND, surviving=recorder):
        await put(engine, "surviving", b"before")
        await until(lambda: recorder.payloads == [b"before"])
        cut = "SELECT pg_terminate_backend(pid) AS cut FROM pg_stat_activity WHERE application_name = 'perennial queue'"
        assert await fetch(engine, cut)
        await put(engine, "surviving", b"after")
        await until(lambda: b"after" in recorder.payloads)


async def test_chores_that_fail_keep_no_other_from_being_done(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []

    async def broken(engine: AsyncEngine) -> None:
        raise ZeroDivisionError

    async def sound(engine: AsyncEngine) -> None:
        done.append("sound")

    monkeypatch.setattr(worker, "EVERY_MINUTE", [broken, *worker.EVERY_MINUTE, sound])
    stop = asyncio.Event()
    task = asyncio.create_task(worker.work(settings, stop, 10 * SECOND))
    await until(lambda: done)
    stop.set()
    await asyncio.wait_for(task, PATIENCE_S)
    assert "broken failed" in caplog.text
    assert caplog.text.count("Traceback") == 1


async def test_old_logs_of_jobs_are_pruned(engine: AsyncEngine) -> None:
    await put(engine, "logged", b"")
    statement = "UPDATE pgqueuer_log SET created = now() - CAST('2 days' AS interval) WHERE entrypoint = 'logged'"
    async with engine.begin() as connection:
        await connection.execute(text(statement))
    await worker.prune_queue_log(engine)
    assert await fetch(engine, "SELECT id FROM pgqueuer_log WHERE entrypoint = 'logged'") == []


def start_worker(url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "app.worker", "--heartbeat", "2"],
        cwd=PROJECT_DIR,
        env=os.environ | {"PERENNIAL_DATABASE_URL": url},
    )


async def test_a_worker_killed_amid_an_import_loses_nothing_and_doubles_nothing(
    client: Client, database_url: str, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "CHUNK_BYTES", 200_000)
    count = 12_000
    content = ndjson(*(order(f"o-{number}", customer_id=f"c-{number % 500}") for number in range(count)))
    response = await client.http.post(
        "/v1/imports", headers={"Content-Type": "application/x-ndjson"}, content=in_pieces(content)
    )
    path = f"/v1/imports/{response.json()['id']}"

    async def amid() -> bool:
        accepted: int = (await client.get(path))["counts"]["accepted"]
        return 0 < accepted < count

    async def done() -> dict[str, Any] | None:
        found = await client.get(path)
        return found if found["status"] == "succeeded" else None

    first = start_worker(database_url)
    try:
        await until(amid)
    finally:
        first.kill()
        first.wait()
    stopped_at = (await client.get(path))["counts"]["accepted"]
    assert stopped_at < count
    second = start_worker(database_url)
    try:
        finished = await until(done, 2 * PATIENCE_S)
        second.send_signal(signal.SIGTERM)
        assert second.wait(PATIENCE_S) == 0
    finally:
        second.kill()
        second.wait()
    assert finished["counts"]["lines"] == finished["counts"]["accepted"] == count
    workspace_id = client.workspace.id
    (events,) = await fetch(engine, "SELECT count(*) AS stored FROM events WHERE workspace_id = :id", id=workspace_id)
    (sums,) = await fetch(
        engine,
        "SELECT sum(order_count) AS orders, sum(net_spend) AS spend FROM customer_summary WHERE workspace_id = :id",
        id=workspace_id,
    )
    assert (events.stored, sums.orders, sums.spend) == (count, count, 10 * count)


async def in_pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1 << 16):
        yield content[start : start + (1 << 16)]
