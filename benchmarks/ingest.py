"""Ingest beside what the same server and driver can do at best, all in one run, one after the other and again.

The service as the launcher starts it: embedded server with its own settings, one web process, one worker. Orders of
many customers come as they happened, one after another.

- batches: 1,000 orders a request over 4 connections; beside asyncpg's COPY of such rows, 1,000 a commit, into a table
  with the keys of `events` (by event, by order), over one connection and over 4; and beside our own recording of such
  batches in this process, without HTTP;
- late batches, for orientation: the same, but each order is dated before the customer's last one;
- an import of a file of twice as many, NDJSON and CSV, from the first byte sent to `succeeded`; beside the COPY in one
  go;
- single events, one a request from 64 connections; beside one-row inserts by pgbench from 64 connections; and with
  two web processes, on a service of their own;
- the next order of a customer with 10,000 orders; beside that of a customer with 10.

    python -m benchmarks.ingest [--orders 100000] [--rounds 3] [--small]
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

import asyncpg
import uvloop

from app.candidates import prepare
from app.embedded.binaries import programs_for
from app.embedded.folder import account_for
from app.garbage import collect_rarely
from app.ingest import EventRecorder
from app.store.engine import create_engine
from app.store.events import EventRow
from app.store.workspaces import Workspace
from benchmarks.customer_ids import customer_id
from benchmarks.figures import Figure, table
from benchmarks.service import KEY, Service, served
from tests import raw_http

A_REQUEST = 1_000
CONNECTIONS = 4
SINGLES = 64
MAPPING = json.dumps(
    {
        "kind": "orders",
        "columns": {name: name for name in ("order_id", "customer_id", "occurred_at", "amount", "currency")},
    }
)


def make_orders(count: int, name: str, year: int = 2024) -> list[dict[str, Any]]:
    """Orders of many customers over two years, as they happened: one after another."""
    chance = random.Random(name)
    begin = datetime(year, 1, 1, tzinfo=UTC).timestamp()
    step = 2 * 365 * 86_400 / count
    return [
        {
            "id": f"evt-{name}-{number:08}",
            "type": "order.placed",
            "customer_id": customer_id(chance.randrange(max(1, count // 5))),
            "occurred_at": datetime.fromtimestamp(begin + number * step, UTC).isoformat().replace("+00:00", "Z"),
            "data": {
                "order_id": f"o-{name}-{number:08}",
                "amount": f"{chance.randrange(100, 50_000) / 100:.2f}",
                "currency": "USD",
            },
        }
        for number in range(count)
    ]


def cut(things: Sequence[Any], size: int = A_REQUEST) -> Iterator[Any]:
    return (things[start : start + size] for start in range(0, len(things), size))


def request(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    return raw_http.request(KEY, method, path, body, kind)


async def call(connection: raw_http.Connection, message: bytes) -> Any:
    """The answer to a request that must succeed; as little work as can be, for the client shares the cores."""
    reader, writer = connection
    writer.write(message)
    status, body = await raw_http.read_answer(reader)
    if status // 100 != 2:
        raise RuntimeError(f"{status} {body.decode()}")
    return json.loads(body)


async def send_all(url: str, messages: Iterable[bytes], connections: int) -> float:
    """Seconds until all are answered, over so many connections."""
    where = urlsplit(url)
    waiting = iter(messages)

    async def send() -> int:
        connection = await asyncio.open_connection(where.hostname, where.port)
        accepted = 0
        for message in waiting:
            accepted += (await call(connection, message))["accepted"]
        connection[1].close()
        return accepted

    begun = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(connections)))
    return time.perf_counter() - begun


async def by_http(url: str, orders: list[dict[str, Any]], size: int = A_REQUEST, connections: int = 4) -> float:
    messages = [request("POST", "/v1/events", json.dumps({"events": part}).encode()) for part in cut(orders, size)]
    return len(orders) / await send_all(url, messages, connections)


async def by_function(database_url: str, workspace: Workspace, orders: list[dict[str, Any]]) -> float:
    # As a web process does.
    collect_rarely()
    sys.setswitchinterval(0.0005)
    engine = create_engine(database_url)
    recorder = EventRecorder(engine, CONNECTIONS)
    batches = iter(list(cut(orders)))

    async def record() -> None:
        for batch in batches:
            receipt = await recorder.record(workspace, batch, datetime.now(UTC))
            assert receipt.accepted == len(batch)

    begun = time.perf_counter()
    await asyncio.gather(*(record() for _ in range(CONNECTIONS)))
    seconds = time.perf_counter() - begun
    await engine.dispose()
    return len(orders) / seconds


async def make_bare_table(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "CREATE TABLE bare_events (LIKE events INCLUDING DEFAULTS,"
        " PRIMARY KEY (workspace_id, customer_id, event_id), UNIQUE (workspace_id, customer_id, order_id))"
    )
    await connection.close()


async def by_copy(
    database_url: str, orders: list[dict[str, Any]], a_commit: int = A_REQUEST, connections: int = 1
) -> float:
    """Rows a second by bare COPY, so many a commit."""
    rows = prepare(Workspace(1, "bare", "USD", ZoneInfo("UTC"), bytes(32)), orders, datetime.now(UTC))[0].rows
    batches = iter(list(cut(rows, a_commit)))

    async def copy(connection: Any) -> None:
        for batch in batches:
            await connection.copy_records_to_table("bare_events", records=batch, columns=EventRow._fields)

    connected = [await asyncpg.connect(database_url) for _ in range(connections)]
    begun = time.perf_counter()
    await asyncio.gather(*map(copy, connected))
    seconds = time.perf_counter() - begun
    for connection in connected:
        await connection.close()
    return len(rows) / seconds


async def by_import(url: str, body: bytes, kind: str, path: str, count: int) -> float:
    where = urlsplit(url)
    begun = time.perf_counter()
    connection = await asyncio.open_connection(where.hostname, where.port)
    state = await call(connection, request("POST", path, body, kind))
    while state["status"] not in ("succeeded", "failed"):
        await asyncio.sleep(0.1)  # A client that asked much more often would take the processor that it waits for.
        state = await call(connection, request("GET", f"/v1/imports/{state['id']}"))
    seconds = time.perf_counter() - begun
    assert state["counts"]["accepted"] == count, state
    connection[1].close()
    return count / seconds


def as_ndjson(orders: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, orders)).encode()


def as_csv(orders: list[dict[str, Any]]) -> bytes:
    lines = ["order_id,customer_id,occurred_at,amount,currency"]
    lines += [
        f"{order['data']['order_id']},{order['customer_id']},{order['occurred_at']},{order['data']['amount']},USD"
        for order in orders
    ]
    return "\n".join(lines).encode()


def by_pgbench(folder: Path, seconds: int) -> float:
    """One-row inserts a second from 64 connections, into a table with the keys of `events`."""
    script = folder / "insert.sql"
    script.write_text(
        "\\set id random(1, 1000000000000)\n"
        "INSERT INTO bare_events (workspace_id, customer_id, event_id, type, occurred_at, received_at, fingerprint,"
        " local_day, order_id, amount, currency) VALUES (1, 'c-' || (:id % 10000), 'e-' || :id, 'order.placed', now(),"
        " now(), '\\x00', '2026-01-01', 'o-' || :id, 12.5, 'USD');\n"
    )
    program = programs_for(account_for(folder / "data"), folder / "data") / "pgbench"
    where = ["-h", folder / "data/socket", "-U", "perennial", "perennial"]
    answer = subprocess.run(
        [program, "-n", "-f", script, "-c", str(SINGLES), "-j", "1", "-T", str(seconds), *where],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"tps = ([\d.]+)", answer.stdout)
    assert found, answer.stdout
    return float(found[1])


async def next_order(url: str, customer_ids: Sequence[str], times: int) -> list[float]:
    """Milliseconds of an order's request, the median for each of the customers, asked in turns."""
    where = urlsplit(url)
    connection = await asyncio.open_connection(where.hostname, where.port)
    spent: dict[str, list[float]] = {customer: [] for customer in customer_ids}
    for number in range(times):
        for customer in customer_ids:
            (order,) = make_orders(1, f"next-{number}-{customer}", 2025)
            body = json.dumps({"events": [{**order, "customer_id": customer}]}).encode()
            begun = time.perf_counter()
            assert (await call(connection, request("POST", "/v1/events", body)))["accepted"] == 1
            spent[customer].append((time.perf_counter() - begun) * 1000)
    connection[1].close()
    return [statistics.median(values) for values in spent.values()]


