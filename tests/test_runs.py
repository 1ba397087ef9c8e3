"""Runs, and the reads that stand on them: one fit, the same number live and stored."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import live, run_execution, run_fitting, run_parts, runs, scoring
from app.store import queue
from app.store import scores as score_store
from tests.conftest import Client, event, order

AS_OF = "2026-01-01T00:00:00Z"


async def finish_runs(client: Client, engine: AsyncEngine) -> None:
    """Do the workspace's queued runs as the worker does."""
    async with engine.connect() as connection:
        ids = (
            await connection.execute(
                text("SELECT id FROM runs WHERE workspace_id = :id AND status = 'queued' ORDER BY id"),
                {"id": client.workspace.id},
            )
        ).scalars()
        queued = list(ids)
    for run_id in queued:
        await run_execution.execute_run(engine, str(run_id).encode(), asyncio.Event())


async def run(client: Client, engine: AsyncEngine, **request: Any) -> dict[str, Any]:
    """Ask for a run, do it, and answer it."""
    response = await client.http.post("/v1/runs", json={"as_of": AS_OF, **request})
    assert response.status_code == 202, response.text
    await finish_runs(client, engine)
    return await client.get(f"/v1/runs/{response.json()['id']}")


@pytest_asyncio.fixture
async def shop(client: Client) -> AsyncIterator[Client]:
    """Thirty customers: number n has n orders of n.50 each, the last one n days before the run; one never bought."""
    events = [event("customer.created", "prospect", "2025-01-01T00:00:00Z", name="Ada")]
    for number in range(1, 31):
        for placed in range(number):
            events.append(
                order(
                    f"o-{placed}",
                    f"{number}.50",
                    f"2025-{12 - (placed % 6):02}-{31 - number if placed % 6 else 1:02}T12:00:00Z",
                    customer_id=f"c-{number:02}",
                )
            )
    receipt = await client.record(*events)
    assert receipt["rejected"] == 0
    yield client


@pytest.fixture(params=["of the run", "computed"])
def computed(request: Any, monkeypatch: Any) -> bool:
    """Whether live values are computed even where a run has computed the same."""
    if request.param == "computed":
        monkeypatch.setattr(live, "_scores_of_the_run", lambda *_: {})
    return bool(request.param == "computed")


@pytest.fixture
def scorings(monkeypatch: Any) -> list[list[str]]:
    """The ids of customers whose live scores are computed, a list each time."""
    found: list[list[str]] = []

    def spy(population: Any, *args: Any, **kwargs: Any) -> Any:
        found.append(list(population.customer_ids))
        return scoring.score_population(population, *args, **kwargs)

    monkeypatch.setattr(live, "score_population", spy)
    return found


@pytest.mark.parametrize("window_days", [None, 100])
async def test_live_and_cached_values_are_the_same_number(
    shop: Client, engine: AsyncEngine, computed: bool, scorings: list[list[str]], window_days: int | None
) -> None:
    done = await run(shop, engine, settings={"rfm": {"window_days": window_days}})
    assert (done["status"], done["customers"], done["progress"]) == ("succeeded", 31, 1.0)
    page = await shop.get("/v1/values", limit=1000)
    assert page["run_id"] == done["id"]
    assert len(page["data"]) == 31
    for cached in page["data"]:
        value = await shop.get(f"/v1/customers/{cached['customer_id']}/value", as_of=AS_OF)
        assert {**cached, "source": "live"} == value
    assert len(scorings) == (31 if computed else 0)


async def test_a_live_value_is_the_runs_own_until_anything_that_it_depends_on_changes(
    shop: Client, engine: AsyncEngine, scorings: list[list[str]]
) -> None:
    await run(shop, engine)

    async def is_computed(**query: Any) -> bool:
        scorings.clear()
        await shop.get("/v1/customers/c-05/value", **{"as_of": AS_OF, **query})
        return scorings == [["c-05"]]

    assert not await is_computed()
    assert not await is_computed(as_of="2026-01-01T23:59:59Z")
    assert not await is_computed(horizon_days=365)
    assert await is_computed(horizon_days=364)
    assert await is_computed(as_of="2026-01-02T00:00:00Z")
    assert await is_computed(explain="true")
    # As many orders, as much money, the last day as before: one purchase day less.
    day = "2025-11-26T"
    await shop.record(
        event("order.cancelled", "c-05", f"{day}13:00:00Z", order_id="o-1"),
        order("moved", "5.50", "2025-10-26T13:00:00Z", customer_id="c-05"),
    )
    stored = await shop.get("/v1/customers/c-05/value", source="cached")
    assert await is_computed()
    value = await shop.get("/v1/customers/c-05/value", as_of=AS_OF)
    assert {name: value["rfm"][name] for name in ("order_count", "net_spend", "days_since_last_order")} == {
        name: stored["rfm"][name] for name in ("order_count", "net_spend", "days_since_last_order")
    }


