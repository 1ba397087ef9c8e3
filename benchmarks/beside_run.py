"""Latency of ingest while the worker scores a large population, beside ingest alone.

Batches of 100 orders over 4 connections, each sent 100 ms after the last one's answer, on the service as the launcher
starts it: for some seconds alone, then for as long as runs of all customers go on, and alone again.

    python -m benchmarks.beside_run [--small] [--customers 1000000] [--seconds 20]
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import uvloop

from benchmarks.figures import Figure, table
from benchmarks.ingest import CONNECTIONS, call, cut, make_orders, request
from benchmarks.service import served
from benchmarks.simulated_shop import fill

A_BATCH = 100
PAUSE_SECONDS = 0.1


async def latencies(url: str, orders: list[dict[str, Any]], goes_on: Callable[[], bool]) -> list[float]:
    """Milliseconds of each batch's request, from when it is sent, until ``goes_on`` says no."""
    where = urlsplit(url)
    messages = (request("POST", "/v1/events", json.dumps({"events": part}).encode()) for part in cut(orders, A_BATCH))
    taken: list[float] = []

    async def send() -> None:
        connection = await asyncio.open_connection(where.hostname, where.port)
        while goes_on():
            message = next(messages)
            begun = time.perf_counter()
            assert (await call(connection, message))["accepted"] == A_BATCH
            taken.append((time.perf_counter() - begun) * 1000)
            await asyncio.sleep(PAUSE_SECONDS)
        connection[1].close()

    await asyncio.gather(*(send() for _ in range(CONNECTIONS)))
    return taken


async def beside_run(url: str, orders: list[dict[str, Any]], runs: int) -> list[float]:
    going = True
    watch = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)

    async def do_runs() -> None:
        nonlocal going
        for _ in range(runs):
            body = json.dumps({"settings": {"clv": {"model": "auto"}}}).encode()
            run = await call(watch, request("POST", "/v1/runs", body))
            begun = time.perf_counter()
            while run["status"] in ("queued", "running"):
                await asyncio.sleep(0.1)
                run = await call(watch, request("GET", f"/v1/runs/{run['id']}"))
            assert run["status"] == "succeeded", run
            print(f"  a run of {run['customers']:,} customers took {time.perf_counter() - begun:.1f} s", flush=True)
        going = False

    _, taken = await asyncio.gather(do_runs(), latencies(url, orders, lambda: going))
    watch[1].close()
    return taken


def p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]


async def measure(url: str, seconds: float, customers: int, runs: int) -> Figure:
    orders = make_orders(4_000_000 if customers > 100_000 else 60_000, "beside", 2024)
    part = len(orders) // 4

    def alone(start: int) -> Any:
        end = time.perf_counter() + seconds
        return latencies(url, orders[start : start + part], lambda: time.perf_counter() < end)

    before = await alone(0)
    beside = await beside_run(url, orders[part : 3 * part], runs)
    after = await alone(3 * part)
    quiet = before + after
    print(
        f"  alone: {len(quiet)} batches, p50 {statistics.median(quiet):.1f} ms, p99 {p99(quiet):.1f} ms;"
        f" beside the run: {len(beside)} batches, p50 {statistics.median(beside):.1f} ms, p99 {p99(beside):.1f} ms"
    )
    return Figure("p99 of a batch beside a run", "alone", p99(beside), p99(quiet), "ms", 3.0, at_most=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="5,000 customers, a few seconds")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.customers, arguments.seconds, arguments.runs = 5_000, 2, 1
    with served() as service:
        asyncio.run(fill(service.database_url, "default", arguments.customers))
        print(table([uvloop.run(measure(service.url, arguments.seconds, arguments.customers, arguments.runs))]))


if __name__ == "__main__":
    main()
