"""Use case: what customers are worth at any moment, from their events, by the fit of a run where there is one."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.analytics.remembered import RememberedValues
from app.answer import Answer
from app.bounded import forget_oldest
from app.churn_typing import Interactions, interactions_of
from app.customers import unknown_customer
from app.explanation import OwnFigures
from app.few_customers import latest_days, population_of
from app.fits import Fits
from app.labels import Language
from app.population import Population, day_number
from app.scoring import FittedRun, ScoreRow, score_population, valuation_terms
from app.shared_reads import SharedReads
from app.store import interactions as interaction_store
from app.store import populations as population_store
from app.store.engine import autocommit
from app.store.populations import FoundCustomer, ScoredBefore
from app.store.workspaces import Workspace
from app.threads import apart_if
from app.value import Value
from app.workspace_settings import WorkspaceSettings

MOST_SCORED_HERE = 32
"""More customers than this are scored in a thread, so that the event loop stays free for others."""

MOST_REMEMBERED = 16_384
"""Customers whose scores are remembered: about 60 MB."""


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
    scored = await _score(found)
    answer = found.answer(workspace, language)
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
        found = await _read_figures(connection, question, [customer_id], as_of, recall=False)
        if not found.known:
            raise unknown_customer()
        days = await latest_days(connection, workspace, customer_id, as_of)
    [row] = await _score(found)
    answer = found.answer(workspace, language)
    return replace(answer.value(row), explanation=answer.explanation(row, OwnFigures(found.population(), days)))


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
    """What the store knows of some customers, as scoring takes it.

    ``to_score`` are those whose scores are not ``at_hand``; ``interactions`` are theirs. ``names`` tell what scores
    depend on, where that can be told.
    """

    known: list[str]
    rows: Mapping[str, FoundCustomer]
    names: Mapping[str, Hashable]
    at_hand: Mapping[str, ScoreRow]
    to_score: list[str]
    interactions: Interactions | None
    run: FittedRun | None
    settings: WorkspaceSettings
    as_of: datetime
    as_of_day: date
    horizon_days: int

    def population(self) -> Population:
        """The figures of those to be scored."""
        return _population(self.to_score, self.rows, self.as_of_day, self.settings)

    def answer(self, workspace: Workspace, language: Language) -> Answer:
        return Answer(workspace, self.settings, self.run, self.as_of, "live", self.horizon_days, language)


async def _read_live(question: _LiveQuestion, customer_ids: Sequence[str]) -> dict[str, tuple[Answer, ScoreRow]]:
    as_of = question.as_of or datetime.now(UTC)
    async with autocommit(question.engine).connect() as connection:
        found = await _read_figures(connection, question, customer_ids, as_of)
    scored = await _score(found)
    answer = found.answer(question.workspace, "en")
    return {row.customer_id: (answer, row) for row in scored}


_LIVE: SharedReads[_LiveQuestion, tuple[Answer, ScoreRow]] = SharedReads(_read_live)


_REMEMBERED_VALUES = RememberedValues()
"""By the names of runs, which nothing else has."""

_remembered: dict[Hashable, ScoreRow] = {}
"""Scores by all that they depend on, so they are never stale: nothing but an order, a run or the next day changes them.
Whoever is looked at is looked at again."""


async def _read_figures(
    connection: AsyncConnection,
    question: _LiveQuestion,
    customer_ids: Sequence[str],
    as_of: datetime,
    *,
    recall: bool = True,
) -> _Figures:
    """One statement; another where interactions speak, and the first time that a run, or a version of the settings, is
    met."""
    workspace, fits = question.workspace, question.fits
    run = await fits.of(connection, workspace, question.run_name)
    settings = run.settings if run else await fits.settings(connection, workspace)
    horizon_days = question.horizon_days or settings.clv.horizon_days
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
    scored_by = run.name if run else (workspace.id, workspace.settings_version)
    names: dict[str, Hashable] = {
        customer_id: (scored_by, horizon_days, as_of_day, customer_id, *_depended_on(rows[customer_id]))
        for customer_id in known
        # What interactions say depends on the moment and on what they are.
        if not rows[customer_id].interaction_count
    }
    at_hand: dict[str, ScoreRow] = {}
    if recall:
        at_hand = {one: row for one, name in names.items() if (row := _remembered.get(name))}
        if run and horizon_days == settings.clv.horizon_days and as_of_day == workspace.local_day(run.as_of):
            silent = [customer_id for customer_id in names if customer_id not in at_hand]
            are_many = len(silent) > MOST_SCORED_HERE
            at_hand |= await apart_if(are_many, _scores_of_the_run, silent, rows, as_of_day, settings)
    to_score = [customer_id for customer_id in known if customer_id not in at_hand]
    return _Figures(
        known,
        rows,
        names,
        at_hand,
        to_score,
        await _interactions(connection, workspace, settings, rows, to_score, as_of),
        run,
        settings,
        as_of,
        as_of_day,
        horizon_days,
    )


def _depended_on(found: FoundCustomer) -> Sequence[Hashable]:
    """What the scores of a customer of whom no interaction speaks depend on, but for what all customers share; and a
    little more, which does no harm."""
    figures = () if found.figures is None else tuple(found.figures.values())
    share = (found.before.scores.abc_net_spend, found.before.scores.cumulative_share) if found.before else None
    return share, *figures


def _scores_of_the_run(
    customer_ids: Sequence[str], rows: Mapping[str, FoundCustomer], as_of_day: date, settings: WorkspaceSettings
) -> dict[str, ScoreRow]:
    """The run's own scores of those whose figures, and whose day, are those that it scored: the same would come of
    them. No interaction speaks of these customers."""
    orders = "order_count" if settings.rfm.window_days is None else "window_order_count"
    scored = {
        one: before
        for one in customer_ids
        # Most of those who ordered since are told by their number of orders, without a look at all figures.
        if (before := rows[one].before) and before.scores.order_count == ((rows[one].figures or {}).get(orders) or 0)
    }
    if not scored:
        return {}
    digests = _population(list(scored), rows, as_of_day, settings).digests().tolist()
    return {
        customer_id: ScoreRow(*before.scores)
        for (customer_id, before), digest in zip(scored.items(), digests, strict=True)
        if before.figures_digest == digest
    }


def _population(
    customer_ids: Sequence[str], rows: Mapping[str, FoundCustomer], as_of_day: date, settings: WorkspaceSettings
) -> Population:
    return population_of(customer_ids, rows, day_number(as_of_day), settings.rfm.window_days)


async def _score(found: _Figures) -> list[ScoreRow]:
    """The scores of all known customers, in their order."""
    rows = dict(found.at_hand)
    if found.to_score:
        scored = await apart_if(len(found.to_score) > MOST_SCORED_HERE, _scores, found)
        rows |= {row.customer_id: row for row in scored}
    _remembered.update({name: rows[customer_id] for customer_id, name in found.names.items()})
    forget_oldest(_remembered, MOST_REMEMBERED)
    return [rows[customer_id] for customer_id in found.known]


def _scores(found: _Figures) -> list[ScoreRow]:
    settings, run, population = found.settings, found.run, found.population()
    clv = None
    if run and run.fitted.clv.purchases:
        terms = valuation_terms(settings, found.horizon_days)
        clv = _REMEMBERED_VALUES.value(run.name, run.fitted.clv, population.arrays, terms)
    rows = score_population(
        population,
        settings,
        run.fitted if run else None,
        horizon_days=found.horizon_days,
        interactions=found.interactions,
        clv=clv,
    )
    return [_with_share(row, found.rows[row.customer_id].before) for row in rows]


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


def _with_share(row: ScoreRow, before: ScoredBefore | None) -> ScoreRow:
    """The run's cumulative share, as long as the customer's spend is the run's."""
    if before is None or row.abc_net_spend != before.scores.abc_net_spend:
        return row
    return row._replace(cumulative_share=before.scores.cumulative_share)
