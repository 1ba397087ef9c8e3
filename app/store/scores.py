"""The scores that runs store: written fresh into a partition, read by customer, or listed by any sort."""

from collections import namedtuple
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.engine import DriverStatement, driver_connection
from app.store.tables import SCORE_COLUMNS

SHARED_PARTITION = 0
_COLUMNS = tuple(column.name for column in SCORE_COLUMNS)
# JSON travels as text: its readers parse it, and its writers have made it.
_SELECTED = ", ".join(
    ("customer_id", *("CAST(evidence AS text) AS evidence" if name == "evidence" else name for name in _COLUMNS))
)

SORTS = (
    "customer_id",
    "net_spend",
    "days_since_last_order",
    "order_count",
    "clv_total",
    "churn_probability",
)


def table_of(partition: int) -> str:
    return "scores" if partition == SHARED_PARTITION else f"scores_run_{int(partition)}"


async def make_partition(connection: AsyncConnection, partition: int) -> None:
    """A table for one run's scores, without indexes yet, so that it loads fast."""
    name = table_of(partition)
    await connection.execute(text(f"CREATE TABLE {name} (LIKE scores INCLUDING DEFAULTS)"))
    # With this check, attaching need not read the rows again.
    await connection.execute(text(f"ALTER TABLE {name} ADD CHECK (partition = {int(partition)})"))


async def attach_partition(connection: AsyncConnection, partition: int) -> None:
    """Make the table a partition of ``scores``, which builds its indexes."""
    await connection.execute(text("SET LOCAL maintenance_work_mem = '256MB'"))
    await connection.execute(
        text(f"ALTER TABLE scores ATTACH PARTITION {table_of(partition)} FOR VALUES IN ({int(partition)})")
    )


async def drop_scores(connection: AsyncConnection, run_id: int, partition: int) -> None:
    """Delete what a run stored."""
    if partition == SHARED_PARTITION:
        await connection.execute(
            text("DELETE FROM scores WHERE partition = 0 AND run_id = :run_id"), {"run_id": run_id}
        )
    else:
        await connection.execute(text(f"DROP TABLE {table_of(partition)}"))


async def copy_scores(
    connection: AsyncConnection, workspace_id: int, run_id: int, partition: int, rows: Iterable[tuple[Any, ...]]
) -> None:
    """Store scores; a row is (customer id, the score columns in their order)."""
    driver = await driver_connection(connection)
    await driver.copy_records_to_table(
        table_of(partition),
        records=((partition, run_id, row[0], workspace_id, *row[1:]) for row in rows),
        columns=("partition", "run_id", "customer_id", "workspace_id", *_COLUMNS),
    )


async def copy_to_history(connection: AsyncConnection, run_id: int, partition: int, as_of: datetime) -> None:
    """Keep what value change over time needs, beyond the life of the full scores."""
    await connection.execute(
        text(
            "INSERT INTO score_history (workspace_id, customer_id, run_id, as_of, r, f, m, segment, abc_grade,"
            " net_spend, clv_total, churn_state, churn_type)"
            " SELECT workspace_id, customer_id, run_id, CAST(:as_of AS timestamptz), r, f, m, segment, abc_grade,"
            f" net_spend, clv_total, churn_state, churn_type FROM {table_of(partition)}"
            " WHERE partition = :partition AND run_id = :run_id ORDER BY customer_id"
        ),
        {"run_id": run_id, "partition": partition, "as_of": as_of},
    )


async def list_history(
    connection: AsyncConnection, workspace_id: int, customer_id: str, after: int, limit: int
) -> Sequence[Row[Any]]:
    """What is kept of a customer's scores for good, from the run after ``after`` on, with the runs' names."""
    return (
        await connection.execute(
            text(
                "SELECT history.run_id, runs.name AS run_name, history.as_of, r, f, m, segment, abc_grade, net_spend,"
                " clv_total, churn_state, churn_type FROM score_history AS history"
                " JOIN runs ON runs.id = history.run_id"
                " WHERE history.workspace_id = :workspace_id AND history.customer_id = :customer_id"
                " AND history.run_id > :after ORDER BY history.run_id LIMIT :limit"
            ),
            {"workspace_id": workspace_id, "customer_id": customer_id, "after": after, "limit": limit},
        )
    ).all()


