"""The events that an order of a file becomes: it is placed, or something is taken back."""

import hashlib
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from app.imports.mapping import ImportMapping

MOST_ITEMS = 1_000


class OrderLike(Protocol):
    """An order that events are made of: staged, or a row of its own."""

    @property
    def customer_id(self) -> str: ...
    @property
    def order_id(self) -> str: ...
    @property
    def cancels(self) -> bool: ...
    @property
    def occurred_at(self) -> datetime: ...
    @property
    def amount(self) -> Decimal: ...
    @property
    def cost(self) -> Decimal | None: ...
    @property
    def currency(self) -> str: ...
    @property
    def exchange_rate(self) -> Decimal | None: ...
    @property
    def channel(self) -> str | None: ...
    @property
    def campaign_id(self) -> str | None: ...


class Unfit(Exception):
    """An order that can't become an event."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def order_event(order: OrderLike, mapping: ImportMapping, items: list[Any] | None = None) -> dict[str, Any] | None:
    """The event of an order, or of what takes one back; None where that is dropped. Raises ``Unfit``."""
    amount = order.amount
    data: dict[str, Any] = {"amount": amount, "currency": order.currency}
    if order.exchange_rate is not None:
        data["exchange_rate"] = order.exchange_rate
    if not order.cancels and amount >= 0:
        data["order_id"] = order.order_id
        cost = order.cost
        if cost is not None:
            if cost < 0:
                raise Unfit("cost_negative", "The order's cost comes to less than zero.")
            data["cost"] = cost
        if order.channel is not None:
            data["channel"] = order.channel
        if order.campaign_id is not None:
            data["campaign_id"] = order.campaign_id
        if items is not None:
            data["items"] = items
        return _event("order.placed", "order", order, data)
    if mapping.cancellations == "drop" or amount == 0:
        return None
    if amount > 0:
        raise Unfit("cancellation_not_negative", "The lines that cancel come to more than zero.")
    data["amount"] = -amount
    return _event("order.refunded", "refund" if order.cancels else "credit", order, data)


def _event(kind: str, prefix: str, order: OrderLike, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": event_id(prefix, order.order_id),
        "type": kind,
        "occurred_at": order.occurred_at,
        "customer_id": order.customer_id,
        "data": data,
    }


def event_id(prefix: str, order_id: str) -> str:
    """An id that the same row gives whenever it is read, of at most 128 characters."""
    made = f"{prefix}-{order_id}"
    if len(made) <= 128:
        return made
    return f"{prefix}-{hashlib.blake2b(order_id.encode(), digest_size=16).hexdigest()}"
