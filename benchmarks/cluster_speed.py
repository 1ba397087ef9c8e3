"""A Citus cluster beside a single server, one after the other and again: what docs/scaling.md reckons with.

    python -m benchmarks.cluster_speed --url postgresql://…/database [--customers 100000] [--rounds 3]

The database is an empty one of the cluster's coordinator; the single server is the embedded one with its own settings.
Both get the same customers, about three orders each over two years. Then, through the same code without HTTP:

- bytes a row, indexes with it, of what was filled and of what the runs stored;
- runs with the textbook's and with the contest's model, and how long their parts took;
- batches of 1,000 new orders from 4 tasks;
- live values, one customer a statement, one after another, and 16 at a time;
- a page of a list, sorted, and filtered.
"""

import argparse
import asyncio
import contextlib
import functools
import os
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import embedded, live, run_execution, run_fitting, runs, stored_values
from app.fits import Fits
from app.ingest import EventRecorder
from app.migrate import migrate
from app.store.engine import create_engine
from app.store.score_lists import ScoreFilter
from app.store.workspaces import Workspace, get_workspace
from benchmarks.customer_ids import customer_id
from benchmarks.ingest import cut, make_orders
from benchmarks.simulated_shop import AS_OF, add_shop, fill

TABLES = ("events", "customer_summary", "score_history", "scores")
PARTS = (
    (run_execution, "_read"),
    *((run_fitting, name) for name in ("rank_population", "fit_models", "fit_population")),
    (run_execution, "_put_in_order"),
)
ORDERS_A_ROUND = 20_000
READS_A_ROUND = 400
PAGES_A_ROUND = 20


@dataclass
class Place:
    """One of the two."""

    name: str
    url: str
    engine: AsyncEngine
    workspace: Workspace

    async def fresh_workspace(self) -> Workspace:
        async with self.engine.connect() as connection:
            return await get_workspace(connection, self.workspace.id)


@contextlib.contextmanager
def timed_parts() -> Iterator[dict[str, float]]:
    """How long the parts of a run take, by name."""
    seconds: dict[str, float] = {}
    kept = [(module, name, getattr(module, name)) for module, name in PARTS]
    for module, name, part in kept:
        setattr(module, name, _timed(part, name, seconds))
    try:
        yield seconds
    finally:
        for module, name, part in kept:
            setattr(module, name, part)


def _timed(part: Callable[..., Any], name: str, seconds: dict[str, float]) -> Callable[..., Any]:
    @functools.wraps(part)
    def plain(*arguments: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return part(*arguments, **named)
        finally:
            seconds[name] = time.perf_counter() - begun

    @functools.wraps(part)
    async def awaited(*arguments: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return await part(*arguments, **named)
        finally:
            seconds[name] = time.perf_counter() - begun

    return awaited if asyncio.iscoroutinefunction(part) else plain


async def run(place: Place, model: str) -> tuple[float, dict[str, float]]:
    async with place.engine.begin() as connection:
        asked = await runs.add_run(connection, place.workspace, AS_OF, {"clv": {"model": model}})
    with timed_parts() as parts:
        begun = time.perf_counter()
        await run_execution.execute_run(place.engine, str(asked.number).encode(), asyncio.Event())
        taken = time.perf_counter() - begun
    record = await runs.get_run(place.engine, place.workspace, asked.id)
    if record.status != "succeeded":
        raise RuntimeError(f"the run is {record.status}: {record.error}")
    return taken, parts


async def ingest(place: Place, name: str) -> float:
    """Orders a second."""
    recorder = EventRecorder(place.engine, 4)
    batches = cut(make_orders(ORDERS_A_ROUND, name))

    async def send() -> None:
        for batch in batches:
            receipt = await recorder.record(place.workspace, batch, datetime.now(UTC), 10**6)
            if receipt.accepted != len(batch):
                raise RuntimeError(f"{receipt.errors[:1]}")

    begun = time.perf_counter()
    await asyncio.gather(*(send() for _ in range(4)))
    return ORDERS_A_ROUND / (time.perf_counter() - begun)


async def read(place: Place, size: int, at_once: int) -> float:
    """Live values a second; those that come at the same time share statements, as they do in the service."""
    chance = random.Random(at_once)
    fits = Fits()
    workspace = await place.fresh_workspace()
    numbers = iter([chance.randrange(size) for _ in range(READS_A_ROUND)])

    async def ask() -> None:
        for number in numbers:
            await live.live_value(place.engine, fits, workspace, customer_id(number))

    begun = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(at_once)))
    return READS_A_ROUND / (time.perf_counter() - begun)


