"""Read the records of a chunk: events of NDJSON, and rows of CSV as a mapping tells. Pure; runs in a thread."""

import csv
import hashlib
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from operator import itemgetter
from typing import Any, NamedTuple

import jiter

from app.candidates import FEWEST_TOGETHER, Unreadable
from app.events import EARLIEST, FUTURE_TOLERANCE
from app.imports.cells import BadCell, CellReader
from app.imports.mapping import ImportMapping, Places
from app.imports.orders import Unfit, order_event
from app.imports.plain_rows import PlainRows, may_be_plain
from app.scalars import MONEY_LIMIT, MONEY_PLACES, RATE_PLACES
from app.store.events import EventRow
from app.store.imports import BadRow
from app.store.workspaces import Workspace

ROWS_TOGETHER = 250
"""So many rows are looked at together, or one by one where any of them is not plain."""

_MAX_TEXT = 100

_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class Line(NamedTuple):
    """A row as the mapping reads it: a line of an order, or an order of one line. Money has four decimals."""

    line: int
    customer_id: str
    order_id: str
    cancels: bool
    occurred_at: datetime
    amount: Decimal
    cost: Decimal | None
    currency: str
    exchange_rate: Decimal | None
    channel: str | None
    campaign_id: str | None
    item: str | None
    fingerprint: bytes | None


class Note(NamedTuple):
    """A row that tells of a cancelled order; what it doesn't tell is known from the order."""

    line: int
    order_id: str
    customer_id: str | None
    occurred_at: datetime | None


