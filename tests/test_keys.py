"""Keys: who may do what, and in which workspace."""

import hashlib
import re
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import workspaces
from app.errors import InvalidRequest
from app.workspaces import SCOPES
from tests.conftest import Client, make_client, order

ROUTES = {
    ("POST", "/v1/events"): "events:write",
    ("GET", "/v1/customers"): "customers:read",
    ("GET", "/v1/customers/{customer_id}"): "customers:read",
    ("GET", "/v1/customers/{customer_id}/events"): "customers:read",
    ("GET", "/v1/customers/{customer_id}/value"): "scores:read",
    ("GET", "/v1/customers/{customer_id}/rfm"): "scores:read",
    ("GET", "/v1/customers/{customer_id}/abc"): "scores:read",
    ("GET", "/v1/customers/{customer_id}/clv"): "scores:read",
    ("GET", "/v1/customers/{customer_id}/churn"): "scores:read",
    ("DELETE", "/v1/customers/{customer_id}"): "admin",
    ("GET", "/v1/values"): "scores:read",
    ("POST", "/v1/values/query"): "scores:read",
    ("POST", "/v1/runs"): "runs:write",
    ("GET", "/v1/runs"): "scores:read",
    ("GET", "/v1/runs/latest"): "scores:read",
    ("GET", "/v1/runs/{run_id}"): "scores:read",
    ("GET", "/v1/settings"): "scores:read",
    ("PATCH", "/v1/settings"): "admin",
    ("POST", "/v1/keys"): "admin",
    ("GET", "/v1/keys"): "admin",
    ("DELETE", "/v1/keys/{key_id}"): "admin",
    ("POST", "/v1/keys/{key_id}/rotate"): "admin",
    ("GET", "/v1/audit"): "admin",
    ("GET", "/metrics"): "operator",
    ("POST", "/v1/workspaces"): "operator",
}
ROUTES_OF_TWO_SCOPES = {("GET", "/v1/customers/{customer_id}/export"): {"customers:read", "scores:read"}}
OPEN_ROUTES = {("GET", "/health/live"), ("GET", "/health/ready"), ("GET", "/openapi.json")}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def call(client: Client, method: str, path: str, key: str | None) -> tuple[int, str | None]:
    """Status and code, with an empty object where a body is looked for."""
    headers = {"Authorization": "" if key is None else f"Bearer {key}"}
    target = re.sub(r"\{\w+\}", "nobody", path)
    body: dict[str, str] | None = {} if method in ("POST", "PATCH") else None
    response = await client.http.request(method, target, headers=headers, json=body)
    is_json = "json" in response.headers.get("content-type", "")
    return response.status_code, response.json().get("code") if is_json else None


async def key_with(client: Client, *scopes: str) -> str:
    response = await client.http.post("/v1/keys", json={"scopes": scopes})
    assert response.status_code == 201
    key: str = response.json()["key"]
    return key


def every_route(app: FastAPI) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}


async def test_every_route_but_the_open_ones_is_opened_by_one_scope_alone(app: FastAPI, client: Client) -> None:
    keys = {scope: await key_with(client, scope) for scope in SCOPES}
    routes = every_route(app)
    assert set(ROUTES) | OPEN_ROUTES - {("GET", "/openapi.json")} <= routes
    for method, path in sorted(routes - OPEN_ROUTES - set(ROUTES_OF_TWO_SCOPES)):
        assert await call(client, method, path, None) == (401, "no_key"), path
        opened = {scope for scope, key in keys.items() if (await call(client, method, path, key))[0] != 403}
        assert len(opened) == 1, path
        assert ROUTES.get((method, path), *opened) in opened, path


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_route_asks_for_its_scope_and_for_no_other(client: Client, method: str, path: str) -> None:
    scope = ROUTES[method, path]
    assert await call(client, method, path, None) == (401, "no_key")
    assert await call(client, method, path, workspaces.make_key()) == (401, "unknown_key")
    others = await key_with(client, *(other for other in SCOPES if other != scope))
    assert await call(client, method, path, others) == (403, "scope_missing")
    status, _ = await call(client, method, path, await key_with(client, scope))
    assert status not in (401, 403)


