"""Whether the process lives, and whether it can serve."""

from typing import Annotated, Literal

from fastapi import Request
from pydantic import BaseModel, Field

from app.api.dependencies import Engine
from app.api.problems import RESPONSES
from app.api.routes import make_router
from app.errors import Unavailable
from app.store.engine import server_state

router = make_router("health")


class Health(BaseModel):
    status: Annotated[Literal["ok"], Field(examples=["ok"])]


@router.get("/health/live", summary="Does the process live?", response_model=Health)
async def get_liveness() -> Health:
    """Waits for nothing."""
    return Health(status="ok")


@router.get("/health/ready", summary="Can it serve?", response_model=Health, responses={503: RESPONSES[503]})
async def get_readiness(engine: Engine, request: Request) -> Health:
    """200 once the database is connected, migrated, and set to keep what it has committed."""
    # One look at a time: a flood of probes takes one connection.
    async with request.app.state.probe:
        state = await server_state(engine)
    if state is None or state.schema_revision != request.app.state.schema_revision:
        raise Unavailable("The database can't be reached, or is not migrated to this version yet.", code="not_ready")
    if state.lossy_settings and not request.app.state.settings.throwaway_database:
        raise Unavailable(
            f"The database may lose what it has committed: {', '.join(state.lossy_settings)} must be on.",
            code="not_durable",
        )
    return Health(status="ok")
