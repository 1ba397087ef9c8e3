"""Use case: the report on lifetime value. Which model serves and why, how well it forecasts, how values are spread."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.analytics.clv import ClvFit
from app.analytics.fit import FittedModel
from app.analytics.gamma_gamma import INDEPENDENCE_LIMIT, FittedSpend
from app.analytics.textbook import TextbookFit, TextbookGroup, value_textbook
from app.labels import Language, label
from app.reports.terms import CurrencyCode, RunId
from app.runs import fitted_run
from app.scalars import Instant, SignedMoney
from app.scoring import FittedRun
from app.store import report_queries as store
from app.store.engine import autocommit
from app.store.workspaces import Workspace
from app.stored_run import require_kept, succeeded_run

MOST_BINS = 40
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_PLACES = Decimal("0.0001")
_FIRST, _LAST = QUANTILES.index(0.01), QUANTILES.index(0.99)

Parameters = Annotated[dict[str, float], Field(examples=[{"r": 0.243, "alpha": 30.9, "a": 0.793, "b": 2.426}])]
StandardErrors = Annotated[
    dict[str, float],
    Field(description="Of the parameters that were estimated.", examples=[{"r": 0.0126, "alpha": 2.65}]),
]


@dataclass(frozen=True, slots=True)
class BlendMember:
    """A model of a blend, with its weight for each kind of customer."""

    model: Annotated[str, Field(examples=["pareto_nbd"])]
    weights: Annotated[
        list[float],
        Field(description="For customers with 0, 1, and 2 or more repeat purchases.", examples=[[0.7, 0.2]]),
    ]
    params: Parameters
    standard_errors: StandardErrors
    log_likelihood: Annotated[float, Field(examples=[-9582.4])]


@dataclass(frozen=True, slots=True)
class GammaGamma:
    """The fitted Gamma-Gamma model of spend."""

    params: Annotated[dict[str, float], Field(examples=[{"p": 6.25, "q": 3.74, "v": 15.44}])]
    standard_errors: StandardErrors
    log_likelihood: Annotated[float, Field(examples=[-4058.2])]
    customers: Annotated[int, Field(description="With repeat purchases of some worth.", examples=[946])]


@dataclass(frozen=True, slots=True)
class SpendModel:
    """How the value of a purchase is told."""

    method: Annotated[
        str, Field(description="`gamma_gamma`, or `mean`: the mean weighted by credibility.", examples=["gamma_gamma"])
    ]
    reason: Annotated[
        str | None,
        Field(
            description="Why it is not Gamma-Gamma: `frequency_correlates`, `too_few_repeaters`, `zero_spend`,"
            " `no_finite_mean` or `not_converged`.",
            examples=["frequency_correlates"],
        ),
    ]
    correlation: Annotated[
        float | None,
        Field(description="Rank correlation of frequency and mean spend among repeat buyers.", examples=[0.11]),
    ]
    correlation_limit: Annotated[
        float, Field(description="Of either sign; beyond it Gamma-Gamma does not hold.", examples=[0.3])
    ]
    mean: Annotated[SignedMoney, Field(description="Expected value of a purchase of a customer like all others.")]
    variance_within: Annotated[
        float | None,
        Field(description="`mean` only: of purchases around their customer's mean, in units of `mean` squared."),
    ]
    variance_between: Annotated[float | None, Field(description="`mean` only: of customers' means, in the same unit.")]
    gamma_gamma: GammaGamma | None


@dataclass(frozen=True, slots=True)
class ContestOrigin:
    """A day at which the past was cut: models learned from before it and forecast what came after."""

    holdout_days: Annotated[float, Field(examples=[136])]
    customers: Annotated[int, Field(description="Forecast.", examples=[2357])]
    purchases: Annotated[int, Field(description="Purchase days that happened after it.", examples=[1882])]


@dataclass(frozen=True, slots=True)
class ContestCandidate:
    """A model's forecasts of all origins, purchase days a customer; null where it could not be tried."""

    model: Annotated[str, Field(examples=["bg_nbd"])]
    log_score: Annotated[
        float | None,
        Field(description="Mean log probability given to what happened; nearer to 0 is better.", examples=[-0.91]),
    ]
    rmse: Annotated[float | None, Field(examples=[1.59])]
    mae: Annotated[float | None, Field(examples=[0.75])]
    correlation: Annotated[float | None, Field(examples=[0.63])]
    aggregate_error: Annotated[float | None, Field(description="Forecast over actual, less one.", examples=[-0.07])]
    weights: Annotated[
        list[float] | None,
        Field(
            description="In what serves, for customers with 0, 1, and 2 or more repeat purchases.", examples=[[1, 1, 1]]
        ),
    ]
    code: Annotated[str | None, Field(description="Why it was refused.", examples=["parameters_ran_off"])]
    reason: Annotated[str | None, Field(description="The same, in words.")]


