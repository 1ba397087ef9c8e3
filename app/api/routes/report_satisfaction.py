"""Satisfaction figures, of a workspace and of a customer."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query

from app.api.dependencies import CustomerId, Engine, ScoresReader, bounded
from app.api.problems import responses
from app.api.routes import make_router
from app.reports import satisfaction as satisfaction_reports
from app.reports.months import MOST_MONTHS
from app.reports.satisfaction import CustomerSatisfaction, SatisfactionReport
from app.scalars import Instant

router = make_router()

AsOf = Annotated[Instant | None, Query(description="The moment to speak of; now, if left out.")]


@router.get(
    "/v1/reports/satisfaction",
    tags=["reports"],
    summary="Complaints, CSAT, NPS and late deliveries",
    response_model=SatisfactionReport,
    responses=responses(),
)
async def get_satisfaction_report(
    holder: ScoresReader,
    engine: Engine,
    as_of: AsOf = None,
    months: Annotated[
        int, Query(ge=1, le=MOST_MONTHS, description="Calendar months, that of `as_of` being the last.")
    ] = 12,
) -> SatisfactionReport:
    """From the events themselves, at any moment. No run is needed."""
    return await satisfaction_reports.satisfaction_report(
        engine, holder.workspace, bounded(as_of) or datetime.now(UTC), months
    )


@router.get(
    "/v1/customers/{customer_id}/satisfaction",
    tags=["customers"],
    summary="How content a customer was",
    response_model=CustomerSatisfaction,
    responses=responses(404),
)
async def get_customer_satisfaction(
    holder: ScoresReader, engine: Engine, customer_id: CustomerId, as_of: AsOf = None
) -> CustomerSatisfaction:
    """Complaints, CSAT, NPS and late deliveries of one customer, as of any moment."""
    return await satisfaction_reports.customer_satisfaction(
        engine, holder.workspace, customer_id, bounded(as_of) or datetime.now(UTC)
    )
