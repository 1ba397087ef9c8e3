"""Workspaces are apart: every operation of the document, by the key of another workspace, with ids that are foreign.

Generated from the OpenAPI document, so that an operation that comes later is held to the same.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy import text

from app import run_execution
from app.imports import execution
from app.openapi import DOCUMENT
from app.store import customers as customer_store
from app.store import events as event_store
from app.store import wall
from app.workspaces import SCOPES
from tests.conftest import Client, event, make_client, ndjson, order

CANARY = "CaNaRy"
"""Part of every id and word of the other workspace; no answer may hold it but where the caller sent it."""

AMOUNT = "7777.77"
METHODS = ("get", "post", "patch", "delete", "put")


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    parameters: tuple[str, ...]
    body: str | None

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def operations() -> list[Operation]:
    """Every operation that asks for a key."""
    found = []
    for path, methods in json.loads(DOCUMENT.read_text())["paths"].items():
        for method in METHODS:
            told = methods.get(method)
            if told is None or "security" not in told:
                continue
            names = tuple(parameter["name"] for parameter in told.get("parameters", ()))
            content = next(iter(told.get("requestBody", {}).get("content", {})), None)
            found.append(Operation(method.upper(), path, names, content))
    return found


OPERATIONS = {operation.name: operation for operation in operations()}
# Not of one workspace: they tell of the service, or make a workspace of a name that is one for all.
OF_THE_SERVICE = {"GET /metrics", "POST /v1/workspaces"}

FOREIGN = ("customer_id", "run_id", "key_id", "import_id", "from_run", "to_run")


@dataclass(frozen=True)
class Workspaces:
    """Two workspaces with the same kind of things in them, and the ids of those of the other one."""

    own: Client
    own_ids: dict[str, str]
    other: Client
    foreign: dict[str, str]
    cursors: dict[str, str]
    keys: dict[str, str]


async def fill(app: FastAPI, client: Client, mark: str) -> dict[str, str]:
    """Something of everything; its ids by the parameter that names one."""
    engine = app.state.engine
    await client.record(
        event("customer.created", f"{mark}-c", name=f"{mark} name", email=f"{mark}@example.com", attributes={mark: 1}),
        order(f"{mark}-o", AMOUNT if mark == CANARY else "5.00", customer_id=f"{mark}-c", id=f"{mark}-e"),
        order(f"{mark}-o2", "1.00", customer_id=f"{mark}-d", id=f"{mark}-f"),
        event("custom.recorded", f"{mark}-c", name=f"{mark}-note"),
    )
    ids = {"customer_id": f"{mark}-c"}
    for name in ("from_run", "run_id"):
        ids[name] = (await client.http.post("/v1/runs", json={})).json()["id"]
        async with engine.connect() as connection:
            number = await connection.execute(text("SELECT id FROM runs WHERE name = :name"), {"name": ids[name]})
        await run_execution.execute_run(engine, str(number.scalar_one()).encode(), asyncio.Event())
    ids["to_run"] = ids["run_id"]
    sent = await client.http.post(
        "/v1/imports",
        content=ndjson(order(f"{mark}-o3", customer_id=f"{mark}-c")),
        headers={"Content-Type": "application/x-ndjson"},
    )
    ids["import_id"] = sent.json()["id"]
    await execution.run_import_job(engine, ids["import_id"].encode(), asyncio.Event())
    ids["key_id"] = (await client.http.post("/v1/keys", json={"scopes": ["admin"]})).json()["id"]
    return ids


@pytest_asyncio.fixture
async def both(app: FastAPI) -> AsyncIterator[Workspaces]:
    own, other = await make_client(app), await make_client(app)
    async with own.http, other.http:
        own_ids, foreign = await fill(app, own, "own"), await fill(app, other, CANARY)
        cursors = {}
        for path in ("/v1/customers", "/v1/values", "/v1/runs", "/v1/keys", f"/v1/customers/{CANARY}-c/events"):
            cursors[path] = (await other.get(path, limit=1))["next_cursor"]
        keys: dict[str, str] = {}
        for scope in SCOPES:
            keys[scope] = (await own.http.post("/v1/keys", json={"scopes": [scope]})).json()["key"]
        yield Workspaces(own, own_ids, other, foreign, cursors, keys | {"all": own.key})


def ids_of(both: Workspaces, kind: str) -> dict[str, str]:
    """The ids that a request names: foreign ones, or of the same length ones that nobody has."""
    if kind == "foreign":
        return both.foreign
    return {name: re.sub("[A-Za-z0-9]$", lambda last: "0" if last[0] != "0" else "1", value).replace(CANARY, "CaNeRy")
            for name, value in both.foreign.items()}  # fmt: skip


def request_of(operation: Operation, ids: dict[str, str], cursor: str | None) -> dict[str, Any]:
    path = re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], operation.path)
    query = {
        name: ids[name] for name in FOREIGN if name in operation.parameters and f"{{{name}}}" not in operation.path
    }
    if "source" in operation.parameters and "run_id" not in operation.path:
        query["source"] = "cached"
    if cursor is not None:
        query = {"cursor": cursor}
    request: dict[str, Any] = {"method": operation.method, "url": path, "params": query}
    if operation.body is not None:
        bodies: dict[str, Any] = {
            "/v1/events": {"events": []},
            "/v1/imports": None,
            "/v1/values/query": {"customer_ids": [ids["customer_id"]]},
            "/v1/customers/{customer_id}/churn-label": {"type": "natural", "labelled_at": "2025-02-01T00:00:00Z"},
            "/v1/keys": {"scopes": ["admin"]},
        }
        body = bodies.get(operation.path, {})
        if body is None:
            request |= {
                "content": ndjson(order("own-o9", customer_id="own-c")),
                "headers": {"Content-Type": operation.body},
            }
        else:
            request["json"] = body
    return request


def without_ids(answer: Any, *given: dict[str, str]) -> str:
    """An answer's text without the ids that it was asked for, and what differs between any two answers."""
    said = str(answer.text)
    for ids in given:
        for value in sorted(ids.values(), key=len, reverse=True):
            said = said.replace(value, "…")
    said = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "…", said)
    return re.sub(r'"(prn|key|imp|run|import)_[\w-]+"', '"…"', said)


