"""A simulated shop of any size, laid straight into the tables: customers who buy as BG/NBD says, and interactions.

About three orders a customer over two years. The tables hold what ingest would have left: the summaries are made by
the service's own statement. Ingest's own speed is measured elsewhere.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import workspaces
from app.store import customers
from app.store.engine import create_engine
from app.store.workspaces import Workspace, get_workspace
from benchmarks.customer_ids import customer_id

DAYS = 730
AS_OF = datetime(2025, 12, 31, tzinfo=UTC)
"""The end of a shop whose runs are to be the same on every day."""
A_PIECE = 50_000


@dataclass(frozen=True)
class Orders:
    """One row an order, by customer: arrays (m,) of customer number, second of the ``DAYS`` days and cents."""

    customer: NDArray[np.int64]
    second: NDArray[np.int64]
    cents: NDArray[np.int64]


def make_orders(size: int, seed: int = 6) -> Orders:
    """Orders of ``size`` customers: gamma rates, beta chances to leave after a purchase, gamma amounts."""
    chance = np.random.default_rng(seed)
    span = DAYS * 86_400.0
    rate = chance.gamma(0.8, 1 / 54.0, size) / 86_400
    leaving = chance.beta(0.9, 2.4, size)
    worth = chance.gamma(4.0, 1_500.0, size)
    there = np.arange(size)
    now = chance.uniform(0, span, size)
    customer, second = [], []
    while there.size:
        customer.append(there)
        second.append(now[there])
        now[there] += chance.exponential(1 / rate[there])
        there = there[(now[there] < span) & (chance.random(there.size) > leaving[there])]
    who, when = np.concatenate(customer), np.concatenate(second).astype(np.int64)
    order = np.lexsort((when, who))
    who, when = who[order], when[order]
    return Orders(who, when, np.maximum(chance.gamma(3.0, worth[who] / 3.0).astype(np.int64), 1))


_ORDERS = """
INSERT INTO events (workspace_id, customer_id, event_id, type, occurred_at, received_at, fingerprint, local_day,
                    order_id, amount, currency)
SELECT $1, 'c-' || lpad(customer::text, 7, '0'), 'e-' || number, 'order.placed', at, at,
       decode(md5(number::text), 'hex'), (at AT TIME ZONE 'UTC')::date, 'o-' || number,
       (cents / 100.0)::numeric(20, 4), 'USD'
FROM (SELECT customer, cents, $2::bigint + place AS number, $3::timestamptz + make_interval(secs => second) AS at
      FROM unnest($4::bigint[], $5::bigint[], $6::bigint[]) WITH ORDINALITY AS o (customer, second, cents, place)) AS o
"""
_SUMMARIES = """
INSERT INTO customer_summary (workspace_id, customer_id, event_count, interaction_count, latest_order_event_at,
                              first_event_at, last_event_at, updated_at)
SELECT workspace_id, customer_id, count(*), count(*) FILTER (WHERE type <> 'order.placed'),
       max(occurred_at) FILTER (WHERE type = 'order.placed'), min(occurred_at), max(occurred_at), max(received_at)
FROM events WHERE workspace_id = $1 AND customer_id BETWEEN $2 AND $3 GROUP BY workspace_id, customer_id
"""
# Ten kinds in turn, as a shop may have them: most speak of little, some have words.
_INTERACTIONS = """
INSERT INTO events (workspace_id, customer_id, event_id, type, occurred_at, received_at, fingerprint, local_day, data)
SELECT $1, 'c-' || lpad(customer::text, 7, '0'), 'i-' || customer || '-' || kind, told.type, at, at,
       decode(md5(customer::text || kind), 'hex'), (at AT TIME ZONE 'UTC')::date, told.data::jsonb
FROM (SELECT customer, kind,
             $4::timestamptz + make_interval(secs => (customer * 7919 + kind * 5500001) % 63000000) AS at
      FROM generate_series($2::bigint, $3::bigint) AS customer, generate_series(0, $5::int - 1) AS kind) AS told_at
