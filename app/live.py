"""Use case: what customers are worth at any moment, from their events, by the fit of a run where there is one."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.analytics.remembered import RememberedValues
from app.answer import Answer
from app.churn_typing import Interactions, interactions_of
from app.customers import unknown_customer
from app.explanation import OwnFigures
from app.few_customers import latest_days, population_of
from app.fits import Fits
from app.labels import Language
from app.scoring import FittedRun, Population, ScoreRow, day_number, score_population
from app.shared_reads import SharedReads
from app.store import interactions as interaction_store
from app.store import populations as population_store
from app.store.engine import autocommit
from app.store.populations import FoundCustomer, StoredShare
from app.store.workspaces import Workspace
from app.value import Value
from app.workspace_settings import WorkspaceSettings

MOST_SCORED_HERE = 32
"""More customers than this are scored in a thread, so that the event loop stays free for others."""


@dataclass(frozen=True, slots=True)
class Values:
    """Values of some customers, and the ids of those that do not exist."""

    values: list[Value]
    not_found: list[str]


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
        days = await latest_days(connection, workspace, customer_id, as_of)
    [row] = await _score(found, horizon_days)
    answer = found.answer(workspace, horizon_days, language)
    return replace(answer.value(row), explanation=answer.explanation(row, OwnFigures(found.population, days)))


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


async def _read_live(question: _LiveQuestion, customer_ids: Sequence[str]) -> dict[str, tuple[Answer, ScoreRow]]:
    as_of = question.as_of or datetime.now(UTC)
    async with autocommit(question.engine).connect() as connection:
        found = await _read_figures(connection, question, customer_ids, as_of)
    scored = await _score(found, question.horizon_days)
    answer = found.answer(question.workspace, question.horizon_days, "en")
    return {row.customer_id: (answer, row) for row in scored}


_LIVE: SharedReads[_LiveQuestion, tuple[Answer, ScoreRow]] = SharedReads(_read_live)


async def _read_figures(
    connection: AsyncConnection, question: _LiveQuestion, customer_ids: Sequence[str], as_of: datetime
) -> _Figures:
    """One statement; another where interactions speak, and the first time that a run, or a version of the settings, is
    met."""
    workspace, fits = question.workspace, question.fits
    run = await fits.of(connection, workspace, question.run_name)
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
        population_of(known, rows, day_number(as_of_day), settings.rfm.window_days),
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


def _with_share(row: ScoreRow, stored: StoredShare | None) -> ScoreRow:
    """The run's cumulative share, as long as the customer's spend is the run's."""
    if stored is None or row.abc_net_spend != stored.abc_net_spend:
        return row
    return row._replace(cumulative_share=stored.cumulative_share)