async def look(both: Workspaces) -> list[str]:
    """Where something of the other workspace shows, or a foreign id looks unlike an unknown one."""
    leaks = []
    for operation in OPERATIONS.values():
        if operation.name in OF_THE_SERVICE:
            continue
        names = [name for name in FOREIGN if name in operation.parameters]
        if operation.path == "/v1/values/query":
            names = ["customer_id"]
        for scope, key in both.keys.items():
            headers = {"Authorization": f"Bearer {key}"}
            answers = []
            for kind in ("foreign", "unknown"):
                request = request_of(operation, ids_of(both, kind), None)
                request["headers"] = request.get("headers", {}) | headers
                answers.append(await both.own.http.request(**request))
            foreign, unknown = answers
            hidden = without_ids(foreign, both.foreign)
            if foreign.status_code >= 500 or CANARY in hidden or AMOUNT in hidden:
                leaks.append(f"{operation.name} by {scope}: {foreign.status_code} {hidden[:200]}")
            if names and (
                foreign.status_code != unknown.status_code or hidden != without_ids(unknown, ids_of(both, "unknown"))
            ):
                leaks.append(f"{operation.name} by {scope}: {foreign.text[:200]} but {unknown.text[:200]}")
            cursor = both.cursors.get(operation.path) or both.cursors.get(
                operation.path.replace("{customer_id}", both.foreign["customer_id"])
            )
            if cursor is not None and operation.method == "GET":
                request = request_of(operation, both.own_ids, cursor)
                page = await both.own.http.request(**request, headers=headers)
                if page.status_code >= 500 or CANARY in page.text:
                    leaks.append(f"{operation.name} by {scope} with a foreign cursor: {page.text[:200]}")
    return leaks