@dataclass(slots=True)
class Reading:
    """What a chunk of CSV says. ``orders`` are of rows that need no ``Line``, each with the line of its row."""

    lines: list[Line] = field(default_factory=list)
    orders: list[tuple[int, EventRow]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


# ---- NDJSON ---------------------------------------------------------------------------------------------------------


def read_event_lines(content: bytes, first_line: int) -> Iterator[tuple[int, Any]]:
    """The events of NDJSON, each with its line; blank lines are skipped."""
    for number, line in enumerate(content.split(b"\n"), first_line):
        if line.strip():
            try:
                yield (
                    number,
                    jiter.from_json(
                        line, allow_inf_nan=False, catch_duplicate_keys=True, float_mode="decimal", cache_mode="keys"
                    ),
                )
            except ValueError:
                yield number, Unreadable("The line is not a valid JSON object.")


# ---- CSV ------------------------------------------------------------------------------------------------------------


class RowReader:
    """Reads rows as a mapping tells. One reader serves all chunks of an import, one after another."""

    def __init__(self, mapping: ImportMapping, places: Places, workspace: Workspace, received_at: datetime) -> None:
        self.mapping = mapping
        self._places = places
        self._workspace = workspace
        self._latest = received_at + FUTURE_TOLERANCE
        self._default_currency = mapping.currency or workspace.currency
        self._has_occurrences = mapping.kind == "orders" and places.order_id is None
        self._needs_fingerprint = self._has_occurrences or (mapping.kind == "lines" and mapping.duplicates == "drop")
        self._cells = CellReader(mapping, workspace)
        self._plain_rows = (
            PlainRows(mapping, places, workspace, received_at, self._cells) if may_be_plain(mapping, places) else None
        )
        self._read_mapped = self._read_note if mapping.kind == "cancellations" else self._read_line

    @property
    def is_staged(self) -> bool:
        """Whether a row's meaning depends on other rows, so that all are staged before any counts."""
        return self.mapping.kind == "lines" or self._has_occurrences

    def read(self, content: bytes, first_line: int) -> Reading:
        reading = Reading()
        numbered = self._rows(content, first_line)
        while piece := list(itertools.islice(numbered, ROWS_TOGETHER)):
            reading.counts["lines"] += len(piece)
            numbers, rows = zip(*piece, strict=True)
            orders = self._plain_rows.read(rows) if self._plain_rows and len(rows) >= FEWEST_TOGETHER else None
            if orders is not None:
                reading.orders += zip(numbers, orders, strict=True)
                continue
            for number, row in piece:
                self._read_row(number, row, reading)
        return reading

    def _rows(self, content: bytes, first_line: int) -> Iterator[tuple[int, list[str] | None]]:
        """The rows with the lines that they begin on, without blank ones; None for one that can't be read."""
        text = content.decode(self.mapping.encoding, "surrogateescape")
        # Lines end at line feeds alone, as the cutter has it.
        rows = csv.reader(io.StringIO(text, newline="\n"), delimiter=self.mapping.delimiter)
        while True:
            number = first_line + rows.line_num
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error:
                yield number, None
                continue
            if row:
                yield number, row

    def _read_row(self, number: int, row: list[str] | None, reading: Reading) -> None:
        width = self._places.width
        if row is None or len(row) != width:
            detail = "The row can't be read as CSV."
            if row is not None:
                detail = f"The row has {len(row)} fields where the header has {width}."
            reading.bad.append(BadRow(number, "malformed_row", detail))
            return
        try:
            self._read_mapped(number, row, reading)
        except BadCell as cell:
            reading.bad.append(BadRow(number, cell.code, f"{self.name_column(cell.field)}: {cell.detail}"))

    def name_column(self, field: str) -> str:
        """How a detail names the column: as the mapping and so the file's header spell it."""
        title = getattr(self.mapping.columns, field, None)
        return f'Column "{title}"' if title and title.isprintable() and len(title) <= _MAX_TEXT else f"Column {field}"

    def _read_note(self, number: int, row: list[str], reading: Reading) -> None:
        places = self._places
        order_id = self._cells.id("order_id", self._required(row, places.order_id, "order_id"))
        customer = row[places.customer_id].strip() if places.customer_id is not None else ""
        moment = row[places.occurred_at].strip() if places.occurred_at is not None else ""
        reading.notes.append(
            Note(
                number,
                order_id,
                self._cells.id("customer_id", customer) if customer else None,
                self._cells.time(moment) if moment else None,
            )
        )

    def _read_line(self, number: int, row: list[str], reading: Reading) -> None:
        places, mapping = self._places, self.mapping
        customer = row[places.customer_id or 0].strip()
        if not customer:
            reading.counts["skipped_without_customer"] += 1
            return
        order_id = "" if places.order_id is None else self._required(row, places.order_id, "order_id")
        quantity = None
        if places.quantity is not None:
            quantity = self._cells.number("quantity", self._required(row, places.quantity, "quantity"))
        prefix = mapping.cancellation_prefix
        cancels = bool(prefix and order_id.startswith(prefix)) or (quantity is not None and quantity < 0)
        if cancels and mapping.cancellations == "drop":
            reading.counts["dropped_cancellations"] += 1
            return
        customer_id = self._cells.id("customer_id", customer)
        occurred_at = self._cells.time(self._required(row, places.occurred_at, "occurred_at"))
        if not EARLIEST <= occurred_at <= self._latest:
            raise BadCell(
                "occurred_at", "must not be before 1970 nor more than 24 hours ahead.", "occurred_at_out_of_range"
            )
        exact = self._amount(row, quantity)
        amount = exact.quantize(MONEY_PLACES)
        exact_cost = self._cost(row, exact)
        cost = None if exact_cost is None else exact_cost.quantize(MONEY_PLACES)
        if amount != exact or cost != exact_cost:
            reading.counts["rounded_amounts"] += 1
        if mapping.kind == "orders" and amount < 0:
            cancels = True
            if mapping.cancellations == "drop":
                reading.counts["dropped_cancellations"] += 1
                return
        currency, rate = self._currency(row)
        fingerprint = None
        if self._needs_fingerprint:
            whole = "\x1f".join(row).encode("utf-8", "surrogateescape")
            fingerprint = hashlib.blake2b(whole, digest_size=16).digest()
        if places.order_id is None:
            # What identifies the row. Other columns may come and go from file to file.
            content = f"{customer_id}\n{occurred_at.isoformat()}\n{amount}"
            order_id = "row-" + hashlib.blake2b(content.encode(), digest_size=12).hexdigest()
        else:
            order_id = self._cells.id("order_id", order_id)
        reading.lines.append(
            Line(
                number,
                customer_id,
                order_id,
                cancels,
                occurred_at,
                amount,
                cost,
                currency,
                rate,
                self._text(row, places.channel, "channel", _MAX_TEXT),
                self._optional_id(row, places.campaign_id, "campaign_id"),
                self._item(row, quantity) if mapping.items else None,
                fingerprint,
            )
        )

    def _required(self, row: list[str], place: int | None, field: str) -> str:
        text = row[place or 0].strip()
        if not text:
            raise BadCell(field, "must not be empty.", "missing_value")
        return text

    def _optional_id(self, row: list[str], place: int | None, field: str) -> str | None:
        text = "" if place is None else row[place].strip()
        return self._cells.id(field, text) if text else None

    def _text(self, row: list[str], place: int | None, field: str, longest: int) -> str | None:
        if place is None:
            return None
        text = row[place].strip()
        if len(text) > longest:
            raise BadCell(field, f"must have at most {longest} characters.")
        if "\x00" in text or (not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)):
            raise BadCell(field, "must be a text in the encoding that the mapping names, without NUL characters.")
        return text or None

    def _amount(self, row: list[str], quantity: Decimal | None) -> Decimal:
        places = self._places
        if places.amount is not None:
            amount = self._cells.number("amount", self._required(row, places.amount, "amount"))
        else:
            price = self._cells.number("unit_price", self._required(row, places.unit_price, "unit_price"))
            amount = (quantity or Decimal(0)) * price
        if places.discount is not None and (discount := row[places.discount].strip()):
            amount -= self._cells.number("discount", discount)
        if abs(amount) >= MONEY_LIMIT:
            raise BadCell("amount" if places.amount is not None else "unit_price", "the amount is too large.")
        return amount

    def _cost(self, row: list[str], amount: Decimal) -> Decimal | None:
        places = self._places
        if places.cost is not None and (cost := row[places.cost].strip()):
            return self._cells.number("cost", cost)
        if places.profit is not None and (profit := row[places.profit].strip()):
            return amount - self._cells.number("profit", profit)
        return None

    def _currency(self, row: list[str]) -> tuple[str, Decimal | None]:
        places, own = self._places, self._workspace.currency
        currency = "" if places.currency is None else row[places.currency].strip().upper()
        if not currency:
            currency = self._default_currency
        elif _CURRENCY.fullmatch(currency) is None:
            raise BadCell("currency", "must be three letters (ISO 4217).")
        rate = self.mapping.exchange_rate
        if places.exchange_rate is not None and (text := row[places.exchange_rate].strip()):
            rate = self._cells.number("exchange_rate", text).quantize(RATE_PLACES)
            if not 0 < rate < 1_000_000_000:
                raise BadCell("exchange_rate", "must be greater than 0 and below 1000000000.")
        if currency == own:
            if places.exchange_rate is not None and rate not in (None, 1):
                raise BadCell("exchange_rate", "must be empty, or 1, in the workspace's own currency.")
            return currency, None
        if rate is None:
            raise BadCell("exchange_rate", "is required where the currency is not the workspace's.")
        return currency, rate

    def _item(self, row: list[str], quantity: Decimal | None) -> str | None:
        places = self._places
        item: dict[str, str] = {}
        for name in ("sku", "category"):
            text = self._text(row, getattr(places, name), name, 200)
            if text is not None:
                item[name] = text
        if quantity is not None:
            if abs(quantity) >= 1_000_000_000:
                raise BadCell("quantity", "must be below 1000000000.")
            item["quantity"] = f"{quantity.quantize(MONEY_PLACES):f}"
        if places.unit_price is not None and (price := row[places.unit_price].strip()):
            item["unit_price"] = f"{self._cells.number('unit_price', price).quantize(MONEY_PLACES):f}"
        return json.dumps(item) if item else None


def order_events(reading: Reading, mapping: ImportMapping) -> list[tuple[int, Any]]:
    """The events of rows that are orders of their own, or rows of the store that are made already, each with its line.

    Notes in ``reading`` what can't become an event, and what is dropped.
    """
    events: list[tuple[int, Any]] = list(reading.orders)
    for line in reading.lines:
        try:
            event = order_event(line, mapping)
        except Unfit as unfit:
            reading.bad.append(BadRow(line.line, unfit.code, unfit.detail))
            continue
        if event is None:
            reading.counts["dropped_cancellations"] += 1
        else:
            events.append((line.line, event))
    # Of two that disagree the first of the file wins.
    return sorted(events, key=itemgetter(0)) if reading.lines else events
