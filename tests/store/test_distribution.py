"""Where tables are on a Citus cluster: the rules that any table must keep, and what a cluster makes of them."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import Index, Table, UniqueConstraint, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import migrate, run_execution, run_fitting, runs
from app.store import distribution, scores
from app.store.distribution import DISTRIBUTED, DISTRIBUTION_COLUMN, ON_COORDINATOR, REFERENCE
from app.store.engine import create_engine
from app.store.tables import metadata
from tests import citus_cluster
from tests.conftest import CITUS_URL, Client, order

STAGED = {"import_lines", "import_orders"}
"""They name customers, but their rows are an import's, and leave as events."""


def unique_keys(table: Table) -> list[set[str]]:
    """The columns of everything in a table that holds rows apart."""
    keys = [set(table.primary_key.columns.keys())]
    keys += [set(each.columns.keys()) for each in table.constraints if isinstance(each, UniqueConstraint)]
    return keys + [set(each.columns.keys()) for each in table.indexes if isinstance(each, Index) and each.unique]


def test_every_table_has_one_place() -> None:
    places = [*DISTRIBUTED, *REFERENCE, *ON_COORDINATOR]
    assert sorted(places) == sorted(metadata.tables)


def test_what_names_a_customer_is_distributed_unless_it_is_staged() -> None:
    naming = {name for name, table in metadata.tables.items() if DISTRIBUTION_COLUMN in table.columns}
    assert naming - STAGED == set(DISTRIBUTED)


@pytest.mark.parametrize("name", DISTRIBUTED)
def test_all_keys_of_a_distributed_table_hold_the_customer(name: str) -> None:
    keys = unique_keys(metadata.tables[name])
    assert keys
    assert all(DISTRIBUTION_COLUMN in key for key in keys)


def test_customers_are_the_same_type_everywhere() -> None:
    types = {str(metadata.tables[name].columns[DISTRIBUTION_COLUMN].type) for name in DISTRIBUTED}
    assert len(types) == 1


def test_foreign_keys_stay_among_tables_of_the_coordinator() -> None:
    ends = {
        name
        for table in metadata.tables.values()
        for key in table.foreign_keys
        for name in (table.name, key.column.table.name)
    }
    assert ends
    assert ends <= set(ON_COORDINATOR)


async def test_the_migrations_leave_no_other_foreign_key(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        ends = await connection.execute(
            text(
                "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint"
                " WHERE contype = 'f' AND connamespace = 'public'::regnamespace"
            )
        )
    assert {name for pair in ends.all() for name in pair} <= set(ON_COORDINATOR)


@pytest.mark.one_server
async def test_without_citus_nothing_is_moved(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await connection.run_sync(distribution.distribute) == []


# ---- On a cluster ---------------------------------------------------------------------------------------------------


@pytest.mark.citus
async def test_a_cluster_has_every_table_in_its_place(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT CAST(table_name AS text), citus_table_type, colocation_id FROM citus_tables")
        )
    placed = {row.table_name: row for row in rows.all() if not row.table_name.startswith("scores_")}
    assert {name for name, row in placed.items() if row.citus_table_type == "distributed"} == set(DISTRIBUTED)
    assert {name for name, row in placed.items() if row.citus_table_type == "reference"} == set(REFERENCE)
    assert placed.keys() == {*DISTRIBUTED, *REFERENCE}
    assert len({placed[name].colocation_id for name in DISTRIBUTED}) == 1


@pytest.mark.citus
async def test_distributing_again_changes_nothing(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await connection.run_sync(distribution.distribute) == []


@pytest.mark.citus
async def test_the_scores_of_a_large_run_are_in_shards_and_go_as_a_whole(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_fitting, "LARGE_RUN_CUSTOMERS", 1)
    await client.record(*(order(f"o-{n}", f"{n + 1}.00", customer_id=f"c-{n}") for n in range(60)))
    numbers = []
    for _ in range(run_execution.RUNS_KEPT + 1):
        asked = await runs.request_run(engine, client.workspace)
        await run_execution.execute_run(engine, str(asked.number).encode(), asyncio.Event())
        assert (await runs.get_run(engine, client.workspace, asked.id)).status == "succeeded"
        numbers.append(asked.number)
    async with engine.connect() as connection:
        shards = await connection.execute(
            text("SELECT CAST(table_name AS text) AS name, count(*) FROM citus_shards GROUP BY 1")
        )
        counts = {row.name: row.count for row in shards.all()}
        rows = await connection.execute(
            text("SELECT count(*) FROM scores WHERE partition = :partition"), {"partition": numbers[-1]}
        )
        assert rows.scalar_one() == 60
    assert counts.get(scores.table_of(numbers[0])) is None
    assert all(counts[scores.table_of(number)] == counts["events"] for number in numbers[1:])
    values = (await client.get("/v1/values", sort="-net_spend"))["data"]
    assert len(values) == 60
    graded = (await client.get("/v1/values", sort="-net_spend", abc="A"))["data"]
    assert 0 < len(graded) < 60
    assert graded == [value for value in values if value["abc"]["grade"] == "A"]


@pytest_asyncio.fixture
async def late_cluster() -> AsyncIterator[AsyncEngine]:
    """A database on the cluster that was a single server's until now: migrated, with no table distributed."""
    assert CITUS_URL is not None
    name = f"perennial_late_{os.getpid()}"
    url = await citus_cluster.create_database(CITUS_URL, name)
    engine = create_engine(url)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(distribution, "distribute", lambda _connection: [])
            await migrate.migrate(url)
        yield engine
    finally:
        await engine.dispose()
        await citus_cluster.drop_database(CITUS_URL, name)


@pytest.mark.citus
async def test_rows_that_are_there_move_into_the_shards(late_cluster: AsyncEngine) -> None:
    async with late_cluster.begin() as connection:
        await connection.execute(
            text("INSERT INTO workspaces (name, currency, time_zone, created_at) VALUES ('w', 'USD', 'UTC', now());")
        )
        await connection.execute(
            text(
                "INSERT INTO customer_summary (workspace_id, customer_id, updated_at)"
                " SELECT 1, 'c-' || n, now() FROM generate_series(1, 500) AS n"
            )
        )
        await connection.execute(text("CREATE TABLE scores_run_7 (LIKE scores INCLUDING DEFAULTS)"))
        await connection.execute(text("ALTER TABLE scores ATTACH PARTITION scores_run_7 FOR VALUES IN (7)"))
        for partition in (0, 7):
            await connection.execute(
                text(
                    "INSERT INTO scores (partition, run_id, customer_id, workspace_id, order_count, net_spend,"
                    " abc_net_spend, clv_historical, clv_current, churn_state, lifecycle_status)"
                    f" SELECT {partition}, 7, 'c-' || n, 1, 1, 1, 1, 1, 1, 'active', 'new'"
                    " FROM generate_series(1, 500) AS n"
                )
            )
    async with late_cluster.connect() as connection:
        moved = await connection.run_sync(distribution.distribute)
        assert sorted(moved) == sorted((*DISTRIBUTED, *REFERENCE))
        for table, rows in (("workspaces", 1), ("customer_summary", 500), ("scores", 1000), ("scores_run_7", 500)):
            assert (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one() == rows
            # What the coordinator itself still holds of it.
            assert (
                await connection.execute(
                    text(
                        "SELECT sum(pg_relation_size(relid)) FROM (SELECT relid FROM pg_partition_tree(:table)"
                        f" UNION SELECT '{table}'::regclass) AS parts"
                    ),
                    {"table": table},
                )
            ).scalar_one() == 0
