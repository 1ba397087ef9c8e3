"""What the service tells of a customer at one moment: the ``value`` and its parts.

The parts are never null and every field is always there; a field is null where nothing can be said. Labels go with
the language of the caller, codes never do.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from app.scalars import Day, Instant, SignedMoney


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
    """Between which quantiles the spend that `predicted` speaks of will lie, with probability `level`.

    `predicted` is a mean: where most customers with this history buy nothing more, it may lie above `high`.
    """

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
class CountExplanation:
    """Why R or F is what it is. Equal to a cut point is not above it: R falls and F rises with each one passed."""

    figure: Annotated[int | None, Field(description="Null without an order that counts.", examples=[34])]
    unit: Annotated[str, Field(description="`days` or `orders`.", examples=["days"])]
    score: Annotated[int | None, Field(examples=[3])]
    cut_points: Annotated[list[float], Field(description="Of the run; empty without one.", examples=[[5.0, 12.0]])]
    next_score: Annotated[int | None, Field(description="Null where none is better.", examples=[4])]
    distance: Annotated[
        int | None, Field(description="Fewer days, or more orders, that give the next score.", examples=[4])
    ]


@dataclass(frozen=True, slots=True)
class MoneyExplanation:
    """Why M is what it is. Equal to a cut point is not above it."""

    figure: SignedMoney | None
    unit: Annotated[str, Field(description="The currency.", examples=["USD"])]
    score: Annotated[int | None, Field(examples=[3])]
    cut_points: Annotated[list[SignedMoney], Field(description="Of the run, rounded down to four decimals.")]
    next_score: Annotated[int | None, Field(description="Null where none is better.", examples=[4])]
    distance: Annotated[SignedMoney | None, Field(description="The least net spend more that gives the next score.")]


@dataclass(frozen=True, slots=True)
class RfmExplanation:
    """The figures behind the three grades, and the way to the next better ones."""

    r: CountExplanation
    f: CountExplanation
    m: MoneyExplanation


@dataclass(frozen=True, slots=True)
class AbcBand:
    """The net spend from which on a grade is had. Among equal spends the ids decide, in their order."""

    grade: Annotated[str, Field(examples=["A"])]
    net_spend: Annotated[SignedMoney | None, Field(description="Null where nobody has the grade.")]


@dataclass(frozen=True, slots=True)
class AbcExplanation:
    """The bands, and the money that is missing to the next better grade."""

    net_spend: SignedMoney
    grade: Annotated[str | None, Field(examples=["B"])]
    boundaries: Annotated[list[AbcBand], Field(description="Of A and of B; empty without a run.")]
    next_grade: Annotated[str | None, Field(description="Null where none is better.", examples=["A"])]
    distance: Annotated[SignedMoney | None, Field(description="The least net spend more that gives it.")]


@dataclass(frozen=True, slots=True)
class TextbookFigures:
    """The textbook's figures of a segment in the run: value = order value × orders a year × years."""

    segment: Annotated[str | None, Field(description="Null: of all customers.", examples=["champions"])]
    customers: Annotated[int, Field(examples=[120])]
    orders: Annotated[int, Field(description="Of the last 365 days.", examples=[300])]
    average_order_value: SignedMoney | None
    purchase_frequency: Annotated[float, Field(description="Orders a year and customer.", examples=[2.5])]
    lifespan_years: Annotated[float, Field(examples=[3.0])]
    churn_share: Annotated[float | None, Field(description="1 / lifespan; null of too few to tell.", examples=[0.33])]


@dataclass(frozen=True, slots=True)
class ClvDriver:
    """A figure that drives the predicted value, beside that of the customer in the middle."""

    name: Annotated[str, Field(examples=["frequency"])]
    figure: Annotated[float, Field(examples=[4.0])]
    population_median: Annotated[float, Field(examples=[1.0])]
    predicted_at_median: Annotated[
        SignedMoney | None,
        Field(description="What would be predicted with this one figure that of the middle; null where none has such."),
    ]


