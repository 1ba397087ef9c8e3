"""The binary COPY format by columns: the server reads and writes the very rows that the driver's own COPY does."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from app.analytics.population import TotalTooLarge
from app.store import copy_format
from app.store.engine import driver_connection

_NAMES = ("champions", "需要關注", "at_risk", "")
_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
_ROWS = st.lists(
    st.tuples(
        st.integers(-(2**15), 2**15 - 1),
        st.none() | st.integers(-(2**31), 2**31 - 1),
        st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(allow_nan=False),
        st.none() | st.lists(st.floats(allow_nan=False), min_size=3, max_size=3),
        st.none() | st.integers(-9 * 10**18 + 1, 9 * 10**18 - 1) | st.integers(-30_000, 30_000),
        st.integers(-1, len(_NAMES) - 1),
        st.none() | _TEXTS,
        st.none() | st.sampled_from(["{}", '[{"a": "é"}, null]', '"€"']),
    ),
    max_size=30,
)
_TABLE = (
    "CREATE TEMP TABLE {name} (a smallint, b int, c bigint, d double precision, e double precision[], f numeric,"
    " g text, h text, i jsonb) ON COMMIT DROP"
)


def _fields(rows: list[tuple[Any, ...]]) -> list[copy_format.Field]:
    a, b, c, d, e, f, g, h, i = zip(*rows, strict=True) if rows else ((),) * 9

    def known(values: tuple[Any, ...]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.array([value is not None for value in values], dtype=np.bool_)

    def filled(values: tuple[Any, ...], dtype: Any) -> np.ndarray[Any, Any]:
        return np.array([value or 0 for value in values], dtype=dtype)

    return [
        copy_format.int2(np.array(a, dtype=np.int64)),
        copy_format.int4(filled(b, np.int64), known(b)),
        copy_format.int8(np.array(c, dtype=np.int64)),
        copy_format.float8(np.array([np.nan if value is None else value for value in d], dtype=np.float64)),
        copy_format.float8_array(
            np.array([value or [0.0] * 3 for value in e], dtype=np.float64).reshape(-1, 3), known(e)
        ),
        copy_format.numeric(filled(f, np.int64), known(f)),
        copy_format.coded_text(np.array(g, dtype=np.int64), _NAMES),
        copy_format.text(h),
        copy_format.jsonb(i),
    ]


@given(rows=_ROWS)
async def test_a_stream_stores_what_the_driver_would_store(engine: AsyncEngine, rows: list[tuple[Any, ...]]) -> None:
    records = [
        (
            *row[:5],
            None if row[5] is None else Decimal(row[5]).scaleb(-4),
            None if row[6] < 0 else _NAMES[row[6]],
            *row[7:],
        )
        for row in rows
    ]
    stored = {}
    async with engine.connect() as connection, (driver := await driver_connection(connection)).transaction():
        for name in ("ours", "theirs"):
            await driver.execute(_TABLE.format(name=name))

        async def stream() -> Any:
            yield copy_format.HEADER
            yield copy_format.rows(_fields(rows))
            yield copy_format.TRAILER

        await driver.copy_to_table("ours", source=stream(), format="binary")
        await driver.copy_records_to_table("theirs", records=records)
        for name in ("ours", "theirs"):
            received = bytearray()

            async def receive(data: bytes, received: bytearray = received) -> None:
                received.extend(data)

            await driver.copy_from_table(name, output=receive, format="binary")
            stored[name] = bytes(received)
    assert stored["ours"] == stored["theirs"]


@given(rows=st.lists(st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 2), max_size=20))
def test_integers_that_are_written_are_read_back(rows: list[tuple[int, int]]) -> None:
    table = np.array(rows, dtype=np.int64).reshape(-1, 2)
    written = copy_format.rows([copy_format.int8(table[:, 0]), copy_format.int8(table[:, 1])])
    read = copy_format.read_integers(copy_format.HEADER + written + copy_format.TRAILER, ("x", "y"))
    assert (read["x"].tolist(), read["y"].tolist()) == (table[:, 0].tolist(), table[:, 1].tolist())


@pytest.mark.parametrize("units", [9 * 10**18, -9 * 10**18, 10**30])
def test_money_beyond_exactness_is_refused(units: int) -> None:
    with pytest.raises(TotalTooLarge):
        copy_format.numeric(np.array([1, units]))
