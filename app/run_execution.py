"""The job of the worker: a scoring run. It fits a workspace's population as of a moment and stores all scores.

A run has four steps. Its population is cut into parts, which are read in one snapshot; it is fitted as a whole; its
parts are scored; what they stored is put in order for lists. The worker that was handed the job leads: it cuts, fits,
puts in order and ends the run. All workers that have time do parts. Nobody sees anything of a run before its last
transaction makes it the latest; one that fails leaves nothing behind, and one whose worker is killed is taken up by
another where it was.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.analytics.booking import empty_figures
from app.analytics.churn_learning import Learned
from app.analytics.clv import PurchaseDays
from app.analytics.pareto import ParetoCurve
from app.analytics.population import RisingIds, TotalTooLarge
from app.churn_typing import interactions_of, learn_from_labels
from app.erasure import leave_out_erased
from app.population import Population
from app.run_parts import SharedRun, estimates_of, forget_unfinished, read_next, score_next, with_window
from app.scoring import Fitted, FittedPopulation, fit_models, fit_population
from app.store import distribution, queue, score_classes, score_lists, wall
from app.store import erasure as erasure_store
from app.store import interactions as interaction_store
from app.store import populations as population_store
from app.store import run_parts as part_store
from app.store import runs as run_store
from app.store import scores as score_store
from app.store import workspaces as workspace_store
from app.store.engine import autocommit, is_outage
from app.workspace_settings import WorkspaceSettings

RUNS_KEPT = 2
LARGE_RUN_CUSTOMERS = 20_000
"""From here on a run has a partition of its own; smaller ones share one."""

LEAST_A_PART, MOST_A_PART = 25_000, 100_000
"""Customers. A part costs some statements, and all of it is in memory."""

SIDE_BY_SIDE = 2
"""Parts that a process does at once: the server works for one while the process works on the other."""

MOST_LABELS = 20_000
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
    engine, run = shared.engine, shared.run
    try:
        async with autocommit(engine).connect() as connection:
            at_work = await part_store.find_run_at_work(connection, run.id)
        done = await _count_done(shared)
        if at_work is None or done.read < done.parts:
            # What was read in a snapshot that has ended can't be completed.
            if begun_before:
                async with engine.begin() as connection:
                    await forget_unfinished(connection, *shared.key)
            await _read(shared)
        if at_work is None or at_work.partition is None:
            await _fit(shared)
    except TotalTooLarge:
        raise RunFailed(
            "amount_too_large", "A customer's money, or that of all customers, is beyond 900 million millions."
        ) from None
    async with autocommit(engine).connect() as connection:
        fitted_run = await part_store.get_run_at_work(connection, run.id)
    fitted = Fitted.from_dict(json.loads(fitted_run.fitted))
    await _work_off(shared, lambda: score_next(shared, fitted, fitted_run.partition), _unscored)
    if fitted_run.partition != score_store.SHARED_PARTITION:
        await _put_in_order(shared, fitted_run.partition)
    await _end(shared, fitted_run)


# ---- Parts ----------------------------------------------------------------------------------------------------------


def _parts_of(customers: int) -> int:
    """How many parts a population is cut into: a few where that pays, so that reading and adding up go side by side."""
    a_part = min(max(-(-customers // (2 * SIDE_BY_SIDE)), LEAST_A_PART), MOST_A_PART)
    return -(-customers // a_part)


def _unread(done: Row[Any]) -> int:
    left: int = done.parts - done.read
    return left


def _unscored(done: Row[Any]) -> int:
    left: int = done.parts - done.scored
    return left


async def _work_off(shared: SharedRun, do_next: Callable[[], Awaitable[bool]], left: Callable[[Row[Any]], int]) -> None:
    """Do parts, some side by side, until none is left; those too that others took and did not live to end."""

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


async def _report(shared: SharedRun, done: Row[Any]) -> None:
    """Tell how far the run is."""
    async with autocommit(shared.engine).connect() as connection:
        progress = (0.3 * done.read + 0.6 * done.scored) / done.parts
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
    fitted = None if at_work.partition is None else Fitted.from_dict(json.loads(at_work.fitted))

    async def work() -> None:
        worked = True
        while worked:
            if fitted is None:
                worked = await read_next(shared, at_work.snapshot)
            else:
                worked = await score_next(shared, fitted, at_work.partition)

    try:
        await _side_by_side(work, SIDE_BY_SIDE)
    except (TotalTooLarge, population_store.SnapshotGone, queue.Interrupted):
        return  # Whoever leads the run meets the same, and says so.


# ---- Reading and fitting --------------------------------------------------------------------------------------------


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
        await _work_off(shared, lambda: read_next(shared, snapshot), _unread)


async def _fit(shared: SharedRun) -> None:
    """Fit the population as a whole, and stage what the fit says of each customer for those who score them."""
    settings = shared.settings
    population, purchase_days, parts = await _whole(shared)
    learned = await _learn(shared, population)
    models = await asyncio.to_thread(fit_models, population, settings, purchase_days)
    del purchase_days  # Their room is needed for the values.
    fit = await asyncio.to_thread(fit_population, population, settings, models, learned)
    size = len(population.customer_ids)
    del population, models
    await _stage(shared, fit, parts, size)


async def _whole(shared: SharedRun) -> tuple[Population, PurchaseDays | None, dict[int, slice]]:
    """The population, all purchase days where predictive models are tried on them, and the rows of each part."""
    async with autocommit(shared.engine).connect() as connection:
        parts = await part_store.list_parts(connection, *shared.key)
        size = sum(part.customers for part in parts)
        # Room for everybody at once: parts that are joined in the end would take it twice.
        figures: dict[str, NDArray[Any]] = empty_figures(size, shared.settings.rfm.window_days)
        ids: list[str] = []
        days: list[NDArray[np.int32]] = []
        rows: dict[int, slice] = {}
        start = 0
        for part in parts:
            staged = await part_store.read_part(connection, *shared.key, part.part)
            rows[part.part] = slice(start, start + part.customers)
            if part.customers:
                await asyncio.to_thread(_fill, figures, rows[part.part], part_store.unpack(staged.figures))
                ids.append(staged.ids)
            if staged.purchase_days is not None:
                days.append(np.frombuffer(staged.purchase_days, dtype=np.int32))
            start += part.customers
    purchase_days = None
    if days:
        # The days come by customer, as many of each as the figures count.
        customer = np.repeat(np.arange(size, dtype=np.int32), figures["purchase_days"])
        purchase_days = PurchaseDays(customer, np.concatenate(days))
    return Population(shared.as_of_day, RisingIds(ids), with_window(figures)), purchase_days, rows


def _fill(figures: dict[str, NDArray[Any]], rows: slice, staged: Any) -> None:
    for name, column in figures.items():
        column[rows] = staged[name]


async def _stage(shared: SharedRun, fit: FittedPopulation, parts: dict[int, slice], size: int) -> None:
    _, run_id = shared.key
    partition = run_id if size >= LARGE_RUN_CUSTOMERS else score_store.SHARED_PARTITION
    async with shared.engine.begin() as connection:
        if partition != score_store.SHARED_PARTITION:
            await score_store.make_partition(connection, partition)
        for part, rows in parts.items():
            shared.go_on()
            estimates = await asyncio.to_thread(estimates_of, fit, rows)
            await part_store.keep_estimates(connection, *shared.key, part, estimates)
        await part_store.keep_fit(connection, run_id, partition, fit.fitted.to_dict(), _curve(fit.curve))


async def _learn(shared: SharedRun, population: Population) -> Learned | None:
    """Learn churn types from people's verdicts on customers of the population; None where there are none."""
    workspace, as_of, churn = shared.workspace, shared.run.as_of, shared.settings.churn
    async with autocommit(shared.engine).connect() as connection:
        labels = await interaction_store.read_labels(connection, workspace.id, as_of, MOST_LABELS)
        ids: RisingIds = population.customer_ids  # type: ignore[assignment]
        places = ids.places(label.customer_id for label in labels)
        labels = [label for label, place in zip(labels, places, strict=True) if place is not None]
        if not labels:
            return None
        labelled = [label.customer_id for label in labels]
        events = await interaction_store.read_interactions(connection, workspace.id, labelled, as_of)
    interactions = interactions_of(events, labelled, as_of, workspace.time_zone, churn)
    rows = np.array([place for place in places if place is not None])
    arrays = population.at(rows).arrays
    return await asyncio.to_thread(
        learn_from_labels,
        interactions,
        arrays.last_purchase_day,
        arrays.has_order,
        [label.type for label in labels],
    )


def _curve(curve: ParetoCurve) -> dict[str, list[float]]:
    return {
        "customers": curve.customers.tolist(),
        "customer_share": curve.customer_share.tolist(),
        "spend_share": curve.spend_share.tolist(),
    }


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
