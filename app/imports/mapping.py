"""The mapping document: which column of a shop's CSV file means what."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import InvalidRequest
from app.rejections import explain
from app.scalars import Currency, Rate

MAX_COLUMNS = 1_000
_SHOWN_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,100}")

ColumnName = Annotated[str, Field(strict=True, min_length=1, max_length=200)]


class ImportColumns(BaseModel):
    """Names of columns, as the header spells them. Only `customer_id` is always needed."""

    model_config = ConfigDict(extra="forbid")

    order_id: ColumnName | None = Field(
        default=None,
        description="Without it, `kind` `orders` derives an id from customer, time and amount of the row.",
        examples=["InvoiceNo"],
    )
    customer_id: ColumnName | None = Field(
        default=None, description="Rows without a customer are counted and skipped.", examples=["CustomerID"]
    )
    occurred_at: ColumnName | None = Field(default=None, examples=["InvoiceDate"])
    amount: ColumnName | None = Field(default=None, description="What the row comes to, in money.")
    quantity: ColumnName | None = Field(default=None, examples=["Quantity"])
    unit_price: ColumnName | None = Field(
        default=None, description="With `quantity`, in place of `amount`.", examples=["UnitPrice"]
    )
    discount: ColumnName | None = Field(default=None, description="Money taken off the row's amount.")
    cost: ColumnName | None = Field(default=None, description="What the row costs the business.")
    profit: ColumnName | None = Field(default=None, description="In place of `cost`: cost = amount − profit.")
    currency: ColumnName | None = None
    exchange_rate: ColumnName | None = None
    channel: ColumnName | None = None
    campaign_id: ColumnName | None = None
    sku: ColumnName | None = Field(default=None, description="Of an item; see `items`.")
    category: ColumnName | None = Field(default=None, description="Of an item; see `items`.")


class ImportMapping(BaseModel):
    """How to read a CSV file. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["orders", "lines", "cancellations"] = Field(
        description="What a row is: an order, a line of an order (in any order of lines), or the note that an order "
        "was cancelled."
    )
    columns: ImportColumns
    occurred_at_format: Annotated[str, Field(min_length=2, max_length=100)] | None = Field(
        default=None,
        description="A strptime pattern. Without it: ISO 8601, a date alone or with a time, with or without a zone.",
        examples=["%m/%d/%Y %H:%M"],
    )
    time_zone: Annotated[str, Field(max_length=64)] | None = Field(
        default=None,
        description="IANA name, for times without a zone. Without it: the workspace's.",
        examples=["Europe/London"],
    )
    currency: Currency | None = Field(
        default=None, description="Of all rows, where no column tells. Without it: the workspace's.", examples=["GBP"]
    )
    exchange_rate: Rate | None = Field(
        default=None,
        description="Of all rows, where no column tells: units of the workspace's currency for one of `currency`.",
    )
    cancellations: Literal["refund", "drop"] = Field(
        default="refund",
        description="What becomes of rows of negative quantity, of order ids with `cancellation_prefix`, and of orders "
        "that come to less than zero: a refund without order at their own time, or nothing.",
    )
    cancellation_prefix: Annotated[str, Field(min_length=1, max_length=20)] | None = Field(
        default=None, description="Order ids that begin with it are cancellations.", examples=["C"]
    )
    duplicates: Literal["keep", "drop"] = Field(
        default="keep", description="Whether rows equal to an earlier one in every field count again."
    )
    items: bool = Field(
        default=False,
        description="Of `kind` `lines`: whether an order keeps its items (the first 1,000), from `sku`, `category`, "
        "`quantity` and `unit_price`.",
    )
    encoding: Literal["utf-8", "latin-1", "windows-1252"] = "utf-8"
    delimiter: Literal[",", ";", "\t", "|"] = ","
    decimal_separator: Literal[".", ","] = "."
    thousands_separator: Literal[",", ".", " ", "'"] | None = None
    currency_signs: bool = Field(
        default=False, description="Whether money may come with a sign such as $ or a code such as USD."
    )
    id_replacement: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]$")] | None = Field(
        default=None,
        description="Stands in ids for each character that ids can't have (white space, / ? # %). Without it, rows "
        "with such ids are bad rows.",
        examples=["_"],
    )


