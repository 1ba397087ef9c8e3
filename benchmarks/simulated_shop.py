"""A shop's customers and orders, simulated and laid straight into the tables, so that a million are there in a minute.

How often a customer buys, and how long they stay, differs between customers as BG/NBD and its kin assume. Nothing is
cancelled or refunded. Rows are what ingest would have written; its own speed is measured elsewhere.
"""

from datetime import UTC, datetime
from typing import Any

import numpy as np

CUSTOMERS_A_PIECE = 50_000
DAYS = 730

_EVENTS = """
INSERT INTO events (workspace_id, customer_id, event_id, type, occurred_at, received_at, fingerprint, local_day,
                    order_id, amount, currency)
SELECT $1, 'c-' || lpad(customer::text, 7, '0'), 'evt-' || number, 'order.placed', at, now(), '\\x00', at::date,
       'o-' || number, units::numeric / 100, 'USD'
FROM unnest($2::int[], $3::int[], $4::float8[], $5::int[]) AS told (customer, number, epoch, units),
     LATERAL (SELECT to_timestamp(epoch) AS at) AS moment
"""
_SUMMARIES = """
INSERT INTO customer_summary (workspace_id, customer_id, event_count, order_count, purchase_days, first_purchase_day,
                              last_purchase_day, net_spend, order_spend, first_day_spend, latest_order_event_at,
                              first_event_at, last_event_at, updated_at)
SELECT workspace_id, customer_id, count(*), count(*), count(DISTINCT local_day), min(local_day), max(local_day),
       sum(amount), sum(amount), sum(amount) FILTER (WHERE local_day = first_day), max(occurred_at),
       min(occurred_at), max(occurred_at), now()
FROM (SELECT *, min(local_day) OVER (PARTITION BY customer_id) AS first_day FROM events
      WHERE workspace_id = $1 AND NOT EXISTS (
          SELECT FROM customer_summary WHERE customer_summary.workspace_id = $1
          AND customer_summary.customer_id = events.customer_id)) AS placed
GROUP BY workspace_id, customer_id
"""


def customer_id(number: int) -> str:
    return f"c-{number:07}"


async def fill(connection: Any, workspace_id: int, customers: int, seed: int = 1) -> int:
    """Lay down the orders of ``customers`` customers of a workspace up to now; answers how many orders."""
    chance = np.random.default_rng(seed)
    now = datetime.now(UTC).timestamp() - 60
    orders = 0
    for start in range(0, customers, CUSTOMERS_A_PIECE):
        size = min(CUSTOMERS_A_PIECE, customers - start)
        first = now - chance.uniform(0, DAYS, size) * 86_400
        rate = chance.gamma(0.7, 1 / 60, size)
        # Leaves after a purchase with a chance of their own.
        leaves = chance.beta(0.8, 3.0, size)
        kept = [(np.arange(size), first)]
        alive, at = np.arange(size), first
        while alive.size:
            stays = chance.random(alive.size) > leaves[alive]
            alive, at = alive[stays], at[stays]
            at = at + chance.exponential(1 / np.maximum(rate[alive], 1e-9)) * 86_400
            alive, at = alive[at < now], at[at < now]
            kept.append((alive, at))
        customer = np.concatenate([who for who, _ in kept]) + start
        epoch = np.concatenate([when for _, when in kept])
        mean = chance.lognormal(3.5, 0.6, size)
        units = np.maximum(1, np.rint(100 * mean[customer - start] * chance.gamma(4, 0.25, customer.size)))
        # Rows of a customer came over the years; they lie apart in the table as they would.
        order = np.argsort(epoch)
        await connection.execute(
            _EVENTS,
            workspace_id,
            customer[order].tolist(),
            np.arange(orders, orders + customer.size).tolist(),
            epoch[order].tolist(),
            units[order].astype(int).tolist(),
            timeout=600,
        )
        orders += customer.size
    await connection.execute(_SUMMARIES, workspace_id, timeout=600)
    return orders


async def settle(connection: Any) -> None:
    """What the server would do by itself within minutes."""
    for table in ("events", "customer_summary", "scores"):
        await connection.execute(f"VACUUM ANALYZE {table}", timeout=600)
