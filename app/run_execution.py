"""The job of the worker: a scoring run. It fits a workspace's population as of a moment and stores all scores.

It reads all figures in one snapshot, fits, and writes the scores in one transaction that ends by making the run the
latest: a run that fails or is killed leaves nothing behind, and is done again from the beginning.
"""

import asyncio
import contextlib
from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.analytics.booking import WINDOW_FIGURES, add_up, empty_figures
from app.analytics.churn_learning import Learned
from app.analytics.clv import PurchaseDays
from app.analytics.pareto import ParetoCurve
from app.analytics.population import TotalTooLarge
from app.churn_typing import StoredEvents, encoded_interactions, interactions_of, learn_from_labels
from app.erasure import leave_out_erased
from app.scoring import (
    FittedPopulation,
    Population,
    day_number,
    fit_models,
    fit_population,
    score_columns,
)
from app.store import erasure as erasure_store
from app.store import interactions as interaction_store
from app.store import populations as population_store
from app.store import queue, score_lists, wall
from app.store import runs as run_store
from app.store import scores as score_store
from app.store import workspaces as workspace_store
from app.store.engine import autocommit, is_outage
from app.store.workspaces import Workspace
from app.workspace_settings import WorkspaceSettings

RUNS_KEPT = 2
LARGE_RUN_CUSTOMERS = 20_000
"""From here on a run has a partition of its own; smaller ones share one."""

CUSTOMERS_A_WRITE = 20_000
INTERACTIONS_A_WRITE = 300_000
MOST_LABELS = 20_000

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A run whose population is read and fitted; ``interaction_counts`` (n,) are of its customers."""

    workspace: Workspace
    run: Row[Any]
    settings: WorkspaceSettings
    population: Population
    fit: FittedPopulation
    interaction_counts: NDArray[np.int32]


class RunFailed(Exception):
    """A run that can't succeed on these data and settings; the reason is told to whoever asked for it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


async def execute_run(engine: AsyncEngine, payload: bytes, ending: asyncio.Event) -> None:
    """Do a queued run, or one that a killed worker left behind. The worker calls it, maybe more than once."""
    run_id = int(payload)
    async with autocommit(engine).connect() as connection:
        run = await run_store.start_run(connection, run_id, datetime.now(UTC))
    if run is None:
        return
    try:
        with wall.inside(run.workspace_id):
            await _execute(engine, run, ending)
    except RunFailed as failure:
        await _fail(engine, run_id, failure.code, failure.detail)
    except queue.Interrupted:
        raise
    except Exception as error:
        # Whoever waits for the run is told; the queue logs what it was, or does the job again after an outage.
        if not is_outage(error):
            await _fail(engine, run_id, "internal_error", "Something went wrong on our side.")
        raise


async def _fail(engine: AsyncEngine, run_id: int, code: str, detail: str) -> None:
    async with autocommit(engine).connect() as connection:
        await run_store.fail_run(connection, run_id, code, detail, datetime.now(UTC))


async def _execute(engine: AsyncEngine, run: Row[Any], ending: asyncio.Event) -> None:
    workspace = await _workspace(engine, run.workspace_id)
    settings = WorkspaceSettings.model_validate_json(run.settings)
    erased_before = await _count_erased(engine, workspace)
    population, purchase_days, interaction_counts = await _read(engine, workspace, run, settings, ending)
    try:
        learned = await _learn(engine, workspace, run, settings, population)
        models = await asyncio.to_thread(fit_models, population, settings, purchase_days)
        del purchase_days  # Their room is needed for the values.
        fit = await asyncio.to_thread(fit_population, population, settings, models, learned)
    except TotalTooLarge:
        raise _too_large() from None
    await _report(engine, run.id, 0.4, len(population.customer_ids), ending)
    fitted = _Fitted(workspace, run, settings, population, fit, interaction_counts)
    await _write(engine, fitted, erased_before, ending)


async def _workspace(engine: AsyncEngine, workspace_id: int) -> Workspace:
    async with autocommit(engine).connect() as connection:
        return await workspace_store.get_workspace(connection, workspace_id)


async def _count_erased(engine: AsyncEngine, workspace: Workspace) -> int:
    async with autocommit(engine).connect() as connection:
        return await erasure_store.count_erased(connection, workspace.id)


def _too_large() -> RunFailed:
    return RunFailed(
        "amount_too_large", "A customer's money, or that of all customers, is beyond 900 million millions."
    )


