"""Use case: what customers are worth as a scoring run stored it, one by one or in lists."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.answer import Answer
from app.errors import NotFound
from app.explanation import OwnFigures
from app.few_customers import latest_days, population_of
from app.fits import Fits
from app.labels import Language
from app.population import day_number
from app.scoring import FittedRun, score_population
from app.shared_reads import SharedReads
from app.store import populations as population_store
from app.store import score_lists
from app.store import scores as score_store
from app.store.engine import autocommit
from app.store.score_lists import ScoreFilter
from app.store.workspaces import Workspace
from app.stored_run import no_run, require_kept
from app.value import Value


@dataclass(frozen=True, slots=True)
class ValueList:
    """A page of a run's values."""

    run_id: str
    as_of: datetime
    values: list[Value]


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
            classes = await fits.classes(connection, run)
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


@dataclass(frozen=True, slots=True)
class _CachedQuestion:
    """What reads of stored values have in common that are answered together."""

    engine: AsyncEngine
    fits: Fits
    workspace: Workspace
    run_name: str | None


def _stored_answer(workspace: Workspace, run: FittedRun, language: Language) -> Answer:
    return Answer(workspace, run.settings, run, run.as_of, "cached", run.settings.clv.horizon_days, language)


async def _read_cached(question: _CachedQuestion, customer_ids: Sequence[str]) -> dict[str, tuple[FittedRun, Any]]:
    workspace = question.workspace
    async with autocommit(question.engine).connect() as connection:
        run = await _stored_run(connection, question.fits, workspace, question.run_name)
        rows = await score_store.find_scores(connection, workspace.id, run.id, run.partition, customer_ids)
        if not rows:
            await require_kept(connection, workspace, run)
    return {row.customer_id: (run, row) for row in rows}


_CACHED: SharedReads[_CachedQuestion, tuple[FittedRun, Any]] = SharedReads(_read_cached)


async def _stored_run(connection: AsyncConnection, fits: Fits, workspace: Workspace, run_name: str | None) -> FittedRun:
    run = await fits.of(connection, workspace, run_name)
    if run is None:
        raise no_run()
    return run


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
    population = population_of(ids, rows, day_number(as_of_day), run.settings.rfm.window_days)
    days = await latest_days(connection, workspace, stored.customer_id, run.as_of)
    [now] = score_population(population, run.settings, run.fitted, horizon_days=run.settings.clv.horizon_days)
    same = all(getattr(now, name) == getattr(stored, name) for name in _TOLD_BY_FIGURES)
    return OwnFigures(population, days) if same else None


_TOLD_BY_FIGURES = (
    *("days_since_last_order", "order_count", "net_spend", "abc_net_spend", "clv_historical", "clv_current"),
    *("clv_predicted", "churn_state", "lifecycle_status", "lifecycle_stage"),
)
"""What of a row of scores depends on the customer's orders alone."""
