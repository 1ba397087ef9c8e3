"""Use case: the report on churn. Who leaves, of what type, what is at stake, how sure we are, and for what reasons."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.analytics.churn import STATES
from app.analytics.signals import SUBTYPES, TYPES, UNKNOWN
from app.catalogue import CATALOGUE, CATALOGUE_BY_NAME
from app.labels import Language, label
from app.reports.churn_parts import (
    AnswerCounts,
    ChurnCalibration,
    ChurnEventCount,
    ChurnEvidenceCount,
    ChurnForecastGroup,
    ChurnLearning,
    ChurnLossCount,
    ChurnProbabilities,
    ChurnProbabilityGroup,
    ChurnReasons,
    ChurnReport,
    ChurnSegmentCount,
    ChurnStateCount,
    ChurnSubtypeCount,
    ChurnTypeCount,
    ConfusionRow,
    LabelCount,
    LearningEvaluation,
    Stake,
)
from app.reports.months import day_start, last_months, month_text
from app.runs import fitted_run
from app.store import report_queries as store
from app.store.engine import autocommit
from app.store.workspaces import Workspace
from app.stored_run import require_kept, succeeded_run

DECILES = 10

_TOLD_BY_CONTENT = ("survey.answered", "order.delivered", "complaint.resolved")
"""These speak by their mark, their delay or their verdict: to count them all would tell no reasons."""

REASONS = tuple(kind.name for kind in CATALOGUE if kind.speaks_for and kind.name not in _TOLD_BY_CONTENT)
_REASONS_WITH_CHOICE = tuple(
    kind.name for kind in CATALOGUE for field in kind.fields if (field.name, field.kind) == ("reason", "choice")
)

_Key = TypeVar("_Key", bound=Hashable)


async def churn_report(
    engine: AsyncEngine,
    workspace: Workspace,
    months: int,
    run_name: str | None = None,
    language: Language = "en",
) -> ChurnReport:
    """The report of a run, or of the latest; reasons of the last ``months`` calendar months before its moment.

    Raises ``Conflict`` (``no_run``, ``run_not_succeeded``), ``NotFound`` (``run_not_found``), ``Gone`` (``run_gone``).
    """
    async with autocommit(engine).connect() as connection:
        run = fitted_run(await succeeded_run(connection, workspace, run_name))
        of_run = workspace.id, run.id, run.partition
        as_of_day = workspace.local_day(run.as_of)
        shown = last_months(as_of_day, months)
        groups = await store.count_churn(connection, *of_run)
        deciles = await store.churn_deciles(connection, *of_run, DECILES)
        losses = await store.count_losses_by_month(connection, *of_run, as_of_day, shown[0])
        starts = [day_start(month, workspace.time_zone) for month in shown]
        evidence = await store.count_evidence_by_month(connection, *of_run, starts)
        events = await store.count_events_by_month(
            connection, workspace.id, run.as_of, shown[0], REASONS, _REASONS_WITH_CHOICE
        )
        await require_kept(connection, workspace, run)
    churn, words = run.fitted.churn, _Words(language)
    return ChurnReport(
        run_id=run.name,
        as_of=run.as_of,
        currency=workspace.currency,
        method=churn.method,
        horizon_days=churn.horizon_days,
        customers=sum(row.customers for row in groups),
        states=_states(groups, words),
        types=_types(groups, words),
        subtypes=_subtypes(groups, words),
        segments=_segments(groups, words),
        probability=_probabilities(deciles),
        calibration=_calibration(churn.calibration) if churn.calibration else None,
        learning=_learning(churn.learning, words),
        reasons=ChurnReasons(
            months=[month_text(month) for month in shown],
            events=[
                ChurnEventCount(
                    month_text(row.month),
                    row.type,
                    row.reason,
                    list(CATALOGUE_BY_NAME[row.type].speaks_for),
                    row.events,
                    row.customers,
                )
                for row in events
            ],
            evidence=[
                ChurnEvidenceCount(
                    month_text(shown[row.month - 1]),
                    row.type,
                    words.type(row.type),
                    row.event_type,
                    row.events,
                    row.customers,
                )
                for row in evidence
            ],
            losses=[
                ChurnLossCount(
                    month_text(row.month),
                    row.state,
                    words.state(row.state),
                    row.type,
                    words.type(row.type),
                    *Stake.of(row),
                )
                for row in losses
            ],
        ),
    )


class _Words:
    """Labels in the caller's language."""

    def __init__(self, language: Language) -> None:
        self.language = language

    def state(self, code: str) -> str:
        return label("churn_state", code, self.language)

    def type(self, code: str) -> str:
        return label("churn_type", code, self.language)

    def subtype(self, code: str) -> str:
        return label("churn_subtype", code, self.language)

    def segment(self, code: str) -> str:
        return label("segment", code, self.language)


