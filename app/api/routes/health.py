"""Whether the process lives, and whether it can serve."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from app.api.dependencies import Engine
from app.api.problems import RESPONSES
from app.errors import Unavailable
from app.store.engine import schema_revision

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Annotated[Literal["ok"], Field(examples=["ok"])]


@router.get("/health/live", summary="Does the process live?", response_model=Health)
async def get_liveness() -> Health:
    """Waits for nothing."""
    return Health(status="ok")


@router.get("/health/ready", summary="Can it serve?", response_model=Health, responses={503: RESPONSES[503]})
async def get_readiness(engine: Engine, request: Request) -> Health:
    """200 once the database is connected and migrated."""
    if await schema_revision(engine) != request.app.state.schema_revision:
        raise Unavailable("The database can't be reached, or is not migrated to this version yet.", code="not_ready")
    return Health(status="ok")
