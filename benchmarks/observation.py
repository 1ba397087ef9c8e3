"""What logs and metrics cost a read: the same app, the same requests, with and without, in turns.

    python -m benchmarks.observation [--small]

The app is called in process, without a client's work, so that the share is that of the service's own.
"""

import argparse
import asyncio
import io
import logging
import statistics
import time

import httpx
from fastapi import FastAPI
from starlette.types import Message

from app import embedded, logs, workspaces
from app.api.observation import Observation
from app.main import create_app
from app.migrate import migrate
from app.settings import Settings
from benchmarks.figures import Figure, table


async def measure(database_url: str, rounds: int, requests: int) -> None:
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(logs.JsonLines())
    root.handlers = [handler]
    logging.getLogger("httpx").setLevel(logging.WARNING)
    app = create_app(Settings(database_url=database_url, throwaway_database=True))
    new = await workspaces.create_workspace(app.state.engine, "w", "USD", "UTC", workspaces.SCOPES)
    begin, end = Observation.begin, Observation.end
    order = {"order_id": "o", "amount": "1", "currency": "USD"}
    event = {
        "id": "e",
        "type": "order.placed",
        "customer_id": "c",
        "occurred_at": "2025-01-01T00:00:00Z",
        "data": order,
    }
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://perennial.test",
        headers={"Authorization": f"Bearer {new.key}"},
    ) as http:
        assert (await http.post("/v1/events", json={"events": [event]})).json()["accepted"] == 1
        for number in range(2 * rounds):
            name = ("with", "without")[number % 2]
            Observation.begin = begin if name == "with" else lambda *_: None  # type: ignore[method-assign, assignment, misc]
            Observation.end = end if name == "with" else lambda *_: None  # type: ignore[method-assign, assignment, misc]
            started = time.process_time()
            for _ in range(requests):
                await _read(app, new.key)
            seconds[name].append((time.process_time() - started) / requests)
    await app.state.engine.dispose()
    # The quietest spells: what others do on the machine lengthens the CPU time of a read, too.
    least = {name: statistics.mean(sorted(found)[: rounds // 6]) for name, found in seconds.items()}
    cost = least["with"] - least["without"]
    told = Figure("logs and metrics", "a read without", cost * 1e6, least["without"] * 1e6, "µs", 0.10, at_most=True)
    print(table([told]))


async def _read(app: FastAPI, key: str) -> None:
    path = "/v1/customers/c/value"
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"perennial.test"), (b"authorization", f"Bearer {key}".encode())],
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        assert message.get("status", 200) == 200

    await app(scope, receive, send)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--requests", type=int, default=150)
    parser.add_argument("--small", action="store_true", help="a quick look, in seconds")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.rounds, arguments.requests = 12, 50
    with embedded.temporary_server() as server:
        asyncio.run(migrate(server.url))
        asyncio.run(measure(server.url, arguments.rounds, arguments.requests))


if __name__ == "__main__":
    main()
