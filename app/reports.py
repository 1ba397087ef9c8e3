"""Use case: reports, what a chart of the whole workspace needs.

Scores come from a stored run, orders from the events themselves. Money is exact; shares and means are floats, null
where they would divide by nothing.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.analytics.churn import STATES
from app.analytics.pareto import GRADES, AbcBoundary, AbcFit
from app.analytics.rfm import RfmFit
from app.errors import Conflict, Gone
from app.explanation import cut_money
from app.runs import fitted_run, unknown_run
from app.scalars import Instant, SignedMoney
from app.scoring import FittedRun, day_number
from app.store import reports as store
from app.store import runs as run_store
from app.store.engine import autocommit
from app.store.workspaces import Workspace

MOST_MONTHS = 120

_PLACES = Decimal("0.0001")
_ZERO = Decimal("0.0000")

Share = Annotated[float | None, Field(description="0 to 1; null of nothing.", examples=[0.25])]
RunId = Annotated[str, Field(examples=["run_5f0c2a9b4e1d7c36"])]
CurrencyCode = Annotated[str, Field(examples=["USD"])]
Segment = Annotated[str | None, Field(description="Null: without a segment.", examples=["champions"])]


def _share(part: int | Decimal, whole: int | Decimal) -> float | None:
    return float(part / whole) if whole > 0 else None


def _mean(total: int | Decimal, count: int) -> float | None:
    return float(total / count) if count else None


def _mean_money(total: Decimal, count: int) -> Decimal | None:
    return (total / count).quantize(_PLACES, ROUND_HALF_EVEN) if count else None


def _units(units: int) -> Decimal:
    return Decimal(units).scaleb(-4)


@dataclass(frozen=True, slots=True)
class RfmCutPoints:
    """The rising cut points of the run; empty where nobody was graded. A figure equal to a cut point is below it."""

    r: Annotated[list[float], Field(description="Days since the last order.", examples=[[12.0, 30.0, 71.0, 160.0]])]
    f: Annotated[list[float], Field(description="Orders.", examples=[[1.0, 1.0, 2.0, 5.0]])]
    m: Annotated[list[SignedMoney], Field(description="Net spend, rounded down to four decimals.")]


@dataclass(frozen=True, slots=True)
class RfmCell:
    """The customers of one R and one F."""

    r: Annotated[int, Field(ge=1, le=10, examples=[5])]
    f: Annotated[int, Field(ge=1, le=10, examples=[4])]
    segment: Annotated[
        str | None,
        Field(description="Of these customers; null where there are none, or several.", examples=["champions"]),
    ]
    customers: Annotated[int, Field(examples=[120])]
    customer_share: Share
    net_spend: SignedMoney
    net_spend_share: Share


@dataclass(frozen=True, slots=True)
class RfmMeans:
    """Mean figures, null of nobody."""

    days_since_last_order: Annotated[float | None, Field(examples=[41.5])]
    order_count: Annotated[float | None, Field(examples=[3.2])]
    net_spend: Annotated[SignedMoney | None, Field(description="Rounded half-even to four decimals.")]


@dataclass(frozen=True, slots=True)
class RfmSegment:
    """The customers of a segment."""

    segment: Segment
    customers: Annotated[int, Field(examples=[120])]
    customer_share: Share
    net_spend: SignedMoney
    net_spend_share: Share
    mean: RfmMeans


@dataclass(frozen=True, slots=True)
class RfmReport:
    """How lately, how often and for how much customers buy: the grid of R and F, and the segments.

    Figures are of the run's window; shares are of the customers with an order that counts, and of their net spend.
    """

    run_id: RunId
    as_of: Instant
    currency: CurrencyCode
    k: Annotated[int, Field(description="Number of grades.", examples=[5])]
    window_days: Annotated[int | None, Field(description="Of orders and net spend; null is all time.", examples=[365])]
    customers: Annotated[int, Field(description="With an order that counts.", examples=[900])]
    customers_without_order: Annotated[int, Field(examples=[100])]
    net_spend: SignedMoney
    mean: RfmMeans
    cut_points: RfmCutPoints
    grid: Annotated[list[RfmCell], Field(description="All k × k cells: R falling, then F rising.")]
    segments: Annotated[
        list[RfmSegment], Field(description="All segments of the run, and a last one for customers without any.")
    ]


@dataclass(slots=True)
class _Sums:
    """Sums over rows of ``store.sum_by_rfm``."""

    customers: int = 0
    days_since_last_order: int = 0
    order_count: int = 0
    net_spend: Decimal = _ZERO

    def add(self, row: Row[Any]) -> None:
        self.customers += row.customers
        self.days_since_last_order += row.days_since_last_order
        self.order_count += row.order_count
        self.net_spend += row.net_spend

    def mean(self) -> RfmMeans:
        return RfmMeans(
            _mean(self.days_since_last_order, self.customers),
            _mean(self.order_count, self.customers),
            _mean_money(self.net_spend, self.customers),
        )


async def rfm_report(engine: AsyncEngine, workspace: Workspace, run_name: str | None = None) -> RfmReport:
    """The grid and the segments of a run, or of the latest.

    Raises ``Conflict`` (``no_run``, ``run_not_succeeded``), ``NotFound`` (``run_not_found``), ``Gone`` (``run_gone``).
    """
    async with autocommit(engine).connect() as connection:
        stored = await _succeeded(connection, workspace, run_name)
        rows = await store.sum_by_rfm(connection, workspace.id, stored.id, stored.partition)
    # The scores of a run go all at once, maybe since its row was read.
    if not stored.kept or (stored.customers and not rows):
        raise Gone("The scores of this run are no longer kept.", code="run_gone")
    run = fitted_run(stored)
    everyone, scored = _Sums(), 0
    cells: defaultdict[tuple[int, int], _Sums] = defaultdict(_Sums)
    names: defaultdict[tuple[int, int], set[str | None]] = defaultdict(set)
    segments: defaultdict[str | None, _Sums] = defaultdict(_Sums)
    for row in rows:
        scored += row.scored
        if not row.customers:
            continue
        everyone.add(row)
        segments[row.segment].add(row)
        cells[row.r, row.f].add(row)
        names[row.r, row.f].add(row.segment)
    grades = range(1, run.fitted.rfm.k + 1)
    listed = [*run.fitted.rfm.segments, *([None] if None in segments else [])]

    def cell(r: int, f: int) -> RfmCell:
        found, of_these = cells[r, f], names[r, f]
        return RfmCell(
            r=r,
            f=f,
            segment=next(iter(of_these)) if len(of_these) == 1 else None,
            customers=found.customers,
            customer_share=_share(found.customers, everyone.customers),
            net_spend=found.net_spend,
            net_spend_share=_share(found.net_spend, everyone.net_spend),
        )

    def segment(name: str | None) -> RfmSegment:
        found = segments[name]
        return RfmSegment(
            segment=name,
            customers=found.customers,
            customer_share=_share(found.customers, everyone.customers),
            net_spend=found.net_spend,
            net_spend_share=_share(found.net_spend, everyone.net_spend),
            mean=found.mean(),
        )

    return RfmReport(
        run_id=run.name,
        as_of=run.as_of,
        currency=workspace.currency,
        k=run.fitted.rfm.k,
        window_days=run.fitted.rfm.window_days,
        customers=everyone.customers,
        customers_without_order=scored - everyone.customers,
        net_spend=everyone.net_spend,
        mean=everyone.mean(),
        cut_points=_cut_points(run.fitted.rfm, day_number(workspace.local_day(run.as_of))),
        grid=[cell(r, f) for r in reversed(grades) for f in grades],
        segments=[segment(name) for name in listed],
    )


def _cut_points(fit: RfmFit, as_of_day: int) -> RfmCutPoints:
    f_cuts = fit.f_cuts if fit.f_pairs is None else tuple(float(figure) for figure, _ in fit.f_pairs)
    return RfmCutPoints(
        list(fit.r_limits(as_of_day) or ()), list(f_cuts or ()), [cut_money(cut) for cut in fit.m_cuts or ()]
    )


@dataclass(frozen=True, slots=True)
class AbcGrade:
    """The customers of a grade."""

    grade: Annotated[str, Field(examples=["A"])]
    customers: Annotated[int, Field(examples=[180])]
    customer_share: Share
    net_spend: SignedMoney
    net_spend_share: Annotated[
        float | None,
        Field(description="Of all positive net spend, negative left out; null of nothing.", examples=[0.8]),
    ]


@dataclass(frozen=True, slots=True)
class AbcLimit:
    """Where a grade ends: customers whose net spend is at least this have the grade, or a better one.

    Among equal spends the ids decide, in their order.
    """

    grade: Annotated[str, Field(examples=["A"])]
    share: Annotated[
        float, Field(description="Has the grade while the share before the customer is below this.", examples=[0.8])
    ]
    net_spend: Annotated[SignedMoney | None, Field(description="Of the last one; null where nobody has the grade.")]


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """A point of the Pareto curve: the share of positive net spend that the first customers bring."""

    customers: Annotated[int, Field(description="Counted from the one who spends most.", examples=[20])]
    customer_share: Annotated[float, Field(examples=[0.2])]
    net_spend_share: Annotated[float, Field(examples=[0.8])]


@dataclass(frozen=True, slots=True)
class AbcReport:
    """How the money is spread over the customers. It is stored with its run, and stays when the scores are gone."""

    run_id: RunId
    as_of: Instant
    currency: CurrencyCode
    basis: Annotated[str, Field(description="`revenue`, or `margin`: net spend less cost.", examples=["revenue"])]
    customers: Annotated[int, Field(description="With an order that counts.", examples=[900])]
    customers_without_order: Annotated[int, Field(examples=[100])]
    net_spend: SignedMoney
    positive_net_spend: Annotated[SignedMoney, Field(description="Customers below zero left out.")]
    grades: Annotated[list[AbcGrade], Field(description="A, B, C.")]
    boundaries: Annotated[list[AbcLimit], Field(description="Of A and of B.")]
    curve: Annotated[list[ParetoPoint], Field(description="At most 200 points, the ends of A and B among them.")]


async def abc_report(engine: AsyncEngine, workspace: Workspace, run_name: str | None = None) -> AbcReport:
    """The grades and the Pareto curve of a run, or of the latest.

    Raises ``Conflict`` (``no_run``, ``run_not_succeeded``) and ``NotFound`` (``run_not_found``).
    """
    async with autocommit(engine).connect() as connection:
        row = await _succeeded(connection, workspace, run_name)
    run, curve = fitted_run(row), json.loads(row.curve)
    fit = run.fitted.abc
    return AbcReport(
        run_id=run.name,
        as_of=run.as_of,
        currency=workspace.currency,
        basis=run.settings.abc.basis,
        customers=fit.customers,
        customers_without_order=row.customers - fit.customers,
        net_spend=_units(sum(total.net_spend_units for total in fit.totals)),
        positive_net_spend=_units(fit.positive_units),
        grades=_grades(fit),
        boundaries=[_limit("A", fit.a_share, fit.last_a), _limit("B", fit.b_share, fit.last_b)],
        curve=[
            ParetoPoint(*point)
            for point in zip(curve["customers"], curve["customer_share"], curve["spend_share"], strict=True)
        ],
    )


def _grades(fit: AbcFit) -> list[AbcGrade]:
    a, b, _ = fit.totals
    # Only C has customers without positive spend.
    positive = (a.net_spend_units, b.net_spend_units, fit.positive_units - a.net_spend_units - b.net_spend_units)
    return [
        AbcGrade(
            grade,
            total.customers,
            _share(total.customers, fit.customers),
            _units(total.net_spend_units),
            _share(spend, fit.positive_units),
        )
        for grade, total, spend in zip(GRADES, fit.totals, positive, strict=True)
    ]


def _limit(grade: str, share: str, last: AbcBoundary | None) -> AbcLimit:
    return AbcLimit(grade, float(share), None if last is None else _units(last.net_spend_units))


@dataclass(frozen=True, slots=True)
class OverviewMonth:
    """A calendar month in the workspace's time zone; the last one up to `as_of`."""

    month: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}$", examples=["2026-01"])]
    orders: Annotated[int, Field(description="That count at `as_of`.", examples=[320])]
    revenue: Annotated[SignedMoney, Field(description="Net of the orders, less refunds without order.")]
    average_order_value: Annotated[SignedMoney | None, Field(description="revenue / orders")]
    buyers: Annotated[int, Field(description="Customers with an order of the month.", examples=[250])]
    new_customers: Annotated[int, Field(description="Buyers whose first order is of the month.", examples=[60])]
    returning_customers: Annotated[int, Field(description="buyers - new_customers", examples=[190])]
    purchase_frequency: Annotated[float | None, Field(description="orders / buyers", examples=[1.28])]
    repeat_rate: Annotated[float | None, Field(description="returning_customers / buyers", examples=[0.76])]


