"""Customers: their summaries, which lock them, and their profiles."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, get_args, get_type_hints

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


class SummaryChange(NamedTuple):
    """What a batch adds to the summary of one customer: counts and moments of all its events, and its new orders.

    Orders are left out (no count, no days) where they do not just add up; see ``apply_changes``.
    """

    customer_id: str
    event_count: int
    adjustment_count: int
    interaction_count: int
    latest_order_event_at: datetime | None
    first_event_at: datetime
    last_event_at: datetime
    order_count: int
    purchase_days: int
    first_day: date | None
    last_day: date | None
    net: Decimal
    cost: Decimal
    first_day_net: Decimal
    first_day_cost: Decimal


_TYPES = {str: "text", int: "int", datetime: "timestamptz", date: "date", Decimal: "numeric"}


def _arrays() -> str:
    """The columns of ``SummaryChange`` as arrays of parameters."""
    kinds = (get_args(kind)[0] if get_args(kind) else kind for kind in get_type_hints(SummaryChange).values())
    return ", ".join(
        f"CAST(:{name} AS {_TYPES[kind]}[])" for name, kind in zip(SummaryChange._fields, kinds, strict=True)
    )


_APPLY_CHANGES = text(f"""
UPDATE customer_summary AS summary
SET event_count = summary.event_count + change.event_count,
    adjustment_count = summary.adjustment_count + change.adjustment_count,
    interaction_count = summary.interaction_count + change.interaction_count,
    latest_order_event_at = greatest(summary.latest_order_event_at, change.latest_order_event_at),
    first_event_at = least(summary.first_event_at, change.first_event_at),
    last_event_at = greatest(summary.last_event_at, change.last_event_at),
    updated_at = greatest(summary.updated_at, CAST(:now AS timestamptz)),
    order_count = summary.order_count + change.order_count,
    purchase_days = summary.purchase_days + change.purchase_days
        - CASE WHEN summary.last_purchase_day = change.first_day THEN 1 ELSE 0 END,
    first_purchase_day = coalesce(summary.first_purchase_day, change.first_day),
    last_purchase_day = greatest(summary.last_purchase_day, change.last_day),
    net_spend = summary.net_spend + change.net,
    net_cost = summary.net_cost + change.cost,
    order_spend = summary.order_spend + change.net,
    first_day_spend = summary.first_day_spend + CASE
        WHEN coalesce(summary.first_purchase_day, change.first_day) = change.first_day THEN change.first_day_net
        ELSE 0 END,
    first_day_cost = summary.first_day_cost + CASE
        WHEN coalesce(summary.first_purchase_day, change.first_day) = change.first_day THEN change.first_day_cost
        ELSE 0 END
FROM unnest({_arrays()}) AS change ({", ".join(SummaryChange._fields)})
WHERE summary.workspace_id = :workspace_id AND summary.customer_id = change.customer_id
""")


async def apply_changes(
    connection: AsyncConnection, workspace_id: int, changes: Sequence[SummaryChange], now: datetime
) -> None:
    """Add a batch to the summaries of its customers, whose locks the caller holds.

    An order may be counted here only if its day is not before the customer's last purchase day and nothing adjusts it;
    customers with any other change are brought up to date by ``recompute_summaries`` afterwards.
    """
    columns = dict(zip(SummaryChange._fields, zip(*changes, strict=True), strict=True))
    await connection.execute(_APPLY_CHANGES, {"workspace_id": workspace_id, "now": now, **columns})


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
