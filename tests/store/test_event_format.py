"""Events in binary COPY: the server stores the very rows that the driver's own COPY stores."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from app.scalars import MONEY_LIMIT
from app.store.engine import driver_connection
from app.store.event_format import encode_events
from app.store.events import EventRow

_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
_NAIVE = (datetime(1970, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001 - as Hypothesis takes them
_MOMENTS = st.datetimes(*_NAIVE, timezones=st.just(UTC))
_MONEY = st.decimals(0, MONEY_LIMIT - Decimal("0.0001"), places=4) | st.sampled_from(
    [Decimal("0.0000"), Decimal("0.0001"), Decimal("9999.9999"), Decimal("10000.0000"), Decimal("99999999999.9999")]
)
_RATES = st.decimals("0.0000000001", 10**15, places=10) | st.sampled_from([Decimal("0.0000000001"), Decimal("1e-7")])
_ROWS = st.lists(
    st.builds(
        EventRow,
        workspace_id=st.integers(1, 2**31 - 1),
        customer_id=_TEXTS,
        event_id=_TEXTS,
        type=st.sampled_from(["order.placed", "order.refunded", "complaint.opened"]),
        occurred_at=_MOMENTS,
        received_at=_MOMENTS,
        fingerprint=st.binary(min_size=16, max_size=16),
        local_day=st.dates(date(1969, 12, 31), date(2100, 1, 1)),
        order_id=st.none() | _TEXTS,
        amount=st.none() | _MONEY,
        currency=st.none() | st.sampled_from(["USD", "TWD"]),
        exchange_rate=st.none() | _RATES,
        cost=st.none() | _MONEY,
        data=st.none() | st.sampled_from(["{}", '{"channel": "é"}', '{"items": [{"sku": "€", "quantity": null}]}']),
    ),
    max_size=20,
)


@given(rows=_ROWS)
async def test_a_stream_stores_what_the_driver_would_store(engine: AsyncEngine, rows: list[EventRow]) -> None:
    stored: dict[str, Any] = {}
    async with engine.connect() as connection, (driver := await driver_connection(connection)).transaction():
        for name in ("ours", "theirs"):
            await driver.execute(f"CREATE TEMP TABLE {name} (LIKE events) ON COMMIT DROP")

        async def stream() -> Any:
            yield encode_events(rows).stream

        await driver.copy_to_table("ours", source=stream(), columns=EventRow._fields, format="binary")
        await driver.copy_records_to_table("theirs", records=rows, columns=EventRow._fields)
        for name in ("ours", "theirs"):
            # As text, which tells the decimals of numbers too; in the order in which they came.
            records = await driver.fetch(f"SELECT CAST(t AS text) FROM {name} AS t ORDER BY ctid")
            stored[name] = [record[0] for record in records]
    assert len(stored["ours"]) == len(rows)
    assert stored["ours"] == stored["theirs"]
