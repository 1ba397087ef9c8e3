"""What a customer may ask of whoever keeps their data: to be given all of it, and to be erased."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends
from pydantic import TypeAdapter
from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse

from app import erasure, export
from app.api.dependencies import Admin, CustomerId, CustomersReader, Engine
from app.api.problems import responses
from app.api.routes import make_router
from app.api.routes.customers import show_customer, show_event
from app.api.routes.values import FitCache
from app.customers import CustomerRecord, EventRecord
from app.errors import Forbidden
from app.export import ExportRecord
from app.store.workspaces import KeyHolder
from app.value import Value

router = make_router("customers")

NDJSON = "application/x-ndjson"


@router.delete(
    "/v1/customers/{customer_id}",
    status_code=204,
    summary="Erase a customer",
    response_class=Response,
    responses=responses(404),
)
async def erase_customer(holder: Admin, engine: Engine, customer_id: CustomerId) -> Response:
    """Everything that is stored of the customer is deleted, at once and for good, and totals fall.

    A keyed hash of the id is kept: events of the customer that come later are rejected (`customer_erased`). Erasing
    again answers 204.
    """
    await erasure.erase_customer(engine, holder, customer_id, datetime.now(UTC))
    return Response(status_code=204)


async def _exporter(holder: CustomersReader) -> KeyHolder:
    # An export holds what either scope guards.
    if "scores:read" not in holder.scopes:
        raise Forbidden("The key lacks the scope scores:read.", code="scope_missing")
    return holder


@router.get(
    "/v1/customers/{customer_id}/export",
    summary="Everything stored of a customer",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "One record a line, as a JSON object with its `kind`.",
            "content": {NDJSON: {"schema": {"type": "string", "format": "binary"}}},
        },
        **responses(404),
    },
)
async def export_customer(
    holder: Annotated[KeyHolder, Depends(_exporter)], engine: Engine, fits: FitCache, customer_id: CustomerId
) -> StreamingResponse:
    """Needs both scopes, `customers:read` and `scores:read`.

    Each line has a `kind`: `profile` and `summary` (one each), `event` (all, newest first, as in `…/events`), `label`
    (the churn label), `score` (a `value` for each run whose scores are kept) and `history` (what is kept of older
    runs). A customer that is erased meanwhile has no further lines.
    """
    pages = await export.export_customer(engine, fits, holder.workspace, customer_id)
    return StreamingResponse(_lines(customer_id, pages), media_type=NDJSON)


async def _lines(customer_id: str, pages: AsyncIterator[list[ExportRecord]]) -> AsyncIterator[bytes]:
    async for page in pages:
        yield b"".join(to_json({"kind": record.kind, **_shown(customer_id, record)}) + b"\n" for record in page)


def _shown(customer_id: str, record: ExportRecord) -> dict[str, Any]:
    """A record as the other paths show it."""
    content = record.content
    if isinstance(content, CustomerRecord):
        part = getattr(show_customer(content), record.kind)
        return {"customer_id": customer_id, record.kind: part.model_dump(mode="json")}
    if isinstance(content, EventRecord):
        return show_event(customer_id, content).model_dump(mode="json")
    if isinstance(content, Value):
        value: dict[str, Any] = _VALUE.dump_python(content, mode="json")
        return {"customer_id": customer_id, "value": value}
    return {"customer_id": customer_id, record.kind: content}


_VALUE: TypeAdapter[Value] = TypeAdapter(Value)
