"""What the service tells of a customer at one moment: the ``value`` and its parts.

The parts are never null and every field is always there; a field is null where nothing can be said. Labels go with
the language of the caller, codes never do.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from app.scalars import Instant, SignedMoney


@dataclass(frozen=True, slots=True)
class Rfm:
    """How lately, how often and for how much the customer buys, and the grades of it among all customers."""

    days_since_last_order: Annotated[int | None, Field(examples=[12])]
    order_count: Annotated[int, Field(description="Orders that count, within the window of the settings.")]
    net_spend: SignedMoney
    r: Annotated[int | None, Field(description="Null without a run, or without an order.", examples=[5])]
    f: Annotated[int | None, Field(examples=[4])]
    m: Annotated[int | None, Field(examples=[4])]
    score: Annotated[str | None, Field(description="The three grades in one.", examples=["544"])]
    segment: Annotated[str | None, Field(examples=["champions"])]


@dataclass(frozen=True, slots=True)
class Abc:
    """The customer's grade by the share of spend that customers bring."""

    grade: Annotated[str | None, Field(examples=["A"])]
    net_spend: SignedMoney
    cumulative_share: Annotated[
        float | None,
        Field(
            description="Share of positive spend up to and with this customer in the run; null once it differs.",
            examples=[0.42],
        ),
    ]


@dataclass(frozen=True, slots=True)
class Interval:
    """Where `predicted` will lie with probability `level`."""

    level: Annotated[float, Field(examples=[0.9])]
    low: SignedMoney
    high: SignedMoney


@dataclass(frozen=True, slots=True)
class Clv:
    """What the customer has brought, brings now, and is expected to bring."""

    basis: Annotated[str, Field(examples=["revenue"])]
    historical: SignedMoney
    current: Annotated[SignedMoney, Field(description="Of the last 365 days.")]
    predicted: SignedMoney | None
    total: Annotated[SignedMoney | None, Field(description="historical + predicted")]
    horizon_days: Annotated[int, Field(examples=[365])]
    expected_purchases: Annotated[float | None, Field(description="Within the horizon.", examples=[3.2])]
    expected_purchase_value: SignedMoney | None
    p_alive: Annotated[float | None, Field(description="Probability that the customer still buys.", examples=[0.93])]
    interval: Interval | None
    method: Annotated[str | None, Field(examples=["bg_nbd"])]
    fallback_reason: Annotated[str | None, Field(description="Why the method is not the one asked for.")]


@dataclass(frozen=True, slots=True)
class TypeProbabilities:
    """How likely each type of churn is."""

    natural: float
    competitive: float
    passive: float
    negligent: float
    unknown: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """An event that speaks for a type of churn (or, with a weight below 0, against it)."""

    event_id: str
    event_type: Annotated[str, Field(examples=["complaint.opened"])]
    occurred_at: Instant
    weight: Annotated[float, Field(description="In log-odds, faded by age.", examples=[1.4])]
    speaks_for: Annotated[str, Field(examples=["negligent"])]
    phrase: Annotated[str | None, Field(description="The words it was found in.", examples=["never answered"])]
    contradicted_by: Annotated[str | None, Field(description="The event that takes weight from it, or `later_order`.")]


@dataclass(frozen=True, slots=True)
class Churn:
    """Whether the customer is leaving, and why."""

    state: Annotated[str, Field(examples=["active"])]
    probability: Annotated[float | None, Field(description="Of no order within the settings' days.", examples=[0.12])]
    type: Annotated[str | None, Field(description="Null unless at risk or churned.", examples=["negligent"])]
    subtype: Annotated[str | None, Field(examples=["retaliatory"])]
    type_probabilities: TypeProbabilities | None
    evidence: list[Evidence]


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Where the customer stands in the life of the relationship."""

    status: Annotated[str, Field(examples=["active"])]
    stage: Annotated[str | None, Field(examples=["stable"])]


@dataclass(frozen=True, slots=True)
class RecommendedAction:
    """What to do next, by code and in the language of the caller."""

    code: Annotated[str | None, Field(examples=["apologise_and_compensate"])]
    label: Annotated[str | None, Field(examples=["Apologise, mend the failing, compensate"])]


@dataclass(frozen=True, slots=True)
class Value:
    """What a customer is worth, and whether and why they leave, at one moment."""

    customer_id: Annotated[str, Field(examples=["c-42"])]
    as_of: Instant
    source: Annotated[str, Field(description="`live`, or `cached` from a run.", examples=["live"])]
    run_id: Annotated[str | None, Field(description="The run whose fit it stands on.", examples=["run_5f0c2a9b"])]
    currency: Annotated[str, Field(examples=["USD"])]
    rfm: Rfm
    abc: Abc
    clv: Clv
    churn: Churn
    lifecycle: Lifecycle
    recommended_action: RecommendedAction
