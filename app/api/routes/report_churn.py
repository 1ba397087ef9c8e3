"""The report on churn."""

from typing import Annotated

from fastapi import Query

from app.api.dependencies import AcceptedLanguage, Engine, ScoresReader
from app.api.problems import responses
from app.api.routes import make_router
from app.api.routes.reports import ReportRun
from app.reports import churn as churn_reports
from app.reports.churn_parts import ChurnReport
from app.reports.months import MOST_MONTHS

router = make_router("reports")


@router.get(
    "/v1/reports/churn",
    summary="Who leaves, why, and what is at stake",
    response_model=ChurnReport,
    responses=responses(404, 409, 410),
)
async def get_churn_report(
    holder: ScoresReader,
    engine: Engine,
    language: AcceptedLanguage,
    run_id: ReportRun = None,
    months: Annotated[
        int, Query(ge=1, le=MOST_MONTHS, description="Calendar months of reasons, that of the run being the last.")
    ] = 12,
) -> ChurnReport:
    """States, types and segments with the money at stake, calibration, learning, and reasons by month, as of a run.

    410 when its scores are no longer kept. `reasons.events` are counted from the events as they are now.
    """
    return await churn_reports.churn_report(engine, holder.workspace, months, run_id, language)