async def _read(
    engine: AsyncEngine, workspace: Workspace, run: Row[Any], settings: WorkspaceSettings, ending: asyncio.Event
) -> tuple[Population, PurchaseDays | None, NDArray[np.int32]]:
    """All figures, in one snapshot, all purchase days where predictive models are tried on them, and how many
    interactions each customer had."""
    as_of_day = day_number(workspace.local_day(run.as_of))
    window_days = settings.rfm.window_days
    ids: list[str] = []
    days: list[NDArray[np.int32]] = []
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ")
    async with snapshot.connect() as connection:
        size = await population_store.count_customers(connection, workspace.id, run.as_of)
        # Room for everybody at once: pieces that are joined in the end would take it twice.
        figures = empty_figures(size, window_days)
        interaction_counts = np.zeros(size, dtype=np.int32)
        try:
            async with _one_ahead(population_store.read_population(connection, workspace.id, run.as_of)) as read:
                async for piece in read:
                    rows = slice(len(ids), len(ids) + len(piece.customer_ids))
                    into = {name: column[rows] for name, column in figures.items()}
                    days.append(await asyncio.to_thread(add_up, piece.bookings, into, as_of_day, window_days))
                    interaction_counts[rows] = piece.interaction_counts
                    ids += piece.customer_ids
                    await _report(engine, run.id, 0.3 * len(ids) / size, len(ids), ending)
        except TotalTooLarge:
            raise _too_large() from None
    if window_days is None:
        figures |= {name: figures[lifetime] for name, lifetime in WINDOW_FIGURES.items()}
    purchase_days = None
    if days and settings.clv.model != "textbook":
        # The days come by customer, as many of each as the figures count.
        customer = np.repeat(np.arange(len(ids), dtype=np.int32), figures["purchase_days"])
        purchase_days = PurchaseDays(customer, np.concatenate(days))
    return Population(as_of_day, ids, figures), purchase_days, interaction_counts


async def _write(engine: AsyncEngine, fitted: _Fitted, erased_before: int, ending: asyncio.Event) -> None:
    """Store all scores and make the run the latest, in one transaction."""
    workspace, run, fit = fitted.workspace, fitted.run, fitted.fit
    size = len(fitted.population.customer_ids)
    partition = run.id if size >= LARGE_RUN_CUSTOMERS else score_store.SHARED_PARTITION
    async with engine.begin() as connection:
        if partition != score_store.SHARED_PARTITION:
            await score_store.make_partition(connection, partition)
        async with _one_ahead(_scored(engine, fitted, partition)) as ahead:
            async for done, rows, history in ahead:
                await score_store.copy_scores(connection, partition, rows)
                await score_store.copy_to_history(connection, history)
                await _report(engine, run.id, 0.4 + 0.5 * done / size, size, ending)
        if partition != score_store.SHARED_PARTITION:
            await score_store.attach_partition(connection, partition)
        # Last of all, since it keeps others from being erased until this is committed.
        kept_fit = await leave_out_erased(
            connection, workspace, run.id, partition, fit.fitted.to_dict(), before=erased_before
        )
        await run_store.succeed_run(
            connection,
            run.id,
            customers=size,
            fitted=kept_fit,
            curve=_curve(fit.curve),
            partition=partition,
            finished_at=datetime.now(UTC),
        )
    async with engine.begin() as connection:
        if partition != score_store.SHARED_PARTITION:
            await score_lists.keep_classes(connection, workspace.id, run.id, partition)
        for old in await run_store.release_old_runs(connection, workspace.id, RUNS_KEPT):
            await score_store.drop_scores(connection, workspace.id, old.id, old.partition)


async def _scored(
    engine: AsyncEngine, fitted: _Fitted, partition: int
) -> AsyncGenerator[tuple[int, list[bytes], list[bytes]], None]:
    """How many customers are scored by then, and the rows that store the last of them and their history."""
    settings, interaction_counts = fitted.settings, fitted.interaction_counts
    custom_names = list(settings.churn.custom_events)
    for rows in _pieces(interaction_counts):
        part = fitted.population.part(rows)
        stored = None
        if interaction_counts[rows].any():
            async with autocommit(engine).connect() as connection:
                stored = await interaction_store.read_encoded_interactions(
                    connection,
                    fitted.workspace.id,
                    part.customer_ids,
                    fitted.run.as_of,
                    custom_names,
                    trust_sender=settings.churn.trust_custom_events,
                )
        scores, history = await asyncio.to_thread(_score, fitted, part, stored, rows, partition)
        yield rows.stop, scores, history