@dataclass(frozen=True, slots=True)
class ClvContest:
    """The contest of models on the customers' own past."""

    winner: Annotated[str, Field(description="A candidate, or `blend`.", examples=["blend"])]
    origins: list[ContestOrigin]
    candidates: list[ContestCandidate]


@dataclass(frozen=True, slots=True)
class ForecastGroup:
    """Customers of like forecast: the mean of it, and of what happened."""

    customers: Annotated[int, Field(examples=[236])]
    forecast: Annotated[float, Field(examples=[0.41])]
    actual: Annotated[float, Field(examples=[0.39])]


@dataclass(frozen=True, slots=True)
class ClvCalibration:
    """How the model, fitted to an earlier part of the time, forecast purchase days of the rest."""

    holdout_days: Annotated[float, Field(examples=[136])]
    aggregate_error: Annotated[float | None, Field(description="Forecast over actual, less one.", examples=[-0.07])]
    rmse: Annotated[float | None, Field(examples=[1.59])]
    mae: Annotated[float | None, Field(examples=[0.75])]
    correlation: Annotated[float | None, Field(examples=[0.63])]
    deciles: Annotated[
        list[ForecastGroup],
        Field(description="By rising forecast. Equal forecasts stay together, so there may be fewer than ten."),
    ]


@dataclass(frozen=True, slots=True)
class TextbookSegment:
    """The textbook's figures of a segment: value = order value × orders a year × years."""

    segment: Annotated[str | None, Field(description="Null: all customers.", examples=["champions"])]
    segment_label: Annotated[str | None, Field(examples=["Champions"])]
    customers: Annotated[int, Field(description="With an order that counts.", examples=[120])]
    orders: Annotated[int, Field(description="Of the last 365 days.", examples=[300])]
    value: Annotated[SignedMoney, Field(description="Of these orders, on the basis of the report.")]
    average_order_value: Annotated[SignedMoney | None, Field(description="value / orders")]
    purchase_frequency: Annotated[float, Field(description="orders / customers", examples=[2.5])]
    prior_buyers: Annotated[int, Field(description="With an order in the 365 days before.", examples=[90])]
    lost_buyers: Annotated[int, Field(description="Those of them without an order since.", examples=[30])]
    churn_share: Annotated[
        float | None, Field(description="lost_buyers / prior_buyers; null of too few to tell.", examples=[0.333])
    ]
    lifespan_years: Annotated[float, Field(description="1 / churn_share within 1 to 5, or the setting.", examples=[3])]
    customer_value: Annotated[
        SignedMoney | None, Field(description="Of a customer, over the report's horizon; null of nobody.")
    ]


@dataclass(frozen=True, slots=True)
class QuantileValue:
    """The figure that a share of customers does not exceed."""

    share: Annotated[float, Field(examples=[0.5])]
    value: SignedMoney


@dataclass(frozen=True, slots=True)
class DistributionBin:
    """Customers whose figure is at least `low` and below `high`; of the last bin, at most `high`."""

    low: SignedMoney
    high: SignedMoney
    customers: Annotated[int, Field(examples=[57])]
    money: Annotated[SignedMoney, Field(description="Sum of their figures.")]


@dataclass(frozen=True, slots=True)
class ClvDistribution:
    """How a figure is spread over the customers who have it.

    Bins are of one round width but for the first and the last, which reach out to the least and the greatest.
    """

    customers: Annotated[int, Field(examples=[900])]
    sum: SignedMoney
    mean: SignedMoney | None
    minimum: SignedMoney | None
    maximum: SignedMoney | None
    quantiles: Annotated[list[QuantileValue], Field(description="Linear, rounded to four decimals.")]
    bins: Annotated[list[DistributionBin], Field(description="At most 40, rising, empty ones too.")]