@dataclass(frozen=True, slots=True)
class Places:
    """Where the columns of the mapping are in a row; None for those that it doesn't name."""

    width: int
    order_id: int | None
    customer_id: int | None
    occurred_at: int | None
    amount: int | None
    quantity: int | None
    unit_price: int | None
    discount: int | None
    cost: int | None
    profit: int | None
    currency: int | None
    exchange_rate: int | None
    channel: int | None
    campaign_id: int | None
    sku: int | None
    category: int | None


def read_mapping(document: str | bytes) -> ImportMapping:
    """Read a mapping document. Raises ``InvalidRequest`` that names the first field at fault."""
    try:
        mapping = ImportMapping.model_validate_json(document)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        if problem["type"] == "json_invalid":
            raise _invalid("mapping must be a JSON object.", "") from None
        code, detail, pointer = explain(problem, "it")
        raise InvalidRequest(f"mapping: {detail}", code=code, pointer=f"mapping{pointer}") from None
    except ValueError:  # Text that is not Unicode.
        raise _invalid("mapping must be a JSON object.", "") from None
    _check(mapping)
    return mapping


def _invalid(detail: str, pointer: str) -> InvalidRequest:
    return InvalidRequest(detail, code="invalid_mapping", pointer=f"mapping{pointer}")


def _check(mapping: ImportMapping) -> None:
    """What can't be told from one field alone."""
    columns = mapping.columns

    def need(name: str, why: str = "") -> None:
        if getattr(columns, name) is None:
            raise _invalid(f"mapping: columns must name {name}{why}.", f"/columns/{name}")

    if mapping.kind == "cancellations":
        need("order_id")
    else:
        need("customer_id")
        need("occurred_at")
        if columns.amount is None:
            need("quantity", " and unit_price, or amount")
            need("unit_price", " where it names no amount")
        elif columns.unit_price is not None and not mapping.items:
            raise _invalid(
                "mapping: columns must name amount or unit_price, not both (unless items are kept).",
                "/columns/unit_price",
            )
        if mapping.kind == "lines":
            need("order_id", " to sum lines by")
    if columns.cost is not None and columns.profit is not None:
        raise _invalid("mapping: columns must name cost or profit, not both.", "/columns/profit")
    if columns.currency is not None and mapping.currency is not None:
        raise _invalid("mapping: currency must be a column or a constant, not both.", "/currency")
    if columns.exchange_rate is not None and mapping.exchange_rate is not None:
        raise _invalid("mapping: exchange_rate must be a column or a constant, not both.", "/exchange_rate")
    if mapping.items and mapping.kind != "lines":
        raise _invalid("mapping: items can be kept only where kind is lines.", "/items")
    if mapping.cancellation_prefix is not None and columns.order_id is None:
        raise _invalid("mapping: cancellation_prefix needs the column order_id.", "/cancellation_prefix")
    if mapping.thousands_separator == mapping.decimal_separator:
        raise _invalid("mapping: thousands_separator must differ from decimal_separator.", "/thousands_separator")
    if mapping.time_zone is not None and mapping.time_zone not in available_timezones():
        raise _invalid('mapping: time_zone must be an IANA name such as "Europe/London".', "/time_zone")
    if mapping.occurred_at_format is not None and not _tells_a_day(mapping.occurred_at_format):
        raise _invalid(
            "mapping: occurred_at_format must be a strptime pattern with year, month and day.", "/occurred_at_format"
        )


def _tells_a_day(pattern: str) -> bool:
    moment = datetime(2003, 11, 27, 22, 45, 58, tzinfo=UTC)
    try:
        return datetime.strptime(moment.strftime(pattern), pattern).date() == moment.date()  # noqa: DTZ007 - a day
    except (ValueError, UnicodeError, re.error):
        return False


def find_columns(mapping: ImportMapping, header: Sequence[str]) -> Places:
    """The places of the mapped columns. Raises ``InvalidRequest`` (``missing_column``) that names the first missing."""
    places: dict[str, int | None] = {}
    for field, name in mapping.columns:
        if name is None:
            places[field] = None
            continue
        found = [place for place, title in enumerate(header) if title == name]
        if len(found) != 1:
            shown = f' ("{name}")' if _SHOWN_NAME.fullmatch(name) else ""
            raise InvalidRequest(
                f"The header has no column {field}{shown} as the mapping names it."
                if not found
                else f"The header has the column {field}{shown} more than once.",
                code="ambiguous_column" if found else "missing_column",
                pointer=f"mapping/columns/{field}",
            )
        places[field] = found[0]
    return Places(width=len(header), **places)
