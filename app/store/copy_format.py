"""PostgreSQL's binary COPY format, read and written a column at a time, without a Python object for each value.

A stream is a header, rows, and a trailer. A row is the number of its fields (int16), and of each its length in bytes
(int32, −1 for null) and the bytes. Every field here is a matrix of bytes, a row each, as wide as its longest value;
rows side by side are squeezed to the bytes that count. Source: the PostgreSQL manual, COPY, "Binary Format", and the
``*_send`` and ``*_recv`` functions of the types.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.analytics.population import UNITS_LIMIT, TotalTooLarge
from app.scalars import MICROSECOND

Bytes = NDArray[np.uint8]
Known = NDArray[np.bool_] | None
"""Which values are not null; None for all of them."""

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_LENGTH = 4
_ARRAY_HEAD = 20
_FLOAT8 = 701
POSITIVE, NEGATIVE = 0x0000, 0x4000
_NUMERIC_BASE = 10_000
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""What the format counts moments and days from."""

JSONB_VERSION = b"\x01"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of n rows.

    ``cells`` (n, w) holds length and bytes of each value. Of those that are not ``known`` only the length counts; of
    values of several widths, ``sizes`` (n,) says how many bytes count.
    """

    cells: Bytes
    known: Known = None
    sizes: NDArray[np.integer] | None = None


def _fixed(n: int, known: Known, **parts: tuple[str, Any]) -> Field:
    """A field of values of one width, given as the parts (dtype, values) that they consist of."""
    cells = np.empty(n, dtype=[("length", ">i4"), *((name, *_shaped(kind)) for name, (kind, _) in parts.items())])
    width = cells.itemsize
    cells["length"] = width - _LENGTH
    for name, (_, values) in parts.items():
        cells[name] = values
    if known is not None and known.all():
        known = None
    if known is not None:
        cells["length"][~known] = -1
    return Field(cells.view(np.uint8).reshape(n, width), known=known)


def _shaped(kind: str) -> tuple[str] | tuple[str, int]:
    """("i2", 5) of "5*i2", as NumPy takes it."""
    count, _, one = kind.rpartition("*")
    return (one, int(count)) if count else (one,)


def int2(values: NDArray[Any], known: Known = None) -> Field:
    return _fixed(len(values), known, value=(">i2", values))


def int4(values: NDArray[Any], known: Known = None) -> Field:
    return _fixed(len(values), known, value=(">i4", values))


def int8(values: NDArray[Any], known: Known = None) -> Field:
    return _fixed(len(values), known, value=(">i8", values))


def timestamptz(moment: datetime, n: int) -> Field:
    """The same moment in n rows."""
    return int8(np.full(n, (moment - EPOCH) // MICROSECOND))


def float8(values: NDArray[np.float64]) -> Field:
    """NaN is null."""
    return _fixed(len(values), ~np.isnan(values), value=(">f8", values))


def float8_array(values: NDArray[np.float64], known: Known = None) -> Field:
    """``values`` (n, k), none of them null, are n arrays of k numbers."""
    n, k = values.shape
    element = np.empty((n, k), dtype=[("length", ">i4"), ("value", ">f8")])
    element["length"], element["value"] = 8, values
    head = np.broadcast_to(np.array([1, 0, _FLOAT8, k, 1], dtype=">i4"), (n, 5))  # dimensions, nulls, type, size, base
    return _fixed(n, known, head=("5*>i4", head), body=(f"{12 * k}*u1", element.view(np.uint8).reshape(n, 12 * k)))


def numeric(units: NDArray[Any], known: Known = None) -> Field:
    """Money in ten-thousandths as numeric with four decimals.

    Raises
    ------
    TotalTooLarge : an amount is not below 9e18 ten-thousandths, where it might not be exact any more.
    """
    largest = max(int(units.max()), -int(units.min())) if len(units) else 0
    if largest >= UNITS_LIMIT:
        raise TotalTooLarge("money is too large to be stored")
    # Digits of base 10,000, the last of them after the decimal point. The server drops the zeros before and after.
    count = 1
    while largest >= _NUMERIC_BASE**count:
        count += 1
    rest = np.abs(units.astype(np.int64))
    digits = np.empty((len(units), count), dtype=np.int64)
    for place in range(count - 1, 0, -1):
        rest, digits[:, place] = np.divmod(rest, _NUMERIC_BASE)
    digits[:, 0] = rest
    return _fixed(
        len(units),
        known,
        count=(">i2", count),
        weight=(">i2", count - 2),
        sign=(">u2", np.where(units < 0, NEGATIVE, POSITIVE)),
        decimals=(">i2", 4),
        digits=(f"{count}*>i2", digits),
    )


def coded_text(codes: NDArray[Any], names: Sequence[str]) -> Field:
    """Codes into ``names``; −1 is null."""
    table = text([*names, None])  # A code of −1 finds the last row.
    return Field(table.cells[codes], sizes=table.sizes[codes] if table.sizes is not None else None)


def text(values: Sequence[str | None], prefix: bytes = b"") -> Field:
    """Texts, each after the same ``prefix``; None is null."""
    if not any(values):
        lengths = np.zeros(len(values), dtype=np.int64)
        return _varying(b"", lengths, np.array([value is not None for value in values], dtype=np.bool_), prefix)
    known = np.array([value is not None for value in values], dtype=np.bool_)
    told = [value or "" for value in values]
    encoded = "".join(told).encode()
    sizes = map(len, told) if encoded.isascii() else (len(value.encode()) for value in told)
    return _varying(encoded, np.fromiter(sizes, dtype=np.int64, count=len(told)), known, prefix)


def jsonb(values: Sequence[str | None]) -> Field:
    """JSON texts; None is null."""
    return text(values, prefix=JSONB_VERSION)


def _varying(encoded: bytes, lengths: NDArray[np.int64], known: NDArray[np.bool_], prefix: bytes) -> Field:
    width = int(lengths.max(initial=0))
    begin = _LENGTH + len(prefix)
    cells = np.zeros((len(lengths), begin + width), dtype=np.uint8)
    told = np.where(known, lengths + len(prefix), -1).astype(">i4")
    cells[:, :_LENGTH] = told.view(np.uint8).reshape(-1, _LENGTH)
    cells[:, _LENGTH:begin] = np.frombuffer(prefix, dtype=np.uint8)
    cells[:, begin:][np.arange(width) < lengths[:, None]] = np.frombuffer(encoded, dtype=np.uint8)
    sizes = np.where(known, begin + lengths, _LENGTH)
    return Field(cells, sizes=sizes.astype(np.int16 if width < 30_000 else np.int64))


def rows(fields: Sequence[Field]) -> bytes:
    """Rows of the fields side by side, as the stream has them between header and trailer."""
    n = len(fields[0].cells)
    width = 2 + sum(field.cells.shape[1] for field in fields)
    table = np.empty((n, width), dtype=np.uint8)
    table[:, :2] = np.array([len(fields)], dtype=">i2").view(np.uint8)
    counts = np.ones((n, width), dtype=np.bool_)
    at = 2
    for field in fields:
        end = at + field.cells.shape[1]
        table[:, at:end] = field.cells
        if field.known is not None:
            counts[:, at + _LENGTH : end] = field.known[:, None]
        if field.sizes is not None:
            np.less(np.arange(end - at, dtype=field.sizes.dtype), field.sizes[:, None], out=counts[:, at:end])
        at = end
    return table[counts].tobytes()


def read_integers(stream: bytes | bytearray, names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """The columns of a stream that are all bigint and not null."""
    cell = (("length", ">i4"), ("value", ">i8"))
    row = np.dtype([("fields", ">i2"), *((f"{part}_{name}", kind) for name in names for part, kind in cell)])
    count = (len(stream) - len(HEADER) - len(TRAILER)) // row.itemsize
    table = np.frombuffer(stream, dtype=row, offset=len(HEADER), count=count)
    return {name: table[f"value_{name}"].astype(np.int64) for name in names}


def read_aggregates(stream: bytes | bytearray, kinds: Sequence[str]) -> list[Any]:
    """The only row of a stream whose fields are texts, or arrays of what takes eight bytes and is not null.

    ``kinds`` has "text", or a dtype (">i8", ">f8") of each; a null is an empty text or array.
    """
    found: list[Any] = []
    at = len(HEADER) + 2
    for kind in kinds:
        size = max(int.from_bytes(stream[at : at + _LENGTH], signed=True), 0)
        at += _LENGTH
        if kind == "text":
            found.append(stream[at : at + size].decode())
        else:
            # Of an array: dimensions, nulls, type, count and base come first.
            element = np.dtype([("length", ">i4"), ("value", kind)])
            count = max(size - _ARRAY_HEAD, 0) // element.itemsize
            elements = np.frombuffer(stream, dtype=element, offset=at + _ARRAY_HEAD if count else 0, count=count)
            found.append(elements["value"].astype(kind[1:]))
        at += size
    return found
