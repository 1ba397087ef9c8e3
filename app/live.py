"""Use case: what customers are worth at any moment, from their events, by the fit of a run where there is one."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.analytics.lifecycle import DEFAULT_LIMITS as STATUS_LIMITS
from app.analytics.population import UNITS_PER_CURRENCY
from app.analytics.remembered import RememberedValues
from app.analytics.summary import COUNT_FIGURES, DAY_FIGURES, MONEY_FIGURES
from app.answer import Answer
from app.churn_typing import Interactions, interactions_of
from app.customers import unknown_customer
from app.errors import NotFound
from app.explanation import OwnFigures
from app.fits import Fits
from app.labels import Language
from app.scoring import (
    EPOCH_DAY,
    FittedRun,
    Population,
    ScoreRow,
    day_number,
    score_population,
)
from app.shared_reads import SharedReads
from app.store import interactions as interaction_store
from app.store import populations as population_store
from app.store import score_lists
from app.store import scores as score_store
from app.store.engine import autocommit
from app.store.populations import FoundCustomer, StoredShare
from app.store.score_lists import ScoreFilter
from app.store.workspaces import Workspace
from app.stored_run import no_run, require_kept, succeeded_run
from app.value import Value
from app.workspace_settings import WorkspaceSettings

MOST_SCORED_HERE = 32
"""More customers than this are scored in a thread, so that the event loop stays free for others."""


@dataclass(frozen=True, slots=True)
class Values:
    """Values of some customers, and the ids of those that do not exist."""

    values: list[Value]
    not_found: list[str]


@dataclass(frozen=True, slots=True)
class ValueList:
    """A page of a run's values."""

    run_id: str
    as_of: datetime
    values: list[Value]


async def live_values(
    engine: AsyncEngine,
    fits: Fits,
    workspace: Workspace,
    customer_ids: Sequence[str],
    as_of: datetime,
    *,
    horizon_days: int | None = None,
    language: Language = "en",
) -> Values:
    """Values at ``as_of`` from the events themselves, in the order asked for.

    Population figures stand on the fit of the latest run whatever its moment; without any succeeded run they are null.
    """
    ids = list(dict.fromkeys(customer_ids))
    question = _LiveQuestion(engine, fits, workspace, as_of, horizon_days, None)
    async with autocommit(engine).connect() as connection:
        found = await _read_figures(connection, question, ids, as_of)
    scored = await _score(found, horizon_days)
    answer = found.answer(workspace, horizon_days, language)
    return Values(
        [answer.value(row) for row in scored], [customer_id for customer_id in ids if customer_id not in found.rows]
    )


async def live_value(
    engine: AsyncEngine,
    fits: Fits,
    workspace: Workspace,
    customer_id: str,
    as_of: datetime | None = None,
    *,
    horizon_days: int | None = None,
    run_name: str | None = None,
    language: Language = "en",
) -> Value:
    """One customer's value, now unless said otherwise; read together with others that are asked for at the same time.

    Population figures stand on the fit of ``run_name``, or of the latest run whatever its moment. Raises ``NotFound``
    where there is no such customer or run, ``Conflict`` for a run that has not succeeded.
    """
    found = await _LIVE.get(_LiveQuestion(engine, fits, workspace, as_of, horizon_days, run_name), customer_id)
    if found is None:
        raise unknown_customer()
    answer, row = found
    return answer.in_language(language).value(row)


async def explained_live_value(
    engine: AsyncEngine,
    fits: Fits,
    workspace: Workspace,
    customer_id: str,
    as_of: datetime,
    *,
    horizon_days: int | None = None,
    run_name: str | None = None,
    language: Language = "en",
) -> Value:
    """The same with the reasons, from the figures that gave it."""
    question = _LiveQuestion(engine, fits, workspace, as_of, horizon_days, run_name)
    async with autocommit(engine).connect() as connection:
        found = await _read_figures(connection, question, [customer_id], as_of)
        if not found.known:
            raise unknown_customer()
        days = await _latest_days(connection, workspace, customer_id, as_of)
    [row] = await _score(found, horizon_days)
    answer = found.answer(workspace, horizon_days, language)
    return replace(answer.value(row), explanation=answer.explanation(row, OwnFigures(found.population, days)))


async def cached_value(
    engine: AsyncEngine,
    fits: Fits,
    workspace: Workspace,
    customer_id: str,
    run_name: str | None = None,
    language: Language = "en",
    explain: bool = False,
) -> Value:
    """A customer's value as a run stored it.

    Raises ``Conflict`` (``no_run``) without any succeeded run, ``NotFound`` (``not_scored``) for a customer that the
    run did not score, ``Gone`` (``run_gone``) where the run's scores are no longer kept.
    """
    found = await _CACHED.get(_CachedQuestion(engine, fits, workspace, run_name), customer_id)
    if found is None:
        raise NotFound("The run did not score this customer.", code="not_scored")
    run, row = found
    answer = _stored_answer(workspace, run, language)
    value = answer.value(row)
    if not explain:
        return value
    async with autocommit(engine).connect() as connection:
        own = await _figures_of_run(connection, workspace, run, row)
    return replace(value, explanation=answer.explanation(row, own))


