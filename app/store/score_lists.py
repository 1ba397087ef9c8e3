"""Pages of a run's scores, by any sort, under any filters, at a cost that does not grow with the run.

Without filters an index of the sort gives a page. Under a filter it would be read in vain up to the first rows that the
filter lets through, which may stand at its far end: the smallest customers among those of grade A. So the rows of a
large run are indexed by class as well: the words that filters name, and the order of magnitude of net spend. A filter
takes whole classes, but for a bound within one; the page is merged from the first rows of each.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import distribution
from app.store.engine import DriverStatement
from app.store.scores import SELECTED_SCORES, find_scores
from app.store.tables import SCORE_CLASS

SORTS = (
    "customer_id",
    "net_spend",
    "days_since_last_order",
    "order_count",
    "clv_total",
    "churn_probability",
)
WORDS = ("segment", "abc_grade", "churn_state", "churn_type", "lifecycle_status")
BOUNDED = ("net_spend", "clv_total")
MONEY_SORTS = (*BOUNDED, "order_count")

MOST_CLASSES = 256
"""So many are merged; their statement takes a tenth of a second to plan."""


@dataclass(frozen=True)
class ScoreFilter:
    """Conditions on scores: equal to a word, or between two amounts."""

    equal: dict[str, str] = field(default_factory=dict)
    at_least: dict[str, Decimal] = field(default_factory=dict)
    at_most: dict[str, Decimal] = field(default_factory=dict)

    def needs_classes(self, sort: str) -> bool:
        """Whether it lets through other rows than a stretch of the sort's own index."""
        return bool(self.equal or (self.at_least.keys() | self.at_most.keys()) - {sort})

    def may_take(self, told: "ScoreClass") -> bool:
        """Whether rows of the class may meet the conditions."""
        for column, word in self.equal.items():
            if told.words[column] != word:
                return False
        for column, amount in self.at_least.items():
            highest = told.bounds[column][1]
            if highest is None or highest < amount:
                return False
        for column, amount in self.at_most.items():
            lowest = told.bounds[column][0]
            if lowest is None or lowest > amount:
                return False
        return True

    def takes_few(self, told: "ScoreClass", sort: str, limit: int) -> bool:
        """Whether the rows of a class that the bounds let through are sooner sorted than met with in order."""
        share = 1.0
        for column in (self.at_least.keys() | self.at_most.keys()) - {sort}:
            low, high = told.bounds[column]
            if low is None or high is None or low == high:
                continue
            begin = max(low, self.at_least.get(column, low))
            end = min(high, self.at_most.get(column, high))
            share *= float((end - begin) / (high - low))
        if sort in MONEY_SORTS:
            # They go with the bound: its rows may stand at the far end of the order.
            return share < 0.5
        return share * share * told.customers < limit


@dataclass(frozen=True, slots=True)
class ScoreClass:
    """Rows of a run with the same words: their bounds of money, and how many of them have a value of each sort."""

    code: int
    customers: int
    words: dict[str, str | None]
    bounds: dict[str, tuple[Decimal | None, Decimal | None]]
    valued: dict[str, int]


_CLASSES = text(f"""
SELECT CAST(coalesce(jsonb_agg(told), '[]') AS text) FROM (
    SELECT {SCORE_CLASS} AS code, {", ".join(WORDS)}, count(*) AS customers,
           {", ".join(f"min({column}) AS low_{column}, max({column}) AS high_{column}" for column in BOUNDED)},
           {", ".join(f"count({sort}) AS valued_{sort}" for sort in SORTS)}
    FROM scores
    WHERE workspace_id = :workspace_id AND partition = :partition AND run_id = :run_id
    GROUP BY code, {", ".join(WORDS)}
) AS told
""")


async def keep_classes(connection: AsyncConnection, workspace_id: int, run_id: int, partition: int) -> None:
    """Tell the classes of a run's scores from all of them, and keep them with the run.

    Not on a cluster, whose pages are not merged from classes: it would ask all shards for one class after another,
    while without them it asks all at once, and each shard has few rows to look through.
    """
    if not await distribution.on_cluster(connection):
        classes = await _tell_classes(connection, workspace_id, run_id, partition)
        await connection.execute(
            text("UPDATE runs SET score_classes = CAST(:classes AS jsonb) WHERE id = :run_id"),
            {"classes": classes, "run_id": run_id},
        )


async def _tell_classes(connection: AsyncConnection, workspace_id: int, run_id: int, partition: int) -> str:
    values = {"workspace_id": workspace_id, "run_id": run_id, "partition": partition}
    told: str = (await connection.execute(_CLASSES, values)).scalar_one()
    return told


async def read_classes(
    connection: AsyncConnection, workspace_id: int, run_id: int, partition: int
) -> tuple[ScoreClass, ...] | None:
    """The classes that a run's scores fall into; None on a cluster.

    Scores that were deleted since they were told leave their class as it was: it is then looked into in vain.
    """
    if await distribution.on_cluster(connection):
        return None
    kept = await connection.execute(
        text("SELECT CAST(score_classes AS text) FROM runs WHERE id = :run_id"), {"run_id": run_id}
    )
    # A run that has just succeeded has not come to keep them yet.
    told = kept.scalar_one() or await _tell_classes(connection, workspace_id, run_id, partition)
    classes = json.loads(told, parse_int=Decimal, parse_float=Decimal)
    return tuple(
        ScoreClass(
            int(told["code"]),
            int(told["customers"]),
            {word: told[word] for word in WORDS},
            {column: (told[f"low_{column}"], told[f"high_{column}"]) for column in BOUNDED},
            {sort: int(told[f"valued_{sort}"]) for sort in SORTS},
        )
        for told in classes
    )


