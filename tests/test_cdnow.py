"""The CDNOW sample through HTTP: every customer's figures equal a recomputation by pandas, to the last digit."""

import json
from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from app.main import create_app
from app.settings import Settings
from app.store.figures import FIGURES_OF_CUSTOMERS
from tests import cdnow
from tests.conftest import Client, make_client

ORDERS = cdnow.read_orders("CDNOW_sample.txt")
CUSTOMERS = sorted(set(ORDERS["customer_id"]))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(database_url: str) -> AsyncIterator[Client]:
    """A workspace that holds the sample, the last orders first."""
    app = create_app(Settings(database_url=database_url, throwaway_database=True))
    client = await make_client(app, time_zone=cdnow.TIME_ZONE.key)
    events = list(cdnow.events(ORDERS))[::-1]
    for start in range(0, len(events), 1_000):
        receipt = await client.record(*events[start : start + 1_000])
        assert receipt["accepted"] == len(events[start : start + 1_000])
    yield client
    await client.http.aclose()
    await app.state.engine.dispose()


def test_the_sample_is_the_one_that_papers_speak_of() -> None:
    assert (len(CUSTOMERS), len(ORDERS)) == (2_357, 6_919)


async def test_the_summaries_equal_the_recomputation(client: Client) -> None:
    expected = cdnow.figures(ORDERS, cdnow.LAST_DAY)
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = await client.get("/v1/customers", limit=1_000, cursor=cursor)
        found += page["data"]
        cursor = page["next_cursor"]
    assert [customer["customer_id"] for customer in found] == CUSTOMERS
    for customer in found:
        row, summary = expected[customer["customer_id"]], customer["summary"]
        assert summary["order_count"] == summary["event_count"] == row["order_count"]
        assert summary["purchase_days"] == row["purchase_days"]
        assert summary["first_purchase_day"] == str(row["first_purchase_day"])
        assert summary["last_purchase_day"] == str(row["last_purchase_day"])
        assert summary["net_spend"] == cdnow.money(row["net_spend"])


@pytest.mark.parametrize("day", cdnow.MOMENTS)
async def test_the_figures_of_past_moments_equal_the_recomputation(client: Client, day: date) -> None:
    expected = cdnow.figures(ORDERS, day)
    values = {
        "workspace_id": client.workspace.id,
        "customer_ids": CUSTOMERS,
        "as_of": cdnow.end_of(day),
        "as_of_day": day,
        "window_days": 365,
    }
    async with engine_of(client).connect() as connection:
        rows = {row.customer_id: row for row in await connection.execute(FIGURES_OF_CUSTOMERS, values)}
    assert rows.keys() == expected.keys()
    for customer_id, row in rows.items():
        wanted = dict(expected[customer_id])
        wanted |= {"window_order_count": wanted["year_order_count"], "window_net_spend": wanted["year_net_spend"]}
        wanted |= {"order_spend": wanted["net_spend"], "net_cost": 0, "year_cost": 0, "first_day_cost": 0}
        for name, value in row._mapping.items():
            if name != "customer_id":
                exact = Decimal(cdnow.money(wanted[name])) if name.endswith("spend") else wanted[name]
                assert value == exact, (customer_id, name)


@pytest.mark.parametrize("day", [*cdnow.MOMENTS, cdnow.LAST_DAY, date(2000, 1, 1)])
async def test_the_values_of_any_moment_equal_the_recomputation(client: Client, day: date) -> None:
    expected = cdnow.figures(ORDERS, day)
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(CUSTOMERS), 1_000):
        asked = CUSTOMERS[start : start + 1_000]
        answer = await query(client, asked, day)
        assert answer["not_found"] == []
        assert [value["customer_id"] for value in answer["data"]] == asked
        found |= {value["customer_id"]: value for value in answer["data"]}
    for customer_id, value in found.items():
        cdnow.check_value(value, expected.get(customer_id), day)


async def test_one_value_is_the_same_as_that_of_many(client: Client) -> None:
    day = cdnow.MOMENTS[1]
    for customer_id in CUSTOMERS[::200]:
        one = await client.get(f"/v1/customers/{customer_id}/value", as_of=cdnow.end_of(day).isoformat())
        assert [one] == (await query(client, [customer_id], day))["data"]


async def query(client: Client, customer_ids: list[str], day: date) -> Any:
    body = {"customer_ids": customer_ids, "as_of": cdnow.end_of(day).isoformat()}
    response = await client.http.post("/v1/values/query", json=body)
    assert response.status_code == 200, response.text
    return json.loads(response.content)


def engine_of(client: Client) -> Any:
    transport: Any = client.http._transport
    return transport.app.state.engine
