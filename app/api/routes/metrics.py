"""Figures for Prometheus."""

from fastapi import Request, Response

from app.api.dependencies import MetricsReader
from app.api.problems import responses
from app.api.routes import make_router

router = make_router("health")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses=responses() | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_metrics(_reader: MetricsReader, request: Request) -> Response:
    """Requests by route and status, and how long they took. Asks for the scope `operator`, unless set otherwise."""
    return Response(request.app.state.metrics.exposition(), media_type=CONTENT_TYPE)
