"""Shortcuts answer as the routes beside them do."""

import json
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from app import ingest
from app.api.shortcuts import Shortcuts
from tests.conftest import Client, event

PARTS = ("value", "rfm", "abc", "clv", "churn")
WITHOUT_KEY = {"Authorization": ""}
JSON = {"Content-Type": "application/json"}


def order(number: int, amount: str = "12.50") -> dict[str, Any]:
    return event(
        "order.placed", id=f"e-{number}", customer_id="c-1", order_id=f"o-{number}", amount=amount, currency="USD"
    )


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether a shortcut was found, for each request."""
    seen: list[bool] = []
    find = Shortcuts.find

    def noted(self: Shortcuts, scope: Any) -> Any:
        found = find(self, scope)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(Shortcuts, "find", noted)
    return seen


async def both_ways(
    client: Client, monkeypatch: pytest.MonkeyPatch, method: str, path: str, **request: Any
) -> tuple[Any, Any]:
    """Status, headers and body, by the shortcut and by the route."""
    answers = []
    for by_shortcut in (True, False):
        with monkeypatch.context() as patched:
            if not by_shortcut:
                patched.setattr(Shortcuts, "find", lambda *_: None)
            response = await client.http.request(method, path, **request)
        headers = {name: value for name, value in response.headers.items() if name != "x-request-id"}
        answers.append((response.status_code, headers, response.content))
    return answers[0], answers[1]


@pytest.mark.parametrize("query", ["", "?source=live", "?source=cached", "?horizon_days=30", "?source=never"])
@pytest.mark.parametrize("part", PARTS)
async def test_a_value_is_read_alike(
    client: Client, monkeypatch: pytest.MonkeyPatch, taken: list[bool], part: str, query: str
) -> None:
    await client.record(order(1), order(2))
    taken.clear()
    shortcut, route = await both_ways(client, monkeypatch, "GET", f"/v1/customers/c-1/{part}{query}")
    assert taken == [query in ("", "?source=live", "?source=cached")]
    bodies = [json.loads(body) for _, _, body in (shortcut, route)]
    for body in bodies:
        body.pop("as_of", None)  # Of two reads, each is of its own moment.
    assert bodies[0] == bodies[1]
    assert shortcut[:1] == route[:1]
    assert shortcut[1].keys() == route[1].keys()


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/customers/c-unknown/value", {}),
        ("/v1/customers/c-unknown/value", WITHOUT_KEY),
        ("/v1/customers/c-unknown/value", {"Authorization": "Bearer prn_wrong"}),
        ("/v1/customers/c%20unknown/value", {}),
        ("/v1/customers/a%2Fb/value", {}),
        ("/v1/customers//value", {}),
        ("/v1/customers/{customer_id}/value", {}),
        ("/v1/customers/%7Bcustomer_id%7D/value", WITHOUT_KEY),
        ("/v1/customers/c-1/worth", {}),
    ],
)
async def test_a_value_is_refused_alike(
    client: Client, monkeypatch: pytest.MonkeyPatch, path: str, headers: dict[str, str]
) -> None:
    shortcut, route = await both_ways(client, monkeypatch, "GET", path, headers=headers)
    assert shortcut == route
    assert shortcut[0] >= 400


@pytest.mark.parametrize(
    "request_",
    [
        {"json": {"events": [order(1), order(2, "much")]}},
        {"json": {"events": []}},
        {"json": {"events": {}}},
        {"content": b"{", "headers": JSON},
        {"content": b"x"},
        {"json": {"events": []}, "headers": WITHOUT_KEY},
    ],
)
async def test_events_are_taken_alike(
    client: Client, monkeypatch: pytest.MonkeyPatch, taken: list[bool], request_: dict[str, Any]
) -> None:
    await client.record(order(1))
    taken.clear()
    shortcut, route = await both_ways(client, monkeypatch, "POST", "/v1/events", **request_)
    assert taken == [True]
    assert shortcut == route


@pytest.mark.parametrize(
    "error", [ConnectionResetError("cAnArY"), ValueError("cAnArY"), DBAPIError("cAnArY", None, ValueError("cAnArY"))]
)
async def test_errors_of_any_kind_are_told_alike(
    client: Client, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(ingest.EventRecorder, "record", fail)
    if isinstance(error, ValueError):
        # The framework raises such an error again after its answer, as far as the test's own client.
        response = await client.http.post("/v1/events", json={"events": [order(1)]})
        assert (response.status_code, response.json()["code"]) == (500, "internal_error")
        assert "cAnArY" not in response.text
        return
    shortcut, route = await both_ways(client, monkeypatch, "POST", "/v1/events", json={"events": [order(1)]})
    assert shortcut == route
    assert shortcut[0] in (500, 503)
    assert b"cAnArY" not in shortcut[2]


async def test_another_method_goes_the_usual_way(client: Client, taken: list[bool]) -> None:
    assert (await client.http.get("/v1/events")).status_code == 405
    assert (await client.http.delete("/v1/customers/c-1/value")).status_code == 405
    assert taken == [False, False]
