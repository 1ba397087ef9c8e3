"""The RFM grid and the table of segments, from a run."""

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.analytics.rfm import RfmFit
from app.errors import Gone
from app.explanation import cut_money
from app.population import day_number
from app.reports.terms import ZERO, CurrencyCode, RunId, Segment, Share, mean, mean_money, share_of
from app.runs import fitted_run
from app.scalars import Instant, SignedMoney
from app.store import reports as store
from app.store.engine import autocommit
from app.store.workspaces import Workspace
from app.stored_run import succeeded_run


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
    net_spend: Decimal = ZERO

    def add(self, row: Row[Any]) -> None:
        self.customers += row.customers
        self.days_since_last_order += row.days_since_last_order
        self.order_count += row.order_count
        self.net_spend += row.net_spend

    def mean(self) -> RfmMeans:
        return RfmMeans(
            mean(self.days_since_last_order, self.customers),
            mean(self.order_count, self.customers),
            mean_money(self.net_spend, self.customers),
        )


async def rfm_report(engine: AsyncEngine, workspace: Workspace, run_name: str | None = None) -> RfmReport:
    """The grid and the segments of a run, or of the latest.

    Raises ``Conflict`` (``no_run``, ``run_not_succeeded``), ``NotFound`` (``run_not_found``), ``Gone`` (``run_gone``).
    """
    async with autocommit(engine).connect() as connection:
        stored = await succeeded_run(connection, workspace, run_name)
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
            customer_share=share_of(found.customers, everyone.customers),
            net_spend=found.net_spend,
            net_spend_share=share_of(found.net_spend, everyone.net_spend),
        )

    def segment(name: str | None) -> RfmSegment:
        found = segments[name]
        return RfmSegment(
            segment=name,
            customers=found.customers,
            customer_share=share_of(found.customers, everyone.customers),
            net_spend=found.net_spend,
            net_spend_share=share_of(found.net_spend, everyone.net_spend),
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
