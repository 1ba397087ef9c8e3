"""Pages of a run's scores, by any sort, under any filters, at a cost that does not grow with the run.

Without filters an index of the sort gives a page. Under a filter it would be read in vain up to the first rows that the
filter lets through, which may stand at its far end: the smallest customers among those of grade A. So the rows of a
large run are indexed by class as well: the words that filters name, and the order of magnitude of net spend. A filter
takes whole classes, but for a bound within one; the page is merged from the first rows of each.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.engine import DriverStatement
from app.store.score_classes import BOUNDED, SORTS, ScoreClass
from app.store.scores import SELECTED_SCORES, find_scores, table_of

MONEY_SORTS = (*BOUNDED, "order_count")

MOST_CLASSES = 256
"""So many are merged; each takes a seventh of a millisecond to plan."""


@dataclass(frozen=True)
class ScoreFilter:
    """Conditions on scores: equal to a word, or between two amounts."""

    equal: dict[str, str] = field(default_factory=dict)
    at_least: dict[str, Decimal] = field(default_factory=dict)
    at_most: dict[str, Decimal] = field(default_factory=dict)

    def needs_classes(self, sort: str) -> bool:
        """Whether it lets through other rows than a stretch of the sort's own index."""
        return bool(self.equal or (self.at_least.keys() | self.at_most.keys()) - {sort})

    def may_take(self, told: ScoreClass) -> bool:
        """Whether rows of the class may meet the conditions."""
        for column, word in self.equal.items():
            if told.words[column] != word:
                return False
        for column, amount in self.at_least.items():
            highest = told.amounts[column].highest
            if highest is None or highest < amount:
                return False
        for column, amount in self.at_most.items():
            lowest = told.amounts[column].lowest
            if lowest is None or lowest > amount:
                return False
        return True

    def takes_few(self, told: ScoreClass, sort: str, falling: bool, limit: int) -> bool:
        """Whether the rows of a class that the bounds let through are sooner sorted than met with in order.

        All ``share * customers`` of them are sorted. In order, ``limit / share`` rows are read where bound and order
        have nothing to do with each other. Where they go against each other the rows may all stand at the far end, or
        not: the geometric mean of that and of all rows is what is reckoned with.
        """
        bounded = (self.at_least.keys() | self.at_most.keys()) - {sort}
        share = math.prod(
            told.amounts[column].share(self.at_least.get(column), self.at_most.get(column)) for column in bounded
        )
        # Money and orders go together.
        against = sort in MONEY_SORTS and bounded & (self.at_most if falling else self.at_least).keys()
        return bool(bounded) and share ** (3 if against else 2) * told.customers < limit


def indexes_of(partition: int, in_classes: bool) -> list[str]:
    """The statements that make the indexes for lists on the table of a large run; each can be repeated.

    The sort comes first: rows of such a table are all of one run, and a constant before it would make each comparison
    of an index's rows slower, so that it takes half as long again to build. ``in_classes`` adds those of the classes.
    """
    table = table_of(partition)
    made = {sort: f"{sort}, customer_id" for sort in SORTS if sort != "customer_id"}
    if in_classes:
        made |= {f"class_{sort}": f"score_class, {columns}" for sort, columns in made.items()}
        made["class"] = "score_class, customer_id"
    return [f"CREATE INDEX IF NOT EXISTS ix_{table}_{name} ON {table} ({columns})" for name, columns in made.items()]


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
        few = {told.code: filters.takes_few(told, sort, falling, length) for told in chosen}
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
        rows = f"SELECT {columns} FROM scores WHERE {where} AND score_class = {int(code)}"
        # OFFSET keeps the planner from reading by the order after all: it takes bound and order for unrelated.
        return f"(SELECT {columns} FROM ({rows} OFFSET 0) AS bounded {rest})" if few else f"({rows} {rest})"

    branches = " UNION ALL ".join(branch(code, classes[code]) for code in sorted(classes))
    statement = DriverStatement(f"SELECT customer_id FROM ({branches}) AS merged {rest}")
    return [row[0] for row in await statement.fetch(connection, {**page.values, "limit": page.limit})]