@dataclass(frozen=True, slots=True)
class _LiveQuestion:
    """What live reads have in common that are answered together; ``as_of`` None is the moment of the read."""

    engine: AsyncEngine
    fits: Fits
    workspace: Workspace
    as_of: datetime | None
    horizon_days: int | None
    run_name: str | None


@dataclass(frozen=True, slots=True)
class _CachedQuestion:
    """What reads of stored values have in common that are answered together."""

    engine: AsyncEngine
    fits: Fits
    workspace: Workspace
    run_name: str | None


@dataclass(frozen=True, slots=True)
class _Figures:
    """What the store knows of some customers, as scoring takes it."""

    known: list[str]
    rows: Mapping[str, FoundCustomer]
    population: Population
    interactions: Interactions | None
    run: FittedRun | None
    settings: WorkspaceSettings
    as_of: datetime

    def answer(self, workspace: Workspace, horizon_days: int | None, language: Language) -> Answer:
        horizon = horizon_days or self.settings.clv.horizon_days
        return Answer(workspace, self.settings, self.run, self.as_of, "live", horizon, language)


def _stored_answer(workspace: Workspace, run: FittedRun, language: Language) -> Answer:
    return Answer(workspace, run.settings, run, run.as_of, "cached", run.settings.clv.horizon_days, language)


async def _read_live(question: _LiveQuestion, customer_ids: Sequence[str]) -> dict[str, tuple[Answer, ScoreRow]]:
    as_of = question.as_of or datetime.now(UTC)
    async with autocommit(question.engine).connect() as connection:
        found = await _read_figures(connection, question, customer_ids, as_of)
    scored = await _score(found, question.horizon_days)
    answer = found.answer(question.workspace, question.horizon_days, "en")
    return {row.customer_id: (answer, row) for row in scored}


async def _read_cached(question: _CachedQuestion, customer_ids: Sequence[str]) -> dict[str, tuple[FittedRun, Any]]:
    workspace = question.workspace
    async with autocommit(question.engine).connect() as connection:
        run = await _stored_run(connection, question.fits, workspace, question.run_name)
        rows = await score_store.find_scores(connection, workspace.id, run.id, run.partition, customer_ids)
        if not rows:
            await require_kept(connection, workspace, run)
    return {row.customer_id: (run, row) for row in rows}


_LIVE: SharedReads[_LiveQuestion, tuple[Answer, ScoreRow]] = SharedReads(_read_live)
_CACHED: SharedReads[_CachedQuestion, tuple[FittedRun, Any]] = SharedReads(_read_cached)


async def _read_figures(
    connection: AsyncConnection, question: _LiveQuestion, customer_ids: Sequence[str], as_of: datetime
) -> _Figures:
    """One statement; another where interactions speak, and the first time that a run, or a version of the settings, is
    met."""
    workspace, fits = question.workspace, question.fits
    run = await _run(connection, fits, workspace, question.run_name)
    settings = run.settings if run else await fits.settings(connection, workspace)
    as_of_day = workspace.local_day(as_of)
    rows = await population_store.read_customers(
        connection,
        workspace.id,
        customer_ids,
        as_of,
        as_of_day,
        settings.rfm.window_days,
        scored_by=(run.partition, run.id) if run else None,
    )
    known = [customer_id for customer_id in customer_ids if customer_id in rows]
    return _Figures(
        known,
        rows,
        _population(known, rows, day_number(as_of_day), settings.rfm.window_days),
        await _interactions(connection, workspace, settings, rows, known, as_of),
        run,
        settings,
        as_of,
    )


_REMEMBERED = RememberedValues()
"""By the names of runs, which nothing else has."""


async def _score(found: _Figures, horizon_days: int | None) -> list[ScoreRow]:
    if len(found.known) > MOST_SCORED_HERE:
        return await asyncio.to_thread(_scores, found, horizon_days)
    return _scores(found, horizon_days)


def _scores(found: _Figures, horizon_days: int | None) -> list[ScoreRow]:
    settings, run = found.settings, found.run
    horizon = horizon_days or settings.clv.horizon_days
    clv = None
    if run and run.fitted.clv.purchases and found.known:
        clv = _REMEMBERED.value(
            run.name,
            run.fitted.clv,
            found.population.arrays,
            horizon_days=horizon,
            discount_rate=settings.clv.discount_rate,
            interval_level=settings.clv.interval_level,
            churn_horizon_days=settings.churn.horizon_days,
        )
    rows = score_population(
        found.population,
        settings,
        run.fitted if run else None,
        horizon_days=horizon,
        interactions=found.interactions,
        clv=clv,
    )
    return [_with_share(row, found.rows[row.customer_id].stored) for row in rows]


