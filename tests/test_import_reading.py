"""Rows of a file are read as its mapping tells; what can't be read is told by line and column."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.errors import InvalidRequest
from app.imports.mapping import ImportMapping, find_columns, read_mapping
from app.imports.reading import Line, Reading, RowReader
from app.store.workspaces import Workspace

WORKSPACE = Workspace(1, "shop", "USD", ZoneInfo("America/New_York"), bytes(32))
RECEIVED_AT = datetime(2025, 6, 1, tzinfo=UTC)
HEADER = ["order", "customer", "when", "total"]
COLUMNS = {"order_id": "order", "customer_id": "customer", "occurred_at": "when", "amount": "total"}


def mapping(columns: dict[str, str] | None = None, **rest: Any) -> ImportMapping:
    return ImportMapping.model_validate({"kind": "orders", "columns": columns or COLUMNS, **rest})


def read(content: str | bytes, given: ImportMapping, header: list[str] = HEADER) -> Reading:
    reader = RowReader(given, find_columns(given, header), WORKSPACE, RECEIVED_AT)
    return reader.read(content.encode() if isinstance(content, str) else content, 2)


def read_one(content: str | bytes, given: ImportMapping, header: list[str] = HEADER) -> Line:
    reading = read(content, given, header)
    assert reading.bad == []
    (line,) = reading.lines
    return line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-07-01", "2024-07-01T04:00:00+00:00"),
        ("2024-07-01 10:30", "2024-07-01T14:30:00+00:00"),
        ("2024-01-01T10:30:00", "2024-01-01T15:30:00+00:00"),
        ("2024-07-01T10:30:00.25Z", "2024-07-01T10:30:00.250000+00:00"),
        ("2024-07-01 10:30:00 +02:00", "2024-07-01T08:30:00+00:00"),
    ],
)
def test_times_without_a_zone_are_in_the_workspaces(text: str, expected: str) -> None:
    assert read_one(f"o-1,c-1,{text},5\n", mapping()).occurred_at.isoformat() == expected


def test_times_follow_the_mappings_pattern_and_zone() -> None:
    given = mapping(occurred_at_format="%d.%m.%y %H:%M", time_zone="Europe/Berlin")
    assert read_one("o-1,c-1,31.12.24 23:30,5\n", given).occurred_at == datetime(2024, 12, 31, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("12.5", {}, "12.5"),
        ("1e2", {}, "100"),
        (".5", {}, "0.5"),
        ('"1,234,567.5"', {"thousands_separator": ","}, "1234567.5"),
        ("1234.5", {"thousands_separator": ","}, "1234.5"),
        ("1 234.5", {"thousands_separator": " "}, "1234.5"),
        ("1\u202f234.5", {"thousands_separator": " "}, "1234.5"),
        ('"1.234,50"', {"decimal_separator": ",", "thousands_separator": "."}, "1234.5"),
        ("$12.50", {"currency_signs": True}, "12.5"),
        ("12.50 USD", {"currency_signs": True}, "12.5"),
        ('"US$ 1,200"', {"currency_signs": True, "thousands_separator": ","}, "1200"),
    ],
)
def test_numbers_are_read_as_the_mapping_spells_them(text: str, options: dict[str, Any], expected: str) -> None:
    assert read_one(f"o-1,c-1,2024-07-01,{text}\n", mapping(**options)).amount == Decimal(expected)


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        ("o-1,c-1,2024-07-01,5,6", "malformed_row", "The row has 5 fields where the header has 4."),
        ("o-1,c-1,2024-07-01", "malformed_row", "The row has 3 fields where the header has 4."),
        ("o-1,c-1,2024-07-01,twelve", "invalid_value", 'Column "total": must be a number'),
        ("o-1,c-1,2024-07-01,nan", "invalid_value", 'Column "total": must be a number'),
        ("o-1,c-1,2024-07-01,1e99", "invalid_value", 'Column "total": must be below'),
        ('o-1,c-1,2024-07-01,"1,2"', "invalid_value", 'Column "total": must be a number'),
        ("o-1,c-1,2024-07-01,", "missing_value", 'Column "total": must not be empty'),
        ("o-1,c-1,2024-02-30,5", "invalid_value", 'Column "when": must be a date that exists'),
        ("o-1,c-1,yesterday,5", "invalid_value", 'Column "when": must be a date or a time'),
        ("o-1,c-1,1969-12-30,5", "occurred_at_out_of_range", 'Column "when"'),
        ("o-1,c-1,2026-07-01,5", "occurred_at_out_of_range", 'Column "when"'),
        ("o-1,c-1,0001-01-01,5", "occurred_at_out_of_range", 'Column "when"'),
        (",c-1,2024-07-01,5", "missing_value", 'Column "order": must not be empty'),
        ("o 1,c-1,2024-07-01,5", "invalid_value", 'Column "order": must be 1 to 128 characters'),
        ("o-1,c\x00,2024-07-01,5", "invalid_value", 'Column "customer": must be 1 to 128 characters'),
        ("o\r1,c-1,2024-07-01,5", "malformed_row", "The row can't be read as CSV."),
    ],
)
def test_a_bad_row_is_told_by_line_and_column_and_spoils_no_other(row: str, code: str, words: str) -> None:
    reading = read(f"a,c-1,2024-07-01,1\n{row}\nb,c-1,2024-07-01,2\n", mapping())
    assert [line.order_id for line in reading.lines] == ["a", "b"]
    (bad,) = reading.bad
    assert (bad.line, bad.code) == (3, code)
    assert bad.detail.startswith(words)
    assert reading.counts["lines"] == 3


def test_lines_are_counted_through_quoted_line_feeds_and_blank_lines() -> None:
    reading = read('a,"c\n1",2024-07-01,1\n\nb,c,2024-07-01,x\n', mapping())
    assert [(bad.line, bad.code) for bad in reading.bad] == [(2, "invalid_value"), (5, "invalid_value")]


def test_bytes_of_another_encoding_are_told_where_they_matter() -> None:
    reading = read(b"a,M\xfcller,2024-07-01,1\n", mapping())
    assert [(bad.line, bad.code) for bad in reading.bad] == [(2, "invalid_value")]
    assert read_one(b"a,M\xfcller,2024-07-01,1\n", mapping(encoding="latin-1")).customer_id == "Müller"
    unmapped = [*HEADER, "note"]
    assert read_one(b"a,c,2024-07-01,1,\xfc\n", mapping(), unmapped).customer_id == "c"


def test_characters_that_ids_lack_can_be_replaced() -> None:
    line = read_one("#10 01,a/b,2024-07-01,1\n", mapping(id_replacement="_"))
    assert (line.order_id, line.customer_id) == ("_10_01", "a_b")


def test_money_beyond_four_decimals_is_rounded_half_to_even_and_counted() -> None:
    columns = {"order_id": "o", "customer_id": "c", "occurred_at": "t", "quantity": "q", "unit_price": "p"}
    reading = read(
        "1,c,2024-07-01,3,0.33335\n2,c,2024-07-01,1,0.33335\n3,c,2024-07-01,1,0.33345\n4,c,2024-07-01,2,0.5\n",
        mapping(columns, kind="lines"),
        ["o", "c", "t", "q", "p"],
    )
    assert [str(line.amount) for line in reading.lines] == ["1.0000", "0.3334", "0.3334", "1.0000"]
    assert reading.counts["rounded_amounts"] == 3


def test_discount_and_profit_are_taken_off() -> None:
    columns = COLUMNS | {"discount": "off", "profit": "gain"}
    header = [*HEADER, "off", "gain"]
    line = read_one("o,c,2024-07-01,10,1.5,2\n", mapping(columns), header)
    assert (line.amount, line.cost) == (Decimal("8.5"), Decimal("6.5"))
    line = read_one("o,c,2024-07-01,10,,\n", mapping(columns), header)
    assert (line.amount, line.cost) == (Decimal("10"), None)


def test_currency_and_rate_come_from_columns_or_constants() -> None:
    columns = COLUMNS | {"currency": "cur", "exchange_rate": "rate"}
    header = [*HEADER, "cur", "rate"]
    line = read_one("o,c,2024-07-01,10,eur,1.1\n", mapping(columns), header)
    assert (line.currency, line.exchange_rate) == ("EUR", Decimal("1.1"))
    line = read_one("o,c,2024-07-01,10,,1\n", mapping(columns), header)
    assert (line.currency, line.exchange_rate) == ("USD", None)
    for row in ("o,c,2024-07-01,10,EUR,\n", "o,c,2024-07-01,10,USD,2\n", "o,c,2024-07-01,10,Euro,2\n"):
        (bad,) = read(row, mapping(columns), header).bad
        assert bad.detail.startswith(('Column "rate"', 'Column "cur"'))
    line = read_one("o,c,2024-07-01,10\n", mapping(currency="EUR", exchange_rate="1.25"))
    assert (line.currency, line.exchange_rate) == ("EUR", Decimal("1.25"))


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ("{", "mapping"),
        ("[]", "mapping"),
        ('{"kind":"orders"}', "mapping/columns"),
        ('{"kind":"orders","columns":{"customer_id":"c","occurred_at":"t"}}', "mapping/columns/quantity"),
        ('{"kind":"lines","columns":{"customer_id":"c","occurred_at":"t","amount":"a"}}', "mapping/columns/order_id"),
        ('{"kind":"orders","columns":{"customer_id":"c","amount":"a"}}', "mapping/columns/occurred_at"),
        ('{"kind":"orders","columns":{"color":"c"}}', "mapping/columns/color"),
        ('{"kind":"cancellations","columns":{"customer_id":"c"}}', "mapping/columns/order_id"),
    ],
)
def test_a_mapping_that_does_not_hold_together_is_told_by_its_field(document: str, pointer: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_mapping(document)
    assert refused.value.pointer == pointer


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("occurred_at_format", "%Y-%m"),
        ("occurred_at_format", "%Q"),
        ("time_zone", "Mars/Olympus"),
        ("thousands_separator", "."),
        ("currency", "euro"),
        ("items", True),
    ],
)
def test_an_option_that_makes_no_sense_is_told_by_its_name(option: str, value: object) -> None:
    document = mapping().model_dump_json(exclude_unset=True)[:-1]
    with pytest.raises(InvalidRequest) as refused:
        read_mapping(
            f'{document},"{option}":{str(value).lower() if value is True else f"{value!r}"[:]}}}'.replace("'", '"')
        )
    assert refused.value.pointer == f"mapping/{option}"


def test_a_column_that_the_header_lacks_or_has_twice_is_told_by_name() -> None:
    with pytest.raises(InvalidRequest, match=r'no column amount \("total"\)') as refused:
        find_columns(mapping(), ["order", "customer", "when", "sum"])
    assert (refused.value.code, refused.value.pointer) == ("missing_column", "mapping/columns/amount")
    with pytest.raises(InvalidRequest, match="more than once"):
        find_columns(mapping(), [*HEADER, "total"])