async def page(place: Place, filters: ScoreFilter) -> float:
    """Milliseconds of a page of 100, the median."""
    workspace = await place.fresh_workspace()
    fits = Fits()
    taken = []
    for _ in range(PAGES_A_ROUND):
        begun = time.perf_counter()
        await stored_values.list_values(
            place.engine, fits, workspace, filters, sort="clv_total", falling=True, after=None, limit=100
        )
        taken.append(1000 * (time.perf_counter() - begun))
    return statistics.median(taken)


async def show_sizes(place: Place, on_cluster: bool) -> None:
    measure = "citus_total_relation_size" if on_cluster else "pg_total_relation_size"
    async with place.engine.connect() as connection:
        for table in TABLES:
            # A table without partitions is no tree.
            parts = f"SELECT relid FROM pg_partition_tree('{table}') UNION SELECT '{table}'::regclass"
            size, rows = (
                await connection.execute(
                    text(f"SELECT (SELECT sum({measure}(relid)) FROM ({parts}) AS p), (SELECT count(*) FROM {table})")
                )
            ).one()
            print(f"  {place.name}: {table}: {rows:,} rows, {size / max(rows, 1):.0f} bytes a row", flush=True)


@contextlib.asynccontextmanager
async def filled(name: str, url: str, size: int) -> AsyncIterator[Place]:
    await migrate(url)
    engine = create_engine(url, statement_timeout_ms=0)
    workspace = await add_shop(engine, "shop")
    begun = time.perf_counter()
    await fill(url, "shop", size, end=AS_OF)
    print(f"  {name}: filled in {time.perf_counter() - begun:.0f} s", flush=True)
    try:
        yield Place(name, url, engine, workspace)
    finally:
        await engine.dispose()


async def measure(places: list[Place], size: int, rounds: int) -> None:
    for number in range(1, rounds + 1):
        for model in ("textbook", "auto"):
            for place in places:
                taken, parts = await run(place, model)
                told = ", ".join(f"{name.strip('_')} {seconds:.2f}" for name, seconds in parts.items())
                print(f"  run {number}, {model}, {place.name}: {taken:.2f} s ({told})", flush=True)
        for what, figure in (
            ("orders a second", lambda place, n=number: ingest(place, f"n{n}")),
            ("live values a second, one at a time", lambda place: read(place, size, 1)),
            ("live values a second, 16 at a time", lambda place: read(place, size, 16)),
            ("ms a page, sorted", lambda place: page(place, ScoreFilter())),
            ("ms a page, filtered", lambda place: page(place, ScoreFilter(equal={"abc_grade": "A"}))),
        ):
            figures = [await figure(place) for place in places]
            told = ", ".join(f"{place.name} {each:,.1f}" for place, each in zip(places, figures, strict=True))
            print(f"  round {number}, {what}: {told}: {figures[-1] / figures[0]:.2f} times", flush=True)


async def compare(single_url: str, cluster_url: str, arguments: argparse.Namespace) -> None:
    size = arguments.customers
    async with filled("single", single_url, size) as single, filled("cluster", cluster_url, size) as cluster:
        await show_nodes(cluster_url)
        await measure([single, cluster], size, arguments.rounds)
        await show_sizes(single, on_cluster=False)
        await show_sizes(cluster, on_cluster=True)


async def show_nodes(url: str) -> None:
    connection = await asyncpg.connect(url)
    workers = await connection.fetchval("SELECT count(*) FROM citus_get_active_worker_nodes()")
    shards = await connection.fetchval("SELECT shard_count FROM citus_tables WHERE table_name = 'events'::regclass")
    await connection.close()
    print(f"  cluster: {workers} workers, {shards} shards", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"load average before: {os.getloadavg()[0]:.1f}")
    # The settings of the service, which keep what is committed.
    with embedded.temporary_server(postgres_settings={}) as server:
        asyncio.run(compare(server.url, arguments.url, arguments))


if __name__ == "__main__":
    main()
