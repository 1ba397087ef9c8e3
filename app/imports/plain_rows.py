"""Rows of a file that are plain orders, read many at a time; what ``app.plain_orders`` is to events."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.imports.cells import BadCell, CellReader
from app.imports.mapping import ImportMapping, Places
from app.imports.orders import event_id
from app.plain_orders import PlainColumns, read_plain_columns
from app.store.events import EventRow
from app.store.workspaces import Workspace


def may_be_plain(mapping: ImportMapping, places: Places) -> bool:
    """Whether the mapping lets rows be plain: each an order of its own, told in the usual form."""
    others = (places.quantity, places.unit_price, places.discount, places.profit, places.exchange_rate,
              places.campaign_id)  # fmt: skip
    return (
        mapping.kind == "orders"
        and places.order_id is not None
        and all(place is None for place in others)
        and mapping.decimal_separator == "."
    )


@dataclass(frozen=True, slots=True)
class PlainRows:
    """Reads rows of a file whose mapping lets them be plain."""

    _mapping: ImportMapping
    _places: Places
    _workspace: Workspace
    _received_at: datetime
    _cells: CellReader

    def read(self, rows: Sequence[list[str] | None]) -> list[EventRow] | None:
        """The orders that the rows tell; None where any is not plain, and all are to be read one by one.

        A row is None where it can't be read as CSV. About 4 µs a row.
        """
        mapping, places = self._mapping, self._places
        readable = [row for row in rows if row is not None and len(row) == places.width]
        if len(readable) < len(rows):
            return None
        cells = list(zip(*readable, strict=True))

        def column(place: int | None) -> list[str]:
            return [""] * len(rows) if place is None else list(map(str.strip, cells[place]))

        def optional(place: int | None) -> list[str | None]:
            return [cell or None for cell in column(place)]

        own = self._workspace.currency
        default = mapping.currency or own
        if {currency.upper() or default for currency in set(column(places.currency))} != {own}:
            return None
        order_ids = column(places.order_id)
        if not all(map(str.isascii, order_ids)):
            return None
        prefix = mapping.cancellation_prefix
        if prefix is not None and any(order_id.startswith(prefix) for order_id in order_ids):
            return None
        instants: list[Any] = column(places.occurred_at)
        # Else they are as events have them, but for the small letters that these may have.
        if mapping.occurred_at_format is not None or not (instants[0][-1:] == "Z" and all(map(str.isupper, instants))):
            try:
                instants = list(map(self._cells.time, instants))
            except BadCell:
                return None
        told = PlainColumns(
            [event_id("order", order_id) for order_id in order_ids],
            column(places.customer_id),
            instants,
            order_ids,
            column(places.amount),
            optional(places.cost),
            optional(places.channel),
        )
        return read_plain_columns(self._workspace, told, self._received_at)