async def measure(service: Service, orders: int, rounds: int, pgbench_seconds: int, times: int) -> list[Figure]:
    """The figures, medians over the rounds; the next order of a customer is sent so many ``times``."""
    url, database_url = service.url, service.database_url
    workspace = Workspace(1, "default", "USD", ZoneInfo("UTC"), bytes(32))
    await make_bare_table(database_url)
    found: dict[str, list[float]] = {}

    def tell(**figures: float) -> None:
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
        print("  ".join(f"{name} {value:,.0f}/s" for name, value in figures.items()), flush=True)

    for number in range(rounds):
        # Each comes after all before it, but for those that are to come late.
        first, second, single = (
            make_orders(count, f"{name}{number}", year + 6 * number)
            for name, count, year in (("a", orders, 1990), ("b", orders, 1992), ("s", orders // 10, 1994))
        )
        tell(
            batches=await by_http(url, first),
            copy=await by_copy(database_url, first),
            copies=await by_copy(database_url, second, connections=CONNECTIONS),
            function=await by_function(database_url, workspace, second),
            late=await by_http(url, make_orders(orders // 4, f"late{number}", 1980)),
            single=await by_http(url, single, 1, SINGLES),
            pgbench=await asyncio.to_thread(by_pgbench, service.folder, pgbench_seconds),
        )
    for number in range(rounds):
        year = 2010 + 4 * number
        events, lines = make_orders(2 * orders, f"n{number}", year), make_orders(2 * orders, f"c{number}", year + 2)
        tell(
            ndjson=await by_import(url, as_ndjson(events), "application/x-ndjson", "/v1/imports", len(events)),
            at_once=await by_copy(database_url, events, len(events)),
            csv=await by_import(url, as_csv(lines), "text/csv", f"/v1/imports?mapping={quote(MAPPING)}", len(lines)),
        )
    for customer, count in (("c-ten", 10), ("c-ten-thousand", 10_000)):
        history = [{**order, "customer_id": customer} for order in make_orders(count, customer, 2023)]
        await by_http(url, history, connections=1)
    of_ten, of_ten_thousand = await next_order(url, ("c-ten", "c-ten-thousand"), times)

    middle = {name: statistics.median(values) for name, values in found.items()}
    print(f"late orders, 1,000 a request: {middle['late']:,.0f}/s")
    a_commit, at_once = "bare COPY, 1,000 a commit", "bare COPY in one go"
    return [
        Figure("orders, 1,000 a request", a_commit, middle["batches"], middle["copy"], "/s", 0.40),
        Figure(
            "orders, 1,000 a request", f"{a_commit}, 4 connections", middle["batches"], middle["copies"], "/s", 0.40
        ),
        Figure("orders, 1,000 a request", "our recording, no HTTP", middle["batches"], middle["function"], "/s", 0.70),
        Figure("import of NDJSON", at_once, middle["ndjson"], middle["at_once"], "/s", 0.30),
        Figure("import of CSV", at_once, middle["csv"], middle["at_once"], "/s", 0.30),
        Figure("single events, 64 connections", "pgbench, 64", middle["single"], middle["pgbench"], "/s", 0.30),
        Figure("next order after 10,000", "after 10", of_ten_thousand, of_ten, "ms", 1.5, at_most=True),
    ]


async def measure_two_processes(service: Service, events: int, rounds: int, pgbench_seconds: int) -> Figure:
    """Single events where two web processes share the connections, and each the commits of its own."""
    await make_bare_table(service.database_url)
    single, beside = [], []
    for number in range(rounds):
        single.append(await by_http(service.url, make_orders(events, f"s{number}", 1994 + 6 * number), 1, SINGLES))
        beside.append(await asyncio.to_thread(by_pgbench, service.folder, pgbench_seconds))
        print(f"two web processes: single {single[-1]:,.0f}/s  pgbench {beside[-1]:,.0f}/s", flush=True)
    middle, middle_beside = statistics.median(single), statistics.median(beside)
    return Figure("single events, two web processes", "pgbench, 64", middle, middle_beside, "/s", 0.30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, choices=(1, 2, 3), help="more would come to future orders")
    parser.add_argument("--small", action="store_true", help="8,000 orders, one round")
    arguments = parser.parse_args()
    pgbench_seconds, times = 3, 200
    if arguments.small:
        arguments.orders, arguments.rounds = 8_000, 1
        pgbench_seconds, times = 1, 50
    orders, rounds = arguments.orders, arguments.rounds
    with served() as service:
        figures = uvloop.run(measure(service, orders, rounds, pgbench_seconds, times))
    with served(WEB_CONCURRENCY="2") as service:
        figures.append(uvloop.run(measure_two_processes(service, orders // 10, rounds, pgbench_seconds)))
    print(table(figures))


if __name__ == "__main__":
    main()
