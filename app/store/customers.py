"""Customers: their summaries, which lock them, and their profiles."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, get_args, get_type_hints

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.scalars import EPOCH, microseconds_of
from app.store.engine import DriverStatement
from app.store.figures import RECOMPUTE_SUMMARIES
from app.store.lists import join_list, listed
from app.store.tables import ADJUSTING, PLACED, PROFILE

_SUMMARY_COLUMNS = (
    "event_count, order_count, purchase_days, first_purchase_day, last_purchase_day, net_spend,"
    " first_event_at, last_event_at, updated_at"
)


async def lock_customers(
    connection: AsyncConnection, workspace_id: int, customer_ids: Sequence[str], now: datetime
) -> None:
    """Make the customers that are new, and lock all of them until the transaction ends.

    ``customer_ids`` are distinct and sorted, so that concurrent batches take their locks in the same order.
    """
    await connection.execute(
        text(
            "INSERT INTO customer_summary AS summary (workspace_id, customer_id, updated_at)"
            " SELECT CAST(:workspace_id AS int), customer_id, CAST(:now AS timestamptz)"
            f" FROM unnest({listed('customer_ids', 'text')}) AS asked (customer_id)"
            " ON CONFLICT (workspace_id, customer_id) DO UPDATE SET updated_at = summary.updated_at"
        ),
        {"workspace_id": workspace_id, "customer_ids": join_list(customer_ids), "now": now},
    )


class SummaryChange(NamedTuple):
    """What a batch adds to the summary of one customer: counts and moments of all its events, and its new orders.

    Most customers of a batch come with one order, so what is the same for one order is left None: the moments are
    then that of the latest order event, the last day is the first, and its figures are those of all days.
    """

    customer_id: str
    event_count: int
    adjustment_count: int
    interaction_count: int
    latest_order_event_at: datetime | None
    first_event_at: datetime | None
    last_event_at: datetime | None
    order_count: int
    purchase_days: int
    first_day: date | None
    last_day: date | None
    net: Decimal
    cost: Decimal
    first_day_net: Decimal | None
    first_day_cost: Decimal | None

    def without_orders(self) -> "SummaryChange":
        """The same but for the figures of orders, which ``recompute_summaries`` will tell."""
        return self._replace(
            order_count=0, purchase_days=0, first_day=None, last_day=None,
            net=_ZERO, cost=_ZERO, first_day_net=_ZERO, first_day_cost=_ZERO,
        )  # fmt: skip


_ZERO = Decimal(0)
# Moments and days travel as numbers: to write them out, and to read that again, takes twice as long.
_TYPES: dict[type, tuple[str, Callable[[Any], str]]] = {
    str: ("text", str),
    int: ("int", str),
    Decimal: ("numeric", str),
    datetime: ("bigint", lambda moment: str(microseconds_of(moment))),
    date: ("int", lambda day: str(day.toordinal())),
}
_COLUMNS = {
    name: _TYPES[get_args(kind)[0] if get_args(kind) else kind] for name, kind in get_type_hints(SummaryChange).items()
}


def _moment(name: str) -> str:
    return f"TIMESTAMPTZ '{EPOCH.isoformat()}' + {name} * INTERVAL '1 microsecond'"


def _day(name: str) -> str:
    return f"DATE '0001-01-01' + {name} - 1"


def _add_changes(purchase_days: str, applies: str) -> DriverStatement:
    return DriverStatement(f"""
INSERT INTO customer_summary AS summary (
    workspace_id, customer_id, event_count, adjustment_count, interaction_count, latest_order_event_at,
    first_event_at, last_event_at, updated_at, order_count, purchase_days, first_purchase_day, last_purchase_day,
    net_spend, net_cost, order_spend, first_day_spend, first_day_cost
)
SELECT CAST(:workspace_id AS int), customer_id, event_count, adjustment_count, interaction_count,
       {_moment("latest_order_event_at")}, {_moment("coalesce(first_event_at, latest_order_event_at)")},
       {_moment("coalesce(last_event_at, latest_order_event_at)")}, CAST(:now AS timestamptz), order_count,
       purchase_days, {_day("first_day")}, {_day("coalesce(last_day, first_day)")}, net, cost, net,
       coalesce(first_day_net, net), coalesce(first_day_cost, cost)
FROM unnest({", ".join(listed(name, kind) for name, (kind, _) in _COLUMNS.items())})
     AS change ({", ".join(SummaryChange._fields)})
ON CONFLICT (workspace_id, customer_id) DO UPDATE
SET event_count = summary.event_count + excluded.event_count,
    adjustment_count = summary.adjustment_count + excluded.adjustment_count,
    interaction_count = summary.interaction_count + excluded.interaction_count,
    latest_order_event_at = greatest(summary.latest_order_event_at, excluded.latest_order_event_at),
    first_event_at = least(summary.first_event_at, excluded.first_event_at),
    last_event_at = greatest(summary.last_event_at, excluded.last_event_at),
    updated_at = greatest(summary.updated_at, excluded.updated_at),
    order_count = summary.order_count + excluded.order_count,
    purchase_days = {purchase_days},
    first_purchase_day = least(summary.first_purchase_day, excluded.first_purchase_day),
    last_purchase_day = greatest(summary.last_purchase_day, excluded.last_purchase_day),
    net_spend = summary.net_spend + excluded.net_spend,
    net_cost = summary.net_cost + excluded.net_cost,
    order_spend = summary.order_spend + excluded.order_spend,
    first_day_spend = {_on_first_day("first_day_spend")},
    first_day_cost = {_on_first_day("first_day_cost")}
