"""Use case: what customers are worth at any moment, from their events, by the fit of a run where there is one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.analytics.lifecycle import DEFAULT_LIMITS as STATUS_LIMITS
from app.analytics.population import UNITS_PER_CURRENCY
from app.analytics.summary import COUNT_FIGURES, DAY_FIGURES, MONEY_FIGURES
from app.answer import Answer
from app.churn_typing import Interactions, interactions_of
from app.customers import unknown_customer
from app.errors import NotFound
from app.explanation import OwnFigures
from app.labels import Language
from app.runs import fitted_run, unknown_run
from app.scoring import (
    EPOCH_DAY,
    FittedRun,
    Population,
    ScoreRow,
    day_number,
    score_population,
)
from app.store import interactions as interaction_store
from app.store import populations as population_store
from app.store import runs as run_store
from app.store import scores as score_store
from app.store.engine import autocommit
from app.store.populations import FoundCustomer
from app.store.scores import ScoreFilter
from app.store.workspaces import Workspace
from app.stored_run import no_run, require_kept, succeeded_run
from app.value import Value
from app.workspace_settings import WorkspaceSettings

MOST_FITS = 256


class Fits:
    """The fits that this process has read. A succeeded run never changes, so what is here is never stale."""

    def __init__(self) -> None:
        self._known: dict[int, FittedRun] = {}

    async def get(self, connection: AsyncConnection, run_id: int) -> FittedRun:
        found = self._known.get(run_id)
        if found is None:
            row = await run_store.find_run_by_number(connection, run_id)
            if row is None:
                raise unknown_run()
            found = fitted_run(row)
            if len(self._known) >= MOST_FITS:
                self._known.pop(next(iter(self._known)))
            self._known[run_id] = found
        return found


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
    run_name: str | None = None,
    language: Language = "en",
    explain: bool = False,
) -> Values:
    """Values at ``as_of`` from the events themselves, in the order asked for.

    Population figures stand on the fit of ``run_name``, or of the latest run whatever its moment; without any
    succeeded run they are null. Raises ``NotFound`` for a run that there is not, ``Conflict`` for one that has not
    succeeded. ``explain`` says why each is what it is, and is meant for few.
    """
    ids = list(dict.fromkeys(customer_ids))
    async with autocommit(engine).connect() as connection:
        run = await _run(connection, fits, workspace, run_name)
        settings = run.settings if run else await _settings(connection, workspace)
        as_of_day = workspace.local_day(as_of)
        rows = await population_store.read_customers(
            connection, workspace.id, ids, as_of, as_of_day, settings.rfm.window_days
        )
        known = [customer_id for customer_id in ids if customer_id in rows]
        stored = await _stored_shares(connection, workspace, run, known)
        interactions = await _interactions(connection, workspace, settings, rows, known, as_of)
        days = [await _latest_days(connection, workspace, name, as_of) for name in known] if explain else []
    population = _population(known, rows, day_number(as_of_day), settings.rfm.window_days)
    horizon = horizon_days or settings.clv.horizon_days
    scores = score_population(
        population, settings, run.fitted if run else None, horizon_days=horizon, interactions=interactions
    )
    context = Answer(workspace, settings, run, as_of, "live", horizon, language)
    values = [
        context.value(row if stored.get(row.customer_id) is None else _with_share(row, stored[row.customer_id]))
        for row in scores
    ]
    if explain:
        own = [OwnFigures(population.part(slice(place, place + 1)), latest) for place, latest in enumerate(days)]
        values = [
            replace(value, explanation=context.explanation(row, figures))
            for value, row, figures in zip(values, scores, own, strict=True)
        ]
    return Values(values, [customer_id for customer_id in ids if customer_id not in rows])


async def live_value(
    engine: AsyncEngine,
    fits: Fits,
    workspace: Workspace,
    customer_id: str,
    as_of: datetime,
    *,
    horizon_days: int | None = None,
    run_name: str | None = None,
    language: Language = "en",
    explain: bool = False,
) -> Value:
    """One customer's value; raises ``NotFound`` where there is no such customer."""
    found = await live_values(
        engine,
        fits,
        workspace,
        [customer_id],
        as_of,
        horizon_days=horizon_days,
        run_name=run_name,
        language=language,
        explain=explain,
    )
    if found.not_found:
        raise unknown_customer()
    return found.values[0]


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
    async with autocommit(engine).connect() as connection:
        run = await _stored_run(connection, fits, workspace, run_name)
        rows = await score_store.find_scores(connection, workspace.id, run.id, run.partition, [customer_id])
        if not rows:
            await require_kept(connection, workspace, run)
            raise NotFound("The run did not score this customer.", code="not_scored")
        own = await _figures_of_run(connection, workspace, run, rows[0]) if explain else None
    context = Answer(workspace, run.settings, run, run.as_of, "cached", run.settings.clv.horizon_days, language)
    value = context.value(rows[0])
    return replace(value, explanation=context.explanation(rows[0], own)) if explain else value


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
        rows = await score_store.list_scores(
            connection,
            workspace.id,
            run.id,
            run.partition,
            filters,
            sort=sort,
            falling=falling,
            after=after,
            limit=limit,
        )
        if not rows:
            await require_kept(connection, workspace, run)
    context = Answer(workspace, run.settings, run, run.as_of, "cached", run.settings.clv.horizon_days, language)
    return ValueList(run.name, run.as_of, [context.value(row) for row in rows])


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


async def _settings(connection: AsyncConnection, workspace: Workspace) -> WorkspaceSettings:
    row = await run_store.read_settings(connection, workspace.id)
    return WorkspaceSettings.model_validate_json(row.settings)


async def _stored_shares(
    connection: AsyncConnection, workspace: Workspace, run: FittedRun | None, customer_ids: Sequence[str]
) -> dict[str, Row[Any]]:
    """What the run stored of the customers, for the one figure that only the whole population can tell."""
    if run is None:
        return {}
    rows = await score_store.find_scores(connection, workspace.id, run.id, run.partition, customer_ids)
    return {row.customer_id: row for row in rows}


async def _latest_days(
    connection: AsyncConnection, workspace: Workspace, customer_id: str, as_of: datetime
) -> list[int]:
    """The last purchase days that keep a status, the latest first."""
    days = await population_store.latest_purchase_days(
        connection, workspace.id, customer_id, as_of, STATUS_LIMITS.active_purchase_days
    )
    return [day_number(day) for day in days]


async def _figures_of_run(
    connection: AsyncConnection, workspace: Workspace, run: FittedRun, stored: Row[Any]
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


def _with_share(row: ScoreRow, stored: Row[Any]) -> ScoreRow:
    """The run's cumulative share, as long as the customer's spend is the run's."""
    unchanged = row.abc_net_spend == stored.abc_net_spend
    return row._replace(cumulative_share=stored.cumulative_share if unchanged else None)


def _population(
    customer_ids: Sequence[str],
    rows: Mapping[str, FoundCustomer],
    as_of_day: int,
    window_days: int | None,
) -> Population:
    """The figures of a few customers as arrays; one with nothing booked has zeros."""
    found = [rows[customer_id].figures for customer_id in customer_ids]

    def column(name: str) -> list[Any]:
        return [getattr(row, name, None) for row in found]

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