@dataclass(frozen=True, slots=True)
class ClvReport:
    """Which model tells the lifetime values of a run and why, how well it forecasts, and how the values are spread.

    Parameters are by the letters of the papers, times in days.
    """

    run_id: RunId
    as_of: Instant
    currency: CurrencyCode
    model: Annotated[
        str,
        Field(
            description="`textbook`, `bg_nbd`, `mbg_nbd`, `pareto_nbd`, `mbg_cnbd_k` or `blend`.", examples=["bg_nbd"]
        ),
    ]
    basis: Annotated[str, Field(description="`revenue`, or `margin`: net spend less cost.", examples=["revenue"])]
    horizon_days: Annotated[int, Field(examples=[365])]
    discount_rate: Annotated[float, Field(description="A year; predictive models only.", examples=[0.1])]
    customers: Annotated[int, Field(description="With an order that counts.", examples=[900])]
    params: Parameters
    standard_errors: StandardErrors
    log_likelihood: Annotated[
        float | None, Field(description="Null of the textbook; of a blend, the weighted mean.", examples=[-9582.4])
    ]
    members: Annotated[list[BlendMember], Field(description="Of a blend; else empty.")]
    spend: Annotated[SpendModel | None, Field(description="Null of the textbook.")]
    fallback_reason: Annotated[
        str | None,
        Field(description="Why the textbook serves though another was asked for.", examples=["too_few_customers"]),
    ]
    fallback_detail: Annotated[str | None, Field(description="The same, in words.")]
    contest: Annotated[ClvContest | None, Field(description="Null where the model was not chosen by one.")]
    calibration: Annotated[ClvCalibration | None, Field(description="Null where the past is too short to try it.")]
    textbook: Annotated[list[TextbookSegment], Field(description="All customers first, then the segments of the run.")]
    total: Annotated[ClvDistribution, Field(description="Of `clv.total`, so far and to come.")]
    predicted: Annotated[ClvDistribution, Field(description="Of `clv.predicted`.")]


async def clv_report(
    engine: AsyncEngine, workspace: Workspace, run_name: str | None = None, language: Language = "en"
) -> ClvReport:
    """The report of a run, or of the latest.

    Raises ``Conflict`` (``no_run``, ``run_not_succeeded``), ``NotFound`` (``run_not_found``), ``Gone`` (``run_gone``).
    """
    async with autocommit(engine).connect() as connection:
        run = fitted_run(await succeeded_run(connection, workspace, run_name))
        total = await _distribution(connection, workspace, run, "clv_total")
        predicted = await _distribution(connection, workspace, run, "clv_predicted")
        await require_kept(connection, workspace, run)
    fit, settings = run.fitted.clv, run.settings.clv
    members = _members(fit)
    return ClvReport(
        run_id=run.name,
        as_of=run.as_of,
        currency=workspace.currency,
        model=fit.model,
        basis=fit.basis,
        horizon_days=settings.horizon_days,
        discount_rate=settings.discount_rate,
        customers=fit.customers,
        params=fit.purchases.params if fit.purchases else {},
        standard_errors=_standard_errors(fit.purchases),
        log_likelihood=fit.purchases.log_likelihood if fit.purchases else None,
        members=members,
        spend=_spend(fit.spend) if fit.spend else None,
        fallback_reason=fit.fallback_reason,
        fallback_detail=fit.fallback_detail,
        contest=_contest(fit.contest) if fit.contest else None,
        calibration=_calibration(fit.calibration) if fit.calibration else None,
        textbook=_textbook(fit.textbook, settings.horizon_days, language),
        total=total,
        predicted=predicted,
    )


def _members(fit: ClvFit) -> list[BlendMember]:
    return [
        BlendMember(
            part.fitted.model,
            list(part.weights),
            part.fitted.params,
            part.fitted.standard_errors,
            part.fitted.log_likelihood,
        )
        for part in (fit.purchases.components if fit.purchases else ())
    ]


def _standard_errors(fitted: FittedModel | None) -> dict[str, float]:
    """By the names of the parameters: those of a blend have the member's name before them."""
    if fitted is None:
        return {}
    return fitted.standard_errors | {
        f"{part.fitted.model}.{name}": error
        for part in fitted.components
        for name, error in part.fitted.standard_errors.items()
    }


def _spend(spend: FittedSpend) -> SpendModel:
    fitted = spend.gamma_gamma
    return SpendModel(
        method=spend.method,
        reason=spend.reason,
        correlation=spend.correlation,
        correlation_limit=INDEPENDENCE_LIMIT,
        mean=_money(spend.mean),
        variance_within=None if fitted else spend.within,
        variance_between=None if fitted else spend.between,
        gamma_gamma=GammaGamma(fitted.params, fitted.standard_errors, fitted.log_likelihood, fitted.customers)
        if fitted
        else None,
    )


