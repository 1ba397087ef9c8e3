"""The event vocabulary: one discriminated union of everything that can happen to a customer.

An event is content that never changes once it is acknowledged. Validation gives each value its normal form
(``app.scalars``), so that the same content sent twice in other spellings compares equal.
"""

from collections.abc import Callable, Set
from datetime import timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Annotated, Any, Literal, Union

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    TypeAdapter,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError, SchemaSerializer, SchemaValidator, core_schema

from app.catalogue import CATALOGUE, EventField, EventKind
from app.scalars import (
    EPOCH,
    Currency,
    Day,
    Id,
    Instant,
    LongText,
    Money,
    PositiveMoney,
    Quantity,
    Rate,
    SignedMoney,
    Text50,
    Text100,
    Text200,
    storable,
)

EARLIEST = EPOCH
FUTURE_TOLERANCE = timedelta(hours=24)
"""An event may have occurred neither before the one nor later than so long after it came."""

CustomerKind = Literal["consumer", "business", "distributor", "agent", "supplier", "internal"]
AttributeValue = str | bool | int | float | None


class EventData(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _read_attributes(value: Any) -> dict[str, AttributeValue]:
    """Up to 100 keys of scalars; numbers come back as the plain JSON numbers they are."""
    if not isinstance(value, dict):
        raise PydanticCustomError("attributes", "must be an object of scalar values")
    if len(value) > 100:
        raise PydanticCustomError("attributes", "must have at most 100 keys")
    # In the order of their keys, which is no part of the content.
    return {_attribute_key(key): _attribute_value(value[key]) for key in sorted(value)}


def _attribute_key(key: str) -> str:
    if not 1 <= len(key) <= 100 or not storable(key):
        raise PydanticCustomError("attributes", "keys must be texts of 1 to 100 characters")
    return key


def _attribute_value(value: Any) -> AttributeValue:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and len(value) <= 1_000 and storable(value):
        return value
    if isinstance(value, int | Decimal):
        number = float(value) if -(10**15) < value < 10**15 else None
        if number is not None:
            return int(number) if number.is_integer() else number
    raise PydanticCustomError(
        "attributes", "values must be texts of at most 1000 characters, numbers below 1e15, booleans or null"
    )


Attributes = Annotated[
    dict[str, AttributeValue],
    PlainValidator(_read_attributes),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": 100,
            "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]},
            "examples": [{"loyalty_tier": "gold"}],
        }
    ),
]


class CustomerProfileData(EventData):
    """What is known about a customer. A field left out stays as it is; null takes it away."""

    name: Text200 | None = None
    email: Text200 | None = None
    phone: Text50 | None = None
    kind: CustomerKind | None = None
    gender: Text50 | None = None
    birth_date: Day | None = None
    country: Text100 | None = None
    region: Text100 | None = None
    city: Text100 | None = None
    occupation: Text100 | None = None
    income: Money | None = Field(default=None, description="Yearly income in the workspace's currency.")
    acquired_via: Text100 | None = None
    referred_by: Id | None = Field(default=None, description="The `customer_id` of whoever referred this customer.")
    attributes: Attributes | None = Field(
        default=None, description="A workspace's own fields. They merge by key; a null value takes its key away."
    )


class OrderItem(EventData):
    sku: Text200 | None = None
    category: Text200 | None = None
    quantity: Quantity | None = None
    unit_price: SignedMoney | None = None


class OrderPlacedData(EventData):
    order_id: Id
    amount: Money = Field(description="What the customer pays, in `currency`.")
    currency: Currency
    exchange_rate: Rate | None = Field(
        default=None,
        description="Units of the workspace's currency for one unit of `currency`; required where they differ.",
    )
    cost: Money | None = Field(default=None, description="What the order costs the business, in `currency`.")
    channel: Text100 | None = None
    campaign_id: Id | None = None
    items: Annotated[list[OrderItem], Field(max_length=1_000, fail_fast=True)] | None = None


class OrderCancelledData(EventData):
    order_id: Id


