"""A scoring run beside the bare movement of its rows and beside a script of pandas and lifetimes; and its memory.

    python -m benchmarks.run_speed [--customers 1000000] [--memory-customers 3000000] [--rounds 2] [--small]

One server with the service's own settings, one worker as the launcher starts it. The workspace has about three orders
a customer over two years. In each round, one after the other:

- the run, from the request to `succeeded`, with the model chosen by contest (`auto`) and with the textbook's;
- the bare movement, by one connection: the orders out (customer, order, moment, day, amount, rate, cost: what a run
  needs to know) by binary COPY; as many score rows as there are customers, all columns of `scores`, in by binary COPY
  of bytes prepared before, into a table made in the same transaction; the indexes that the run's table has; commit. The
  history of scores, which a run stores as well, is left out.

Then the script, once a way (see `lifetimes_script`), for at most `--script-seconds`: with one purchase model, beside
either run; choosing among those that lifetimes has, beside the run that chooses by contest. Last the peak memory
(VmHWM) of a fresh worker with the contest, here and at `--memory-customers`; and a run where each customer has ten
interactions.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from app import embedded, runs
from app.migrate import migrate
from app.store.engine import create_engine
from app.store.scores import table_of
from app.store.workspaces import Workspace
from benchmarks.figures import Figure, table, within
from benchmarks.simulated_shop import AS_OF, add_shop, fill
from torture.service import memory_kib

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS = ("auto", "textbook")
MOST_MEGABYTES = 1_536
_ORDER_COLUMNS = "customer_id, order_id, occurred_at, local_day, amount, exchange_rate, cost"
_A_MESSAGE = 1 << 18


@contextlib.contextmanager
def worker(database_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process, as the launcher starts it."""
    environment = {**os.environ, "PERENNIAL_DATABASE_URL": database_url, "PERENNIAL_LOG_LEVEL": "warning"}
    process = subprocess.Popen([sys.executable, "-m", "app.worker"], cwd=REPOSITORY, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(server: subprocess.Popen[bytes], client: int) -> float:
    """Processor time so far of the server's processes and of a client: on a busy machine steadier than the clock."""

    def times(process_id: int) -> tuple[int, list[int]]:
        parts = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
        return int(parts[1]), [int(part) for part in parts[11:15]]  # parent; user, system, and of ended children

    ticks = sum(times(server.pid)[1]) + sum(times(client)[1][:2])
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit():
                parent, (user, system, *_) = times(int(folder.name))
                ticks += user + system if parent == server.pid else 0
    return ticks / os.sysconf("SC_CLK_TCK")


async def do_run(engine: AsyncEngine, workspace: Workspace, model: str, working: subprocess.Popen[bytes]) -> float:
    """Seconds from the request to the end of a run that the worker does."""
    begun = time.perf_counter()
    async with engine.begin() as connection:
        asked = await runs.add_run(connection, workspace, AS_OF, {"clv": {"model": model}})
    while True:
        await asyncio.sleep(0.02)
        record = await runs.get_run(engine, workspace, asked.id)
        if record.status == "succeeded":
            return time.perf_counter() - begun
        if record.status == "failed" or working.poll() is not None:
            raise RuntimeError(f"the run is {record.status}: {record.error}")


async def bare_movement(
    connection: Any, workspace: Workspace, rows: bytes, definitions: list[str]
) -> tuple[float, float, float]:
    """Seconds of orders out, scores in, and indexes."""

    async def drop(data: bytes) -> None:
        pass

    async def prepared() -> AsyncIterator[bytes]:
        for start in range(0, len(rows), _A_MESSAGE):
            yield rows[start : start + _A_MESSAGE]

    moments = [time.perf_counter()]
    query = f"SELECT {_ORDER_COLUMNS} FROM events WHERE workspace_id = {workspace.id} AND type = 'order.placed'"
    await connection.copy_from_query(query, output=drop, format="binary")
    moments.append(time.perf_counter())
    async with connection.transaction():
        await connection.execute("CREATE TABLE bare_scores (LIKE scores INCLUDING DEFAULTS)")
        await connection.copy_to_table("bare_scores", source=prepared(), format="binary")
        moments.append(time.perf_counter())
        await connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
        for definition in definitions:
            await connection.execute(definition)
    moments.append(time.perf_counter())
    await connection.execute("DROP TABLE bare_scores")
    out, into, indexed = (later - earlier for earlier, later in itertools.pairwise(moments))
    return out, into, indexed


async def stored_scores(connection: Any, workspace: Workspace) -> tuple[bytes, list[str]]:
    """The scores of the latest run as binary COPY has them, and what makes their indexes on the table of the movement.

    The run is a large one, with a table of its own.
    """
    run_id, partition = await connection.fetchrow(
        "SELECT id, partition FROM runs WHERE workspace_id = $1 AND kept ORDER BY id DESC LIMIT 1", workspace.id
    )
    received = bytearray()

    async def keep(data: bytes) -> None:
        received.extend(data)

    query = f"SELECT * FROM scores WHERE partition = {partition} AND run_id = {run_id} ORDER BY customer_id"
    await connection.copy_from_query(query, output=keep, format="binary")
    made = "SELECT indexdef FROM pg_indexes WHERE tablename = $1"
    indexes = [row["indexdef"] for row in await connection.fetch(made, table_of(partition))]
    return bytes(received), [re.sub(r" INDEX \S+ ON \S+ ", " INDEX ON bare_scores ", index) for index in indexes]


async def compare(
    engine: AsyncEngine, server: embedded.EmbeddedServer, workspace: Workspace, rounds: int
) -> tuple[dict[str, float], list[Figure]]:
    """Runs and bare movements by turns; answers the median seconds of a run of each model, and the figures."""
    connection = await asyncpg.connect(server.url, server_settings={"jit": "off"})
    seconds: dict[str, list[float]] = {model: [] for model in MODELS}
    moved: dict[str, list[float]] = {model: [] for model in MODELS}
    small = await add_shop(engine, "small")
    await fill(server.url, "small", 100, end=AS_OF)
    with worker(server.url) as working:
        await do_run(engine, small, "textbook", working)  # The worker has started by then.
        for number in range(1, rounds + 1):
            for model in MODELS:
                before = cpu_seconds(server.process, working.pid)
                taken = await do_run(engine, workspace, model, working)
                run_cpu = cpu_seconds(server.process, working.pid) - before
                # What the server still has to do for the run is not to fall upon its neighbour.
                await connection.execute("CHECKPOINT")
                rows, definitions = await stored_scores(connection, workspace)
                before = cpu_seconds(server.process, os.getpid())
                out, into, indexed = await bare_movement(connection, workspace, rows, definitions)
                bare_cpu = cpu_seconds(server.process, os.getpid()) - before
                bare = out + into + indexed
                await connection.execute("CHECKPOINT")
                seconds[model].append(taken)
                moved[model].append(bare)
                print(
                    f"  round {number}, {model}: run {taken:.1f} s, bare movement {bare:.1f} s (out {out:.1f},"
                    f" in {into:.1f}, indexes {indexed:.1f}): {taken / bare:.2f} times; processor time"
                    f" {run_cpu:.1f} s and {bare_cpu:.1f} s: {run_cpu / bare_cpu:.2f} times",
                    flush=True,
                )
    await connection.close()
    middle = {model: statistics.median(taken) for model, taken in seconds.items()}
    return middle, [
        Figure(f"a run, {model}", "bare movement", taken, statistics.median(moved[model]), "s", 2.5, at_most=True)
        for model, taken in middle.items()
    ]


def compare_script(
    database_url: str, workspace: Workspace, run_seconds: dict[str, float], limit: float
) -> list[Figure]:
    """The script beside the runs; where it was not done in the limit, that is a bound from below."""
    figures = []
    for what, way, models in (
        ("pandas + lifetimes, by read_sql", ["read_sql"], MODELS),
        ("pandas + lifetimes, by copy", ["copy"], MODELS),
        ("pandas + lifetimes, by copy, choosing the model", ["copy", "--choose"], ("auto",)),
    ):
        print(f"  {what}:", flush=True)
        command = [sys.executable, "-m", "benchmarks.lifetimes_script", database_url, str(workspace.id)]
        begun = time.perf_counter()
        try:
            subprocess.run([*command, AS_OF.isoformat(), *way], cwd=REPOSITORY, timeout=limit, check=True)
        except subprocess.TimeoutExpired:
            print(f"    not done in {limit:.0f} s: its figures are of that")
        taken = time.perf_counter() - begun
        figures += [Figure(what, f"a run, {model}", taken, run_seconds[model], "s", 10) for model in models]
    return figures


async def peak_memory(engine: AsyncEngine, database_url: str, workspace: Workspace, size: int) -> float:
    """MB of a fresh worker in a run with the contest, which needs more than the textbook."""
    with worker(database_url) as process:
        taken = await do_run(engine, workspace, "auto", process)
        peak = memory_kib(process.pid) / 1024
    print(f"  {size:,} customers: {peak:,.0f} MB, {taken:.1f} s", flush=True)
    return peak


def memory_of(size: int) -> str:
    return f"peak memory of the worker, {size:,} customers"


async def measure(server: embedded.EmbeddedServer, arguments: argparse.Namespace) -> None:
    database_url = server.url
    engine = create_engine(database_url, statement_timeout_ms=0)
    size = arguments.customers
    workspace = await add_shop(engine, "shop")
    begun = time.perf_counter()
    orders = await fill(database_url, "shop", size, end=AS_OF)
    print(f"{size:,} customers, {orders:,} orders, filled in {time.perf_counter() - begun:.0f} s", flush=True)
    taken, figures = await compare(engine, server, workspace, arguments.rounds)
    if arguments.script_seconds:
        limit = arguments.script_seconds
        figures += await asyncio.to_thread(compare_script, database_url, workspace, taken, limit)
    print("Peak memory of the worker")
    peak = await peak_memory(engine, database_url, workspace, size)
    figures.append(within(memory_of(size), peak, MOST_MEGABYTES, "MB"))
    if arguments.interactions_customers:
        talkative = arguments.interactions_customers
        talked = await add_shop(engine, "talked")
        await fill(database_url, "talked", talkative, end=AS_OF, interactions=10)
        print(f"Ten interactions a customer, {10 * talkative:,} in all")
        await peak_memory(engine, database_url, talked, talkative)
    if arguments.memory_customers:
        large = await add_shop(engine, "large")
        await fill(database_url, "large", arguments.memory_customers, end=AS_OF)
        print("Peak memory of the worker in a larger run")
        most = await peak_memory(engine, database_url, large, arguments.memory_customers)
        what = memory_of(arguments.memory_customers)
        growth = arguments.memory_customers / size
        figures += [
            within(what, most, MOST_MEGABYTES, "MB"),
            Figure(what, f"{size:,} customers", most, peak, "MB", growth, at_most=True),
        ]
    await engine.dispose()
    print(table(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--interactions-customers", type=int, default=1_000_000, help="0: not measured")
    parser.add_argument("--memory-customers", type=int, default=3_000_000, help="0: not measured")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--script-seconds", type=float, default=600, help="0: not measured")
    parser.add_argument("--small", action="store_true", help="20,000 customers and 40,000, for everyday use")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.customers, arguments.interactions_customers, arguments.memory_customers = 20_000, 0, 40_000
        arguments.rounds, arguments.script_seconds = 1, 60
    os.nice(5)  # As the worker is, so that others on the machine slow both alike.
    # The settings of the service, which keep what is committed.
    with embedded.temporary_server(postgres_settings={}) as server:
        asyncio.run(migrate(server.url))
        asyncio.run(measure(server, arguments))


if __name__ == "__main__":
    main()
