"""What reads cost, in statements and plans, which do not flicker; and that the short ways answer the same."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
import sqlalchemy.event
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import run_fitting
from app.main import create_app
from app.settings import Settings
from app.store import score_classes
from app.store.score_classes import SORTS
from tests.conftest import Client, make_client, order
from tests.test_runs import run, shop  # noqa: F401 - a fixture

# On a busy machine a connection is not back yet when the next is asked for, and another is opened.
_ONCE_A_CONNECTION = ("set_config('synchronous_commit'", "typeinfo_tree", "current_setting('jit')", "set_config('jit'")


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every statement that the app sends: those given to the driver, and those given to SQLAlchemy."""
    sent: list[Any] = []
    connect = asyncpg.connect

    def keep(statement: Any) -> None:
        if not any(part in statement.query for part in _ONCE_A_CONNECTION):
            sent.append(statement)

    async def listening(*arguments: Any, **options: Any) -> Any:
        connection = await connect(*arguments, **options)
        connection.add_query_logger(keep)
        return connection

    monkeypatch.setattr(asyncpg, "connect", listening)
    return sent


@pytest_asyncio.fixture
async def app(settings: Settings, statements: list[Any]) -> AsyncIterator[FastAPI]:
    application = create_app(settings)

    def told(*arguments: Any) -> None:
        statements.append(arguments[2])

    sqlalchemy.event.listen(application.state.engine.sync_engine, "before_cursor_execute", told)
    async with application.router.lifespan_context(application):
        yield application


async def cost(client: Client, statements: list[Any], *paths: str) -> int:
    """Statements that the paths take together, asked at once, when they are asked for the second time."""
    for _ in range(2):
        # What the second time costs; the first opens connections and learns of runs.
        statements.clear()
        answers = await asyncio.gather(*(client.http.get(path) for path in paths))
        assert {answer.status_code for answer in answers} == {200}
    return len(statements)


