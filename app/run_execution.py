"""The job of the worker: a scoring run. It fits a workspace's population as of a moment and stores all scores.

A run's population is cut into parts, which are read in one snapshot. In rounds over the parts it is fitted
(``app.run_fitting``) and scored, and what was stored is put in order for lists. The worker that was handed the job
leads: it cuts, makes of each round what the next needs, puts in order and ends the run. All workers that have time do
parts. Nobody sees anything of a run before its last transaction makes it the latest; one that fails leaves nothing
behind, and one whose worker is killed is taken up by another where it was.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.analytics.population import TotalTooLarge
from app.analytics.tabulation import KeptTables
from app.erasure import leave_out_erased
from app.run_fitting import complete_fit, fit_parts, grades_of, models_of, rank_parts, sum_next, value_next
from app.run_parts import SharedRun, forget_unfinished, read_next, score_next
from app.scoring import Fitted
from app.store import distribution, queue, score_classes, score_lists, wall
from app.store import erasure as erasure_store
from app.store import populations as population_store
from app.store import run_parts as part_store
from app.store import runs as run_store
from app.store import scores as score_store
from app.store import workspaces as workspace_store
from app.store.engine import autocommit, is_outage
from app.workspace_settings import WorkspaceSettings

RUNS_KEPT = 2

LEAST_A_PART, MOST_A_PART = 25_000, 100_000
"""Customers. A part costs some statements, and all of it is in memory."""

SIDE_BY_SIDE = 2
"""Parts that a process does at once: the server works for one while the process works on the other."""

_WAIT_S = 0.05

_led: set[int] = set()
"""The runs that this process leads."""


class RunFailed(Exception):
    """A run that can't succeed on these data and settings; the reason is told to whoever asked for it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


async def execute_run(engine: AsyncEngine, payload: bytes, ending: asyncio.Event) -> None:
    """Do a queued run, or one that a killed worker left behind. The worker calls it, maybe more than once."""
    run_id = int(payload)
    async with engine.begin() as leading:
        await part_store.lead_run(leading, run_id)
        now = datetime.now(UTC)
        async with autocommit(engine).connect() as connection:
            run = await run_store.start_run(connection, run_id, now)
        if run is None:
            return
        _led.add(run_id)
        try:
            with wall.inside(run.workspace_id):
                await _lead(await _shared(engine, run, ending), begun_before=run.started_at < now)
        except RunFailed as failure:
            await _fail(engine, run, failure.code, failure.detail)
        except population_store.SnapshotGone:
            # The connection that held it was lost: all is read anew, by the same job.
            raise queue.Interrupted from None
        except queue.Interrupted:
            raise
        except Exception as error:
            # Whoever waits for the run is told; the queue logs what it was, or does the job again after an outage.
            if not is_outage(error):
                await _fail(engine, run, "internal_error", "Something went wrong on our side.")
            raise
        finally:
            _led.discard(run_id)


async def _shared(engine: AsyncEngine, run: Row[Any], ending: asyncio.Event) -> SharedRun:
    async with autocommit(engine).connect() as connection:
        workspace = await workspace_store.get_workspace(connection, run.workspace_id)
    return SharedRun(engine, run, workspace, WorkspaceSettings.model_validate_json(run.settings), ending)


async def _fail(engine: AsyncEngine, run: Row[Any], code: str, detail: str) -> None:
    with wall.inside(run.workspace_id):
        async with engine.begin() as connection:
            await forget_unfinished(connection, run.workspace_id, run.id)
            await run_store.fail_run(connection, run.id, code, detail, datetime.now(UTC))


async def _lead(shared: SharedRun, begun_before: bool) -> None:
    try:
        done = await _count_done(shared)
        if not done.parts or done.read < done.parts:
            # What was read in a snapshot that has ended can't be completed.
            if begun_before:
                async with shared.engine.begin() as connection:
                    await forget_unfinished(connection, *shared.key)
            await _read(shared)
        while True:
            at_work = await _at_work(shared)
            part_of_round, do_next = _round(shared, at_work)
            await _work_off(shared, do_next, part_of_round)
            if part_of_round == "scored":
                break
            await _BETWEEN_ROUNDS[part_of_round](shared)
    except TotalTooLarge:
        raise RunFailed(
            "amount_too_large", "A customer's money, or that of all customers, is beyond 900 million millions."
        ) from None
    if at_work.partition != score_store.SHARED_PARTITION:
        await _put_in_order(shared, at_work.partition)
    await _end(shared, at_work)


# ---- Parts ----------------------------------------------------------------------------------------------------------


