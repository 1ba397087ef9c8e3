"""A stream is cut between records, wherever its pieces end."""

import csv
import io
import itertools
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import MalformedBody
from app.imports import cutting
from app.imports.cutting import Chunk, RecordCutter
from app.imports.execution import BATCH_EVENTS

cell = st.text(st.sampled_from('ab ",;\n\r'), max_size=6)
table = st.lists(st.lists(cell, min_size=2, max_size=3), min_size=1, max_size=12)


def cut(cutter: RecordCutter, content: bytes, piece_bytes: int) -> list[Chunk]:
    pieces = (content[start : start + piece_bytes] for start in range(0, len(content), piece_bytes))
    chunks = [cutter.feed(piece) for piece in pieces] + [cutter.finish()]
    return [chunk for chunk in chunks if chunk is not None]


def feed_all(cutter: RecordCutter, pieces: list[bytes]) -> None:
    for piece in pieces:
        cutter.feed(piece)


def rows(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="\n")))


@given(table=table, piece_bytes=st.integers(1, 40), chunk_bytes=st.integers(1, 60), chunk_lines=st.integers(1, 9))
def test_chunks_hold_the_records_of_the_whole(
    table: list[list[str]], piece_bytes: int, chunk_bytes: int, chunk_lines: int
) -> None:
    written = io.StringIO()
    csv.writer(written).writerows(table)
    content = written.getvalue().encode()
    with pytest.MonkeyPatch.context() as context:
        context.setattr(cutting, "CHUNK_BYTES", chunk_bytes)
        context.setattr(cutting, "CHUNK_LINES", chunk_lines)
        chunks = cut(RecordCutter(","), content, piece_bytes)
    assert b"".join(chunk.content for chunk in chunks) == content
    assert list(itertools.chain.from_iterable(rows(chunk.content) for chunk in chunks)) == rows(content)
    line = 1
    for chunk in chunks:
        assert chunk.first_line == line
        line += chunk.content.count(b"\n")


@pytest.mark.parametrize(
    ("record", "records"), [(b"x" * 59 + b"\n", 8_500), (b'"of\nthree\nlines",5\n', 2_834), (b"x" * 499 + b"\n", 3_500)]
)
def test_a_chunk_is_of_so_many_lines_or_bytes_that_it_is_stored_at_once(record: bytes, records: int) -> None:
    *whole, _ = cut(RecordCutter(","), record * 60_000, cutting.PIECE_BYTES)
    for chunk in whole:
        assert records <= chunk.content.count(record) <= records + cutting.PIECE_BYTES / len(record)
        assert chunk.content.count(record) <= BATCH_EVENTS


def test_a_field_that_stays_open_is_not_looked_through_for_every_piece() -> None:
    cutter = RecordCutter(",")
    with patch.object(cutter, "_last_end", wraps=cutter._last_end) as look:
        cutter.feed(b'a,"' + b'""\n' * (cutting.CHUNK_LINES + 500))
        assert look.call_count == 1
        feed_all(cutter, [b"x", b"\n"] * 1_000)
        assert look.call_count == 1
    assert cutter.feed(b'"\n' + b"b,c\n" * cutting.CHUNK_LINES) is not None


@given(content=st.text("ab\n").map(str.encode), cut_first=st.booleans())
def test_the_line_reached_is_the_last_of_which_anything_has_come(content: bytes, cut_first: bool) -> None:
    with pytest.MonkeyPatch.context() as context:
        context.setattr(cutting, "CHUNK_BYTES", 1 if cut_first else 1_000_000)
        cutter = RecordCutter()
        cutter.feed(b"one\ntwo\n")
        cutter.feed(content)
    assert cutter.line == len((b"one\ntwo\n" + content).splitlines())


def test_a_quote_within_a_field_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "CHUNK_BYTES", 8)
    content = b'a,5" pipe\nb,"6"" pipe"\nc,7" pipe"\nd,8\n'
    chunks = cut(RecordCutter(","), content, 5)
    assert len(chunks) > 1
    assert [row for chunk in chunks for row in rows(chunk.content)] == rows(content)
    assert len(rows(content)) == 4


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_quote_that_is_never_closed_is_told_by_its_line(end: bytes) -> None:
    with pytest.raises(MalformedBody, match=r"^Line 3: the record that begins here has a quote") as refused:
        cut(RecordCutter(","), b'a,b\n1,"two\n\n'.replace(b'"two\n', b"2") + b'3,"four\n5,6' + end, 1_000)
    assert refused.value.code == "malformed_csv"


def test_a_record_without_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "CHUNK_BYTES", 100)
    monkeypatch.setattr(cutting, "MAX_RECORD_BYTES", 50)
    for delimiter, code in ((",", "malformed_csv"), (None, "line_too_long")):
        cutter = RecordCutter(delimiter)
        with pytest.raises(MalformedBody, match="Line 2") as refused:
            feed_all(cutter, [b"a,b\n", b'1,"', *[b"x" * 10] * 1_000])
        assert refused.value.code == code
        assert cutter.received_bytes < 250
