"""What reports sum up, set-based: one scan a report, and as many rows as a chart has marks."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.figures import counted_sql

_BOUGHT = "FILTER (WHERE days_since_last_order IS NOT NULL)"

_BY_RFM = text(f"""
SELECT r, f, segment, count(*) AS scored, count(days_since_last_order) AS customers,
       coalesce(sum(days_since_last_order), 0)::bigint AS days_since_last_order,
       coalesce(sum(order_count) {_BOUGHT}, 0)::bigint AS order_count,
       coalesce(sum(net_spend) {_BOUGHT}, 0) AS net_spend
FROM scores
WHERE workspace_id = :workspace_id AND partition = :partition AND run_id = :run_id
GROUP BY r, f, segment
""")


async def sum_by_rfm(connection: AsyncConnection, workspace_id: int, run_id: int, partition: int) -> Sequence[Row[Any]]:
    """Customers and sums of their figures by R, F and segment. ``customers`` are those with a counted order."""
    return (
        await connection.execute(_BY_RFM, {"workspace_id": workspace_id, "run_id": run_id, "partition": partition})
    ).all()


async def find_earlier_run(connection: AsyncConnection, workspace_id: int, run_id: int) -> str | None:
    """The name of the last succeeded run before this one."""
    return (
        await connection.execute(
            text(
                "SELECT name FROM runs WHERE workspace_id = :workspace_id AND status = 'succeeded' AND id < :run_id"
                " ORDER BY id DESC LIMIT 1"
            ),
            {"workspace_id": workspace_id, "run_id": run_id},
        )
    ).scalar_one_or_none()


_OF_RUN = """
    SELECT customer_id, segment, abc_grade, churn_state, net_spend, clv_total
    FROM score_history WHERE workspace_id = :workspace_id AND run_id = """

SEGMENT_MOVES, GRADE_MOVES, STATE_MOVES, ALL_MOVES = 0b011, 0b101, 0b110, 0b111
"""What a row of ``sum_moves`` is grouped by: SQL's grouping() of segment, grade and state."""

_MOVES = text(f"""
SELECT grouping(before.segment, before.abc_grade, before.churn_state) AS grouped_by,
       coalesce(before.segment, before.abc_grade, before.churn_state) AS before,
       coalesce(after.segment, after.abc_grade, after.churn_state) AS after,
       count(*) AS customers, count(before.customer_id) AS known_before, count(after.customer_id) AS known_after,
       coalesce(sum(before.net_spend), 0) AS net_spend_before, coalesce(sum(after.net_spend), 0) AS net_spend_after,
       coalesce(sum(before.clv_total), 0) AS clv_total_before, coalesce(sum(after.clv_total), 0) AS clv_total_after
FROM ({_OF_RUN}:from_run) AS before FULL JOIN ({_OF_RUN}:to_run) AS after USING (customer_id)
GROUP BY GROUPING SETS ((before.segment, after.segment), (before.abc_grade, after.abc_grade),
                        (before.churn_state, after.churn_state), ())
""")


async def sum_moves(connection: AsyncConnection, workspace_id: int, from_run: int, to_run: int) -> Sequence[Row[Any]]:
    """Customers and money by where they were and are: by segment, by grade, by churn state, and all together.

    A customer whom one of the runs did not score is null there.
    """
    return (
        await connection.execute(_MOVES, {"workspace_id": workspace_id, "from_run": from_run, "to_run": to_run})
    ).all()


CUSTOMERS, ORDERS, CREDITS = "customers", "orders", "credits"

_BY_MONTH = text(f"""
WITH {counted_sql("TRUE")}
SELECT '{ORDERS}' AS part, month::date AS month, count(*) AS orders, sum(net) AS net,
       count(*) FILTER (WHERE previous_day IS NULL OR previous_day < month) AS customers,
       count(*) FILTER (WHERE previous_day IS NULL) AS new_customers,
       count(*) FILTER (WHERE day_rank = 2 AND previous_day < local_day) AS repeat_customers
FROM (
    -- A customer's orders in turn: the first of all, of a month and of a second day are known by the one before.
    SELECT local_day, net, date_trunc('month', local_day::timestamp) AS month,
           lag(local_day) OVER in_turn AS previous_day, dense_rank() OVER in_turn AS day_rank
    FROM counted
    WINDOW in_turn AS (PARTITION BY customer_id ORDER BY local_day)
) AS placed
GROUP BY month
UNION ALL
SELECT '{CREDITS}', date_trunc('month', local_day::timestamp)::date, 0, -sum(amount), 0, 0, 0
FROM credited GROUP BY date_trunc('month', local_day::timestamp)
UNION ALL
SELECT '{CUSTOMERS}', NULL, 0, 0, count(*), 0, 0
FROM customer_summary WHERE workspace_id = :workspace_id AND first_event_at <= CAST(:as_of AS timestamptz)
""")


async def sum_by_month(connection: AsyncConnection, workspace_id: int, as_of: datetime) -> Sequence[Row[Any]]:
    """All that counts at ``as_of``, by calendar month in the workspace's time zone.

    A row each: what ``CUSTOMERS`` there are, without a month; the ``ORDERS`` of a month, their customers, those of
    them whose first order it has, and those who then came back on a second day; the ``CREDITS`` of a month, negative.
    """
    return (await connection.execute(_BY_MONTH, {"workspace_id": workspace_id, "as_of": as_of})).all()