def _contest(record: Mapping[str, Any]) -> ClvContest:
    def candidate(entry: Mapping[str, Any]) -> ContestCandidate:
        errors = entry["accuracy"] or {}
        return ContestCandidate(
            model=entry["model"],
            log_score=entry["log_score"],
            rmse=errors.get("rmse"),
            mae=errors.get("mae"),
            correlation=errors.get("correlation"),
            aggregate_error=errors.get("aggregate_error"),
            weights=record["weights"].get(entry["model"]),
            code=entry["code"],
            reason=entry["reason"],
        )

    return ClvContest(
        winner=record["winner"],
        origins=[ContestOrigin(**origin) for origin in record["origins"]],
        candidates=[candidate(entry) for entry in record["entries"]],
    )


def _calibration(record: Mapping[str, Any]) -> ClvCalibration:
    return ClvCalibration(
        holdout_days=record["holdout_days"],
        aggregate_error=record.get("aggregate_error"),
        rmse=record.get("rmse"),
        mae=record.get("mae"),
        correlation=record.get("correlation"),
        deciles=[ForecastGroup(group["customers"], group["forecast"], group["actual"]) for group in record["deciles"]],
    )


def _textbook(fit: TextbookFit, horizon_days: int, language: Language) -> list[TextbookSegment]:
    groups: list[tuple[str | None, TextbookGroup]] = [(None, fit.overall), *fit.segments.items()]
    # A code of −1 is all customers, as everywhere.
    values = value_textbook(
        fit,
        segment=np.arange(-1, len(groups) - 1, dtype=np.int8),
        has_order=np.array([group.customers > 0 for _, group in groups]),
        horizon_days=horizon_days,
    )
    return [
        TextbookSegment(
            segment=name,
            segment_label=None if name is None else label("segment", name, language),
            customers=group.customers,
            orders=group.orders,
            value=_money(group.value),
            average_order_value=None if group.average_order_value is None else _money(group.average_order_value),
            purchase_frequency=group.purchase_frequency,
            prior_buyers=group.prior_buyers,
            lost_buyers=group.lost_buyers,
            churn_share=group.churn_share,
            lifespan_years=group.lifespan_years,
            customer_value=None if value != value else _money(value),
        )
        for (name, group), value in zip(groups, values.predicted.tolist(), strict=True)
    ]


def _money(amount: float) -> Decimal:
    """Currency units to four decimals, by the float's shortest form: a large exact amount comes back as it was."""
    return Decimal(repr(amount)).quantize(_PLACES, ROUND_HALF_EVEN)


async def _distribution(
    connection: AsyncConnection, workspace: Workspace, run: FittedRun, figure: str
) -> ClvDistribution:
    summary = await store.summarise_figure(connection, workspace.id, run.id, run.partition, figure, QUANTILES)
    if not summary.customers:
        return ClvDistribution(0, Decimal(0), None, None, None, [], [])
    # As floats they may leave the range by a rounding.
    quantiles = [min(max(_money(value), summary.least), summary.most) for value in summary.quantiles]
    edges = bin_edges(summary.least, summary.most, quantiles[_FIRST], quantiles[_LAST])
    found = await store.bin_figure(connection, workspace.id, run.id, run.partition, figure, edges)
    bounds = [summary.least, *edges, summary.most]

    def one(number: int) -> DistributionBin:
        row = found.get(number)
        return DistributionBin(
            bounds[number], bounds[number + 1], row.customers if row else 0, row.total if row else Decimal(0)
        )

    return ClvDistribution(
        customers=summary.customers,
        sum=summary.total,
        mean=(summary.total / summary.customers).quantize(_PLACES, ROUND_HALF_EVEN),
        minimum=summary.least,
        maximum=summary.most,
        quantiles=[QuantileValue(share, value) for share, value in zip(QUANTILES, quantiles, strict=True)],
        bins=[one(number) for number in range(len(edges) + 1)],
    )


def bin_edges(least: Decimal, most: Decimal, low: Decimal, high: Decimal) -> Sequence[Decimal]:
    """The inner edges of at most ``MOST_BINS`` bins: multiples of a round width above ``low``, up to ``high``.

    ``low`` and ``high`` are where the bulk of the figures lies, so that a few large ones don't flatten the plot; where
    they are equal, the edges cover all from ``least`` to ``most``.

    Examples
    --------
    >>> [str(edge) for edge in bin_edges(Decimal(0), Decimal(900), Decimal(10), Decimal(50))][:3]
    ['12', '14', '16']
    """
    if not low < high:
        low, high = least, most
    if not low < high:
        return []
    finest = max((high - low) / (MOST_BINS - 2), _PLACES)
    power = Decimal(1).scaleb(finest.adjusted())
    width = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= finest)
    first, last = (int((bound / width).to_integral_value(ROUND_FLOOR)) for bound in (low, high))
    return [number * width for number in range(first + 1, last + 1)]