@dataclass(frozen=True, slots=True)
class Overview:
    """The workspace's customers and orders at a moment, from the events themselves; no run is needed.

    Orders count as everywhere: placed by then, not cancelled and not wholly refunded by then, net of refunds, booked
    on the order's day.
    """

    as_of: Instant
    currency: CurrencyCode
    time_zone: Annotated[str, Field(examples=["Europe/Berlin"])]
    customers: Annotated[int, Field(description="With any event.", examples=[1000])]
    buyers: Annotated[int, Field(description="With an order that counts.", examples=[900])]
    repeat_buyers: Annotated[int, Field(description="With orders on two days or more.", examples=[400])]
    orders: Annotated[int, Field(description="That count.", examples=[2900])]
    revenue: Annotated[SignedMoney, Field(description="Net of the orders, less refunds without order.")]
    average_order_value: Annotated[SignedMoney | None, Field(description="revenue / orders")]
    purchase_frequency: Annotated[float | None, Field(description="orders / buyers", examples=[3.22])]
    repeat_rate: Annotated[float | None, Field(description="repeat_buyers / buyers", examples=[0.44])]
    months: Annotated[list[OverviewMonth], Field(description="Oldest first, empty months too.")]


@dataclass(slots=True)
class _MonthSums:
    """Sums over rows of ``store.sum_by_month``."""

    orders: int = 0
    revenue: Decimal = _ZERO
    buyers: int = 0
    new: int = 0
    repeat: int = 0

    def add(self, row: Row[Any]) -> None:
        self.orders += row.orders
        self.revenue += row.net
        self.buyers += row.customers
        self.new += row.new_customers
        self.repeat += row.repeat_customers