async def plan_by_indexes(database_url: str, statement: str, *values: Any) -> str:
    """The plan of a statement where indexes alone are at hand, as for a table too large to look through."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")
        return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *values))
    finally:
        await connection.close()


LIVE, CACHED = "/v1/customers/c-05/value", "/v1/customers/c-05/value?source=cached"


async def test_a_read_is_the_look_up_of_the_key_and_one_statement(
    shop: Client,  # noqa: F811
    engine: AsyncEngine,
    statements: list[Any],
) -> None:
    assert await cost(shop, statements, LIVE) == 2
    await run(shop, engine)
    for path in (LIVE, CACHED, "/v1/customers/c-05/rfm?source=cached", "/v1/values?limit=5", f"{LIVE}?horizon_days=30"):
        assert await cost(shop, statements, path) == 2, path


async def test_reads_that_come_together_share_their_statements(
    shop: Client,  # noqa: F811
    engine: AsyncEngine,
    statements: list[Any],
) -> None:
    await run(shop, engine)
    for source in ("live", "cached"):
        paths = [f"/v1/customers/c-{number:02}/value?source={source}" for number in range(1, 31)]
        assert await cost(shop, statements, *paths) <= 4, source


async def test_reads_that_come_together_are_the_same_as_alone(
    shop: Client,  # noqa: F811
    engine: AsyncEngine,
) -> None:
    await run(shop, engine)
    for query in ("as_of=2026-01-01T00:00:00Z", "source=cached", "as_of=2026-01-01T00:00:00Z&horizon_days=90"):
        paths = [f"/v1/customers/c-{number:02}/value?{query}" for number in range(1, 31)]
        alone = [(await shop.http.get(path)).content for path in paths]
        together = [answer.content for answer in await asyncio.gather(*map(shop.http.get, paths))]
        assert together == alone


@pytest.mark.parametrize("part", ["value", "rfm", "abc", "clv", "churn"])
@pytest.mark.parametrize("language", ["", "zh-CN,zh;q=0.9", "en;q=0, zh;q=0.1"])
async def test_a_plain_request_is_answered_as_any_other(
    shop: Client,  # noqa: F811
    engine: AsyncEngine,
    part: str,
    language: str,
) -> None:
    await run(shop, engine)
    headers = {"Accept-Language": language} if language else {}
    for customer_id in ("c-05", "prospect", "nobody"):
        path = f"/v1/customers/{customer_id}/{part}"
        for plain, usual in (("source=cached", "source=cached&x=1"), ("", "x=1"), ("source=live", "source=live&x=1")):
            answers = [await shop.http.get(f"{path}?{query}", headers=headers) for query in (plain, usual)]
            moment = re.compile(rb'"as_of":"[^"]+"')
            told = [moment.sub(b"", answer.content) if "cached" not in plain else answer.content for answer in answers]
            assert told[0] == told[1], (path, plain)
            heads = [{**answer.headers, "x-request-id": "", "content-length": ""} for answer in answers]
            assert (answers[0].status_code, heads[0]) == (answers[1].status_code, heads[1])


async def test_changed_settings_hold_for_the_next_live_value(client: Client) -> None:
    await client.record(order("o-1"))
    assert (await client.get("/v1/customers/c-1/clv"))["horizon_days"] == 365
    for horizon in (90, 30):
        await client.http.patch("/v1/settings", json={"clv": {"horizon_days": horizon}})
        assert (await client.get("/v1/customers/c-1/clv"))["horizon_days"] == horizon


async def test_lost_connections_fail_one_request_and_not_the_next(app: FastAPI, database_url: str) -> None:
    client = await make_client(app)
    async with client.http:
        await client.record(order("o-1"))
        # As many connections as there can be, so that more than one is lost.
        await asyncio.gather(*(client.http.get("/v1/customers") for _ in range(30)))
        other = await asyncpg.connect(database_url, server_settings={"application_name": "other"})
        await other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'perennial'"
        )
        await other.close()
        statuses = [(await client.http.get("/v1/customers/c-1/value")).status_code for _ in range(5)]
        assert set(statuses[:2]) <= {200, 503}
        assert statuses[2:] == [200, 200, 200]


FILTERS: list[dict[str, str]] = [
    {"abc": "A"},
    {"abc": "C", "churn_state": "churned"},
    {"segment": "champions"},
    {"lifecycle_status": "prospect"},
    {"churn_type": "unknown"},
    {"churn_type": "negligent"},
    {"net_spend_min": "100", "net_spend_max": "400.00"},
    {"net_spend_max": "0"},
    {"clv_total_max": "120.50"},
    {"clv_total_min": "90", "abc": "C"},
    {"net_spend_min": "999999"},
]


def matches(value: dict[str, Any], wanted: dict[str, str]) -> bool:
    told = {
        "abc": value["abc"]["grade"],
        "segment": value["rfm"]["segment"],
        "churn_state": value["churn"]["state"],
        "churn_type": value["churn"]["type"],
        "lifecycle_status": value["lifecycle"]["status"],
    }
    money = {"net_spend": value["rfm"]["net_spend"], "clv_total": value["clv"]["total"]}
    for name, limit in wanted.items():
        column, _, end = name.rpartition("_")
        if column in money:
            amount = money[column]
            if amount is None or (float(amount) < float(limit) if end == "min" else float(amount) > float(limit)):
                return False
        elif told[name] != limit:
            return False
    return True


@pytest.mark.parametrize("model", ["textbook", "auto"])
async def test_filtered_pages_of_a_large_run_hold_what_meets_the_filters_in_order(
    shop: Client,  # noqa: F811
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
) -> None:
    monkeypatch.setattr(run_fitting, "LARGE_RUN_CUSTOMERS", 10)
    await run(shop, engine, settings={"clv": {"model": model}})
    for sort in ("customer_id", "net_spend", "days_since_last_order", "order_count", "clv_total", "churn_probability"):
        for direction in ("", "-"):
            everyone = (await shop.get("/v1/values", sort=direction + sort, limit=1000))["data"]
            assert len(everyone) == 31
            for wanted in FILTERS:
                found: list[dict[str, Any]] = []
                cursor = ""
                while cursor is not None:
                    page = await shop.get("/v1/values", sort=direction + sort, limit=7, cursor=cursor, **wanted)
                    found += page["data"]
                    cursor = page["next_cursor"]
                assert found == [value for value in everyone if matches(value, wanted)], (sort, direction, wanted)


@pytest.mark.one_server
async def test_a_filtered_page_is_merged_from_the_indexes_of_its_classes(
    shop: Client,  # noqa: F811
    engine: AsyncEngine,
    statements: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
) -> None:
    monkeypatch.setattr(run_fitting, "LARGE_RUN_CUSTOMERS", 10)
    await run(shop, engine)
    path = "/v1/values?abc=C&sort=-clv_total&limit=5"
    # The key, the ids of the page, their scores; what classes there are is known from the first time.
    assert await cost(shop, statements, path) == 3
    [merged] = [sent for sent in statements if "UNION ALL" in getattr(sent, "query", "")]
    plan = await plan_by_indexes(database_url, merged.query, *merged.args)
    assert "Merge Append" in plan
    assert plan.count("Index Scan") == merged.query.count("score_class")
    assert not re.search(r"Sort Key: .*clv_total.*\n\s+->  (Index|Seq) Scan", plan)
    by_class = re.findall(r"Index Scan Backward using ix_scores_run_\d+_class_clv_total", plan)
    assert len(by_class) == plan.count("Index Scan")


@pytest.mark.one_server
@pytest.mark.parametrize("large", [False, True])
async def test_a_page_comes_from_an_index_of_its_sort(
    shop: Client,  # noqa: F811
    engine: AsyncEngine,
    statements: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    database_url: str,
    large: bool,
) -> None:
    monkeypatch.setattr(run_fitting, "LARGE_RUN_CUSTOMERS", 10 if large else 1_000)
    await run(shop, engine)
    async with engine.connect() as connection:
        latest = text("SELECT id, partition FROM runs WHERE workspace_id = :workspace_id")
        run_id, partition = (await connection.execute(latest, {"workspace_id": shop.workspace.id})).one()
    for sort in (*SORTS, *(f"-{sort}" for sort in SORTS)):
        await cost(shop, statements, f"/v1/values?sort={sort}&limit=5")
        [page] = [sent for sent in map(str, statements) if "ORDER BY" in sent and "IS NULL" not in sent]
        plan = await plan_by_indexes(database_url, page, shop.workspace.id, partition, run_id, 5)
        assert re.search(r"Limit.*\n  ->  Index Scan", plan), plan


@pytest.mark.one_server
async def test_a_run_keeps_its_classes_and_lists_are_the_same_without_them(
    shop: Client,  # noqa: F811
    engine: AsyncEngine,
    statements: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_fitting, "LARGE_RUN_CUSTOMERS", 10)
    asked: dict[str, Any] = {"abc": "C", "clv_total_min": "20.25", "sort": "-clv_total"}
    pages, merged = [], []
    keep = score_classes.keep_classes

    async def keep_without_one(connection: Any, **named: Any) -> None:
        """As where a worker of a version without classes has scored a part."""
        await connection.execute(
            text(
                f"UPDATE scores_run_{named['run_id']} SET score_class = NULL"
                " WHERE workspace_id = :workspace_id AND customer_id = 'c-05'"
            ),
            {"workspace_id": named["workspace_id"]},
        )
        await keep(connection, **named)

    of_another_version = """score_classes = '[{"code": 5, "customers": 31}]'"""
    for forgotten in ("", "score_classes = NULL", of_another_version, "a row"):
        with monkeypatch.context() as patch:
            if forgotten == "a row":
                patch.setattr(score_classes, "keep_classes", keep_without_one)
            await run(shop, engine)
        if "=" in forgotten:
            async with engine.begin() as connection:
                await connection.exec_driver_sql(f"UPDATE runs SET {forgotten}")
        del statements[:]
        pages.append((await shop.get("/v1/values", **asked))["data"])
        merged.append(any("UNION ALL" in getattr(sent, "query", "") for sent in statements))
    assert merged == [True, False, False, False]
    assert pages[0]
    ids = [[(value["customer_id"], value["clv"]) for value in page] for page in pages]
    assert ids == [ids[0]] * 4


async def test_a_revoked_key_reads_no_value_although_it_was_known_a_moment_ago(client: Client) -> None:
    await client.record(order("o-1"))
    made = (await client.http.post("/v1/keys", json={"scopes": ["scores:read"]})).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    for customer_id, status in (("c-1", 200), ("c-1", 200), ("nobody", 404)):
        assert (await client.http.get(f"/v1/customers/{customer_id}/value", headers=headers)).status_code == status
    assert (await client.http.delete(f"/v1/keys/{made['id']}")).status_code == 204
    for customer_id in ("c-1", "nobody"):
        answer = await client.http.get(f"/v1/customers/{customer_id}/value", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unknown_key")


async def test_a_new_run_holds_for_the_next_read(
    shop: Client,  # noqa: F811
    engine: AsyncEngine,
) -> None:
    for _ in range(3):
        done = await run(shop, engine)
        for path in (LIVE, CACHED):
            assert (await shop.get(path))["run_id"] == done["id"]