async def test_where_interactions_speak_a_live_value_is_computed(
    shop: Client, engine: AsyncEngine, scorings: list[list[str]]
) -> None:
    receipt = await shop.record(event("complaint.opened", "c-05", "2025-12-30T00:00:00Z", complaint_id="k-1"))
    assert receipt["accepted"] == 1, receipt
    await run(shop, engine)
    stored = await shop.get("/v1/customers/c-05/value", source="cached")
    assert await shop.get("/v1/customers/c-05/value", as_of=AS_OF) == {**stored, "source": "live"}
    assert scorings == [["c-05"]]


async def test_scores_of_runs_from_before_digests_are_computed_anew(
    shop: Client, engine: AsyncEngine, scorings: list[list[str]]
) -> None:
    await run(shop, engine)
    async with engine.begin() as connection:
        statement = text("UPDATE scores SET figures_digest = NULL WHERE workspace_id = :id")
        await connection.execute(statement, {"id": shop.workspace.id})
    await shop.get("/v1/customers/c-05/value", as_of=AS_OF)
    assert scorings == [["c-05"]]


async def test_a_large_run_has_a_partition_of_its_own_and_reads_the_same(
    shop: Client, engine: AsyncEngine, monkeypatch: Any
) -> None:
    small = await run(shop, engine)
    before = (await shop.get("/v1/values", limit=1000))["data"]
    monkeypatch.setattr(run_fitting, "LARGE_RUN_CUSTOMERS", 10)
    monkeypatch.setattr(run_parts, "CUSTOMERS_A_WRITE", 7)
    large = await run(shop, engine)
    after = (await shop.get("/v1/values", limit=1000))["data"]
    assert small["id"] != large["id"]
    assert [{**value, "run_id": None} for value in after] == [{**value, "run_id": None} for value in before]


async def test_every_sort_pages_through_all_customers_once(shop: Client, engine: AsyncEngine) -> None:
    await run(shop, engine)
    keys: dict[str, Any] = {
        "customer_id": lambda value: value["customer_id"],
        "net_spend": lambda value: float(value["rfm"]["net_spend"]),
        "days_since_last_order": lambda value: value["rfm"]["days_since_last_order"],
        "order_count": lambda value: value["rfm"]["order_count"],
        "clv_total": lambda value: float(value["clv"]["total"]) if value["clv"]["total"] else None,
        "churn_probability": lambda value: value["churn"]["probability"],
    }
    for sort, key in keys.items():
        for prefix in ("", "-"):
            values: list[dict[str, Any]] = []
            cursor = ""
            while cursor is not None:
                page = await shop.get("/v1/values", sort=prefix + sort, limit=4, cursor=cursor)
                values += page["data"]
                cursor = page["next_cursor"]
            assert len({value["customer_id"] for value in values}) == len(values) == 31, sort
            known = [key(value) for value in values if key(value) is not None]
            assert known == sorted(known, reverse=bool(prefix)), sort
            assert all(key(value) is None for value in values[len(known) :]), sort


async def test_filters_choose_what_they_say(shop: Client, engine: AsyncEngine) -> None:
    await run(shop, engine)
    everyone = (await shop.get("/v1/values", limit=1000))["data"]
    chosen = (await shop.get("/v1/values", abc="A", limit=1000))["data"]
    assert chosen == [value for value in everyone if value["abc"]["grade"] == "A"]
    chosen = (await shop.get("/v1/values", net_spend_min="100", net_spend_max="400.00", limit=1000))["data"]
    assert 0 < len(chosen) < 31
    assert chosen == [value for value in everyone if 100 <= float(value["rfm"]["net_spend"]) <= 400]
    chosen = (await shop.get("/v1/values", lifecycle_status="prospect"))["data"]
    assert [value["customer_id"] for value in chosen] == ["prospect"]


async def test_late_events_change_live_answers_but_never_a_stored_run(shop: Client, engine: AsyncEngine) -> None:
    await run(shop, engine)
    stored = await shop.get("/v1/customers/c-05/value", source="cached")
    await shop.record(order("late", "1000.00", "2025-12-02T00:00:00Z", customer_id="c-05"))
    assert await shop.get("/v1/customers/c-05/value", source="cached") == stored
    value = await shop.get("/v1/customers/c-05/value", as_of=AS_OF)
    assert float(value["rfm"]["net_spend"]) == float(stored["rfm"]["net_spend"]) + 1000
    assert value["abc"]["cumulative_share"] is None
    assert value["abc"]["grade"] == "A"


