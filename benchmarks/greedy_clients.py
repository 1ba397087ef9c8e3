"""What an abusive workspace costs another one: latency of plain reads in quiet and in flooded spells, in turns.

    python -m benchmarks.greedy_clients [--connections 64] [--rate 100]

The abuser asks for its values over many connections at once, as fast as answers come. `--rate` is
PERENNIAL_REQUESTS_PER_SECOND of the service. All of it shares the machine, the abuser too.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import Counter

import httpx

from app import embedded, workspaces
from app.migrate import migrate
from app.store.engine import create_engine

SPELLS = 6
SPELL_S = 4.0
PAUSE_S = 0.01
_FLOOD = """
import asyncio, collections, httpx, json, sys
async def main(url, key, connections):
    counts = collections.Counter()
    limits, headers = httpx.Limits(max_connections=connections), {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=30) as http:
        async def one():
            while True:
                counts[(await http.get("/v1/customers/c-1/value")).status_code] += 1
        tasks = [asyncio.create_task(one()) for _ in range(connections)]
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps(counts), flush=True)
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def event(customer_id: str) -> dict[str, object]:
    data = {"order_id": "o", "amount": "1", "currency": "USD"}
    return {
        "id": "e",
        "type": "order.placed",
        "customer_id": customer_id,
        "occurred_at": "2025-01-01T00:00:00Z",
        "data": data,
    }


async def spell(http: httpx.AsyncClient, seconds: list[float], statuses: Counter[int]) -> None:
    until = time.monotonic() + SPELL_S
    while time.monotonic() < until:
        started = time.perf_counter()
        statuses[(await http.get("/v1/customers/c-1/value")).status_code] += 1
        seconds.append(time.perf_counter() - started)
        await asyncio.sleep(PAUSE_S)


async def measure(url: str, keys: list[str], connections: int) -> None:
    quiet: list[float] = []
    flooded: list[float] = []
    statuses: Counter[int] = Counter()
    for key in keys:
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
            assert (await http.post("/v1/events", json={"events": [event("c-1")]})).status_code == 200
    told: Counter[str] = Counter()
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {keys[0]}"}, timeout=30) as http:
        await spell(http, [], Counter())
        for _ in range(SPELLS):
            await spell(http, quiet, statuses)
            flood = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _FLOOD, url, keys[1], str(connections)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            await asyncio.sleep(2)
            await spell(http, flooded, statuses)
            said, _ = await flood.communicate(b"\n")
            told.update(eval(said))
    for name, found in (("quiet", quiet), ("flooded", flooded)):
        found.sort()
        p50, p99 = found[len(found) // 2], found[int(len(found) * 0.99)]
        print(f"{name:8} {len(found):6,} reads, p50 {p50 * 1000:6.1f} ms, p99 {p99 * 1000:6.1f} ms")
    print(f"the reader was answered {dict(statuses)}, the abuser {dict(told)}")


async def make_keys(database_url: str) -> list[str]:
    engine = create_engine(database_url)
    made = [
        await workspaces.create_workspace(engine, name, "USD", "UTC", workspaces.SCOPES) for name in ("calm", "greedy")
    ]
    await engine.dispose()
    return [new.key for new in made]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=float, default=5_000)
    arguments = parser.parse_args()
    with embedded.temporary_server() as server, socket.create_server(("127.0.0.1", 0)) as listener:
        asyncio.run(migrate(server.url))
        keys = asyncio.run(make_keys(server.url))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # As the launcher does.
        options = (
            f"--factory --fd {listener.fileno()} --loop uvloop --http app.api.protocol:ProblemProtocol --ws none "
            "--no-access-log --log-level warning"
        )
        web = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app.main:create_app", *options.split()],
            env=os.environ
            | {
                "PERENNIAL_DATABASE_URL": server.url,
                "PERENNIAL_THROWAWAY_DATABASE": "true",
                "PERENNIAL_REQUESTS_PER_SECOND": str(arguments.rate),
                "PERENNIAL_LOG_LEVEL": "warning",
            },
            pass_fds=(listener.fileno(),),
        )
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            asyncio.run(measure(url, keys, arguments.connections))
        finally:
            web.terminate()
            web.wait()


if __name__ == "__main__":
    main()
