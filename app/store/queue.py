"""The job queue: pgqueuer's tables and its way of handing out jobs. docs/decisions/queue.md tells why and how.

A job is enqueued on the connection of the transaction that makes its work, so it exists exactly if that work does.
A job whose worker died is handed out again once its heartbeat is old. Jobs of one sequence run one at a time, in the
order in which they were enqueued.
"""

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta

import asyncpg
from pgqueuer import AsyncpgDriver, Job, Queries, QueueManager, RetryRequested
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.domain.settings import DBSettings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.engine import SERVER_SETTINGS, is_outage

logger = logging.getLogger(__name__)

Handler = Callable[[bytes, asyncio.Event], Awaitable[None]]
"""Does one job. Once the event is set it comes to a safe point and raises ``Interrupted``.

It records its own failures. An outage of the database that it raises makes the job run again; any other error that it
raises is logged, and the job stays in the queue's table as failed.
"""

CONCURRENT_JOBS = 4
_LOG_KEPT = timedelta(days=1)
_POLL = timedelta(seconds=5)
_LONGEST_RECONNECT_DELAY_S = 10.0
_LONGEST_RETRY_DELAY_S = 60.0
_LONGEST_TURN_DELAY_S = 10.0
_SEQUENCE = "sequence"
_SEQUENCE_LOCKS = 7_305  # the first of the two keys of the advisory locks on sequences

# Named here in full: the library would take names from the environment, even from variables such as CHANNEL.
_NAMES = DBSettings(
    prefix="",
    db_schema=None,
    channel="ch_pgqueuer",
    function="fn_pgqueuer_changed",
    statistics_table="pgqueuer_statistics",
    queue_status_type="pgqueuer_status",
    queue_table="pgqueuer",
    queue_table_log="pgqueuer_log",
    trigger="tg_pgqueuer_changed",
    schedules_table="pgqueuer_schedules",
)
_ENQUEUE = QueryQueueBuilder(_NAMES).build_enqueue_query("skip")

# The library reports every retry, and with it every job that waits for its turn.
logging.getLogger("pgqueuer").setLevel(logging.WARNING)


class Interrupted(Exception):
    """Raised by a handler that was asked to stop: the job is not done, and runs again."""


async def enqueue(
    connection: AsyncConnection,
    job: str,
    payload: bytes,
    *,
    dedupe_key: str | None = None,
    delay: timedelta = timedelta(0),
    sequence: str | None = None,
    priority: int = 0,
) -> None:
    """Enqueue a job in the caller's transaction; a worker sees it once that is committed.

    While a job with the same ``dedupe_key`` waits or runs, nothing is enqueued. Jobs of the same ``sequence`` run one
    at a time and in order, whatever the number of workers. Greater ``priority`` goes first.
    """
    headers = {}
    if sequence is not None:
        # Held until the transaction ends, so that the order of ids is the order of commits.
        await connection.execute(
            text("SELECT pg_advisory_xact_lock(:space, hashtext(:sequence))"),
            {"space": _SEQUENCE_LOCKS, "sequence": sequence},
        )
        headers = {_SEQUENCE: sequence}
    await connection.exec_driver_sql(
        _ENQUEUE, ([priority], [job], [payload], [delay], [dedupe_key], [json.dumps(headers)])
    )


async def serve(
    database_url: str,
    handlers: Mapping[str, Handler],
    stop: asyncio.Event,
    *,
    heartbeat: timedelta,
    grace: timedelta,
) -> None:
    """Hand out jobs to handlers until ``stop``; a lost database is waited for.

    At the end handlers have ``grace`` to come to a safe point before they are cancelled; their jobs run again.
    """
    delay_s = 0.5
    while not stop.is_set():
        try:
            async with _connection(database_url) as connection:
                delay_s = 0.5
                await _serve_on(connection, handlers, stop, heartbeat, grace)
        except Exception as error:  # Whatever it is, a worker that ends helps nobody.
            logger.warning("the queue can't be served now: %s: %s", type(error).__name__, error)
        if not stop.is_set():
            await _sleep(delay_s * random.uniform(0.8, 1.2), stop)  # noqa: S311
            delay_s = min(delay_s * 2, _LONGEST_RECONNECT_DELAY_S)