_FIND = DriverStatement(
    f"SELECT {_SELECTED} FROM scores WHERE workspace_id = :workspace_id AND partition = :partition"
    " AND run_id = :run_id AND customer_id = ANY(CAST(:customer_ids AS text[]))"
)
StoredScores: Any = namedtuple("StoredScores", ("customer_id", *_COLUMNS))  # type: ignore[misc]
"""A row of scores as it is stored: the customer's id and the score columns in their order."""


async def find_scores(
    connection: AsyncConnection, workspace_id: int, run_id: int, partition: int, customer_ids: Sequence[str]
) -> list[Any]:
    """``StoredScores`` of those of the customers that the run scored."""
    records = await _FIND.fetch(
        connection,
        {"workspace_id": workspace_id, "partition": partition, "run_id": run_id, "customer_ids": customer_ids},
    )
    return [StoredScores(*record) for record in records]


@dataclass(frozen=True)
class ScoreFilter:
    """Conditions on scores: equal to a word, or between two amounts."""

    equal: dict[str, str] = field(default_factory=dict)
    at_least: dict[str, Decimal] = field(default_factory=dict)
    at_most: dict[str, Decimal] = field(default_factory=dict)


async def list_scores(
    connection: AsyncConnection,
    workspace_id: int,
    run_id: int,
    partition: int,
    filters: ScoreFilter,
    *,
    sort: str,
    falling: bool,
    after: tuple[Any, str] | None,
    limit: int,
) -> list[Row[Any]]:
    """Scores of a run in the order of (``sort``, customer id), nulls last, after the pair ``after``.

    Ties and the sort run in the same direction, so that one index serves both and a page costs the same anywhere.
    """
    conditions = ["workspace_id = :workspace_id", "partition = :partition", "run_id = :run_id"]
    values: dict[str, Any] = {"workspace_id": workspace_id, "partition": partition, "run_id": run_id}
    for operator, wanted in (("=", filters.equal), (">=", filters.at_least), ("<=", filters.at_most)):
        for column, value in wanted.items():
            name = f"wanted_{len(values)}"
            conditions.append(f"{column} {operator} :{name}")
            values[name] = value
    direction, beyond = ("DESC", "<") if falling else ("ASC", ">")

    async def page(condition: str, order: str, missing: int) -> Sequence[Row[Any]]:
        where = " AND ".join([*conditions, *([condition] if condition else [])])
        statement = f"SELECT {_SELECTED} FROM scores WHERE {where} ORDER BY {order} LIMIT :limit"
        return (await connection.execute(text(statement), {**values, "limit": missing})).all()

    if sort == "customer_id":
        if after is not None:
            values["after_id"] = after[1]
        return list(await page(f"customer_id {beyond} :after_id" if after else "", f"customer_id {direction}", limit))
    found: list[Row[Any]] = []
    if after is None or after[0] is not None:
        condition = f"{sort} IS NOT NULL"
        if after is not None:
            values["after_value"], values["after_id"] = after
            condition = f"({sort}, customer_id) {beyond} (:after_value, :after_id)"
        found += await page(condition, f"{sort} {direction}, customer_id {direction}", limit)
        after = None
    if len(found) < limit:
        condition = f"{sort} IS NULL"
        values.pop("after_value", None)
        values.pop("after_id", None)
        if after is not None:
            values["after_id"] = after[1]
            condition += f" AND customer_id {beyond} :after_id"
        found += await page(condition, f"customer_id {direction}", limit - len(found))
    return found
