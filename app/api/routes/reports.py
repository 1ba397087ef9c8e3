"""Views of a whole workspace, with what a chart needs."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query

from app.api.dependencies import Engine, ScoresReader, bounded
from app.api.problems import responses
from app.api.routes import make_router
from app.reports.abc import AbcReport, abc_report
from app.reports.months import MOST_MONTHS
from app.reports.overview import Overview, overview_report
from app.reports.rfm import RfmReport, rfm_report
from app.reports.transitions import TransitionsReport, transitions_report
from app.scalars import Id, Instant

router = make_router("reports")

ReportRun = Annotated[Id | None, Query(description="The run to report on; the latest, if left out.")]


@router.get(
    "/v1/reports/rfm",
    summary="RFM grid and segments",
    response_model=RfmReport,
    responses=responses(404, 409, 410),
)
async def get_rfm_report(holder: ScoresReader, engine: Engine, run_id: ReportRun = None) -> RfmReport:
    """Customers and money by R and F, and by segment, as a run scored them. 410 when its scores are no longer kept."""
    return await rfm_report(engine, holder.workspace, run_id)


@router.get(
    "/v1/reports/abc",
    summary="ABC grades and Pareto curve",
    response_model=AbcReport,
    responses=responses(404, 409),
)
async def get_abc_report(holder: ScoresReader, engine: Engine, run_id: ReportRun = None) -> AbcReport:
    """How few customers bring how much of the money, as a run found it. Kept for all runs."""
    return await abc_report(engine, holder.workspace, run_id)


@router.get(
    "/v1/reports/overview",
    summary="Customers and orders by month",
    response_model=Overview,
    responses=responses(),
)
async def get_overview_report(
    holder: ScoresReader,
    engine: Engine,
    as_of: Annotated[Instant | None, Query(description="The moment to speak of; now, if left out.")] = None,
    months: Annotated[
        int, Query(ge=1, le=MOST_MONTHS, description="Calendar months, that of `as_of` being the last.")
    ] = 24,
) -> Overview:
    """From the orders themselves, at any moment. No run is needed."""
    return await overview_report(engine, holder.workspace, bounded(as_of) or datetime.now(UTC), months)


@router.get(
    "/v1/reports/transitions",
    summary="Moves between two runs",
    response_model=TransitionsReport,
    responses=responses(404, 409),
)
async def get_transitions_report(
    holder: ScoresReader,
    engine: Engine,
    from_run: Annotated[Id | None, Query(description="The run before `to_run`, if left out.")] = None,
    to_run: Annotated[Id | None, Query(description="The latest run, if left out.")] = None,
) -> TransitionsReport:
    """Segment to segment, grade to grade, churn state to churn state, and the money at stake. Any two runs will do."""
    return await transitions_report(engine, holder.workspace, from_run, to_run)