def _parts_of(customers: int) -> int:
    """How many parts a population is cut into: a few where that pays, so that reading and adding up go side by side."""
    a_part = min(max(-(-customers // (2 * SIDE_BY_SIDE)), LEAST_A_PART), MOST_A_PART)
    return -(-customers // a_part)


def _round(shared: SharedRun, at_work: Row[Any]) -> tuple[str, Callable[[], Awaitable[bool]]]:
    """What parts are by the end of the round that a run is in, and what does the next of them."""
    if at_work.partition is not None:
        fitted = Fitted.from_dict(json.loads(at_work.fitted))
        return "scored", lambda: score_next(shared, fitted, at_work.partition)
    if at_work.models is not None:
        grades, models = grades_of(at_work), models_of(at_work)
        tables = KeptTables().of(shared.run.id)
        return "valued", lambda: value_next(shared, grades, models, tables)
    if at_work.grades is not None:
        grades = grades_of(at_work)
        return "summed", lambda: sum_next(shared, grades)
    return "read", lambda: read_next(shared, at_work.snapshot)


_BETWEEN_ROUNDS = {"read": rank_parts, "summed": fit_parts, "valued": complete_fit}


async def _work_off(shared: SharedRun, do_next: Callable[[], Awaitable[bool]], part_of_round: str) -> None:
    """Do parts, some side by side, until none is left; those too that others took and did not live to end."""

    def left(done: Row[Any]) -> int:
        return int(done.parts - getattr(done, part_of_round))

    async def work() -> None:
        while True:
            worked = await do_next()
            done = await _count_done(shared)
            if worked:
                await _report(shared, done)
            if not left(done):
                return
            if not worked:
                await asyncio.sleep(_WAIT_S)

    await _side_by_side(work, min(SIDE_BY_SIDE, left(await _count_done(shared))))


async def _side_by_side(work: Callable[[], Awaitable[None]], times: int) -> None:
    """The same work several times at once; what fails ends the others, and is raised."""
    tasks = [asyncio.ensure_future(work()) for _ in range(times)]
    if not tasks:
        return
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


async def _count_done(shared: SharedRun) -> Row[Any]:
    async with autocommit(shared.engine).connect() as connection:
        return await part_store.count_done(connection, *shared.key)


async def _at_work(shared: SharedRun) -> Row[Any]:
    async with autocommit(shared.engine).connect() as connection:
        return await part_store.get_run_at_work(connection, shared.run.id)


async def _report(shared: SharedRun, done: Row[Any]) -> None:
    """Tell how far the run is."""
    async with autocommit(shared.engine).connect() as connection:
        progress = (0.3 * done.read + 0.05 * done.summed + 0.15 * done.valued + 0.4 * done.scored) / done.parts
        await run_store.set_progress(connection, shared.run.id, progress, done.customers)


async def lend_a_hand(engine: AsyncEngine, ending: asyncio.Event) -> None:
    """Do parts of the runs that other workers lead, while there are any to be taken."""
    if _led:
        return  # It has enough to do.
    async with autocommit(engine).connect() as connection:
        at_work = await part_store.list_runs_at_work(connection)
    for run_id in at_work:
        async with autocommit(engine).connect() as connection:
            run = await run_store.find_run_by_number(connection, run_id)
            progress = await part_store.find_run_at_work(connection, run_id)
        if run is None or progress is None:
            continue
        with wall.inside(run.workspace_id):
            await _help(await _shared(engine, run, ending), progress)


async def _help(shared: SharedRun, at_work: Row[Any]) -> None:
    _, do_next = _round(shared, at_work)

    async def work() -> None:
        while await do_next():
            pass

    try:
        await _side_by_side(work, SIDE_BY_SIDE)
    except (TotalTooLarge, population_store.SnapshotGone, queue.Interrupted):
        return  # Whoever leads the run meets the same, and says so.


# ---- Reading --------------------------------------------------------------------------------------------------------


async def _read(shared: SharedRun) -> None:
    """Cut the population into parts and have them read, all as of one moment."""
    workspace_id, run_id = shared.key
    as_then = shared.engine.execution_options(isolation_level="REPEATABLE READ")
    async with as_then.connect() as holding:
        async with autocommit(shared.engine).connect() as connection:
            erased_before = await erasure_store.count_erased(connection, workspace_id)
        snapshot = await population_store.export_snapshot(holding)
        ends = await population_store.cut_population(holding, workspace_id, shared.run.as_of, _parts_of)
        async with shared.engine.begin() as connection:
            await part_store.begin_run(connection, workspace_id, run_id, snapshot, erased_before, ends)
        await _work_off(shared, lambda: read_next(shared, snapshot), "read")


# ---- The end --------------------------------------------------------------------------------------------------------


async def _put_in_order(shared: SharedRun, partition: int) -> None:
    """Make all that lists read of a run's own table: what plans are made by, indexes, and what filters know of it."""
    async with shared.engine.begin() as connection:
        # First, since it waits for the making of indexes: here for one that a killed leader has left the server at.
        await score_store.analyze_partition(connection, partition)
        in_classes = not await distribution.on_cluster(connection)
    left = [partial(score_store.make_index, statement=made) for made in score_lists.indexes_of(partition, in_classes)]
    if in_classes:
        left.append(
            partial(
                score_classes.keep_classes, workspace_id=shared.workspace.id, run_id=shared.run.id, partition=partition
            )
        )

    async def work() -> None:
        while left:
            shared.go_on()
            make = left.pop()
            async with shared.engine.begin() as connection:
                await make(connection)

    await _side_by_side(work, SIDE_BY_SIDE)


async def _end(shared: SharedRun, at_work: Row[Any]) -> None:
    """Make the run the latest, in one transaction; then drop the oldest."""
    engine, run, workspace, partition = shared.engine, shared.run, shared.workspace, at_work.partition
    async with engine.begin() as connection:
        done = await part_store.count_done(connection, *shared.key)
        await part_store.end_run(connection, *shared.key)
        if partition != score_store.SHARED_PARTITION:
            await score_store.attach_partition(connection, partition)
        # Last of all, since it keeps others from being erased until this is committed.
        kept_fit = await leave_out_erased(
            connection, workspace, run.id, partition, json.loads(at_work.fitted), before=at_work.erased_before
        )
        await run_store.succeed_run(
            connection,
            run.id,
            customers=done.customers,
            fitted=kept_fit,
            curve=json.loads(at_work.curve),
            partition=partition,
            finished_at=datetime.now(UTC),
        )
    async with engine.begin() as connection:
        for old in await run_store.release_old_runs(connection, workspace.id, RUNS_KEPT):
            await score_store.drop_scores(connection, workspace.id, old.id, old.partition)
