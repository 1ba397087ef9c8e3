"""The worker: ``python -m app.worker`` does the jobs of the queue, in a process of its own, until SIGTERM.

It outlives a database that restarts. On SIGTERM jobs come to a safe point and go back to the queue. A worker that was
killed leaves jobs behind that another one takes up once their heartbeat is old.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from sqlalchemy.ext.asyncio import AsyncEngine

from app import erasure, idempotency, logs, run_execution, runs
from app.garbage import collect_rarely
from app.imports import execution, receiving
from app.settings import Settings
from app.store import queue
from app.store.engine import create_engine, is_outage

logger = logging.getLogger(__name__)

CONNECTIONS = (queue.CONCURRENT_JOBS + 1) * (2 + 2 * run_execution.SIDE_BY_SIDE)
"""At most: a run holds its lead and its snapshot, and two for each part in hand. One more is shared with others."""

HEARTBEAT_S = 20.0
GRACE_S = 8.0
_NICENESS = 5
_MINUTE_S = 60.0
_IDLE_S = 1.0

Job = Callable[[AsyncEngine, bytes, asyncio.Event], Awaitable[None]]

JOBS: dict[str, Job] = {
    receiving.JOB: execution.run_import_job,
    runs.RUN_JOB: run_execution.execute_run,
}
"""What is done for each kind of job: called with the engine, the job's payload and the event that asks it to stop."""


async def prune_queue_log(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await queue.prune_log(connection)


EVERY_MINUTE: list[Callable[[AsyncEngine], Awaitable[None]]] = [
    runs.schedule_due_runs,
    execution.remove_abandoned_uploads,
    prune_queue_log,
    idempotency.prune_answers,
    erasure.forget_statistics,
]
"""Called about once a minute by every worker, one after another; several workers may do so at the same time."""


async def work(settings: Settings, stop: asyncio.Event, heartbeat: timedelta) -> None:
    """Do jobs until ``stop``."""
    if settings.database_url is None:
        raise SystemExit("PERENNIAL_DATABASE_URL is not set; `make run` starts the worker with that of its own server.")
    engine = create_engine(settings.database_url, pool_size=CONNECTIONS, statement_timeout_ms=0)

    def bound(job: Job) -> queue.Handler:
        return lambda payload, ending: job(engine, payload, ending)

    beside = [
        asyncio.create_task(_again_and_again(partial(_keep_house, engine), _MINUTE_S, stop)),
        asyncio.create_task(_again_and_again(partial(_share_runs, engine, stop), _IDLE_S, stop)),
    ]
    try:
        await queue.serve(
            settings.database_url,
            {name: bound(job) for name, job in JOBS.items()},
            stop,
            heartbeat=heartbeat,
            grace=timedelta(seconds=GRACE_S),
        )
    finally:
        for task in beside:
            task.cancel()
        await asyncio.wait(beside, timeout=1)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(engine.dispose(), 2)


async def _again_and_again(step: Callable[[], Awaitable[None]], pause_s: float, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await step()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause_s)


async def _keep_house(engine: AsyncEngine) -> None:
    for chore in EVERY_MINUTE:
        try:
            await chore(engine)
        except Exception as error:  # One chore that fails keeps no other from being done.
            if is_outage(error):
                logger.warning("%s: no database now, tried again in a minute", chore.__name__)
            else:
                logger.exception("%s failed", chore.__name__)


async def _share_runs(engine: AsyncEngine, stop: asyncio.Event) -> None:
    """Do parts of runs that other workers lead."""
    try:
        await run_execution.lend_a_hand(engine, stop)
    except Exception as error:  # The run's own worker does the part, and tells of what is wrong with it.
        if not is_outage(error):
            logger.exception("a part of a run failed")


async def _main(settings: Settings, heartbeat: timedelta) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await work(settings, stop, heartbeat)
    # A thread of a job that was cut short can't be ended, and nothing that it computes matters any more: don't wait.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m app.worker", description="Do the jobs of the queue.")
    parser.add_argument(
        "--heartbeat",
        type=float,
        default=HEARTBEAT_S,
        metavar="SECONDS",
        help="age of the last sign of life at which another worker takes a job over (default: %(default)g)",
    )
    arguments = parser.parse_args()
    settings = Settings()
    logs.configure(settings.log_level)
    collect_rarely()
    # Jobs read in a thread while the loop talks with the database: it must not wait long for its turn.
    sys.setswitchinterval(0.0005)
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)  # Requests go first.
    asyncio.run(_main(settings, timedelta(seconds=arguments.heartbeat)))


if __name__ == "__main__":
    main()