async def overview_report(engine: AsyncEngine, workspace: Workspace, as_of: datetime, months: int) -> Overview:
    """Totals of all time up to ``as_of``, and its last ``months`` calendar months."""
    async with autocommit(engine).connect() as connection:
        rows = await store.sum_by_month(connection, workspace.id, as_of)
    by_month: defaultdict[date | None, _MonthSums] = defaultdict(_MonthSums)
    everything = _MonthSums()
    for row in rows:
        if row.part != store.CUSTOMERS:
            by_month[row.month].add(row)
            everything.add(row)
    customers = sum(row.customers for row in rows if row.part == store.CUSTOMERS)

    def month(day: date) -> OverviewMonth:
        sums = by_month[day]
        returning = sums.buyers - sums.new
        return OverviewMonth(
            month=f"{day.year:04}-{day.month:02}",
            orders=sums.orders,
            revenue=sums.revenue,
            average_order_value=_mean_money(sums.revenue, sums.orders),
            buyers=sums.buyers,
            new_customers=sums.new,
            returning_customers=returning,
            purchase_frequency=_mean(sums.orders, sums.buyers),
            repeat_rate=_mean(returning, sums.buyers),
        )

    return Overview(
        as_of=as_of,
        currency=workspace.currency,
        time_zone=workspace.time_zone.key,
        customers=customers,
        # Each buyer is new once.
        buyers=everything.new,
        repeat_buyers=everything.repeat,
        orders=everything.orders,
        revenue=everything.revenue,
        average_order_value=_mean_money(everything.revenue, everything.orders),
        purchase_frequency=_mean(everything.orders, everything.new),
        repeat_rate=_mean(everything.repeat, everything.new),
        months=[month(day) for day in _last_months(workspace.local_day(as_of), months)],
    )


