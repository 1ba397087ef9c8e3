"""Customers: their summaries, which lock them, and their profiles."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.figures import RECOMPUTE_SUMMARIES
from app.store.tables import PROFILE

_SUMMARY_COLUMNS = (
    "event_count, order_count, purchase_days, first_purchase_day, last_purchase_day, net_spend,"
    " first_event_at, last_event_at, updated_at"
)


async def lock_customers(
    connection: AsyncConnection, workspace_id: int, customer_ids: Sequence[str], now: datetime
) -> dict[str, Row[Any]]:
    """Make the customers that are new, and lock all of them until the transaction ends.

    ``customer_ids`` are distinct and sorted, so that concurrent batches take their locks in the same order.
    Answers what decides how their summaries can be brought up to date.
    """
    rows = await connection.execute(
        text(
            "INSERT INTO customer_summary AS summary (workspace_id, customer_id, updated_at)"
            " SELECT CAST(:workspace_id AS int), customer_id, CAST(:now AS timestamptz)"
            " FROM unnest(CAST(:customer_ids AS text[])) AS asked (customer_id)"
            " ON CONFLICT (workspace_id, customer_id) DO UPDATE SET updated_at = summary.updated_at"
            " RETURNING customer_id, event_count, adjustment_count, last_purchase_day"
        ),
        {"workspace_id": workspace_id, "customer_ids": customer_ids, "now": now},
    )
    return {row.customer_id: row for row in rows}


@dataclass(slots=True)
class SummaryChanges:
    """What a batch adds to summaries, as columns: a row a customer, and a row an order that can simply be added."""

    customer_ids: list[str] = field(default_factory=list)
    event_counts: list[int] = field(default_factory=list)
    adjustment_counts: list[int] = field(default_factory=list)
    interaction_counts: list[int] = field(default_factory=list)
    latest_order_event_ats: list[datetime | None] = field(default_factory=list)
    first_event_ats: list[datetime] = field(default_factory=list)
    last_event_ats: list[datetime] = field(default_factory=list)
    order_customer_ids: list[str] = field(default_factory=list)
    order_days: list[date] = field(default_factory=list)
    order_nets: list[Decimal] = field(default_factory=list)
    order_costs: list[Decimal] = field(default_factory=list)


_APPLY_CHANGES = text("""
WITH daily AS (
    SELECT customer_id, local_day, count(*) AS orders, sum(net) AS net, sum(cost) AS cost
    FROM unnest(CAST(:order_customer_ids AS text[]), CAST(:order_days AS date[]),
                CAST(:order_nets AS numeric[]), CAST(:order_costs AS numeric[]))
         AS placed (customer_id, local_day, net, cost)
    GROUP BY customer_id, local_day
),
added AS (
    SELECT customer_id, sum(orders) AS orders, count(*) AS days, min(local_day) AS first_day,
           max(local_day) AS last_day, sum(net) AS net, sum(cost) AS cost,
           (array_agg(net ORDER BY local_day))[1] AS first_net,
           (array_agg(cost ORDER BY local_day))[1] AS first_cost
    FROM daily GROUP BY customer_id
)
UPDATE customer_summary AS summary
SET event_count = summary.event_count + touched.event_count,
    adjustment_count = summary.adjustment_count + touched.adjustment_count,
    interaction_count = summary.interaction_count + touched.interaction_count,
    latest_order_event_at = greatest(summary.latest_order_event_at, touched.latest_order_event_at),
    first_event_at = least(summary.first_event_at, touched.first_event_at),
    last_event_at = greatest(summary.last_event_at, touched.last_event_at),
    updated_at = greatest(summary.updated_at, CAST(:now AS timestamptz)),
    order_count = summary.order_count + coalesce(added.orders, 0),
    purchase_days = summary.purchase_days + coalesce(added.days, 0)
        - CASE WHEN summary.last_purchase_day = added.first_day THEN 1 ELSE 0 END,
    first_purchase_day = coalesce(summary.first_purchase_day, added.first_day),
    last_purchase_day = greatest(summary.last_purchase_day, added.last_day),
    net_spend = summary.net_spend + coalesce(added.net, 0),
    net_cost = summary.net_cost + coalesce(added.cost, 0),
    order_spend = summary.order_spend + coalesce(added.net, 0),
    first_day_spend = summary.first_day_spend + CASE
        WHEN coalesce(summary.first_purchase_day, added.first_day) = added.first_day THEN added.first_net ELSE 0 END,
    first_day_cost = summary.first_day_cost + CASE
        WHEN coalesce(summary.first_purchase_day, added.first_day) = added.first_day THEN added.first_cost ELSE 0 END
FROM unnest(CAST(:customer_ids AS text[]), CAST(:event_counts AS int[]), CAST(:adjustment_counts AS int[]),
            CAST(:interaction_counts AS int[]),
            CAST(:latest_order_event_ats AS timestamptz[]), CAST(:first_event_ats AS timestamptz[]),
            CAST(:last_event_ats AS timestamptz[]))
     AS touched (customer_id, event_count, adjustment_count, interaction_count, latest_order_event_at, first_event_at,
                 last_event_at)