class OrderRefundedData(EventData):
    """With `order_id` a refund of that order, in the order's currency and rate; without it a credit of its own."""

    amount: PositiveMoney
    order_id: Id | None = None
    currency: Currency | None = Field(
        default=None, description="Required without `order_id`. With it, the order's own currency."
    )
    exchange_rate: Rate | None = Field(
        default=None,
        description="Without `order_id`: units of the workspace's currency for one of `currency`, where they differ.",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_order_or_currency(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("order_id") is None and data.get("currency") is None:
            raise PydanticCustomError("refund_without_currency", "must name an order_id, or without it a currency")
        return data


class OrderDeliveredData(EventData):
    order_id: Id
    promised_at: Instant | None = Field(default=None, description="When the delivery was promised.")


class BaseEvent(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Id = Field(description="Unique per customer, for ever. The same id with the same content is a duplicate.")
    occurred_at: Instant
    customer_id: Id
    sent_at: Instant | None = Field(default=None, description="When the sender sent it; not part of the content.")


class CustomerCreated(BaseEvent):
    type: Literal["customer.created"]
    data: CustomerProfileData


class CustomerUpdated(BaseEvent):
    type: Literal["customer.updated"]
    data: CustomerProfileData


class OrderPlaced(BaseEvent):
    type: Literal["order.placed"]
    data: OrderPlacedData


class OrderCancelled(BaseEvent):
    type: Literal["order.cancelled"]
    data: OrderCancelledData


class OrderRefunded(BaseEvent):
    type: Literal["order.refunded"]
    data: OrderRefundedData


class OrderDelivered(BaseEvent):
    type: Literal["order.delivered"]
    data: OrderDeliveredData


class InteractionEvent(BaseEvent):
    """What the catalogue describes: one class each, made from it, so that there is one description."""

    type: str
    data: EventData


def _number(low: float | None, high: float | None) -> Any:
    """A JSON number within limits, as a float."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
            raise PydanticCustomError("number", "must be a number")
        if not (-1e15 if low is None else low) <= value <= (1e15 if high is None else high):
            raise PydanticCustomError("number_out_of_range", f"must be between {low:g} and {high:g}")
        return float(value)

    schema: dict[str, Any] = {"type": "number"}
    schema |= {} if low is None else {"minimum": low}
    schema |= {} if high is None else {"maximum": high}
    return Annotated[float, PlainValidator(read), WithJsonSchema(schema)]


def _field_type(field: EventField) -> Any:
    plain: dict[str, Any] = {"id": Id, "label": Text100, "text": LongText, "boolean": StrictBool, "moment": Instant}
    if field.kind == "choice":
        return Literal[field.values]
    return _number(field.low, field.high) if field.kind == "number" else plain[field.kind]


def _interaction(kind: EventKind) -> type[InteractionEvent]:
    name = "".join(word.capitalize() for word in kind.name.replace(".", "_").split("_"))
    fields: dict[str, Any] = {
        field.name: (_field_type(field), Field(description=field.meaning or None))
        if field.required
        else (_field_type(field) | None, Field(default=None, description=field.meaning or None))
        for field in kind.fields
    }
    data = create_model(f"{name}Data", __base__=EventData, **fields)
    tag: Any = Literal[kind.name]
    return create_model(
        name,
        __base__=InteractionEvent,
        __doc__=kind.meaning,
        type=(tag, ...),
        data=(data, ...),
    )


INTERACTIONS = tuple(_interaction(kind) for kind in CATALOGUE if kind.name != "order.delivered")

EVENT_CLASSES: tuple[type[BaseEvent], ...] = (
    CustomerCreated,
    CustomerUpdated,
    OrderPlaced,
    OrderCancelled,
    OrderRefunded,
    OrderDelivered,
    *INTERACTIONS,
)
EventUnion: Any = Annotated[Union[EVENT_CLASSES], Field(discriminator="type")]  # noqa: UP007 - made of a tuple


def _without_classes(schema: Any) -> Any:
    """A core schema of models as one of dictionaries: the same rules, and a field left out stays out."""
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    if kind == "model":
        extra = schema["config"]["extra_fields_behavior"]
        return _without_classes(schema["schema"]) | {"extra_behavior": extra}
    if kind == "model-fields":
        return core_schema.typed_dict_schema(
            {name: _field_without_class(field["schema"]) for name, field in schema["fields"].items()}
        )
    changed = {name: _without_classes(schema[name]) for name in ("schema", "items_schema") if name in schema}
    if kind == "tagged-union":
        changed["choices"] = {tag: _without_classes(choice) for tag, choice in schema["choices"].items()}
    return schema | changed


def _field_without_class(schema: Any) -> core_schema.TypedDictField:
    optional = schema["type"] == "default"
    return core_schema.typed_dict_field(
        _without_classes(schema["schema"] if optional else schema), required=not optional
    )


PROFILE_TYPES = frozenset(("customer.created", "customer.updated"))
ADJUSTING_TYPES = frozenset(("order.cancelled", "order.refunded"))
"""Events that change what an order, or the customer, has spent."""

_events = _without_classes(TypeAdapter(EventUnion).core_schema)
_data_writers = {
    tag: SchemaSerializer(choice["fields"]["data"]["schema"]) for tag, choice in _events["choices"].items()
}

read_event: Callable[[Any], dict[str, Any]] = SchemaValidator(_events).validate_python
"""Validate a JSON value as an event, raising ``ValidationError``: its fields in their normal form, by name.

The classes above describe events; to make objects of them would take three times as long as all the rest.
"""


def fingerprint(kind: str, occurred_at: str, *fields: object) -> bytes:
    """The hash of an event's content: its type and moment, the fields that have a column, and the rest as JSON text.

    No two contents make the same text: of these fields none can have a line break but the last.
    """
    content = "\n".join([kind, occurred_at, *["" if field is None else str(field) for field in fields]])
    return blake2b(content.encode(), digest_size=16).digest()


def write_data(event: dict[str, Any], without: Set[str]) -> str | None:
    """The fields of an event's data, but for some, as JSON text in the order of the class; None where there is none.

    Null is no content, but in a profile, where it takes a field away.
    """
    data = event["data"]
    if data.keys() <= without:
        return None
    is_profile = event["type"] in PROFILE_TYPES
    written = _data_writers[event["type"]].to_json(data, exclude=set(without), exclude_none=not is_profile).decode()
    return None if written == "{}" else written
