"""The report on churn: what it consists of."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from sqlalchemy import Row

from app.reports.terms import CurrencyCode, RunId
from app.scalars import Instant, SignedMoney

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