JOIN LATERAL (VALUES
    (0, 'visit.recorded', '{"duration_seconds": 40}'),
    (1, 'complaint.opened', json_build_object('complaint_id', 'k-' || customer, 'severity', 'high',
                                              'text', 'too expensive and rude staff')::text),
    (2, 'complaint.resolved', json_build_object('complaint_id', 'k-' || customer, 'satisfied', customer % 2 = 0)::text),
    (3, 'survey.answered', json_build_object('kind', 'nps', 'score', customer % 11)::text),
    (4, 'order.delivered', json_build_object(
        'order_id', 'o-' || customer, 'promised_at', to_char(at - interval '2 days', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
    )::text),
    (5, 'payment.failed', '{"reason": "expired_card"}'),
    (6, 'competitor.mentioned', '{"competitor": "Rival"}'),
    (7, 'support.unresolved', '{"topic": "returns"}'),
    (8, 'exit.answered', json_build_object('text', 'I moved to city ' || customer % 500)::text),
    (9, 'custom.recorded', '{"name": "app.removed"}')
) AS told (number, type, data) ON told.number = kind % 10
"""


async def fill(
    database_url: str, name: str, size: int, *, end: datetime | None = None, seed: int = 6, interactions: int = 0
) -> int:
    """Lay down the orders of ``size`` customers of a workspace that has none, over the ``DAYS`` days up to ``end``,
    which is now where it is not told; and so many interactions of each. Answers the number of orders."""
    orders = make_orders(size, seed)
    begin = (end or datetime.now(UTC) - timedelta(minutes=1)) - timedelta(days=DAYS)
    connection = await asyncpg.connect(database_url, statement_cache_size=0)
    number = await connection.fetchval("SELECT id FROM workspaces WHERE name = $1", name)
    rebuilt = {table: await _drop_indexes(connection, table) for table in ("events", "customer_summary")}
    bounds = np.searchsorted(orders.customer, np.arange(0, size + A_PIECE, A_PIECE))
    for piece, (start, stop) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        # Orders of a customer came over the years; they lie apart in the table as they would.
        places = start + np.argsort(orders.second[start:stop], kind="stable")
        columns = (column[places].tolist() for column in (orders.customer, orders.second, orders.cents))
        await connection.execute(_ORDERS, number, start, begin, *columns)
        if interactions:
            last = min((piece + 1) * A_PIECE, size) - 1
            await connection.execute(_INTERACTIONS, number, piece * A_PIECE, last, begin, interactions)
    await _rebuild(connection, "events", rebuilt["events"])
    ids = [customer_id(customer) for customer in range(size)]
    pieces = [ids[start : start + A_PIECE] for start in range(0, size, A_PIECE)]
    for piece_ids in pieces:
        await connection.execute(_SUMMARIES, number, piece_ids[0], piece_ids[-1])
    await _rebuild(connection, "customer_summary", rebuilt["customer_summary"])
    engine = create_engine(database_url, statement_timeout_ms=0)
    for piece_ids in pieces:
        async with engine.begin() as transaction:
            await customers.recompute_summaries(transaction, number, piece_ids)
    await engine.dispose()
    await connection.execute("VACUUM (ANALYZE) events, customer_summary")
    await connection.close()
    return int(orders.customer.size)


async def add_shop(engine: AsyncEngine, name: str) -> Workspace:
    """Make a workspace for a shop, where no service is there to be asked for one."""
    await workspaces.create_workspace(engine, name, "USD", "UTC", workspaces.SCOPES)
    async with engine.connect() as connection:
        number = await connection.scalar(text("SELECT id FROM workspaces WHERE name = :name"), {"name": name})
        return await get_workspace(connection, number)


async def settle(database_url: str) -> None:
    """Do after a run what the server would do by itself within minutes."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("VACUUM ANALYZE scores", timeout=600)
    await connection.close()


async def _rebuild(connection: Any, table: str, statements: list[str]) -> None:
    for statement in statements:
        await connection.execute(statement)
    await connection.execute(f"ANALYZE {table}")


async def _drop_indexes(connection: Any, table: str) -> list[str]:
    """Drop the indexes of a table; answers what makes them again."""
    rows = await connection.fetch(
        "SELECT c.conname, i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS made,"
        " pg_get_constraintdef(c.oid) AS constrained"
        " FROM pg_index AS i LEFT JOIN pg_constraint AS c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u')"
        " WHERE i.indrelid = $1::regclass",
        table,
    )
    statements = []
    for row in rows:
        if row["conname"]:
            await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {row['conname']}")
            statements.append(f"ALTER TABLE {table} ADD CONSTRAINT {row['conname']} {row['constrained']}")
        else:
            await connection.execute(f"DROP INDEX {row['name']}")
            statements.append(row["made"])
    return statements