@dataclass(frozen=True, slots=True)
class ClvExplanation:
    """What the predicted value stands on: the textbook's figures, or those of the predictive model."""

    method: Annotated[str | None, Field(description="Null without a run.", examples=["bg_nbd"])]
    fallback_reason: Annotated[str | None, Field(description="Why the method is not the one asked for.")]
    basis: Annotated[str, Field(examples=["revenue"])]
    horizon_days: Annotated[int, Field(examples=[365])]
    textbook: Annotated[TextbookFigures | None, Field(description="Null without a run, or without an order.")]
    frequency: Annotated[int | None, Field(description="Repeat purchase days; predictive models only.", examples=[4])]
    recency_days: Annotated[int | None, Field(description="First to last purchase day.", examples=[120])]
    T_days: Annotated[int | None, Field(description="First purchase day to `as_of`.", examples=[200])]
    monetary_value: Annotated[SignedMoney | None, Field(description="Mean spend per repeat purchase day.")]
    expected_purchase_value: Annotated[SignedMoney | None, Field(description="Of one purchase to come.")]
    discount_rate: Annotated[float | None, Field(description="A year; predictive models only.", examples=[0.1])]
    drivers: list[ClvDriver]


@dataclass(frozen=True, slots=True)
class ChurnExplanation:
    """What gave the churn state, and when it changes without another order. Limits are of one method, others null."""

    state: Annotated[str, Field(examples=["active"])]
    method: Annotated[str, Field(description="`inactivity` or `probability`.", examples=["inactivity"])]
    days_since_last_order: Annotated[int | None, Field(examples=[34])]
    probability: Annotated[float | None, Field(examples=[0.12])]
    at_risk_after_days: Annotated[int | None, Field(description="More days than these.", examples=[90])]
    churned_after_days: Annotated[int | None, Field(description="More days than these.", examples=[180])]
    at_risk_probability: Annotated[float | None, Field(description="From this on.", examples=[0.5])]
    churned_probability: Annotated[float | None, Field(description="From this on.", examples=[0.9])]
    next_state: Annotated[
        str | None, Field(description="By inactivity; null where none follows.", examples=["at_risk"])
    ]
    days_until_next: Annotated[int | None, Field(examples=[57])]


@dataclass(frozen=True, slots=True)
class LifecycleExplanation:
    """The rules that gave status and stage, and where the status goes without another order.

    The rules of the status: `no_order`, `long_ago` (last purchase more than 180 days ago), `newcomer` (first one at
    most 180 days ago), `came_back` (two purchase days within 365 days), `otherwise`. Those of the stage: `no_order`,
    `churn_state` (not active), `spend_fell`, `few_purchase_days`, `young_relationship`, `spend_grew`, `steady`.
    """

    status: Annotated[str, Field(examples=["active"])]
    status_rule: Annotated[str, Field(examples=["came_back"])]
    next_status: Annotated[str | None, Field(description="Null where none follows.", examples=["occasional"])]
    days_until_next: Annotated[int | None, Field(examples=[57])]
    next_status_on: Annotated[Day | None, Field(description="The day of it.")]
    stage: Annotated[str | None, Field(examples=["stable"])]
    stage_rule: Annotated[str | None, Field(examples=["steady"])]
    half_year_net_spend: Annotated[SignedMoney | None, Field(description="Of the last 180 days.")]
    prior_half_year_net_spend: Annotated[SignedMoney | None, Field(description="Of the 180 days before.")]
    decline_below: Annotated[SignedMoney | None, Field(description="Half-year net spend below this is a decline.")]
    growth_above: Annotated[SignedMoney | None, Field(description="Half-year net spend above this is growth.")]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why each part of a value is what it is, and how far the next better one is, all else as it is."""

    rfm: RfmExplanation
    abc: AbcExplanation
    clv: ClvExplanation
    churn: ChurnExplanation
    lifecycle: LifecycleExplanation
    late_events: Annotated[
        bool,
        Field(
            description="Of a cached value: events that the run did not know have changed the customer's figures, and"
            " what it did not store is null: the figures of purchase models and half-years, and the next status."
        ),
    ]


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
    explanation: Annotated[Explanation | None, Field(description="Of one customer, with `explain=true`; else null.")]
