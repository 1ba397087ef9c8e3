"""Every migration goes up, down and up again with data in the tables, and none makes running code wait for long."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app import migrate
from app.main import create_app
from app.settings import Settings
from app.store import scores
from app.store.engine import create_engine
from app.store.score_lists import indexes_of
from tests.conftest import make_client
from tests.test_isolation import CANARY, fill

pytestmark = pytest.mark.one_server

REVISIONS = [script.revision for script in ScriptDirectory.from_config(migrate._config()).walk_revisions()]
"""From the newest to the oldest."""


@pytest_asyncio.fixture
async def fresh_url(database_url: str) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    name = "migrations"
    server = await asyncpg.connect(database_url)
    await server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await server.execute(f"CREATE DATABASE {name}")
    url = database_url.replace("/perennial?", f"/{name}?")
    assert url != database_url
    await migrate.migrate(url)
    yield url
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await server.close()


async def go(url: str, way: Any, revision: str) -> None:
    def run(config: Config) -> None:
        way(config, revision)

    await migrate._with_connection(url, run)


async def contents(url: str) -> dict[str, dict[str, str]]:
    """A checksum of every column of every table."""
    connection = await asyncpg.connect(url)
    found: dict[str, dict[str, str]] = {}
    try:
        columns = await connection.fetch(
            "SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables"
            " USING (table_schema, table_name) WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
            " AND table_name <> 'alembic_version'"
        )
        for table, column in columns:
            told = await connection.fetchval(
                f"SELECT md5(coalesce(string_agg(c, ',' ORDER BY c), '')) || '/' || count(*)"
                f' FROM (SELECT CAST("{column}" AS text) AS c FROM "{table}") AS told'
            )
            found.setdefault(table, {})[column] = told
    finally:
        await connection.close()
    return found


def lost(before: dict[str, dict[str, str]], after: dict[str, dict[str, str]]) -> list[str]:
    """What both have, and has changed."""
    return [
        f"{table}.{column}"
        for table in before.keys() & after.keys()
        for column in before[table].keys() & after[table].keys()
        if before[table][column] != after[table][column]
    ]


async def fill_up(url: str) -> None:
    app = create_app(Settings(database_url=url, throwaway_database=True))
    async with app.router.lifespan_context(app):
        client = await make_client(app)
        async with client.http:
            await fill(app, client, CANARY)
            headers = {"Idempotency-Key": "once"}
            assert (await client.http.post("/v1/keys", json={"scopes": ["admin"]}, headers=headers)).is_success
            assert (await client.http.delete(f"/v1/customers/{CANARY}-d")).is_success


async def test_every_migration_goes_up_down_and_up_with_data(fresh_url: str) -> None:
    await fill_up(fresh_url)
    full = await contents(fresh_url)
    assert (
        len([table for table, columns in full.items() if not all(told.endswith("/0") for told in columns.values())])
        > 12
    )
    for number, revision in enumerate(REVISIONS):
        below = REVISIONS[number + 1] if number + 1 < len(REVISIONS) else "base"
        before = await contents(fresh_url)
        await go(fresh_url, command.downgrade, below)
        down = await contents(fresh_url)
        assert lost(before, down) == [], f"down from {revision}"
        await go(fresh_url, command.upgrade, revision)
        assert lost(down, await contents(fresh_url)) == [], f"up to {revision}"
        await go(fresh_url, command.downgrade, below)
    assert await contents(fresh_url) == {}
    await migrate.migrate(fresh_url)
    await migrate._with_connection(fresh_url, lambda config: command.check(config))
    await fill_up(fresh_url)


@pytest.mark.parametrize(("below", "above"), [("0012", "0013"), ("0013", "0014")])
async def test_a_run_that_goes_on_over_a_migration_of_its_scores_can_end(
    fresh_url: str, below: str, above: str
) -> None:
    await go(fresh_url, command.downgrade, below)
    connection = await asyncpg.connect(fresh_url)
    try:
        for part in ("7", "0", "9"):  # One with a table of its own, a small one, and one that has none yet.
            await connection.execute(
                "INSERT INTO runs_at_work (run_id, workspace_id, snapshot, erased_before, partition)"
                f" VALUES (1{part}, 1, '', 0, {part})"
            )
        await connection.execute("CREATE TABLE scores_run_7 (LIKE scores INCLUDING DEFAULTS)")
        for way, revision in ((command.upgrade, above), (command.downgrade, below), (command.upgrade, above)):
            await go(fresh_url, way, revision)
        await connection.execute("ALTER TABLE scores ATTACH PARTITION scores_run_7 FOR VALUES IN (7)")
    finally:
        await connection.close()


async def test_runs_keep_their_scores_and_indexes_when_large_ones_get_indexes_of_their_own(fresh_url: str) -> None:
    await go(fresh_url, command.downgrade, "0013")
    engine = create_engine(fresh_url)
    connection = await asyncpg.connect(fresh_url)

    async def found() -> tuple[list[int], dict[str, int]]:
        """The partitions of the rows that are there, and how many indexes each table has."""
        rows = await connection.fetch("SELECT partition FROM scores ORDER BY partition")
        tables = await connection.fetch(
            "SELECT tablename, count(*) FROM pg_indexes WHERE tablename LIKE 'scores%' GROUP BY tablename"
        )
        return [row[0] for row in rows], dict(map(tuple, tables))

    try:
        await connection.execute("CREATE TABLE scores_run_7 (LIKE scores, CHECK (partition = 7))")
        await connection.execute("ALTER TABLE scores ATTACH PARTITION scores_run_7 FOR VALUES IN (7)")
        add = (
            "INSERT INTO scores (partition, run_id, customer_id, workspace_id, order_count, net_spend, abc_net_spend,"
            " clv_historical, clv_current, churn_state, lifecycle_status)"
            " VALUES ($1, 1, 'c', 1, 1, 2.5, 2.5, 2.5, 2.5, 'active', 'new')"
        )
        await connection.executemany(add, [(0,), (7,)])
        before = await found()
        assert before == ([0, 7], {"scores": 12, "scores_small": 12, "scores_run_7": 12})
        await go(fresh_url, command.upgrade, "0014")
        assert await found() == ([0, 7], {"scores": 1, "scores_small": 6, "scores_run_7": 12})
        async with engine.begin() as newer:
            await scores.make_partition(newer, 8)
            await newer.execute(text(add.replace("$1", "8").replace("INTO scores", "INTO scores_run_8")))
            for statement in indexes_of(8, in_classes=True):
                await scores.make_index(newer, statement)
            await scores.attach_partition(newer, 8)
        as_newest = {"scores": 1, "scores_small": 6, "scores_run_7": 12, "scores_run_8": 12}
        assert await found() == ([0, 7, 8], as_newest)
        await go(fresh_url, command.downgrade, "0013")
        assert await found() == ([0, 7, 8], dict.fromkeys(as_newest, 12))
        await go(fresh_url, command.upgrade, "0014")
        assert await found() == ([0, 7, 8], as_newest)
    finally:
        await connection.close()
        await engine.dispose()


@pytest.mark.parametrize("timeout_ms", [300])
async def test_a_migration_that_waits_for_a_lock_gives_up_before_long(
    fresh_url: str, monkeypatch: pytest.MonkeyPatch, timeout_ms: int
) -> None:
    """Whoever comes after a change of a table that waits has to wait behind it."""
    assert "lock_timeout = '5s'" in migrate.LOCK_TIMEOUT
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", f"SET lock_timeout = '{timeout_ms}ms'")
    reader, other = await asyncpg.connect(fresh_url), await asyncpg.connect(fresh_url)
    try:
        async with reader.transaction():
            await reader.execute("SELECT FROM workspaces")

            async def step_down() -> None:
                def alter(config: Config) -> None:
                    connection = config.attributes["connection"]
                    connection.execute(text("ALTER TABLE workspaces ADD COLUMN late int"))

                await migrate._with_connection(fresh_url, alter)

            migrating = asyncio.create_task(step_down())
            await asyncio.sleep(0.1)
            begun = time.monotonic()
            await other.execute("SELECT FROM workspaces")
            waited = time.monotonic() - begun
            with pytest.raises(DBAPIError, match="lock timeout"):
                await migrating
        assert waited < 5 * timeout_ms / 1000
    finally:
        await reader.close()
        await other.close()