@pytest.mark.parametrize("body", [b"{", b'{"a": "\xff"}', b"[" * 100_000, b"1" * 5_000])
async def test_a_body_that_cannot_be_read_is_told_to_nobody_without_the_key(
    app: FastAPI, client: Client, body: bytes
) -> None:
    with_body = {
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    assert len(with_body) >= 8
    nothing = await key_with(client, "customers:read")
    for method, path in sorted(with_body):
        for headers, codes in (
            ({"Authorization": ""}, {"no_key"}),
            (bearer(nothing), {"scope_missing"}),
            (bearer(client.key), {"malformed_body", "invalid_request", "unknown_field", "scope_missing"}),
        ):
            headers = {"Content-Type": "application/json", **headers}
            response = await client.http.request(method, path, content=body, headers=headers)
            assert response.json()["code"] in codes, path


@pytest.mark.parametrize(("method", "path"), ROUTES_OF_TWO_SCOPES)
async def test_a_route_that_tells_what_two_scopes_guard_asks_for_both(client: Client, method: str, path: str) -> None:
    scopes = ROUTES_OF_TWO_SCOPES[method, path]
    assert await call(client, method, path, None) == (401, "no_key")
    for scope in scopes:
        others = await key_with(client, *(other for other in SCOPES if other != scope))
        assert await call(client, method, path, others) == (403, "scope_missing")
    status, _ = await call(client, method, path, await key_with(client, *scopes))
    assert status not in (401, 403)


@pytest.mark.parametrize(("method", "path"), sorted(OPEN_ROUTES))
async def test_an_open_route_needs_no_key(client: Client, method: str, path: str) -> None:
    assert (await call(client, method, path, None))[0] == 200


async def test_a_revoked_key_is_unknown_at_once(client: Client) -> None:
    made = (await client.http.post("/v1/keys", json={"scopes": ["customers:read"]})).json()
    assert await call(client, "GET", "/v1/customers", made["key"]) == (200, None)
    assert (await client.http.delete(f"/v1/keys/{made['id']}")).status_code == 204
    assert await call(client, "GET", "/v1/customers", made["key"]) == (401, "unknown_key")
    assert (await client.http.delete(f"/v1/keys/{made['id']}")).status_code == 404
    assert made["id"] not in [key["id"] for key in (await client.get("/v1/keys"))["data"]]


async def test_a_new_key_is_never_wider_than_the_one_that_makes_it(client: Client) -> None:
    narrow = await key_with(client, "admin", "customers:read")
    for scopes, status in ((["customers:read"], 201), (["admin"], 201), (["events:write"], 403), (list(SCOPES), 403)):
        response = await client.http.post("/v1/keys", json={"scopes": scopes}, headers=bearer(narrow))
        assert response.status_code == status
        if status == 403:
            assert response.json()["code"] == "scope_too_wide"


async def test_a_key_is_shown_once_and_told_by_id_and_scopes(client: Client) -> None:
    response = await client.http.post("/v1/keys", json={"scopes": ["scores:read", "admin", "admin"]})
    made = response.json()
    assert made.keys() == {"id", "key", "scopes"}
    assert made["scopes"] == ["scores:read", "admin"]
    listed = await client.get("/v1/keys")
    (found,) = [key for key in listed["data"] if key["id"] == made["id"]]
    assert found.keys() == {"id", "scopes", "created_at", "expires_at"}
    assert made["key"] not in str(listed)


async def test_keys_are_paged(client: Client) -> None:
    for _ in range(4):
        await key_with(client, "admin")
    found: list[str] = []
    cursor = ""
    while cursor is not None:
        page = await client.get("/v1/keys", limit=2, cursor=cursor)
        found += [key["id"] for key in page["data"]]
        cursor = page["next_cursor"]
    assert len(found) == len(set(found)) == 5


async def new_workspace(client: Client, **fields: str) -> Any:
    body = {"id": f"{client.workspace.name}-new", "currency": "EUR", "time_zone": "Europe/Berlin"} | fields
    return await client.http.post("/v1/workspaces", json=body)


async def test_the_key_of_a_new_workspace_has_all_scopes_but_operator(client: Client) -> None:
    response = await new_workspace(client)
    assert response.status_code == 201
    made = response.json()
    assert made.keys() == {"id", "key"}
    keys = (await client.http.get("/v1/keys", headers=bearer(made["key"]))).json()["data"]
    assert [key["scopes"] for key in keys] == [[scope for scope in SCOPES if scope != "operator"]]
    assert await call(client, "POST", "/v1/workspaces", made["key"]) == (403, "scope_missing")
    again = await new_workspace(client)
    assert (again.status_code, again.json()["code"]) == (409, "workspace_exists")


@pytest.mark.parametrize(
    "fields",
    [
        {"time_zone": "Mars/Olympus"},
        {"time_zone": "europe/berlin"},
        {"time_zone": "/etc/localtime"},
        {"time_zone": ""},
        {"currency": "eur"},
        {"id": "a b"},
        {"name": "x"},
    ],
)
async def test_a_workspace_that_could_not_work_is_refused(client: Client, fields: dict[str, str]) -> None:
    response = await new_workspace(client, **fields)
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == f"/{next(iter(fields))}"


async def test_a_workspace_with_a_time_zone_that_is_none_is_not_made(engine: AsyncEngine) -> None:
    with pytest.raises(InvalidRequest):
        await workspaces.create_workspace(engine, "no-zone", "USD", "Mars/Olympus", SCOPES)


async def test_workspaces_see_nothing_of_one_another(app: FastAPI, client: Client) -> None:
    other = await make_client(app)
    async with other.http:
        await other.record(order("o-1", customer_id="c-other"))
        made = (await other.http.post("/v1/keys", json={"scopes": ["admin"]})).json()
        assert (await client.get("/v1/customers"))["data"] == []
        unknown = await client.http.get("/v1/customers/nobody")
        for path in ("", "/events"):
            foreign = await client.http.get(f"/v1/customers/c-other{path}")
            assert foreign.status_code == 404
            assert foreign.json() == unknown.json()
        query = await client.http.post("/v1/values/query", json={"customer_ids": ["c-other"]})
        assert query.json() == {"data": [], "not_found": ["c-other"]}
        assert (await client.http.delete(f"/v1/keys/{made['id']}")).status_code == 404
        assert await call(client, "GET", "/v1/keys", made["key"]) == (200, None)
        assert made["id"] not in str(await client.get("/v1/keys"))


async def test_only_hashes_of_keys_are_stored(engine: AsyncEngine, client: Client) -> None:
    key = await key_with(client, "admin")
    async with engine.connect() as connection:
        tables = await connection.execute(
            text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        )
        for table in list(tables.scalars()):
            # As text and as bytes, with and without its prefix.
            for part in (key, key.removeprefix("prn_"), key.encode().hex(), key.removeprefix("prn_").encode().hex()):
                found = await connection.execute(
                    text(f'SELECT count(*) FROM "{table}" AS t WHERE strpos(CAST(t AS text), :part) > 0'),
                    {"part": part},
                )
                assert found.scalar_one() == 0, table
        hashed = await connection.execute(
            text("SELECT count(*) FROM api_keys WHERE key_hash = :key_hash"),
            {"key_hash": hashlib.sha256(key.encode()).digest()},
        )
        assert hashed.scalar_one() == 1


def test_a_key_has_256_random_bits() -> None:
    keys = {workspaces.make_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"prn_[A-Za-z0-9_-]{43}", key) for key in keys)