async def list_values(
    engine: AsyncEngine,
    fits: Fits,
    workspace: Workspace,
    filters: ScoreFilter,
    *,
    sort: str,
    falling: bool,
    after: tuple[Any, str] | None,
    limit: int,
    run_name: str | None = None,
    language: Language = "en",
) -> ValueList:
    """A page of the values that a run stored: of the latest, or of the run that a cursor carries.

    Raises as ``cached_value`` does.
    """
    async with autocommit(engine).connect() as connection:
        run = await _stored_run(connection, fits, workspace, run_name)
        classes = None
        if run.partition != score_store.SHARED_PARTITION and filters.needs_classes(sort):
            classes = await fits.classes(connection, workspace, run)
        rows = await score_lists.list_scores(
            connection,
            workspace.id,
            run.id,
            run.partition,
            filters,
            sort=sort,
            falling=falling,
            after=after,
            limit=limit,
            classes=classes,
        )
        if not rows:
            await require_kept(connection, workspace, run)
    answer = _stored_answer(workspace, run, language)
    return ValueList(run.name, run.as_of, [answer.value(row) for row in rows])


async def _interactions(
    connection: AsyncConnection,
    workspace: Workspace,
    settings: WorkspaceSettings,
    rows: Mapping[str, FoundCustomer],
    customer_ids: Sequence[str],
    as_of: datetime,
) -> Interactions | None:
    """What happened to the customers beside orders; None, and nothing read, where the summaries know of nothing."""
    speaking = [customer_id for customer_id in customer_ids if rows[customer_id].interaction_count]
    if not speaking:
        return None
    events = await interaction_store.read_interactions(connection, workspace.id, speaking, as_of)
    return interactions_of(events, customer_ids, as_of, workspace.time_zone, settings.churn)


async def _run(connection: AsyncConnection, fits: Fits, workspace: Workspace, run_name: str | None) -> FittedRun | None:
    if run_name is None:
        return None if workspace.latest_run_id is None else await fits.get(connection, workspace.latest_run_id)
    return await fits.get(connection, (await succeeded_run(connection, workspace, run_name)).id)


async def _stored_run(connection: AsyncConnection, fits: Fits, workspace: Workspace, run_name: str | None) -> FittedRun:
    run = await _run(connection, fits, workspace, run_name)
    if run is None:
        raise no_run()
    return run


async def _latest_days(
    connection: AsyncConnection, workspace: Workspace, customer_id: str, as_of: datetime
) -> list[int]:
    """The last purchase days that keep a status, the latest first."""
    days = await population_store.latest_purchase_days(
        connection, workspace.id, customer_id, as_of, STATUS_LIMITS.active_purchase_days
    )
    return [day_number(day) for day in days]


async def _figures_of_run(
    connection: AsyncConnection, workspace: Workspace, run: FittedRun, stored: Any
) -> OwnFigures | None:
    """The figures that gave a stored row of scores, from the events; None where late events have changed them."""
    ids, as_of_day = [stored.customer_id], workspace.local_day(run.as_of)
    rows = await population_store.read_customers(
        connection, workspace.id, ids, run.as_of, as_of_day, run.settings.rfm.window_days
    )
    if stored.customer_id not in rows:
        return None
    population = _population(ids, rows, day_number(as_of_day), run.settings.rfm.window_days)
    days = await _latest_days(connection, workspace, stored.customer_id, run.as_of)
    [now] = score_population(population, run.settings, run.fitted, horizon_days=run.settings.clv.horizon_days)
    same = all(getattr(now, name) == getattr(stored, name) for name in _TOLD_BY_FIGURES)
    return OwnFigures(population, days) if same else None


_TOLD_BY_FIGURES = (
    *("days_since_last_order", "order_count", "net_spend", "abc_net_spend", "clv_historical", "clv_current"),
    *("clv_predicted", "churn_state", "lifecycle_status", "lifecycle_stage"),
)
"""What of a row of scores depends on the customer's orders alone."""


def _with_share(row: ScoreRow, stored: StoredShare | None) -> ScoreRow:
    """The run's cumulative share, as long as the customer's spend is the run's."""
    if stored is None or row.abc_net_spend != stored.abc_net_spend:
        return row
    return row._replace(cumulative_share=stored.cumulative_share)


def _population(
    customer_ids: Sequence[str],
    rows: Mapping[str, FoundCustomer],
    as_of_day: int,
    window_days: int | None,
) -> Population:
    """The figures of a few customers as arrays; one with nothing booked has zeros."""
    found = [rows[customer_id].figures or {} for customer_id in customer_ids]

    def column(name: str) -> list[Any]:
        return [row.get(name) for row in found]

    figures: dict[str, Any] = {}
    for name in COUNT_FIGURES:
        figures[name] = np.array([value or 0 for value in column(name)], dtype=np.int64)
    for name in DAY_FIGURES:
        figures[name] = np.array([day_number(day or EPOCH_DAY) for day in column(name)], dtype=np.int64)
    for name in MONEY_FIGURES:
        # Left to NumPy: a sum beyond 64 bits stays exact as a Python integer.
        figures[name] = np.array([int((money or 0) * UNITS_PER_CURRENCY) for money in column(name)])
    if window_days is None:
        figures["window_order_count"] = figures["order_count"]
        figures["window_net_spend"] = figures["net_spend"]
    return Population(as_of_day, customer_ids, figures)
