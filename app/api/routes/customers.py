"""Reading customers."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field

from app import customers
from app.api.cursors import decode_cursor, encode_cursor
from app.api.dependencies import Cursor, CustomerId, CustomersReader, Engine, Limit
from app.api.problems import responses
from app.api.routes import make_router
from app.customers import CustomerRecord, EventRecord
from app.events import CustomerKind
from app.scalars import Day, Instant, Money, SignedMoney
from app.store.customers import CustomerFilter

router = make_router("customers")


class CustomerProfile(BaseModel):
    """What is known about a customer: per field the latest word."""

    name: str | None = None
    email: str | None = None
    phone: str | None = None
    kind: Annotated[str | None, Field(examples=["consumer"])] = None
    gender: str | None = None
    birth_date: Day | None = None
    country: str | None = None
    region: str | None = None
    city: str | None = None
    occupation: str | None = None
    income: Money | None = None
    acquired_via: str | None = None
    referred_by: str | None = None
    attributes: dict[str, Any] = {}


class CustomerSummary(BaseModel):
    """What a customer's events add up to. `GET …/value` says what it is worth, at any moment."""

    event_count: Annotated[int, Field(examples=[7])]
    order_count: Annotated[int, Field(description="Orders that count: not cancelled, not wholly refunded.")]
    purchase_days: Annotated[int, Field(description="Days with at least one order that counts.")]
    first_purchase_day: Day | None
    last_purchase_day: Day | None
    net_spend: SignedMoney
    first_event_at: Instant
    last_event_at: Instant
    updated_at: Annotated[Instant, Field(description="When the last event was received.")]


class Customer(BaseModel):
    customer_id: Annotated[str, Field(examples=["c-42"])]
    profile: CustomerProfile
    summary: CustomerSummary


class CustomerPage(BaseModel):
    data: list[Customer]
    next_cursor: Annotated[str | None, Field(description="Null on the last page.")]


class StoredEvent(BaseModel):
    """An event in its normal form."""

    id: str
    type: Annotated[str, Field(examples=["order.placed"])]
    occurred_at: Instant
    received_at: Instant
    customer_id: str
    data: dict[str, Any]


class StoredEventPage(BaseModel):
    data: list[StoredEvent]
    next_cursor: Annotated[str | None, Field(description="Null on the last page.")]


def show_customer(record: CustomerRecord) -> Customer:
    return Customer(
        customer_id=record.customer_id,
        profile=CustomerProfile(**record.profile),
        summary=CustomerSummary.model_construct(
            event_count=record.event_count,
            order_count=record.order_count,
            purchase_days=record.purchase_days,
            first_purchase_day=record.first_purchase_day,
            last_purchase_day=record.last_purchase_day,
            net_spend=record.net_spend,
            first_event_at=record.first_event_at,
            last_event_at=record.last_event_at,
            updated_at=record.updated_at,
        ),
    )


def show_event(customer_id: str, record: EventRecord) -> StoredEvent:
    return StoredEvent.model_construct(
        id=record.id,
        type=record.type,
        occurred_at=record.occurred_at,
        received_at=record.received_at,
        customer_id=customer_id,
        data=record.data,
    )


SearchText = Annotated[
    str,
    Query(
        max_length=200,
        pattern=r"^[^\x00]*$",
        description="Looked for in id, name, email and phone, whatever its case.",
    ),
]


@router.get("/v1/customers", summary="Search and list customers", response_model=CustomerPage, responses=responses())
async def list_customers(
    holder: CustomersReader,
    engine: Engine,
    q: SearchText = "",
    kind: Annotated[CustomerKind | None, Query()] = None,
    country: Annotated[str, Query(max_length=100, pattern=r"^[^\x00]*$")] = "",
    updated_since: Annotated[Instant | None, Query(description="Customers with an event received since.")] = None,
    limit: Limit = 100,
    cursor: Cursor = "",
) -> CustomerPage:
    """Customers by id, each with profile and summary."""
    filters = CustomerFilter(q=q or None, kind=kind, country=country or None, updated_since=updated_since)
    bound = {"q": q, "kind": kind, "country": country, "updated_since": updated_since}
    after = None
    if cursor:
        (after,) = decode_cursor("customers", bound, cursor, str)
    records = await customers.list_customers(engine, holder.workspace, filters, after, limit + 1)
    page = records[:limit]
    more = len(records) > limit
    return CustomerPage.model_construct(
        data=[show_customer(record) for record in page],
        next_cursor=encode_cursor("customers", bound, [page[-1].customer_id]) if more else None,
    )


@router.get(
    "/v1/customers/{customer_id}",
    summary="One customer",
    response_model=Customer,
    responses=responses(404),
)
async def get_customer(holder: CustomersReader, engine: Engine, customer_id: CustomerId) -> Customer:
    """Profile and summary."""
    return show_customer(await customers.get_customer(engine, holder.workspace, customer_id))


@router.get(
    "/v1/customers/{customer_id}/events",
    summary="A customer's events",
    response_model=StoredEventPage,
    responses=responses(404),
)
async def list_customer_events(
    holder: CustomersReader,
    engine: Engine,
    customer_id: CustomerId,
    limit: Limit = 100,
    cursor: Cursor = "",
) -> StoredEventPage:
    """Newest first, by `occurred_at`."""
    bound = {"customer_id": customer_id}
    before = None
    if cursor:
        occurred_at, event_id = decode_cursor("events", bound, cursor, datetime, str)
        before = (occurred_at, event_id)
    records = await customers.list_events(engine, holder.workspace, customer_id, before, limit + 1)
    page = records[:limit]
    next_cursor = None
    if len(records) > limit:
        last = page[-1]
        next_cursor = encode_cursor("events", bound, [last.occurred_at, last.id])
    return StoredEventPage.model_construct(
        data=[show_event(customer_id, record) for record in page], next_cursor=next_cursor
    )
