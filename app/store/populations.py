"""Figures of customers as scoring takes them: of a few for live values, of all in pieces for a run."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

import asyncpg
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.analytics.booking import Bookings
from app.analytics.population import TotalTooLarge
from app.analytics.summary import YEAR_DAYS
from app.store import copy_format
from app.store.engine import DriverStatement, copy_from_query, several
from app.store.figures import (
    FIGURE_COLUMNS,
    FIGURES_OF_CUSTOMERS,
    LIVE_FIGURES,
    LIVE_FIGURES_AND_SCORES,
    counted_sql,
    unadjusted_sql,
)
from app.store.scores import StoredScores

CUSTOMERS_A_PIECE = 50_000


class ScoredBefore(NamedTuple):
    """What a run stored of a customer: the digest of their figures then, null where it stored none, and the scores."""

    figures_digest: int | None
    scores: Any


class FoundCustomer(NamedTuple):
    """A customer that exists: their figures at a moment, None where nothing is booked, how much else is known, and what
    a run said of them."""

    figures: Mapping[str, Any] | None
    interaction_count: int
    before: ScoredBefore | None


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
    asked = {
        **moment,
        "customer_ids": several(customer_ids),
        "since": datetime.combine(since, time.min, tzinfo=UTC),
    }
    if scored_by is None:
        rows = await _LIVE_FIGURES.fetch(connection, asked)
    else:
        partition, run_id = scored_by
        rows = await _LIVE_FIGURES_AND_SCORES.fetch(connection, {**asked, "partition": partition, "run_id": run_id})
    summaries: dict[str, Any] = {row["customer_id"]: row for row in rows}
    figures: dict[str, Mapping[str, Any] | None] = {
        customer_id: dict(zip(_FIGURES, row, strict=False)) for customer_id, row in summaries.items()
    }
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
        customer_id: FoundCustomer(
            figures[customer_id], row["interaction_count"], _scored_before(row) if scored_by else None
        )
        for customer_id, row in summaries.items()
    }


_LIVE_FIGURES = DriverStatement(LIVE_FIGURES.text)
_LIVE_FIGURES_AND_SCORES = DriverStatement(LIVE_FIGURES_AND_SCORES.text)
_FIGURES = ("customer_id", "latest_order_event_at", "interaction_count", *FIGURE_COLUMNS)
"""What the statements tell before they tell of a run."""

_FIGURES_OF_CUSTOMERS = DriverStatement(FIGURES_OF_CUSTOMERS.text)


def _scored_before(row: Any) -> ScoredBefore | None:
    if row["scored_churn_state"] is None:  # Never null of a row that is there.
        return None
    digest, *scores = row[len(_FIGURES) :]
    return ScoredBefore(digest, StoredScores._make((row["customer_id"], *scores)))


_HASH = "hashtextextended(customer_id, CAST(:seed AS bigint))"
_RANGE = "customer_id > :after AND customer_id <= :until"
# Ids hold no line breaks, so one text of many is read faster than many.
_IDS = text(f"""
SELECT string_agg(customer_id, E'\\n' ORDER BY customer_id) AS ids,
       array_agg({_HASH} ORDER BY customer_id) AS hashes,
       array_agg(interaction_count ORDER BY customer_id) AS interaction_counts,
       array_agg(customer_id) FILTER (WHERE adjustment_count > 0) AS adjusted
FROM (
    SELECT customer_id, adjustment_count, interaction_count FROM customer_summary
    WHERE workspace_id = :workspace_id AND customer_id > :after AND customer_id <= :until
      AND first_event_at <= CAST(:as_of AS timestamptz)
    ORDER BY customer_id LIMIT :limit
) AS piece
""")
_BOOKING = ("customer", "day", "is_order", "units", "cost_units")


def _bookings_sql(rows: str, is_order: int, net: str, cost: str) -> str:
    return (
        f"SELECT {_HASH}, (local_day - DATE '1970-01-01')::bigint, {is_order}::bigint,"
        f" ({net} * 10000)::bigint, ({cost} * 10000)::bigint FROM {rows}"
    )


_UNADJUSTED = text(
    _bookings_sql(
        f"({unadjusted_sql(_RANGE + ' AND customer_id <> ALL(CAST(:adjusted AS text[]))')}) AS counted",
        1,
        "net",
        "cost",
    )
)
_ADJUSTED = text(f"""
WITH {counted_sql("customer_id = ANY(CAST(:adjusted AS text[]))")}
{_bookings_sql("counted", 1, "net", "cost")}
UNION ALL
{_bookings_sql("credited", 0, "-amount", "0")}
""")


_SIZE = text("""
SELECT count(*) AS customers, max(customer_id) AS last FROM customer_summary
WHERE workspace_id = :workspace_id AND first_event_at <= CAST(:as_of AS timestamptz)
""")
# A sample by hash, which falls on all ids alike.
_SAMPLE = text("""
SELECT customer_id FROM customer_summary
WHERE workspace_id = :workspace_id AND first_event_at <= CAST(:as_of AS timestamptz)
  AND (hashtext(customer_id) & 2147483647) % CAST(:every AS integer) = 0
