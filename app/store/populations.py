"""Figures of customers as scoring takes them: of a few for live values, of all in pieces for a run."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import asyncpg
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import TextClause, text
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.ext.asyncio import AsyncConnection

from app.analytics.population import TotalTooLarge
from app.analytics.summary import COUNT_FIGURES, DAY_FIGURES, YEAR_DAYS
from app.store.engine import DriverStatement, driver_connection, several
from app.store.figures import (
    FIGURE_COLUMNS,
    FIGURES_OF_CUSTOMER_RANGE,
    FIGURES_OF_CUSTOMERS,
    LIVE_FIGURES,
    counted_sql,
    days_sql,
)

CUSTOMERS_A_PIECE = 50_000
_DIALECT: Any = dialect.dialect()  # type: ignore[no-untyped-call]
_CELL = (("length_", ">i4"), ("value_", ">i8"))


class StoredShare(NamedTuple):
    """What a run stored of a customer that only its whole population could tell, and the spend that it holds for."""

    cumulative_share: float | None
    abc_net_spend: Decimal


class FoundCustomer(NamedTuple):
    """A customer that exists: their figures at a moment, None where nothing is booked, and how much else is known."""

    figures: Mapping[str, Any] | None
    interaction_count: int
    stored: StoredShare | None


async def read_customers(
    connection: AsyncConnection,
    workspace_id: int,
    customer_ids: Sequence[str],
    as_of: datetime,
    as_of_day: date,
    window_days: int | None,
    scored_by: tuple[int, int] | None = None,
) -> dict[str, FoundCustomer]:
    """The customers that exist, with their figures at ``as_of``, and what the run ``scored_by`` (partition and number)
    stored of them.

    One statement on the summaries and the periods' orders. Customers with an order event after ``as_of`` take a
    second one, from all their orders.
    """
    # The longest period looked at begins with this day; a day more covers every time zone.
    since = as_of_day - timedelta(days=max(YEAR_DAYS, window_days or 0) + 1)
    moment = {
        "workspace_id": workspace_id,
        "as_of": as_of,
        "as_of_day": as_of_day,
        "window_days": window_days,
    }
    partition, run_id = scored_by or (None, None)
    rows = await _LIVE_FIGURES.fetch(
        connection,
        {
            **moment,
            "customer_ids": several(customer_ids),
            "since": datetime.combine(since, time.min, tzinfo=UTC),
            "partition": partition,
            "run_id": run_id,
        },
    )
    summaries: dict[str, Mapping[str, Any]] = {row["customer_id"]: row for row in rows}
    figures: dict[str, Mapping[str, Any] | None] = dict(summaries)
    later = [
        customer_id
        for customer_id, row in summaries.items()
        if row["latest_order_event_at"] is not None and row["latest_order_event_at"] > as_of
    ]
    if later:
        figures.update(dict.fromkeys(later))
        rows = await _FIGURES_OF_CUSTOMERS.fetch(connection, {**moment, "customer_ids": several(later)})
        figures.update({row["customer_id"]: row for row in rows})
    return {
        customer_id: FoundCustomer(figures[customer_id], row["interaction_count"], _share(row))
        for customer_id, row in summaries.items()
    }


_LIVE_FIGURES = DriverStatement(LIVE_FIGURES.text)
_FIGURES_OF_CUSTOMERS = DriverStatement(FIGURES_OF_CUSTOMERS.text)


def _share(row: Mapping[str, Any]) -> StoredShare | None:
    net_spend = row["scored_net_spend"]
    return None if net_spend is None else StoredShare(row["cumulative_share"], net_spend)


def _whole(name: str) -> str:
    """A figure as a bigint: days since 1970, or ten-thousandths of the currency unit, or a count; 0 for none."""
    if name in DAY_FIGURES:
        return f"coalesce(figures.{name} - DATE '1970-01-01', 0)::bigint"
    if name in COUNT_FIGURES:
        return f"coalesce(figures.{name}, 0)::bigint"
    return f"(coalesce(figures.{name}, 0) * 10000)::bigint"


_PIECE = text(f"""
SELECT {", ".join(_whole(name) for name in FIGURE_COLUMNS)}
FROM customer_summary AS summary
LEFT JOIN ({FIGURES_OF_CUSTOMER_RANGE.text}) AS figures USING (customer_id)
WHERE summary.workspace_id = :workspace_id AND summary.customer_id > :after AND summary.customer_id <= :until
  AND summary.first_event_at <= CAST(:as_of AS timestamptz)