def _last_months(day: date, months: int) -> list[date]:
    """The first days of the last calendar months up to that of ``day``, the oldest first."""
    last = day.year * 12 + day.month - 1
    return [date(number // 12, number % 12 + 1, 1) for number in range(last - months + 1, last + 1)]


@dataclass(frozen=True, slots=True)
class RunMoment:
    """A run, and the moment that its scores speak of."""

    run_id: RunId
    as_of: Instant


@dataclass(frozen=True, slots=True)
class Transition:
    """Customers who were in one place and are in another, and their money in either run.

    A place is null where the run gave the customer none, or did not know the customer.
    """

    before: Annotated[str | None, Field(examples=["at_risk"])]
    after: Annotated[str | None, Field(examples=["champions"])]
    customers: Annotated[int, Field(examples=[17])]
    net_spend_before: SignedMoney
    net_spend_after: SignedMoney
    clv_total_before: SignedMoney
    clv_total_after: SignedMoney


@dataclass(frozen=True, slots=True)
class TransitionsReport:
    """How customers moved between two runs, and the money at stake. Only moves that happened are listed.

    It stands on the history of scores, which is kept for all runs.
    """

    currency: CurrencyCode
    from_run: RunMoment
    to_run: RunMoment
    customers: Annotated[int, Field(description="Scored by both runs.", examples=[950])]
    customers_gone: Annotated[int, Field(description="Scored by `from_run` only.", examples=[0])]
    customers_new: Annotated[int, Field(description="Scored by `to_run` only.", examples=[50])]
    segments: list[Transition]
    grades: list[Transition]
    churn_states: list[Transition]


async def transitions_report(
    engine: AsyncEngine, workspace: Workspace, from_name: str | None = None, to_name: str | None = None
) -> TransitionsReport:
    """Moves from one run to another: to the latest if not told, and from the one before that.

    Raises ``Conflict`` (``no_run``, ``no_earlier_run``, ``run_not_succeeded``) and ``NotFound`` (``run_not_found``).
    """
    async with autocommit(engine).connect() as connection:
        to_row = await _succeeded(connection, workspace, to_name)
        if from_name is not None:
            from_row = await _succeeded(connection, workspace, from_name)
        else:
            earlier = await store.find_earlier_run(connection, workspace.id, to_row.id)
            if earlier is None:
                raise Conflict("There is no succeeded run before this one.", code="no_earlier_run")
            from_row = await _succeeded(connection, workspace, earlier)
        rows = await store.sum_moves(connection, workspace.id, from_row.id, to_row.id)
    from_run, to_run = fitted_run(from_row), fitted_run(to_row)
    by_kind: defaultdict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        by_kind[row.grouped_by].append(row)
    everyone = by_kind[store.ALL_MOVES][0]
    segments = tuple(dict.fromkeys((*from_run.fitted.rfm.segments, *to_run.fitted.rfm.segments)))
    return TransitionsReport(
        currency=workspace.currency,
        from_run=_moment(from_run),
        to_run=_moment(to_run),
        customers=everyone.known_before + everyone.known_after - everyone.customers,
        customers_gone=everyone.customers - everyone.known_after,
        customers_new=everyone.customers - everyone.known_before,
        segments=_transitions(by_kind[store.SEGMENT_MOVES], segments),
        grades=_transitions(by_kind[store.GRADE_MOVES], GRADES),
        churn_states=_transitions(by_kind[store.STATE_MOVES], STATES),
    )


def _moment(run: FittedRun) -> RunMoment:
    return RunMoment(run.name, run.as_of)


def _transitions(rows: Iterable[Row[Any]], places: Sequence[str]) -> list[Transition]:
    """Rows in the order of places, null last."""
    rank: Mapping[str | None, int] = {place: number for number, place in enumerate((*places, None))}
    return [
        Transition(
            row.before,
            row.after,
            row.customers,
            row.net_spend_before,
            row.net_spend_after,
            row.clv_total_before,
            row.clv_total_after,
        )
        for row in sorted(rows, key=lambda row: (rank[row.before], rank[row.after]))
    ]


async def _succeeded(connection: AsyncConnection, workspace: Workspace, name: str | None) -> Row[Any]:
    """The run of that name, or the latest, as it is stored now."""
    if name is None:
        if workspace.latest_run_id is None:
            raise Conflict("There is no succeeded run yet: start one with POST /v1/runs.", code="no_run")
        row = await run_store.find_run_by_number(connection, workspace.latest_run_id)
    else:
        row = await run_store.find_run(connection, workspace.id, name)
    if row is None:
        raise unknown_run()
    if row.status != "succeeded":
        raise Conflict("The run has not succeeded.", code="run_not_succeeded")
    return row