async def everything_of(other: Client) -> str:
    """What the other workspace sees of itself."""
    told = []
    for path in ("/v1/customers", "/v1/keys", "/v1/runs", "/v1/imports", "/v1/values", "/v1/settings", "/v1/audit",
                 f"/v1/customers/{CANARY}-c/events", f"/v1/customers/{CANARY}-c/export"):  # fmt: skip
        told.append((await other.http.get(path)).text)
    return re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "…", json.dumps(told))


async def test_no_operation_tells_or_changes_anything_of_another_workspace(both: Workspaces) -> None:
    before = await everything_of(both.other)
    assert await look(both) == []
    assert await everything_of(both.other) == before


async def test_every_parameter_that_names_a_thing_is_tried() -> None:
    plain = {"limit", "cursor", "as_of", "months", "horizon_days", "source", "explain", "sort", "q", "kind", "country",
             "updated_since", "mapping", "Idempotency-Key", "accept-language", "segment", "abc"}  # fmt: skip
    filters = re.compile(r"(churn|lifecycle|clv|net_spend)_\w+")
    named = {name for operation in OPERATIONS.values() for name in operation.parameters}
    assert {name for name in named - plain if not filters.fullmatch(name)} == set(FOREIGN)


# ---- Mutants: the first wall has a hole -----------------------------------------------------------------------------


async def find_whomever(connection: Any, _workspace_id: int, customer_id: str) -> Any:
    """``find_customer`` without its condition on the workspace."""
    found = await connection.execute(
        text(
            "SELECT customer_summary.*, CAST(profile AS text) AS profile FROM customer_summary"
            " LEFT JOIN customer_profiles USING (workspace_id, customer_id) WHERE customer_id = :customer_id"
        ),
        {"customer_id": customer_id},
    )
    return found.first()


async def find_in_the_wrong_place(connection: Any, workspace_id: int, customer_id: str) -> Any:
    """``find_customer`` with the condition, but on the workspace that was made last."""
    newest = await connection.execute(text("SELECT max(id) FROM workspaces"))
    return await _FIND(connection, newest.scalar_one(), customer_id)


async def list_all(connection: Any, _workspace_id: int, *_: Any) -> Any:
    """``list_customer_events`` without its condition."""
    return (
        await connection.execute(text("SELECT *, CAST(data AS text) AS data FROM events ORDER BY received_at DESC"))
    ).all()


_FIND = customer_store.find_customer
HOLES: dict[str, tuple[str, Callable[..., Any]]] = {
    "app.store.customers.find_customer": ("find_customer", find_whomever),
    "app.store.customers.find_customer, wrong": ("find_customer", find_in_the_wrong_place),
    "app.store.events.list_customer_events": ("list_customer_events", list_all),
}


@pytest.mark.parametrize("hole", HOLES)
@pytest.mark.parametrize("walled", [True, False], ids=["walled", "first wall alone"])
async def test_a_hole_in_the_first_wall_is_seen_and_the_second_one_holds(
    both: Workspaces, monkeypatch: pytest.MonkeyPatch, hole: str, walled: bool
) -> None:
    name, mutant = HOLES[hole]
    monkeypatch.setattr(customer_store if name == "find_customer" else event_store, name, mutant)
    if not walled:
        monkeypatch.setattr(wall, "guard", lambda *_: None)
    told = [await both.own.http.get(f"/v1/customers/{both.foreign['customer_id']}{path}") for path in ("", "/events")]
    leaked = any(f"{CANARY} name" in answer.text or AMOUNT in answer.text for answer in told)
    assert leaked is not walled
    if not walled:
        assert await look(both) != []