ORDER BY customer_id
""")
_SAMPLED_A_PART = 100


async def cut_population(
    connection: AsyncConnection, workspace_id: int, as_of: datetime, parts_of: Callable[[int], int]
) -> list[str]:
    """Cut all customers with an event by ``as_of`` into parts of about one size; answers the last id of each, rising.

    ``parts_of`` tells how many parts so many customers make.
    """
    moment = {"workspace_id": workspace_id, "as_of": as_of}
    size = (await connection.execute(_SIZE, moment)).one()
    if not size.customers:
        return []
    parts = parts_of(size.customers)
    ends = {size.last}
    if parts > 1:
        every = max(1, size.customers // (parts * _SAMPLED_A_PART))
        sample = list((await connection.execute(_SAMPLE, {**moment, "every": every})).scalars())
        ends.update(sample[len(sample) * part // parts - 1] for part in range(1, parts) if len(sample) * part >= parts)
    return sorted(ends)


async def export_snapshot(connection: AsyncConnection) -> str:
    """Begin a transaction that sees one moment; others see the same by ``enter_snapshot`` until it ends.

    On a cluster that holds for the coordinator alone: there, what they see of a customer is as of one moment.
    """
    await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    name: str = (await connection.execute(text("SELECT pg_export_snapshot()"))).scalar_one()
    return name


class SnapshotGone(Exception):
    """Whoever exported the snapshot has ended, and what it showed can't be seen any more."""


async def enter_snapshot(connection: AsyncConnection, name: str) -> None:
    """See what another transaction sees; the first step of one that is REPEATABLE READ. Raises ``SnapshotGone``."""
    try:
        # It takes no parameter, and the name is one of the server's own.
        await connection.execute(text(f"SET TRANSACTION SNAPSHOT '{name}'"))
    except DBAPIError as error:
        # 42704: there is none of this name; 22023: it is no name of one; 55000: its transaction has just ended.
        if getattr(error.orig, "sqlstate", None) in ("42704", "22023", "55000"):
            raise SnapshotGone from error
        raise


@dataclass(frozen=True, slots=True)
class PopulationPiece:
    """Customers that follow one another by id, and what is booked of them up to the moment asked for.

    ``interaction_counts`` (n,) are those of all time.
    """

    customer_ids: list[str]
    interaction_counts: NDArray[np.int32]
    bookings: Bookings


async def read_population(
    connection: AsyncConnection, workspace_id: int, as_of: datetime, after: str, until: str
) -> AsyncGenerator[PopulationPiece, None]:
    """All customers with an event by ``as_of`` and an id above ``after``, up to ``until``: in their order, in pieces.

    The caller's transaction is REPEATABLE READ, so that ids, bookings and pieces agree.
    """
    moment = {"workspace_id": workspace_id, "as_of": as_of}
    seed = 0
    while True:
        asked = {**moment, "after": after, "until": until, "limit": CUSTOMERS_A_PIECE, "seed": seed}
        found = (await connection.execute(_IDS, asked)).one()
        if found.ids is None:
            return
        ids = found.ids.split("\n")
        hashes = np.array(found.hashes, dtype=np.int64)
        by_hash = np.argsort(hashes)
        if (np.diff(hashes[by_hash]) == 0).any():
            seed += 1  # Two customers of one hash, once in a thousand million pieces: with another seed they differ.
            continue
        values = {**moment, "after": after, "until": ids[-1], "adjusted": found.adjusted or [], "seed": seed}
        columns = await _copy_integers(connection, _UNADJUSTED, values, _BOOKING)
        if found.adjusted:
            more = await _copy_integers(connection, _ADJUSTED, values, _BOOKING)
            columns = {name: np.concatenate((columns[name], more[name])) for name in _BOOKING}
        columns["customer"] = by_hash[np.searchsorted(hashes, columns["customer"], sorter=by_hash)]
        yield PopulationPiece(ids, np.array(found.interaction_counts, dtype=np.int32), Bookings(**columns))
        after = ids[-1]


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
    connection: AsyncConnection, statement: TextClause, values: Mapping[str, Any], names: Sequence[str]
) -> dict[str, NDArray[np.int64]]:
    """Run a query whose columns are all bigint and not null through binary COPY, straight into arrays."""
    try:
        received = await copy_from_query(connection, statement, values)
    except asyncpg.NumericValueOutOfRangeError:
        raise TotalTooLarge("a customer's money is too large to be counted in ten-thousandths") from None
    return copy_format.read_integers(received, names)
