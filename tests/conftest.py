"""A migrated PostgreSQL for every test session, and workspaces of their own for tests that write."""

import asyncio
import gzip
import itertools
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import hypothesis
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from app import embedded, workspaces
from app.main import create_app
from app.migrate import migrate
from app.settings import Settings
from app.store.workspaces import Workspace
from tests import citus_cluster

CITUS_URL = os.environ.get("PERENNIAL_TEST_CITUS_URL")
"""Any database of a Citus cluster's coordinator: the tests then run on databases of their own beside it."""

_numbers = itertools.count()

# The same examples at every run, so that a red test stays red; `thorough` looks further, for an hour of doubt.
_EVERY_PROFILE: dict[str, Any] = {
    "deadline": None,
    "database": None,
    # Fixtures are shared by the examples of a test: each example makes a workspace of its own.
    "suppress_health_check": [
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
    ],
}
hypothesis.settings.register_profile("quick", derandomize=True, max_examples=60, **_EVERY_PROFILE)
hypothesis.settings.register_profile("thorough", max_examples=2_000, **_EVERY_PROFILE)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    unfit = ("citus", "needs a cluster") if CITUS_URL is None else ("one_server", "looks into a server of its own")
    for item in items:
        if item.get_closest_marker(unfit[0]):
            item.add_marker(pytest.mark.skip(reason=unfit[1]))


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """A migrated database of the session's own: on an embedded server, or on the cluster that is given."""
    if CITUS_URL is not None:
        name = f"perennial_test_{os.getpid()}"
        url = asyncio.run(citus_cluster.create_database(CITUS_URL, name))
        try:
            asyncio.run(migrate(url))
            yield url
        finally:
            asyncio.run(citus_cluster.drop_database(CITUS_URL, name))
        return
    with embedded.temporary_server() as server:
        asyncio.run(migrate(server.url))
        yield server.url


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=database_url, throwaway_database=True)


@pytest_asyncio.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    application = create_app(settings)
    async with application.router.lifespan_context(application):
        yield application


@pytest.fixture
def engine(app: FastAPI) -> AsyncEngine:
    found: AsyncEngine = app.state.engine
    return found


@dataclass(frozen=True)
class Client:
    """A caller with a workspace of its own."""

    http: httpx.AsyncClient
    workspace: Workspace
    key: str

    async def record(self, *events: dict[str, Any]) -> dict[str, Any]:
        """Record events and answer the receipt."""
        response = await self.http.post("/v1/events", json={"events": list(events)})
        assert response.status_code == 200, response.text
        receipt: dict[str, Any] = response.json()
        return receipt

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        response = await self.http.get(path, params=query)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


async def make_workspace(engine: AsyncEngine, currency: str = "USD", time_zone: str = "UTC") -> tuple[Workspace, str]:
    """A workspace of the test's own, and a key of it that has all scopes."""
    name = f"w{os.getpid()}-{next(_numbers)}"
    new = await workspaces.create_workspace(engine, name, currency, time_zone, workspaces.SCOPES)
    holder = await workspaces.authenticate(engine, new.key)
    assert holder is not None
    return holder.workspace, new.key


async def make_client(app: FastAPI, *, currency: str = "USD", time_zone: str = "UTC") -> Client:
    workspace, key = await make_workspace(app.state.engine, currency, time_zone)
    http = httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://perennial.test",
        headers={"Authorization": f"Bearer {key}"},
    )
    return Client(http, workspace, key)


@pytest_asyncio.fixture
async def client(app: FastAPI) -> AsyncIterator[Client]:
    made = await make_client(app)
    async with made.http:
        yield made


def event(
    type: str, customer_id: str = "c-1", occurred_at: str = "2025-01-03T10:00:00Z", id: str | None = None, **data: Any
) -> dict[str, Any]:
    """An event as a client sends it, with an id of its own unless given."""
    return {
        "id": id or f"e-{next(_numbers)}",
        "type": type,
        "customer_id": customer_id,
        "occurred_at": occurred_at,
        "data": data,
    }


def order(
    order_id: str, amount: str = "10.00", occurred_at: str = "2025-01-03T10:00:00Z", **rest: Any
) -> dict[str, Any]:
    """An order in the workspace's currency."""
    customer_id = rest.pop("customer_id", "c-1")
    event_id = rest.pop("id", None)
    data = {"order_id": order_id, "amount": amount, "currency": "USD", **rest}
    return event("order.placed", customer_id, occurred_at, event_id, **data)


def ndjson(*events: dict[str, Any]) -> bytes:
    return "\n".join(json.dumps(one) for one in events).encode()


def gzipped(content: bytes) -> bytes:
    """Compressed the same at any time, so that test names do not differ between processes."""
    return gzip.compress(content, mtime=0)