ORDER BY customer_id
""")
_PURCHASE_DAYS = text(f"""
WITH {days_sql("customer_id > :after AND customer_id <= :until")}
SELECT (local_day - DATE '1970-01-01')::bigint FROM booked WHERE orders > 0 ORDER BY customer_id, local_day
""")
_IDS = text("""
SELECT customer_id FROM customer_summary
WHERE workspace_id = :workspace_id AND customer_id > :after AND first_event_at <= CAST(:as_of AS timestamptz)
ORDER BY customer_id LIMIT :limit
""")


async def count_customers(connection: AsyncConnection, workspace_id: int, as_of: datetime) -> int:
    count: int = (
        await connection.execute(
            text(
                "SELECT count(*) FROM customer_summary"
                " WHERE workspace_id = :workspace_id AND first_event_at <= CAST(:as_of AS timestamptz)"
            ),
            {"workspace_id": workspace_id, "as_of": as_of},
        )
    ).scalar_one()
    return count


async def read_population(
    connection: AsyncConnection, workspace_id: int, as_of: datetime, as_of_day: date, window_days: int | None
) -> AsyncIterator[tuple[list[str], dict[str, NDArray[np.int64]]]]:
    """All customers with an event by ``as_of``, in the order of their ids, in pieces: ids, and an array a figure.

    The caller's transaction is REPEATABLE READ, so that ids, figures and pieces agree.
    """
    moment = {"workspace_id": workspace_id, "as_of": as_of}
    after = ""
    while True:
        rows = await connection.execute(_IDS, {**moment, "after": after, "limit": CUSTOMERS_A_PIECE})
        ids = list(rows.scalars())
        if not ids:
            return
        piece = {"after": after, "until": ids[-1], "as_of_day": as_of_day, "window_days": window_days}
        yield ids, await _copy_integers(connection, _PIECE, {**moment, **piece}, FIGURE_COLUMNS)
        after = ids[-1]


async def read_purchase_days(
    connection: AsyncConnection, workspace_id: int, as_of: datetime, after: str, until: str
) -> NDArray[np.int64]:
    """Every purchase day of the customers of a range of ids, by customer and day: as many as their figures count."""
    values = {"workspace_id": workspace_id, "as_of": as_of, "after": after, "until": until}
    return (await _copy_integers(connection, _PURCHASE_DAYS, values, ("day",)))["day"]


_LATEST_DAYS = text(f"""
WITH {counted_sql("customer_id = :customer_id")}
SELECT DISTINCT local_day FROM counted ORDER BY local_day DESC LIMIT :limit
""")


async def latest_purchase_days(
    connection: AsyncConnection, workspace_id: int, customer_id: str, as_of: datetime, limit: int
) -> list[date]:
    """A customer's last purchase days at ``as_of``, the latest first."""
    values = {"workspace_id": workspace_id, "customer_id": customer_id, "as_of": as_of, "limit": limit}
    return list((await connection.execute(_LATEST_DAYS, values)).scalars())


async def _copy_integers(
    connection: AsyncConnection, statement: TextClause, values: dict[str, Any], names: Sequence[str]
) -> dict[str, NDArray[np.int64]]:
    """Run a query whose columns are all bigint and not null through binary COPY, straight into arrays."""
    compiled = statement.compile(dialect=_DIALECT)
    received = bytearray()

    async def receive(data: bytes) -> None:
        received.extend(data)

    driver = await driver_connection(connection)
    arguments = (values[name] for name in compiled.positiontup or ())
    try:
        await driver.copy_from_query(str(compiled), *arguments, output=receive, format="binary")
    except asyncpg.NumericValueOutOfRangeError:
        raise TotalTooLarge("a customer's money is too large to be counted in ten-thousandths") from None
    # The binary format: a header of 19 bytes, a trailer of 2; a row is its column count, then length and value of each.
    row = np.dtype([("columns", ">i2"), *((f"{part}{name}", kind) for name in names for part, kind in _CELL)])
    table = np.frombuffer(received, dtype=row, offset=19, count=(len(received) - 21) // row.itemsize)
    return {name: table[f"value_{name}"].astype(np.int64) for name in names}