async def test_without_a_run_live_answers_and_cached_says_why_not(client: Client) -> None:
    await client.record(order("o-1"))
    value = await client.get("/v1/customers/c-1/value", as_of="2025-01-10T00:00:00Z")
    assert value["run_id"] is None
    assert value["rfm"] == {
        "days_since_last_order": 7,
        "order_count": 1,
        "net_spend": "10.00",
        **dict.fromkeys(("r", "f", "m", "score", "segment")),
    }
    assert (value["churn"]["state"], value["lifecycle"]["status"]) == ("active", "new")
    for path in ("/v1/values", "/v1/customers/c-1/value?source=cached"):
        response = await client.http.get(path)
        assert (response.status_code, response.json()["code"]) == (409, "no_run")


async def test_a_customer_that_the_run_did_not_score_is_not_scored(shop: Client, engine: AsyncEngine) -> None:
    await run(shop, engine)
    await shop.record(order("o-1", customer_id="newcomer"))
    response = await shop.http.get("/v1/customers/newcomer/value?source=cached")
    assert (response.status_code, response.json()["code"]) == (404, "not_scored")
    response = await shop.http.get(f"/v1/customers/c-05/value?source=cached&as_of={AS_OF}")
    assert response.status_code == 422


async def test_a_value_asked_for_again_is_the_one_worked_out_anew(shop: Client, engine: AsyncEngine) -> None:
    who = "c-05"

    async def told(**query: Any) -> dict[str, Any]:
        """Asked for plainly, and again, and with the reasons, for which nothing is recalled."""
        query = {"as_of": AS_OF, **query}
        answers = [await shop.get(f"/v1/customers/{who}/value", **query) for _ in range(2)]
        anew = await shop.get(f"/v1/customers/{who}/value", explain="true", **query)
        assert answers == [{**anew, "explanation": answers[0].get("explanation")}] * 2
        asked = await shop.http.post("/v1/values/query", json={"customer_ids": [who, "c-06"], "as_of": query["as_of"]})
        if "horizon_days" not in query:
            assert asked.json()["data"][0] == answers[0]
        return answers[0]

    steps: list[Callable[[], Awaitable[Any]]] = [
        lambda: told(),
        lambda: run(shop, engine),
        lambda: told(horizon_days=30),
        lambda: told(as_of="2026-02-01T00:00:00Z"),
        lambda: shop.record(order("more", "70.00", "2025-12-02T00:00:00Z", customer_id=who)),
        lambda: shop.record(event("order.refunded", who, "2025-12-03T00:00:00Z", order_id="more", amount="1.00")),
        lambda: shop.record(event("complaint.opened", who, "2025-12-04T00:00:00Z", complaint_id="k", text="late")),
        lambda: run(shop, engine, settings={"rfm": {"k": 3}, "clv": {"horizon_days": 90}}),
        lambda: shop.http.patch("/v1/settings", json={"churn": {"active_days": 3, "at_risk_days": 5}}),
    ]
    seen = []
    for step in steps:
        await step()
        seen.append(await told())
    different = [before != after for before, after in pairwise(seen)]
    assert different == [True, False, False, True, True, True, True, False]


async def test_without_a_run_settings_count_at_once(shop: Client) -> None:
    path = "/v1/customers/c-05/churn"
    assert (await shop.get(path, as_of=AS_OF))["state"] == "active"
    changed = await shop.http.patch("/v1/settings", json={"churn": {"active_days": 3, "at_risk_days": 5}})
    assert changed.status_code == 200, changed.text
    assert (await shop.get(path, as_of=AS_OF))["state"] == "churned"


async def test_two_runs_are_kept_and_cursors_of_older_ones_are_gone(shop: Client, engine: AsyncEngine) -> None:
    await run(shop, engine)
    first = await shop.get("/v1/values", limit=4)
    await run(shop, engine)
    again = await shop.http.get("/v1/values", params={"limit": 4, "cursor": first["next_cursor"]})
    assert again.json()["run_id"] == first["run_id"]
    await run(shop, engine)
    gone = await shop.http.get("/v1/values", params={"limit": 4, "cursor": first["next_cursor"]})
    assert (gone.status_code, gone.json()["code"]) == (410, "run_gone")


