"""Rows of a file that are read many at a time: the same events and the same bad rows as read one by one."""

import csv
import io
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.candidates import Candidates, prepare
from app.imports import reading
from app.imports.mapping import ImportMapping, find_columns
from app.imports.reading import Reading, RowReader, order_events
from app.rejections import Rejection
from app.store.workspaces import Workspace

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BERLIN = Workspace(1, "shop", "EUR", ZoneInfo("Europe/Berlin"), bytes(32))
HEADER = ["order", "customer", "when", "total", "cost", "currency", "channel", "note"]
COLUMNS = {"order_id": "order", "customer_id": "customer", "occurred_at": "when", "amount": "total"}
OPTIONAL = {"cost": "cost", "currency": "currency", "channel": "channel"}
USUAL = ["o-1", "c-1", "2026-01-31T23:30:00Z", "12.50", "", "", "", ""]


def mapping(columns: dict[str, str] | None = None, **rest: Any) -> ImportMapping:
    return ImportMapping.model_validate({"kind": "orders", "columns": columns or COLUMNS | OPTIONAL, **rest})


def content_of(rows: list[list[str]]) -> bytes:
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n").writerows(rows)
    return written.getvalue().encode("utf-8", "surrogateescape")


def read(told: ImportMapping, content: bytes, fewest: int) -> tuple[Reading, Candidates, list[Rejection], list[int]]:
    """What becomes of a file whose rows are read together from so many on."""
    with patch.object(reading, "FEWEST_TOGETHER", fewest):
        found = RowReader(told, find_columns(told, HEADER), BERLIN, NOW).read(content, 2)
    events = order_events(found, told)
    candidates, rejections = prepare(BERLIN, [event for _, event in events], NOW)
    return found, candidates, rejections, [line for line, _ in events]


_IDS = st.sampled_from(
    ["o-1", "o-2", "C1", " a ", "", "a b", "é", "x" * 122, "x" * 123, "x" * 129, "\x00", "a\nb", "\udce9" * 123]
)
_INSTANTS = st.sampled_from(
    [
        *("2026-01-31T23:30:00Z", "2026-01-31t23:30:00Z", "2026-01-31T23:30:00z", "2026-01-31 23:30:00.123456789Z"),
        *("2026-01-31", "2026-01-31 10:00", "2026-01-31T10:00:00+02:00", "2026-01-31T10:00Z", "2026-01-31T24:00:00Z"),
        *("2026-02-30T00:00:00Z", "1969-12-31T23:59:59Z", "2026-03-02T12:00:01Z", "31.1.2026 10:00", "", " ", "soon"),
    ]
)
_MONEY = st.sampled_from(
    [
        "12.50",
        "0",
        "",
        " 7 ",
        "-3",
        "+3",
        "1e2",
        "1.00005",
        "1,5",
        "1 000",
        "$5",
        "٣",
        "99999999999.9999",
        "1" * 12,
        "x",
    ]
)
_CELLS = (
    _IDS,
    _IDS,
    _INSTANTS,
    _MONEY,
    _MONEY,
    st.sampled_from(["EUR", "eur", "", " EUR", "USD", "x"]),
    st.sampled_from(["", "web", ' "web" ', "\\", "é", "x" * 101, "a\tb"]),
    st.sampled_from(["", "two\nlines", "é"]),
)
_ROWS = st.tuples(*(st.just(usual) | cells for usual, cells in zip(USUAL, _CELLS, strict=True))).map(list)
_MAPPINGS = st.builds(
    lambda optional, rest: mapping(COLUMNS | {name: OPTIONAL[name] for name in optional}, **rest),
    st.sets(st.sampled_from(sorted(OPTIONAL))),
    st.fixed_dictionaries(
        {},
        optional={
            "occurred_at_format": st.sampled_from(["%d.%m.%Y %H:%M", "%Y-%m-%dT%H:%M:%SZ"]),
            "time_zone": st.just("America/New_York"),
            "exchange_rate": st.just("2"),
            "cancellations": st.just("drop"),
            "cancellation_prefix": st.just("C"),
            "id_replacement": st.just("_"),
            "currency_signs": st.just(True),
            "thousands_separator": st.just(" "),
        },
    ),
)


@given(told=_MAPPINGS, rows=st.lists(_ROWS | st.just(USUAL) | st.just(USUAL[:3]) | st.just([]), max_size=6))
@example(told=mapping(), rows=[USUAL, USUAL])
@example(told=mapping(), rows=[USUAL, ["x" * 122 + "\udce9", *USUAL[1:]]])
@example(told=mapping(cancellation_prefix="C"), rows=[USUAL, ["C1", *USUAL[1:]]])
@example(told=mapping(), rows=[USUAL, [*USUAL[:5], "USD", "", ""]])
@example(told=mapping(COLUMNS), rows=[[*USUAL[:3], "12.5", "", "", "", "two\nlines"], ["o-2", *USUAL[1:]]])
@example(told=mapping(), rows=[USUAL, [*USUAL[:2], "2026-01-31t23:30:00Z", *USUAL[3:]]])
@example(told=mapping(), rows=[[*USUAL[:2], "2026-01-31T23:30:00+01:00", *USUAL[3:]], USUAL])
def test_rows_are_read_as_one_by_one(told: ImportMapping, rows: list[list[str]]) -> None:
    content = content_of(rows)
    one_by_one, *events = read(told, content, fewest=1_000)
    together, *same_events = read(told, content, fewest=1)
    assert same_events == events
    assert (together.bad, +together.counts) == (one_by_one.bad, +one_by_one.counts)


@pytest.mark.parametrize(
    ("told", "changes"),
    [
        (mapping(), {}),
        (mapping(COLUMNS), {4: "left alone"}),
        (mapping(), {4: "3.25", 5: "eur", 6: "web shop"}),
        (mapping(), {2: "2026-01-31 10:30"}),
        (mapping(occurred_at_format="%d.%m.%y"), {2: "31.01.26"}),
    ],
)
def test_usual_rows_are_read_together(told: ImportMapping, changes: dict[int, str]) -> None:
    row = [changes.get(place, cell) for place, cell in enumerate(USUAL)]
    found, candidates, rejections, lines = read(told, content_of([[f"o-{n}", *row[1:]] for n in range(600)]), fewest=5)
    assert (len(found.orders), found.lines, rejections) == (600, [], [])
    assert lines == list(range(2, 602))
    assert [one.order_id for one in candidates.rows] == [f"o-{n}" for n in range(600)]


def test_one_bad_row_among_many_is_told_by_its_line_and_keeps_the_order_of_the_file() -> None:
    rows = [[f"o-{n}", *USUAL[1:]] for n in range(600)]
    rows[301] = ["o-301", "c-1", "yesterday", *USUAL[3:]]
    found, candidates, _, lines = read(mapping(), content_of(rows), fewest=5)
    assert [(bad.line, bad.code) for bad in found.bad] == [(303, "invalid_value")]
    assert (len(found.orders), len(found.lines)) == (350, 249)
    assert lines == [n + 2 for n in range(600) if n != 301]
    assert [one.order_id for one in candidates.rows] == [f"o-{n}" for n in range(600) if n != 301]
