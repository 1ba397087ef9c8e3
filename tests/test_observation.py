"""What is told of requests, and what never is."""

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app import customers, logs, workspaces
from app.api import tracing
from app.main import create_app
from app.settings import Settings
from tests.conftest import Client, make_client, order
from tests.test_keys import bearer
from tests.test_launcher import Launcher, data_dir

__all__ = ["data_dir"]

CANARY = "cAnArY"


class Lines(logging.Handler):
    """Keeps the lines as they would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logs.JsonLines())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("httpx"):
            return  # The client of these tests.
        self.lines.append(self.format(record))

    def of_requests(self) -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in self.lines]
        return [line for line in parsed if line["logger"] == "app.requests"]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


async def figures(client: Client, route: str, **labels: str) -> float:
    """How many requests of a route are counted."""
    wanted = [f'route="{route}"', *(f'{name}="{value}"' for name, value in labels.items())]
    exposition = (await client.http.get("/metrics")).text
    counts = [line for line in exposition.splitlines() if line.startswith("perennial_requests_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in counts if all(label in line for label in wanted))


async def test_each_request_is_a_line(client: Client, lines: Lines) -> None:
    await client.record(order("o-1"))
    await client.http.get(f"/v1/customers/c-1/value?explain=true&{CANARY}=1", headers={"X-Request-Id": "r-1"})
    await client.http.get(f"/v1/customers/{CANARY}")
    await client.http.get(f"/{CANARY}", headers={"Authorization": ""})
    told = lines.of_requests()
    assert [(line["method"], line["route"], line["status"]) for line in told] == [
        ("POST", "/v1/events", 200),
        ("GET", "/v1/customers/{customer_id}/value", 200),
        ("GET", "/v1/customers/{customer_id}", 404),
        ("GET", "unmatched", 404),
    ]
    assert [line["workspace"] for line in told] == [client.workspace.name] * 3 + [None]
    assert told[1]["request_id"] == "r-1"
    for line in told:
        assert line.keys() == {
            *("time", "level", "logger", "message", "request_id"),
            *("method", "route", "status", "duration_ms", "workspace"),
        }
        assert 0 < line["duration_ms"] < 60_000


async def test_requests_at_the_same_time_keep_their_ids(client: Client, lines: Lines) -> None:
    await asyncio.gather(
        *(client.http.get("/v1/customers", headers={"X-Request-Id": f"r-{number}"}) for number in range(20))
    )
    assert sorted(line["request_id"] for line in lines.of_requests()) == sorted(f"r-{number}" for number in range(20))


async def test_requests_are_counted_by_route_and_status(client: Client) -> None:
    for customer_id in ("a", "b", "c"):
        await client.http.get(f"/v1/customers/{customer_id}")
    assert await figures(client, "/v1/customers/{customer_id}", status="404", method="GET") == 3
    assert await figures(client, "/v1/customers/{customer_id}", status="200") == 0
    exposition = (await client.http.get("/metrics")).text
    assert 'perennial_request_seconds_count{method="GET",route="/v1/customers/{customer_id}"} 3.0' in exposition
    assert "perennial_requests_in_flight 1.0" in exposition


async def test_metrics_need_the_operators_key_unless_set(client: Client, database_url: str) -> None:
    assert (await client.http.get("/metrics", headers={"Authorization": ""})).status_code == 401
    admin = (await client.http.post("/v1/keys", json={"scopes": ["admin"]})).json()["key"]
    assert (await client.http.get("/metrics", headers=bearer(admin))).status_code == 403
    answer = await client.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    app = create_app(Settings(database_url=database_url, metrics_open=True))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://perennial.test") as http:
        assert (await http.get("/metrics")).status_code == 200
    await app.state.engine.dispose()


class Traced:
    """An app whose spans are kept."""

    def __init__(self, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exporter = InMemorySpanExporter()

        def make_exporter(_endpoint: str) -> SpanExporter:
            return self.exporter

        monkeypatch.setattr(tracing, "make_exporter", make_exporter)
        self.app = create_app(
            Settings(database_url=database_url, throwaway_database=True, otlp_endpoint="http://localhost:1/v1/traces")
        )


async def test_requests_are_spans_where_an_endpoint_is_set(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = Traced(database_url, monkeypatch)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with traced.app.router.lifespan_context(traced.app):
        client = await make_client(traced.app)
        async with client.http:
            await client.http.get("/v1/customers/nobody?q=1", headers={"traceparent": parent})
    (span,) = traced.exporter.get_finished_spans()
    assert span.name == "GET /v1/customers/{customer_id}"
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/v1/customers/{customer_id}",
        "http.response.status_code": 404,
        "perennial.workspace": client.workspace.name,
    }
    assert format(span.context.trace_id, "032x") == "0af7651916cd43dd8448eb211c80319c"


def test_an_endpoint_without_the_packages_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_endpoint: str) -> None:
        raise ImportError

    monkeypatch.setattr(tracing, "make_exporter", missing)
    with pytest.raises(tracing.TelemetryMissing, match=r"requirements-telemetry\.txt"):
        create_app(Settings(otlp_endpoint="http://localhost:4318/v1/traces"))


async def everything(app: FastAPI, client: Client) -> list[str]:
    """Call every operation with canaries in paths, queries, bodies and keys; answers what the answers said."""
    answers = []
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            target = path
            for name in ("customer_id", "run_id", "import_id", "key_id"):
                target = target.replace(f"{{{name}}}", f"{CANARY}-{name}")
            for key in (client.key, f"prn_{CANARY}"):
                response = await client.http.request(
                    method,
                    target,
                    params={"q": CANARY, "cursor": CANARY, "as_of": CANARY, "mapping": CANARY},
                    json={"id": CANARY, "type": CANARY, "scopes": [CANARY], "as_of": CANARY}
                    if method == "post"
                    else None,
                    headers=bearer(key) | {"Idempotency-Key": CANARY, "X-Request-Id": f"{CANARY} {CANARY}"},
                )
                answers.append(f"{response.headers} {response.text}" if response.status_code >= 400 else "")
    return answers


async def test_keys_and_personal_data_are_in_no_log_trace_metric_or_error(
    database_url: str, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    traced = Traced(database_url, monkeypatch)
    async with traced.app.router.lifespan_context(traced.app):
        client = await make_client(traced.app)
        async with client.http:
            answers = await everything(traced.app, client)

            async def fail(*_: Any) -> None:
                raise RuntimeError(CANARY) from ValueError(f"{CANARY} {client.key}")

            monkeypatch.setattr(customers, "get_customer", fail)
            failed = await client.http.get(f"/v1/customers/{CANARY}")
            assert failed.status_code == 500
            answers.append(failed.text)
            exposition = (await client.http.get("/metrics")).text
    assert len(lines.of_requests()) > 50
    errors = [json.loads(line) for line in lines.lines if "RuntimeError" in line]
    assert errors[0]["error"][0]["type"] == "builtins.RuntimeError"
    assert errors[0]["error"][1]["type"] == "builtins.ValueError"
    assert "test_observation" in errors[0]["error"][0]["at"][-1]
    spans = [span.to_json() for span in traced.exporter.get_finished_spans()]
    assert len(spans) > 50
    for told in (*lines.lines, *spans, *answers, exposition):
        assert CANARY not in told
        assert client.key not in told


@pytest.mark.parametrize("mutant", ["words", "paths"])
async def test_the_test_of_canaries_catches_what_tells_too_much(
    database_url: str, monkeypatch: pytest.MonkeyPatch, lines: Lines, mutant: str
) -> None:
    if mutant == "words":
        told = logs.told
        monkeypatch.setattr(logs, "told", lambda error: [*told(error), {"type": str(error), "at": []}])
    else:
        from app.api.observation import Metrics

        note = Metrics.note
        monkeypatch.setattr(Metrics, "note", lambda self, method, *rest: note(self, f"{method} {CANARY}", *rest))
    with pytest.raises(AssertionError):
        await test_keys_and_personal_data_are_in_no_log_trace_metric_or_error(database_url, monkeypatch, lines)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed launcher leaves its children")
def test_one_web_process_answers_for_all_and_logs_are_lines_of_json(data_dir: Path) -> None:
    key = workspaces.make_key()
    with Launcher(data_dir, PERENNIAL_BOOTSTRAP_KEY=key, WEB_CONCURRENCY="2") as launcher:
        url = launcher.until_serving()
        for _ in range(40):
            # A connection of its own each, so that both processes get some.
            assert httpx.get(f"{url}/health/live").status_code == 200
        for _ in range(4):
            exposition = httpx.get(f"{url}/metrics", headers=bearer(key)).text
            assert 'perennial_requests_total{method="GET",route="/health/live",status="200"} 40.0' in exposition
        written = launcher.output.read_text().splitlines()
    requests = [json.loads(line) for line in written if line.startswith("{")]
    assert len([line for line in requests if line.get("route") == "/health/live"]) == 40
    assert key not in launcher.output.read_text()