LEFT JOIN added USING (customer_id)
WHERE summary.workspace_id = :workspace_id AND summary.customer_id = touched.customer_id
""")


async def apply_changes(connection: AsyncConnection, workspace_id: int, changes: SummaryChanges, now: datetime) -> None:
    """Add a batch to the summaries of its customers, whose locks the caller holds.

    An order may be given here only if its day is not before the customer's last purchase day and nothing adjusts it;
    customers with any other change are brought up to date by ``recompute_summaries`` afterwards.
    """
    await connection.execute(
        _APPLY_CHANGES,
        {
            "workspace_id": workspace_id,
            "now": now,
            **{name: getattr(changes, name) for name in SummaryChanges.__slots__},
        },
    )


async def recompute_summaries(connection: AsyncConnection, workspace_id: int, customer_ids: Sequence[str]) -> None:
    """Bring lifetime figures up to date from all orders of the customers, whose locks the caller holds."""
    await connection.execute(RECOMPUTE_SUMMARIES, {"workspace_id": workspace_id, "customer_ids": customer_ids})


async def recompute_profiles(connection: AsyncConnection, workspace_id: int, customer_ids: Sequence[str]) -> None:
    """Per field the greatest (occurred_at, event id) wins, whatever order the events came in; null takes it away.

    Of ``attributes`` each key is a field of its own, and null takes away all that were told before.
    """
    await connection.execute(
        text(f"""
WITH told AS (
    SELECT customer_id, occurred_at, event_id, data FROM events
    WHERE workspace_id = :workspace_id AND customer_id = ANY(CAST(:customer_ids AS text[])) AND {PROFILE}
),
fields AS (
    SELECT DISTINCT ON (customer_id, field.key) customer_id, field.key, field.value
    FROM told, jsonb_each(data - 'attributes') AS field
    ORDER BY customer_id, field.key, occurred_at DESC, event_id DESC
),
attributes AS (
    SELECT DISTINCT ON (customer_id, attribute.key) customer_id, attribute.key, attribute.value
    FROM told, jsonb_each(CASE jsonb_typeof(data -> 'attributes') WHEN 'object' THEN data -> 'attributes' END)
         AS attribute
    WHERE NOT EXISTS (
        SELECT FROM told AS cleared
        WHERE cleared.customer_id = told.customer_id AND cleared.data -> 'attributes' = 'null'
          AND (cleared.occurred_at, cleared.event_id) > (told.occurred_at, told.event_id)
    )
    ORDER BY customer_id, attribute.key, occurred_at DESC, event_id DESC
),
profiles AS (
    SELECT customer_id,
           coalesce((SELECT jsonb_object_agg(key, value) FROM fields
                     WHERE fields.customer_id = asked.customer_id AND value <> 'null'), '{{}}')
           || coalesce((SELECT jsonb_build_object('attributes', jsonb_object_agg(key, value)) FROM attributes
                        WHERE attributes.customer_id = asked.customer_id AND value <> 'null'
                        HAVING count(*) > 0), '{{}}') AS profile
    FROM unnest(CAST(:customer_ids AS text[])) AS asked (customer_id)
)
INSERT INTO customer_profiles (workspace_id, customer_id, profile)
SELECT CAST(:workspace_id AS int), customer_id, profile FROM profiles
ON CONFLICT (workspace_id, customer_id) DO UPDATE SET profile = excluded.profile
"""),
        {"workspace_id": workspace_id, "customer_ids": customer_ids},
    )


async def find_customer(connection: AsyncConnection, workspace_id: int, customer_id: str) -> Row[Any] | None:
    return (
        await connection.execute(
            text(
                f"SELECT customer_id, {_SUMMARY_COLUMNS}, CAST(profile AS text) AS profile"
                " FROM customer_summary LEFT JOIN customer_profiles USING (workspace_id, customer_id)"
                " WHERE workspace_id = :workspace_id AND customer_id = :customer_id"
            ),
            {"workspace_id": workspace_id, "customer_id": customer_id},
        )
    ).one_or_none()


@dataclass(frozen=True, slots=True)
class CustomerFilter:
    q: str | None = None
    kind: str | None = None
    country: str | None = None
    updated_since: datetime | None = None


async def list_customers(
    connection: AsyncConnection, workspace_id: int, filters: CustomerFilter, after: str | None, limit: int
) -> Sequence[Row[Any]]:
    """Customers by id. ``q`` is looked for in id, name, email and phone, whatever its case."""
    conditions = ["workspace_id = :workspace_id"]
    values: dict[str, Any] = {"workspace_id": workspace_id, "limit": limit}
    if after is not None:
        conditions.append("customer_id > :after")
        values["after"] = after
    if filters.updated_since is not None:
        conditions.append("updated_at >= :updated_since")
        values["updated_since"] = filters.updated_since
    if filters.kind is not None:
        conditions.append("profile ->> 'kind' = :kind")
        values["kind"] = filters.kind
    if filters.country is not None:
        conditions.append("lower(profile ->> 'country') = lower(:country)")
        values["country"] = filters.country
    if filters.q is not None:
        conditions.append(
            "strpos(lower(concat_ws(chr(10), customer_id COLLATE \"default\", profile ->> 'name', profile ->> 'email',"
            " profile ->> 'phone')), lower(:q)) > 0"
        )
        values["q"] = filters.q
    return (
        await connection.execute(
            text(
                f"SELECT customer_id, {_SUMMARY_COLUMNS}, CAST(profile AS text) AS profile"
                " FROM customer_summary LEFT JOIN customer_profiles USING (workspace_id, customer_id)"
                f" WHERE {' AND '.join(conditions)} ORDER BY customer_id LIMIT :limit"
            ),
            values,
        )
    ).all()