@dataclass(frozen=True)
class _Page:
    """A page that is looked for: conditions with their values, order, and length."""

    conditions: list[str]
    values: dict[str, Any]
    order: str
    limit: int


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
    classes: Sequence[ScoreClass] | None = None,
) -> list[Any]:
    """Scores of a run in the order of (``sort``, customer id), nulls last, after the pair ``after``.

    Ties and the sort run in the same direction, so that one index serves both and a page costs the same anywhere.
    ``classes`` are those of the run, for filters that need them; without them, or with too many that the filters may
    take, the index of the sort is read from the beginning.
    """
    conditions = ["workspace_id = :workspace_id", "partition = :partition", "run_id = :run_id"]
    values: dict[str, Any] = {"workspace_id": workspace_id, "partition": partition, "run_id": run_id}
    for operator, wanted in (("=", filters.equal), (">=", filters.at_least), ("<=", filters.at_most)):
        for column, value in wanted.items():
            name = f"wanted_{len(values)}"
            conditions.append(f"{column} {operator} :{name}")
            values[name] = value
    direction, beyond = ("DESC", "<") if falling else ("ASC", ">")
    taken = None if classes is None else [told for told in classes if filters.may_take(told)]

    async def page(condition: str, order: str, length: int, chosen: Sequence[ScoreClass] | None) -> Sequence[Any]:
        looked_for = _Page([*conditions, *([condition] if condition else [])], values, order, length)
        if chosen is None or len(chosen) > MOST_CLASSES:
            return await _from_one_index(connection, looked_for)
        # Equal codes of unequal words: the conditions on the words part them.
        few = {told.code: filters.takes_few(told, sort, length) for told in chosen}
        ids = await _from_classes(connection, looked_for, few, sort)
        found = {row.customer_id: row for row in await find_scores(connection, workspace_id, run_id, partition, ids)}
        # A run whose scores are deleted between the two has none left.
        return [found[customer_id] for customer_id in ids if customer_id in found]

    if sort == "customer_id":
        if after is not None:
            values["after_id"] = after[1]
        condition = f"customer_id {beyond} :after_id" if after else ""
        return list(await page(condition, f"customer_id {direction}", limit, taken))
    found: list[Any] = []
    if after is None or after[0] is not None:
        condition = f"{sort} IS NOT NULL"
        if after is not None:
            values["after_value"], values["after_id"] = after
            condition = f"({sort}, customer_id) {beyond} (:after_value, :after_id)"
        chosen = None if taken is None else [told for told in taken if told.valued[sort]]
        found += await page(condition, f"{sort} {direction}, customer_id {direction}", limit, chosen)
        after = None
    if len(found) < limit:
        condition = f"{sort} IS NULL"
        values.pop("after_value", None)
        values.pop("after_id", None)
        if after is not None:
            values["after_id"] = after[1]
            condition += f" AND customer_id {beyond} :after_id"
        chosen = None if taken is None else [told for told in taken if told.valued[sort] < told.customers]
        found += await page(condition, f"customer_id {direction}", limit - len(found), chosen)
    return found


async def _from_one_index(connection: AsyncConnection, page: _Page) -> Sequence[Row[Any]]:
    statement = (
        f"SELECT {SELECTED_SCORES} FROM scores WHERE {' AND '.join(page.conditions)} ORDER BY {page.order} LIMIT :limit"
    )
    return (await connection.execute(text(statement), {**page.values, "limit": page.limit})).all()


async def _from_classes(connection: AsyncConnection, page: _Page, classes: Mapping[int, bool], sort: str) -> list[str]:
    """The ids of the page, merged from classes by their codes.

    A class is read in the order of the page and only as far as needed, but where its value is True: there a bound
    lets few rows through, which are found by the bound and sorted.
    """
    if not classes:
        return []
    columns = "customer_id" if sort == "customer_id" else f"customer_id, {sort}"
    where = " AND ".join(page.conditions)
    rest = f"ORDER BY {page.order} LIMIT :limit"

    def branch(code: int, few: bool) -> str:
        # The code is written out: with it the planner sees that the rows come from the index in the right order.
        rows = f"SELECT {columns} FROM scores WHERE {where} AND {SCORE_CLASS} = {int(code)}"
        # OFFSET keeps the planner from reading by the order after all: it takes bound and order for unrelated.
        return f"(SELECT {columns} FROM ({rows} OFFSET 0) AS bounded {rest})" if few else f"({rows} {rest})"

    branches = " UNION ALL ".join(branch(code, classes[code]) for code in sorted(classes))
    statement = DriverStatement(f"SELECT customer_id FROM ({branches}) AS merged {rest}")
    return [row[0] for row in await statement.fetch(connection, {**page.values, "limit": page.limit})]