async def prune_log(connection: AsyncConnection) -> None:
    """Forget what the library logged of jobs long ago; its statistics have the sums."""
    for table in ("pgqueuer_log", "pgqueuer_statistics"):
        await connection.execute(
            text(f"DELETE FROM {table} WHERE created < now() - CAST(:kept AS interval)"),
            {"kept": _LOG_KEPT if table == "pgqueuer_log" else 30 * _LOG_KEPT},
        )


async def schema_drift(database_url: str) -> list[str]:
    """The statements that the installed library would run to make its tables what it expects: none, if all is well."""
    async with _connection(database_url) as connection:
        return list((await _queries(connection).plan_upgrade()).statements)


@contextlib.asynccontextmanager
async def _connection(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(
        database_url,
        timeout=10,
        server_settings={**SERVER_SETTINGS, "application_name": "perennial queue", "statement_timeout": "30s"},
    )
    try:
        yield connection
    finally:
        with contextlib.suppress(Exception):
            await connection.close(timeout=2)


def _queries(connection: "asyncpg.Connection[asyncpg.Record]") -> Queries:
    return Queries(
        AsyncpgDriver(connection),
        QueryBuilderEnvironment(_NAMES),
        QueryQueueBuilder(_NAMES),
        QuerySchedulerBuilder(_NAMES),
    )


async def _serve_on(
    connection: "asyncpg.Connection[asyncpg.Record]",
    handlers: Mapping[str, Handler],
    stop: asyncio.Event,
    heartbeat: timedelta,
    grace: timedelta,
) -> None:
    """Serve while the connection lasts. One connection and no pool: what it can't report any more, it never will."""
    queries = _queries(connection)
    manager = QueueManager(queries, channel=_NAMES.channel)
    ending = asyncio.Event()

    def end(*_: object) -> None:
        ending.set()
        manager.shutdown.set()

    def register(name: str, handler: Handler) -> None:
        async def run(job: Job) -> None:
            if await _is_early(queries, job):
                delay_s = min(0.5 + 0.25 * job.attempts, _LONGEST_TURN_DELAY_S)
                raise RetryRequested(timedelta(seconds=delay_s), "not its turn")
            await _run(handler, job, ending, grace)

        # By default a job that failed would be deleted.
        manager.entrypoint(name, on_failure="hold", accepts_context=False)(run)

    for name, handler in handlers.items():
        register(name, handler)
    connection.add_termination_listener(end)
    stopping = asyncio.ensure_future(_call_when(stop, end))
    try:
        await manager.run(
            dequeue_timeout=min(_POLL, heartbeat / 2),
            batch_size=1,
            max_concurrent_tasks=CONCURRENT_JOBS,
            heartbeat_timeout=heartbeat,
            shutdown_on_listener_failure=True,
        )
    finally:
        stopping.cancel()


async def _is_early(queries: Queries, job: Job) -> bool:
    """Whether an earlier job of the same sequence is not done yet, or that can't be told now."""
    sequence = (job.headers or {}).get(_SEQUENCE)
    if sequence is None:
        return False
    try:
        (row,) = await queries.driver.fetch(
            "SELECT EXISTS (SELECT FROM pgqueuer WHERE entrypoint = $1 AND id < $2 AND headers ->> 'sequence' = $3"
            " AND status IN ('queued', 'picked')) AS is_early",
            job.entrypoint,
            job.id,
            sequence,
        )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return True
    return bool(row["is_early"])


async def _run(handler: Handler, job: Job, ending: asyncio.Event, grace: timedelta) -> None:
    task = asyncio.ensure_future(handler(job.payload or b"", ending))
    ended = asyncio.ensure_future(ending.wait())
    try:
        await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait({task}, timeout=grace.total_seconds())
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1)
    finally:
        ended.cancel()
    if not task.done() or task.cancelled():
        raise RetryRequested(reason="interrupted")
    error = task.exception()
    if error is None:
        return
    if isinstance(error, Interrupted):
        raise RetryRequested(reason="interrupted")
    if is_outage(error):
        logger.warning("job %s %s: no database, tried again later: %s", job.entrypoint, job.id, type(error).__name__)
        delay_s = min(2.0 ** min(job.attempts, 10), _LONGEST_RETRY_DELAY_S)
        raise RetryRequested(timedelta(seconds=delay_s), "no database")
    raise error


async def _call_when(event: asyncio.Event, action: Callable[[], None]) -> None:
    await event.wait()
    action()


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
