"""Use case: the report on churn. Who leaves, of what type, what is at stake, how sure we are, and for what reasons."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import Field
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.analytics.churn import STATES
from app.analytics.signals import SUBTYPES, TYPES, UNKNOWN
from app.catalogue import CATALOGUE, CATALOGUE_BY_NAME
from app.labels import Language, label
from app.reports.months import day_start, last_months, month_text
from app.reports.terms import CurrencyCode, RunId
from app.runs import fitted_run
from app.scalars import Instant, SignedMoney
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
Month = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}$", examples=["2026-01"])]
State = Annotated[str, Field(examples=["churned"])]
StateLabel = Annotated[str, Field(examples=["Lost"])]
Type = Annotated[str, Field(examples=["negligent"])]
TypeLabel = Annotated[str, Field(examples=["Negligent loss: our own failing"])]


class Stake(NamedTuple):
    """Customers, and the money of theirs that is at stake."""

    customers: int = 0
    net_spend: Decimal = Decimal(0)
    clv_current: Decimal = Decimal(0)
    clv_predicted: Decimal = Decimal(0)

    @classmethod
    def of(cls, row: Row[Any]) -> "Stake":
        return cls(row.customers, row.net_spend, row.clv_current, row.clv_predicted)

    def plus(self, other: "Stake") -> "Stake":
        return Stake(
            self.customers + other.customers,
            self.net_spend + other.net_spend,
            self.clv_current + other.clv_current,
            self.clv_predicted + other.clv_predicted,
        )


Customers = Annotated[int, Field(examples=[120])]
NetSpend = Annotated[SignedMoney, Field(description="Within the window of the run's settings.")]
Current = Annotated[SignedMoney, Field(description="Of the last 365 days, on the basis of lifetime value.")]
Predicted = Annotated[SignedMoney, Field(description="Expected within the horizon of lifetime value.")]


@dataclass(frozen=True, slots=True)
class ChurnStateCount:
    """The customers of a state."""

    state: State
    state_label: StateLabel
    customers: Customers
    net_spend: NetSpend
    clv_current: Current
    clv_predicted: Predicted


@dataclass(frozen=True, slots=True)
class ChurnTypeCount:
    """The customers of a state and a type."""

    state: State
    state_label: StateLabel
    type: Type
    type_label: TypeLabel
    customers: Customers
    net_spend: NetSpend
    clv_current: Current
    clv_predicted: Predicted


@dataclass(frozen=True, slots=True)
class ChurnSubtypeCount:
    """The customers of a state whose loss is passive, by the kind of it."""

    state: State
    state_label: StateLabel
    subtype: Annotated[str, Field(examples=["retaliatory"])]
    subtype_label: Annotated[str, Field(examples=["Withholds payment in anger"])]
    customers: Customers
    net_spend: NetSpend
    clv_current: Current
    clv_predicted: Predicted


@dataclass(frozen=True, slots=True)
class ChurnSegmentCount:
    """The customers of a state, a type and a segment."""

    state: State
    state_label: StateLabel
    type: Annotated[str | None, Field(description="Null unless at risk or churned.", examples=["negligent"])]
    type_label: Annotated[str | None, Field(examples=["Negligent loss: our own failing"])]
    segment: Annotated[str | None, Field(description="Null: without a segment.", examples=["champions"])]
    segment_label: Annotated[str | None, Field(examples=["Champions"])]
    customers: Customers
    net_spend: NetSpend
    clv_current: Current
    clv_predicted: Predicted


@dataclass(frozen=True, slots=True)
class ChurnProbabilityGroup:
    """Customers of like probability of churn."""

    customers: Customers
    low: Annotated[float, Field(examples=[0.31])]
    high: Annotated[float, Field(examples=[0.42])]
    expected_churned_share: Annotated[float, Field(description="The mean probability.", examples=[0.37])]


@dataclass(frozen=True, slots=True)
class ChurnProbabilities:
    """How likely customers are to buy nothing within the horizon, and so how many are expected to."""

    customers: Customers
    expected_churned_share: Annotated[float, Field(description="The mean probability.", examples=[0.44])]
    deciles: Annotated[
        list[ChurnProbabilityGroup],
        Field(description="Parted at its deciles. Equal ones stay together, so there may be fewer than ten."),
    ]


@dataclass(frozen=True, slots=True)
class ChurnForecastGroup:
    """Customers of like probability: the mean of it, and the share that bought nothing."""

    customers: Customers
    predicted: Annotated[float, Field(examples=[0.37])]
    actual: Annotated[float, Field(examples=[0.35])]


@dataclass(frozen=True, slots=True)
class ChurnCalibration:
    """How the probability of churn, by a model fitted to an earlier part of the time, came true in the rest."""

    horizon_days: Annotated[float, Field(description="Days that were held out.", examples=[136])]
    deciles: Annotated[list[ChurnForecastGroup], Field(description="By rising probability.")]


@dataclass(frozen=True, slots=True)
class LabelCount:
    """How many people's verdicts name a type."""

    type: Type
    type_label: TypeLabel
    labels: Annotated[int, Field(examples=[42])]