def _pieces(interaction_counts: NDArray[np.int32]) -> Iterator[slice]:
    """Customers that are scored at a time: so many that neither they nor their interactions are too many."""
    size = interaction_counts.size
    before = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(interaction_counts, dtype=np.int64)))
    start = 0
    while start < size:
        most = int(np.searchsorted(before, before[start] + INTERACTIONS_A_WRITE, side="right")) - 1
        stop = min(max(most, start + 1), start + CUSTOMERS_A_WRITE, size)
        yield slice(start, stop)
        start = stop


@contextlib.asynccontextmanager
async def _one_ahead(items: AsyncGenerator[Item, None]) -> AsyncIterator[AsyncIterator[Item]]:
    """The items; the next is made while the caller works on one."""
    following = asyncio.ensure_future(anext(items, None))

    async def each() -> AsyncIterator[Item]:
        nonlocal following
        while (item := await following) is not None:
            following = asyncio.ensure_future(anext(items, None))
            yield item

    try:
        yield each()
    finally:
        # Left to end: a statement that is cut short would spoil its connection.
        await asyncio.gather(following, return_exceptions=True)
        await items.aclose()


def _score(
    fitted: _Fitted, part: Population, stored: StoredEvents | None, rows: slice, partition: int
) -> tuple[list[bytes], list[bytes]]:
    """The scores of ``rows`` of the population, which are ``part``, and their history, as they are stored."""
    workspace, run, settings, fit = fitted.workspace, fitted.run, fitted.settings, fitted.fit
    interactions = None
    if stored is not None and stored.event_ids.size:
        size = len(part.customer_ids)
        interactions = encoded_interactions(stored, size, run.as_of, workspace.time_zone, settings.churn)
    scores = score_columns(
        part,
        settings,
        fit.fitted,
        horizon_days=settings.clv.horizon_days,
        interactions=interactions,
        clv=fit.clv.part(rows),
        cumulative_share=fit.cumulative_share[rows],
    )
    return (
        list(score_store.encode_scores(scores, workspace.id, run.id, partition)),
        list(score_store.encode_history(scores, workspace.id, run.id, run.as_of)),
    )


async def _learn(
    engine: AsyncEngine, workspace: Workspace, run: Row[Any], settings: WorkspaceSettings, population: Population
) -> Learned | None:
    """Learn churn types from people's verdicts on customers of the population; None where there are none."""
    async with autocommit(engine).connect() as connection:
        labels = await interaction_store.read_labels(connection, workspace.id, run.as_of, MOST_LABELS)
        places = [_place_of(population.customer_ids, label.customer_id) for label in labels]
        labels = [label for label, place in zip(labels, places, strict=True) if place is not None]
        if not labels:
            return None
        ids = [label.customer_id for label in labels]
        events = await interaction_store.read_interactions(connection, workspace.id, ids, run.as_of)
    interactions = interactions_of(events, ids, run.as_of, workspace.time_zone, settings.churn)
    rows = np.array([place for place in places if place is not None])
    arrays = population.at(rows).arrays
    return await asyncio.to_thread(
        learn_from_labels,
        interactions,
        arrays.last_purchase_day,
        arrays.has_order,
        [label.type for label in labels],
    )


def _place_of(customer_ids: Sequence[str], customer_id: str) -> int | None:
    """The place of a customer among ids that rise; None where there is no such customer."""
    place = bisect_left(customer_ids, customer_id)
    return place if place < len(customer_ids) and customer_ids[place] == customer_id else None


def _curve(curve: ParetoCurve) -> dict[str, list[float]]:
    return {
        "customers": curve.customers.tolist(),
        "customer_share": curve.customer_share.tolist(),
        "spend_share": curve.spend_share.tolist(),
    }


async def _report(engine: AsyncEngine, run_id: int, progress: float, customers: int, ending: asyncio.Event) -> None:
    """Tell the progress; a point at which the run can be interrupted, since it has stored nothing yet."""
    if ending.is_set():
        raise queue.Interrupted
    async with autocommit(engine).connect() as connection:
        await run_store.set_progress(connection, run_id, progress, customers)
