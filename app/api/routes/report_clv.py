"""The report on lifetime value."""

from app.api.dependencies import AcceptedLanguage, Engine, ScoresReader
from app.api.problems import responses
from app.api.routes import make_router
from app.api.routes.reports import ReportRun
from app.reports import clv as clv_reports
from app.reports.clv import ClvReport

router = make_router("reports")


@router.get(
    "/v1/reports/clv",
    summary="The model of lifetime value, and how values are spread",
    response_model=ClvReport,
    responses=responses(404, 409, 410),
)
async def get_clv_report(
    holder: ScoresReader, engine: Engine, language: AcceptedLanguage, run_id: ReportRun = None
) -> ClvReport:
    """Parameters, errors, the contest of models, calibration, textbook figures and distributions, as a run found them.

    410 when its scores are no longer kept.
    """
    return await clv_reports.clv_report(engine, holder.workspace, run_id, language)