@dataclass(frozen=True, slots=True)
class AnswerCounts:
    """How often each type was the answer."""

    natural: Annotated[int, Field(examples=[1])]
    competitive: Annotated[int, Field(examples=[37])]
    passive: Annotated[int, Field(examples=[0])]
    negligent: Annotated[int, Field(examples=[2])]
    unknown: Annotated[int, Field(examples=[2])]


@dataclass(frozen=True, slots=True)
class ConfusionRow:
    """What was answered where people said `type`."""

    type: Type
    answers: AnswerCounts


@dataclass(frozen=True, slots=True)
class LearningEvaluation:
    """How well weights told held-out verdicts."""

    log_loss: Annotated[float, Field(description="Nats a verdict.", examples=[0.76])]
    log_loss_se: Annotated[float, Field(description="Its standard error.", examples=[0.05])]
    accuracy: Annotated[float, Field(description="An answer of unknown is wrong.", examples=[0.81])]
    confusion: list[ConfusionRow]


@dataclass(frozen=True, slots=True)
class ChurnLearning:
    """What learning from people's verdicts came to. The learned weights serve only where they tell better."""

    serves: Annotated[str, Field(description="`expert` or `learned`.", examples=["expert"])]
    reason: Annotated[
        str,
        Field(
            description="`better`, `not_better`, `too_few_labels`, `one_type`, `no_evidence` or `no_labels`.",
            examples=["too_few_labels"],
        ),
    ]
    labels: Annotated[list[LabelCount], Field(description="Verdicts of unknown are left out.")]
    strength: Annotated[float | None, Field(description="Of the prior about the expert's weights.", examples=[10])]
    expert: LearningEvaluation | None
    learned: LearningEvaluation | None
    gain: Annotated[float | None, Field(description="Log loss of expert less learned.", examples=[0.12])]
    gain_se: Annotated[float | None, Field(description="Its standard error.", examples=[0.04])]


@dataclass(frozen=True, slots=True)
class ChurnEventCount:
    """Events of a month that can speak for a churn type, of any customers."""

    month: Month
    event_type: Annotated[str, Field(examples=["competitor.chosen"])]
    reason: Annotated[str | None, Field(description="Where the event has one of a few words.", examples=["price"])]
    speaks_for: Annotated[list[str], Field(description="Types that it can speak for.", examples=[["competitive"]])]
    events: Annotated[int, Field(examples=[14])]
    customers: Annotated[int, Field(examples=[12])]


@dataclass(frozen=True, slots=True)
class ChurnEvidenceCount:
    """Evidence of a month: what the run names as reasons of customers at risk or churned, texts and surveys read."""

    month: Month
    type: Annotated[str, Field(description="That it speaks for.", examples=["competitive"])]
    type_label: TypeLabel
    event_type: Annotated[str, Field(examples=["exit.answered"])]
    events: Annotated[int, Field(examples=[9])]
    customers: Annotated[int, Field(examples=[9])]


@dataclass(frozen=True, slots=True)
class ChurnLossCount:
    """Customers at risk or churned whose last purchase was in the month."""

    month: Month
    state: State
    state_label: StateLabel
    type: Type
    type_label: TypeLabel
    customers: Customers
    net_spend: NetSpend
    clv_current: Current
    clv_predicted: Predicted


@dataclass(frozen=True, slots=True)
class ChurnReasons:
    """Reasons by calendar month in the workspace's time zone. Only what happened is listed."""

    months: Annotated[list[Month], Field(description="Oldest first, that of `as_of` being the last.")]
    events: list[ChurnEventCount]
    evidence: Annotated[
        list[ChurnEvidenceCount], Field(description="Of each customer the strongest five pieces, by their own month.")
    ]
    losses: list[ChurnLossCount]


@dataclass(frozen=True, slots=True)
class ChurnReport:
    """Who leaves, of what type, what is at stake with them, how sure the run is, and for what reasons."""

    run_id: RunId
    as_of: Instant
    currency: CurrencyCode
    method: Annotated[str, Field(description="Of the state: `inactivity` or `probability`.", examples=["probability"])]
    horizon_days: Annotated[int, Field(description="Of the probability of churn.", examples=[180])]
    customers: Annotated[int, Field(description="Scored by the run.", examples=[1000])]
    states: Annotated[list[ChurnStateCount], Field(description="All of them, empty ones too.")]
    types: Annotated[list[ChurnTypeCount], Field(description="Of customers at risk and churned, empty ones too.")]
    subtypes: Annotated[list[ChurnSubtypeCount], Field(description="Of passive losses, empty ones too.")]
    segments: Annotated[
        list[ChurnSegmentCount], Field(description="State by type by segment, as far as there are any.")
    ]
    probability: Annotated[ChurnProbabilities | None, Field(description="Null without a predictive model.")]
    calibration: Annotated[ChurnCalibration | None, Field(description="Null where the past is too short to try it.")]
    learning: ChurnLearning
    reasons: ChurnReasons


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