WHERE {applies}
RETURNING customer_id, event_count
""")


def _on_first_day(figure: str) -> str:
    """The sum on the first purchase day, which the change may move, meet or leave alone."""
    return f"""CASE
        WHEN excluded.first_purchase_day > summary.first_purchase_day OR excluded.order_count = 0 THEN summary.{figure}
        WHEN excluded.first_purchase_day = summary.first_purchase_day THEN summary.{figure} + excluded.{figure}
        ELSE excluded.{figure} END"""


_ADD_CHANGES = _add_changes(
    purchase_days="""summary.purchase_days + excluded.purchase_days
        - CASE WHEN summary.last_purchase_day = excluded.first_purchase_day THEN 1 ELSE 0 END""",
    applies="""excluded.order_count = 0
   OR (summary.adjustment_count = 0
       AND (summary.last_purchase_day IS NULL OR summary.last_purchase_day <= excluded.first_purchase_day))""",
)
_ADD_SETTLED_CHANGES = _add_changes(
    purchase_days="summary.purchase_days + excluded.purchase_days",
    applies="true",
)


def join_changes(changes: Sequence[SummaryChange]) -> dict[str, str]:
    """Changes of distinct customers in sorted order as ``add_changes`` takes them; pure, and a few µs a change."""
    columns = zip(*changes, strict=True)
    return {name: _joined(column, shown) for (name, (_, shown)), column in zip(_COLUMNS.items(), columns, strict=True)}


def _joined(column: Sequence[Any], shown: Callable[[Any], str]) -> str:
    if column.count(column[0]) == len(column):  # Of orders, one a customer, many figures are the same.
        return "\n".join([join_list(column[:1], shown)] * len(column))
    return join_list(column, shown)


async def add_changes(
    connection: AsyncConnection,
    workspace_id: int,
    joined_changes: dict[str, str],
    now: datetime,
    *,
    settled: bool = False,
) -> dict[str, int]:
    """Add a batch to the summaries of its customers, making those that are new; answers whom it was added for, and
    how many events each has now.

    The customers, which come in sorted order, are locked until the transaction ends.

    Orders just add up where nothing adjusts the customer's orders and none is before the last purchase day; where
    they may not, the customer is left out. ``settled`` changes are known to: their days are of ``count_new_days``.
    """
    statement = _ADD_SETTLED_CHANGES if settled else _ADD_CHANGES
    values = {"workspace_id": workspace_id, "now": now, **joined_changes}
    return dict(await statement.fetch(connection, values))


_NEW_DAYS = text(f"""
WITH asked AS (
    SELECT customer_id, order_id, local_day, count(*) OVER (PARTITION BY customer_id, local_day) AS orders_of_day
    FROM unnest({listed("customer_ids", "text")}, {listed("order_ids", "text")}, {listed("days", "date")})
         AS asked (customer_id, order_id, local_day)
),
found AS (
    SELECT summary.customer_id, local_day, adjustment_count = 0 OR coalesce(local_day >= last_purchase_day, true)
               AND NOT EXISTS (
                   SELECT FROM events
                   WHERE events.workspace_id = summary.workspace_id AND events.customer_id = summary.customer_id
                     AND events.order_id = asked.order_id AND {ADJUSTING}
               ) AS adds_up,
           local_day = last_purchase_day
               OR adjustment_count = 0 AND (
                   SELECT true FROM events
                   WHERE events.workspace_id = summary.workspace_id AND events.customer_id = summary.customer_id
                     AND events.local_day = asked.local_day AND {PLACED}
                     -- By the index of time, not through all orders: a day begins somewhere on Earth within a day of
                     -- its midnight in UTC.
                     AND occurred_at >= CAST(asked.local_day AS timestamp) AT TIME ZONE 'UTC' - INTERVAL '1 day'
                     AND occurred_at < CAST(asked.local_day AS timestamp) AT TIME ZONE 'UTC' + INTERVAL '2 days'
                   -- Those that are asked about are stored as well.
                   ORDER BY occurred_at LIMIT 1 OFFSET asked.orders_of_day
               ) AS is_known
    FROM asked
    JOIN customer_summary AS summary USING (customer_id)
    WHERE summary.workspace_id = :workspace_id
)
SELECT customer_id, count(DISTINCT local_day) FILTER (WHERE is_known IS NOT TRUE) AS new_days
FROM found
GROUP BY customer_id
HAVING bool_and(adds_up)
""")


async def count_new_days(
    connection: AsyncConnection, workspace_id: int, customer_ids: Iterable[str], order_ids: Iterable[str],
    days: Iterable[date],
) -> dict[str, int]:  # fmt: skip
    """The number of purchase days that new orders bring their customers, whose locks the caller holds.

    Of each order, stored but not added to the summary yet, the customer, the id and the local day. Left out are
    customers whose orders do not just add up: one that is adjusted already, or one before the last purchase day where
    earlier ones are adjusted.
    """
    rows = await connection.execute(
        _NEW_DAYS,
        {
            "workspace_id": workspace_id,
            "customer_ids": join_list(customer_ids),
            "order_ids": join_list(order_ids),
            "days": join_list(days, date.isoformat),
        },
    )
    return {row.customer_id: row.new_days for row in rows}


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


async def hold_customer(connection: AsyncConnection, workspace_id: int, customer_id: str) -> bool:
    """Whether there is such a customer, who until the transaction ends is not erased; events are recorded meanwhile."""
    found = await connection.execute(
        text(
            "SELECT customer_id FROM customer_summary WHERE workspace_id = :workspace_id AND customer_id = :customer_id"
            " FOR KEY SHARE"
        ),
        {"workspace_id": workspace_id, "customer_id": customer_id},
    )
    return found.first() is not None


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
