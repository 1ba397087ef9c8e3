"""Every error is a problem document, whatever part of the service it comes from."""

from collections.abc import Iterator
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError

from app import customers, errors
from app.api.problems import STATUS_OF
from app.main import create_app
from app.settings import Settings
from app.store.engine import autocommit, create_engine
from tests.conftest import Client

PROBLEM = "application/problem+json"


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


def test_every_domain_error_has_a_status() -> None:
    assert set(subclasses(errors.PerennialError)) == set(STATUS_OF)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ValueError("cAnArY"), 500, "internal_error"),
        (OSError("cAnArY"), 503, "unavailable"),
        (TimeoutError("cAnArY"), 503, "unavailable"),
        (DBAPIError("cAnArY", {"a": "cAnArY"}, asyncpg.UndefinedTableError("cAnArY")), 500, "internal_error"),
        (DBAPIError("cAnArY", None, asyncpg.LockNotAvailableError("cAnArY")), 503, "unavailable"),
        (DBAPIError("cAnArY", None, asyncpg.CannotConnectNowError("cAnArY")), 503, "unavailable"),
        (DBAPIError("cAnArY", None, asyncpg.TooManyConnectionsError("cAnArY")), 503, "unavailable"),
        (DBAPIError("cAnArY", None, asyncpg.DiskFullError("cAnArY")), 503, "unavailable"),
        (errors.Conflict("Not now.", code="later"), 409, "later"),
        (errors.Gone("It is gone."), 410, "gone"),
    ],
)
async def test_an_error_of_any_kind_is_told_without_its_words(
    client: Client, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    async def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(customers, "get_customer", fail)
    response = await client.http.get("/v1/customers/c-1")
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == PROBLEM
    assert response.headers["x-request-id"]
    assert "cAnArY" not in response.text
    assert ("retry-after" in response.headers) == (status == 503)


async def test_a_database_out_of_reach_is_told_as_such() -> None:
    app = create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))
    async with client_of(app) as http:
        assert (await http.get("/health/live")).status_code == 200
        ready = await http.get("/health/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
        answer = await http.get("/v1/customers", headers={"Authorization": "Bearer prn_x"})
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert answer.headers["content-type"] == PROBLEM


@pytest.mark.one_server
async def test_a_database_that_is_not_migrated_is_not_ready(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE DATABASE unmigrated")
    await connection.close()
    app = create_app(Settings(database_url=database_url.replace("/perennial?", "/unmigrated?")))
    async with client_of(app) as http:
        response = await http.get("/health/ready")
        assert (response.status_code, response.json()["code"]) == (503, "not_ready")
    await app.state.engine.dispose()


@pytest.mark.one_server
async def test_the_error_of_a_connection_that_is_refused_has_one_form(database_url: str) -> None:
    engine = create_engine(database_url.replace("perennial@", "stranger@"))
    with pytest.raises(DBAPIError):
        async with autocommit(engine).connect():
            pass


async def test_after_the_server_is_back_requests_are_answered_again(app: FastAPI, client: Client) -> None:
    connection = await asyncpg.connect(app.state.settings.database_url)
    await client.get("/v1/customers")
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND application_name = 'perennial'"
    )
    await connection.close()
    answers = [(await client.http.get("/v1/customers")).status_code for _ in range(5)]
    assert set(answers[:1]) <= {200, 503}
    assert answers[1:] == [200] * 4


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://perennial.test")


async def test_many_wrong_fields_are_told_in_a_short_answer(client: Client) -> None:
    response = await client.http.post("/v1/keys", json={f"x{number}": 1 for number in range(50_000)})
    assert response.status_code == 422
    assert len(response.json()["errors"]) == 100


async def test_a_path_knows_its_methods(client: Client) -> None:
    response = await client.http.put("/v1/keys")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) == {"GET", "POST"}


@pytest.mark.parametrize(
    ("method", "path", "sent", "pointer", "detail"),
    [
        (
            "POST",
            "/v1/runs",
            {"json": {"settings": {"rfm": {"k": 99}}}},
            "/settings/rfm/k",
            "k must be less than or equal",
        ),
        ("POST", "/v1/runs", {"json": {"settings": {"foo": 1}}}, "/settings/foo", "foo is not a known"),
        ("POST", "/v1/runs", {"json": []}, "", "the body must be an object."),
        ("PATCH", "/v1/settings", {"json": {"rfm": {"k": 99}}}, "/rfm/k", "k must be less than or equal"),
        (
            "PATCH",
            "/v1/settings",
            {"json": {"abc": {"a_share": 0.9, "b_share": 0.1}}},
            "/abc",
            "abc does not hold togeth",
        ),
        ("GET", "/v1/values", {"params": {"sort": "foo"}}, "sort", "sort must match ^-?(customer_id|"),
        ("GET", "/v1/customers", {"params": {"country": "\0"}}, "country", "country must be a text without NUL"),
    ],
)
async def test_a_wrong_field_is_told_by_its_place_and_what_was_expected(
    client: Client, method: str, path: str, sent: dict[str, Any], pointer: str, detail: str
) -> None:
    response = await client.http.request(method, path, **sent)
    [field] = response.json()["errors"]
    assert (response.status_code, field["pointer"]) == (422, pointer)
    assert field["detail"].startswith(detail)
    assert "Value error" not in field["detail"]
