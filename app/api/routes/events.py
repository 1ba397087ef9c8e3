"""Recording events."""

import asyncio
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Request, Response
from pydantic import BaseModel, Field, TypeAdapter

from app.api import bodies
from app.api.dependencies import EventsWriter, holder_of
from app.api.problems import responses
from app.api.routes import make_router
from app.api.shortcuts import Shortcut
from app.errors import UnsupportedMediaType
from app.events import EventUnion
from app.ingest import INLINE_BYTES, EventRecorder, is_large


class EventBatch(BaseModel):
    """Up to 10,000 events, of any customers, in any order."""

    events: Annotated[list[EventUnion], Field(max_length=bodies.MAX_EVENTS)]


class EventError(BaseModel):
    """Why one event was not taken. The others of its batch are."""

    index: Annotated[int, Field(description="Place in the batch, from 0.", examples=[3])]
    id: Annotated[str | None, Field(description="The event's id, where it has a valid one.", examples=["evt-4"])]
    code: Annotated[str, Field(description="Stable.", examples=["invalid_value"])]
    detail: Annotated[str, Field(examples=["amount must be at least 0."])]
    pointer: Annotated[str, Field(description="JSON pointer within the event.", examples=["/data/amount"])]


class EventReceipt(BaseModel):
    """What became of a batch. What is acknowledged here is committed."""

    accepted: Annotated[int, Field(description="Events stored now.", examples=[2])]
    duplicates: Annotated[int, Field(description="Events that were stored before, with the same content.")]
    rejected: Annotated[int, Field(description="Events that were not taken; `errors` says why.")]
    errors: list[EventError]


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "At most 10,000 events and 10 MB after decompression. `Content-Encoding: gzip` is understood.",
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/EventBatch"},
                "example": {
                    "events": [
                        {
                            "id": "evt-1",
                            "type": "order.placed",
                            "occurred_at": "2026-01-31T09:30:00Z",
                            "customer_id": "c-42",
                            "data": {"order_id": "o-1001", "amount": "129.90", "currency": "USD"},
                        }
                    ]
                },
            },
            "application/x-ndjson": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


async def _items(request: Request) -> tuple[list[Any], int]:
    """The batch as it came, and its bytes; the body is read only once the caller is known."""
    kind = bodies.media_type(request)
    if kind not in ("application/json", "application/x-ndjson"):
        raise UnsupportedMediaType("Content-Type must be application/json or application/x-ndjson.")
    body = await bodies.read_body(request, request.app.state.settings.max_body_bytes)
    read = bodies.read_events if kind == "application/json" else bodies.read_event_lines
    items = read(body) if len(body) <= INLINE_BYTES else await asyncio.to_thread(read, body)
    return items, len(body)


router = make_router("events")


@router.post(
    "/v1/events",
    summary="Record events",
    response_model=EventReceipt,
    responses=responses(400, 413, 415),
    openapi_extra=_BODY,
)
async def record_events(holder: EventsWriter, request: Request) -> EventReceipt:
    """Every valid event is stored, exactly once for ever, in one transaction that is committed before the answer.

    Invalid events are named by index and hurt no other. Sending a batch again is always safe.
    """
    items, size_bytes = await _items(request)
    recorder: EventRecorder = request.app.state.recorder
    # Small batches share a transaction; large ones have one each, and a workspace may not take all of them.
    is_alone = is_large(len(items), size_bytes)
    turn = request.app.state.batch_turns.of(holder.workspace) if is_alone else nullcontext()
    async with turn:
        receipt = await recorder.record(holder.workspace, items, datetime.now(UTC), size_bytes)
    return EventReceipt(
        accepted=receipt.accepted,
        duplicates=receipt.duplicates,
        rejected=receipt.rejected,
        errors=[
            EventError(index=error.index, id=error.id, code=error.code, detail=error.detail, pointer=error.pointer)
            for error in receipt.errors
        ],
    )


async def _record(request: Request) -> Response:
    receipt = await record_events(await holder_of(request, "events:write"), request)
    return Response(_told.dump_json(receipt), media_type="application/json")


_told = TypeAdapter(EventReceipt)
SHORTCUTS = (Shortcut("POST", "/v1/events", _record),)
