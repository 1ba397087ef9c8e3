"""Orders a second through POST /v1/events, beside a bare COPY of the same rows into the same server.

Both in one run, one after the other and again: the service as the launcher starts it (embedded server with its own
settings, one web process), 1,000 orders a request over 4 connections; and asyncpg's COPY, 1,000 rows a commit over
4 connections, into a table with the keys and indexes of `events`.

    python benchmarks/ingest.py [--orders 100000] [--rounds 2]
"""

import argparse
import asyncio
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from app.candidates import prepare
from app.embedded.folder import account_for, temporary_parent
from app.store.events import EventRow
from app.store.workspaces import Workspace
from tests.test_launcher import Launcher

KEY = "prn_ingest"
A_REQUEST = 1_000
CONNECTIONS = 4


def make_orders(count: int, name: str, year: int = 2024) -> list[dict[str, Any]]:
    """Orders of many customers over two years, as they happened: one after another."""
    chance = random.Random(name)
    begin = datetime(year, 1, 1, tzinfo=UTC).timestamp()
    step = 2 * 365 * 86_400 / count
    return [
        {
            "id": f"evt-{name}-{number:08}",
            "type": "order.placed",
            "customer_id": f"c-{chance.randrange(count // 5):07}",
            "occurred_at": datetime.fromtimestamp(begin + number * step, UTC).isoformat().replace("+00:00", "Z"),
            "data": {
                "order_id": f"o-{name}-{number:08}",
                "amount": f"{chance.randrange(100, 50_000) / 100:.2f}",
                "currency": "USD",
            },
        }
        for number in range(count)
    ]


def cut(things: list[Any]) -> Iterator[list[Any]]:
    return (things[start : start + A_REQUEST] for start in range(0, len(things), A_REQUEST))


async def through_http(url: str, orders: list[dict[str, Any]]) -> float:
    bodies = iter([json.dumps({"events": batch}).encode() for batch in cut(orders)])
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

    async def send(http: httpx.AsyncClient) -> int:
        accepted = 0
        for body in bodies:
            accepted += (await http.post("/v1/events", content=body)).json()["accepted"]
        return accepted

    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
        begun = time.perf_counter()
        accepted = sum(await asyncio.gather(*(send(http) for _ in range(CONNECTIONS))))
        seconds = time.perf_counter() - begun
    assert accepted == len(orders)
    return len(orders) / seconds


async def by_copy(database_url: str, orders: list[dict[str, Any]]) -> float:
    workspace = Workspace(1, "bare", "USD", ZoneInfo("UTC"))
    candidates, _ = prepare(workspace, orders, datetime.now(UTC))
    batches = iter(list(cut(candidates.rows)))

    async def copy(connection: Any) -> None:
        for rows in batches:
            await connection.copy_records_to_table("bare_events", records=rows, columns=EventRow._fields)

    connections = [await asyncpg.connect(database_url) for _ in range(CONNECTIONS)]
    await connections[0].execute("CREATE TABLE IF NOT EXISTS bare_events (LIKE events INCLUDING ALL)")
    begun = time.perf_counter()
    await asyncio.gather(*map(copy, connections))
    seconds = time.perf_counter() - begun
    assert await connections[0].fetchval("SELECT count(*) FROM bare_events") % len(orders) == 0
    for connection in connections:
        await connection.close()
    return len(orders) / seconds


async def run(url: str, database_url: str, count: int, rounds: int) -> None:
    for number in itertools.islice(itertools.count(1), rounds):
        orders = make_orders(count, str(number), 2024 - 2 * (rounds - number))
        http = await through_http(url, orders)
        bare = await by_copy(database_url, orders)
        print(
            f"round {number}: {count} orders, POST /v1/events {http:,.0f}/s, bare COPY {bare:,.0f}/s,"
            f" {http / bare:.1%} of it",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="perennial-ingest-", dir=temporary_parent(account_for())))
    folder.chmod(0o711)  # The server's user passes through.
    try:
        with Launcher(folder, PERENNIAL_BOOTSTRAP_KEY=KEY) as launcher:
            url = launcher.until_serving()
            database_url = f"postgresql://perennial@/perennial?host={folder}/data/socket"
            asyncio.run(run(url, database_url, arguments.orders, arguments.rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