def _stakes(rows: Iterable[Row[Any]], key: Callable[[Row[Any]], _Key]) -> dict[_Key, Stake]:
    """What is at stake in total, by key."""
    found: dict[_Key, Stake] = {}
    for row in rows:
        found[key(row)] = found.get(key(row), Stake()).plus(Stake.of(row))
    return found


def _states(groups: Sequence[Row[Any]], words: _Words) -> list[ChurnStateCount]:
    stakes = _stakes(groups, lambda row: row.state)
    return [ChurnStateCount(state, words.state(state), *stakes.get(state, Stake())) for state in STATES]


_LEAVING = ("at_risk", "churned")


def _types(groups: Sequence[Row[Any]], words: _Words) -> list[ChurnTypeCount]:
    stakes = _stakes(groups, lambda row: (row.state, row.type))
    return [
        ChurnTypeCount(state, words.state(state), kind, words.type(kind), *stakes.get((state, kind), Stake()))
        for state in _LEAVING
        for kind in TYPES
    ]


def _subtypes(groups: Sequence[Row[Any]], words: _Words) -> list[ChurnSubtypeCount]:
    stakes = _stakes(groups, lambda row: (row.state, row.subtype))
    return [
        ChurnSubtypeCount(state, words.state(state), kind, words.subtype(kind), *stakes.get((state, kind), Stake()))
        for state in _LEAVING
        for kind in SUBTYPES
    ]


def _segments(groups: Sequence[Row[Any]], words: _Words) -> list[ChurnSegmentCount]:
    stakes = _stakes(groups, lambda row: (row.state, row.type, row.segment))
    order = {code: place for place, code in enumerate((*STATES, *TYPES))}
    ranked = sorted(stakes, key=lambda key: (order[key[0]], order.get(key[1], -1), key[2] is None, key[2] or ""))
    return [
        ChurnSegmentCount(
            state,
            words.state(state),
            kind,
            None if kind is None else words.type(kind),
            segment,
            None if segment is None else words.segment(segment),
            *stakes[state, kind, segment],
        )
        for state, kind, segment in ranked
    ]


def _probabilities(deciles: Sequence[Row[Any]]) -> ChurnProbabilities | None:
    customers = sum(row.customers for row in deciles)
    if not customers:
        return None
    return ChurnProbabilities(
        customers=customers,
        expected_churned_share=sum(row.expected_churned for row in deciles) / customers,
        deciles=[
            ChurnProbabilityGroup(row.customers, row.least, row.most, row.expected_churned / row.customers)
            for row in deciles
        ],
    )


def _calibration(record: Mapping[str, Any]) -> ChurnCalibration:
    return ChurnCalibration(
        horizon_days=record["horizon_days"],
        deciles=[
            ChurnForecastGroup(group["customers"], group["predicted"], group["actual"]) for group in record["deciles"]
        ],
    )


def _learning(record: Mapping[str, Any], words: _Words) -> ChurnLearning:
    def evaluation(told: Mapping[str, Any] | None) -> LearningEvaluation | None:
        if told is None:
            return None
        return LearningEvaluation(
            told["log_loss"],
            told["log_loss_se"],
            told["accuracy"],
            [
                ConfusionRow(kind, AnswerCounts(**dict(zip(TYPES, row, strict=True))))
                for kind, row in zip(TYPES[:UNKNOWN], told["confusion"], strict=True)
            ],
        )

    labels = record.get("labels") or [0] * UNKNOWN
    return ChurnLearning(
        serves=record.get("serves", "expert"),
        reason=record.get("reason", "no_labels"),
        labels=[LabelCount(kind, words.type(kind), count) for kind, count in zip(TYPES[:UNKNOWN], labels, strict=True)],
        strength=record.get("strength"),
        expert=evaluation(record.get("expert")),
        learned=evaluation(record.get("learned")),
        gain=record.get("gain"),
        gain_se=record.get("gain_se"),
    )
