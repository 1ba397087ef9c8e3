"""People's verdicts on why customers left."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app import churn_labels
from app.api.dependencies import CustomerId, Engine, EventsWriter
from app.api.problems import responses
from app.api.routes import make_router
from app.errors import InvalidRequest
from app.scalars import Instant

router = make_router("churn")


class ChurnLabelRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Annotated[
        Literal["natural", "competitive", "passive", "negligent", "unknown"],
        Field(description="`unknown`: looked into, and no cause found."),
    ]
    subtype: Annotated[
        Literal["non_malicious", "retaliatory", "malicious"] | None, Field(description="Of passive churn only.")
    ] = None
    labelled_at: Annotated[Instant | None, Field(description="The moment it speaks of; now, if left out.")] = None


class ChurnLabel(BaseModel):
    """A person's verdict on a customer."""

    customer_id: str
    type: Annotated[str, Field(examples=["negligent"])]
    subtype: str | None
    labelled_at: Instant


@router.post(
    "/v1/customers/{customer_id}/churn-label",
    status_code=201,
    summary="Say why a customer left",
    response_model=ChurnLabel,
    responses=responses(400, 404, 413),
)
async def label_churn(
    holder: EventsWriter, engine: Engine, customer_id: CustomerId, body: ChurnLabelRequest
) -> ChurnLabel:
    """A run learns from such verdicts, and serves what it learned only where that tells better. The last one holds."""
    now = datetime.now(UTC)
    moment = body.labelled_at or now
    if not moment.year >= 1970 or moment > now:
        raise InvalidRequest("labelled_at must be from 1970 until now.", pointer="/labelled_at")
    label = churn_labels.ChurnLabel(customer_id, body.type, body.subtype, moment)
    await churn_labels.label_customer(engine, holder.workspace, label, now)
    return ChurnLabel(customer_id=customer_id, type=label.type, subtype=label.subtype, labelled_at=moment)