async def test_settings_are_validated_versioned_and_recorded_in_runs(shop: Client, engine: AsyncEngine) -> None:
    assert (await shop.get("/v1/settings"))["version"] == 1
    changed = await shop.http.patch("/v1/settings", json={"rfm": {"k": 3}})
    assert (changed.json()["version"], changed.json()["rfm"]["k"]) == (2, 3)
    refused = await shop.http.patch("/v1/settings", json={"rfm": {"k": 11}})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/rfm/k"
    done = await run(shop, engine, settings={"abc": {"preset": "literal"}})
    assert (done["settings_version"], done["settings"]["rfm"]["k"]) == (2, 3)
    assert done["settings"]["abc"]["preset"] == "literal"
    assert done["fitted"]["abc"]["b_share"] == "0.99"


async def test_values_query_answers_in_the_order_asked_and_names_the_unknown(shop: Client, engine: AsyncEngine) -> None:
    await run(shop, engine)
    response = await shop.http.post(
        "/v1/values/query", json={"customer_ids": ["c-07", "nobody", "c-03", "c-07"], "as_of": AS_OF}
    )
    answer = response.json()
    assert [value["customer_id"] for value in answer["data"]] == ["c-07", "c-03"]
    assert answer["not_found"] == ["nobody"]
    assert answer["data"][0] == await shop.get("/v1/customers/c-07/value", as_of=AS_OF)


async def test_schedule_queues_a_run_once_it_is_due(client: Client, engine: AsyncEngine, app: FastAPI) -> None:
    await client.record(order("o-1"))
    await client.http.patch("/v1/settings", json={"runs": {"every_hours": 24}})
    await runs.schedule_due_runs(engine)
    await runs.schedule_due_runs(engine)
    listed = await client.get("/v1/runs")
    assert [one["status"] for one in listed["data"]] == ["queued"]
    await finish_runs(client, engine)
    await runs.schedule_due_runs(engine)
    assert len((await client.get("/v1/runs"))["data"]) == 1


async def test_a_run_that_a_killed_worker_left_behind_is_done_again(shop: Client, engine: AsyncEngine) -> None:
    asked = (await shop.http.post("/v1/runs", json={"as_of": AS_OF})).json()
    async with engine.begin() as connection:
        number = (
            await connection.execute(
                text("UPDATE runs SET status = 'running', progress = 0.7 WHERE name = :name RETURNING id"),
                {"name": asked["id"]},
            )
        ).scalar_one()
    await run_execution.execute_run(engine, str(number).encode(), asyncio.Event())
    done = await shop.get(f"/v1/runs/{asked['id']}")
    assert (done["status"], done["customers"]) == ("succeeded", 31)
    # The queue may hand it out once more: what is done stays done.
    await run_execution.execute_run(engine, str(number).encode(), asyncio.Event())
    assert await shop.get(f"/v1/runs/{asked['id']}") == done


async def test_a_run_that_cannot_succeed_says_why_and_live_answers_go_on(client: Client, engine: AsyncEngine) -> None:
    await client.record(*(order(f"o-{n}", "99999999999.99", "2025-12-01T00:00:00Z") for n in range(9_300)))
    done = await run(client, engine)
    assert (done["status"], done["error"]["code"]) == ("failed", "amount_too_large")
    value = await client.get("/v1/customers/c-1/value", as_of=AS_OF)
    assert value["rfm"]["net_spend"] == "929999999999907.00"
    assert value["run_id"] is None


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
async def test_a_run_that_is_interrupted_leaves_nothing_and_is_done_again(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(run_fitting, "LARGE_RUN_CUSTOMERS", 1)
    keep = score_store.copy_to_history

    async def interrupted(*_: Any) -> None:
        raise queue.Interrupted

    monkeypatch.setattr(score_store, "copy_to_history", interrupted)
    name = (await shop.http.post("/v1/runs", json={})).json()["id"]

    async def fetch(statement: str) -> Any:
        async with engine.connect() as connection:
            return (await connection.execute(text(statement), {"name": name})).scalar_one()

    number = str(await fetch("SELECT id FROM runs WHERE name = :name")).encode()
    with pytest.raises(queue.Interrupted):
        await run_execution.execute_run(engine, number, asyncio.Event())
    of_run = "SELECT count(*) FROM scores WHERE run_id = (SELECT id FROM runs WHERE name = :name)"
    assert await fetch(of_run) == 0
    monkeypatch.setattr(score_store, "copy_to_history", keep)
    await run_execution.execute_run(engine, number, asyncio.Event())
    assert (await shop.get(f"/v1/runs/{name}"))["status"] == "succeeded"
    assert await fetch(of_run) > 0
