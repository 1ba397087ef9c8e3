"""Reads of one customer's value, beside a bare FastAPI + asyncpg point read on the same server, in one run.

The service as the launcher starts it (embedded server, one web process); the bare read in uvicorn as it comes, with the
same loop and parser; a load client in a process of its own with keep-alive connections. Rounds alternate, and what is
told is the ratio of the medians. `--feast PYTHON` (or FEAST_PYTHON) names an interpreter that has Feast, whose
online store is then served from the same PostgreSQL, too.

    python -m benchmarks.read_speed [--small] [--customers 20000] [--rounds 5] [--seconds 2] [--feast PYTHON]
"""

import argparse
import asyncio
import json
import math
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg

from app.embedded.folder import PROJECT_DIR
from benchmarks.customer_ids import customer_id
from benchmarks.feast_fields import COUNTS, NUMBERS, WORDS
from benchmarks.figures import Figure, table
from benchmarks.ingest import cut
from benchmarks.load_client import LoadClient
from benchmarks.service import add_workspace, call, score, served
from benchmarks.simulated_shop import fill, settle

CONNECTIONS = 16
SINCE = "-since"
RUNS = {"predictive": "auto", f"predictive{SINCE}": "auto", "textbook": "textbook", f"textbook{SINCE}": "textbook"}
"""Workspaces by the model of their run. Of some all customers order again after it, so that no score of it holds."""


@dataclass(frozen=True)
class Load:
    """What a client asks of a service: paths with their bodies, one after another. Wrong answers do not count, and
    only Feast, which gives some under load, may give them."""

    url: str
    requests: list[tuple[str, str | None]]
    key: str
    may_fail: bool = False


@contextmanager
def bare_service(database_url: str) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        # As the launcher does; else an answer waits for the client's delayed ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        options = (
            f"--factory --fd {listener.fileno()} --loop uvloop --http httptools --ws none --no-proxy-headers"
            " --no-server-header --no-access-log --log-level warning"
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "benchmarks.bare_read:create_app", *options.split()],
            cwd=PROJECT_DIR,
            env=os.environ | {"BARE_DATABASE_URL": database_url},
            pass_fds=(listener.fileno(),),
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        call(url, "", "/bare/0")
        yield url
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def feast_service(python: str, folder: Path, customers: int) -> Iterator[str]:
    """Feast's feature server, one process, over its online store in the same PostgreSQL."""
    repository = folder / "feast"
    repository.mkdir()
    script = PROJECT_DIR / "benchmarks" / "feast_store.py"
    subprocess.run(
        [python, script, repository, folder / "data/socket", str(customers)], check=True, capture_output=True
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [Path(python).parent / "feast", "-c", repository, "serve", "-p", str(port), "--no-access-log"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            with suppress(OSError):
                call(url, "", "/get-online-features", json.loads(feast_question(1)))
                break
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def feast_question(number: int) -> str:
    features = [f"value:{name}" for name in (*NUMBERS, *COUNTS, *WORDS)]
    return json.dumps({"features": features, "entities": {"customer_id": [customer_id(number)]}})


def order_of_each(url: str, key: str, customers: int) -> None:
    """An order of every customer, now."""
    now = datetime.now(UTC).isoformat()
    for numbers in cut(range(customers)):
        orders = [
            {
                "id": f"since-{number}",
                "type": "order.placed",
                "customer_id": customer_id(number),
                "occurred_at": now,
                "data": {"order_id": f"since-{number}", "amount": "25.00", "currency": "USD"},
            }
            for number in numbers
        ]
        call(url, key, "/v1/events", {"events": orders})


async def make_bare_table(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE TABLE bare_reads (key text PRIMARY KEY, content text NOT NULL)")
    await connection.execute(
        "INSERT INTO bare_reads SELECT number::text, repeat('x', 900) FROM generate_series(0, 19999) AS number"
    )
    await connection.execute("VACUUM ANALYZE bare_reads")
    await connection.close()


def measure(loads: dict[str, Load], *, rounds: int, seconds: float, connections: int) -> dict[str, dict[str, float]]:
    """Requests a second and milliseconds of each load, the median over the rounds."""
    found: dict[str, list[Any]] = {name: [] for name in loads}
    position = dict.fromkeys(loads, 0)
    with LoadClient() as client:
        for load in loads.values():  # Connections and plans are there before it counts.
            client.run(
                load.url, load.requests[:50], seconds=0.3, key=load.key, connections=connections, may_fail=load.may_fail
            )
        for _ in range(rounds):
            for name, load in loads.items():
                answer = client.run(
                    load.url,
                    load.requests,
                    seconds=seconds,
                    key=load.key,
                    connections=connections,
                    start=position[name],
                    may_fail=load.may_fail,
                )
                position[name] = answer["position"]
                found[name].append(answer)
    return {
        name: {figure: statistics.median(answer[figure] for answer in answers) for figure in answers[0]}
        for name, answers in found.items()
    }


def told(measured: dict[str, dict[str, float]]) -> list[Figure]:
    """Beside the bare read, and beside Feast where it was there."""
    a_second = {name: figure["a_second"] for name, figure in measured.items()}
    bare, feast = a_second["bare read"], a_second.get("Feast", math.nan)
    rows = (
        ("value, cached", "cached", 0.60),
        ("value, live, without a run", "live, without a run", 0.40),
        ("value, live, textbook", "live, textbook", 0.40),
        ("value, live, contest", "live, contest", 0.40),
        ("value, live, textbook, ordered since the run", "live, textbook, since", 0.40),
        ("value, live, contest, ordered since the run", "live, contest, since", 0.40),
        ("value, live, contest, ordered since, read before", "live, contest, again", 0.40),
    )
    return [
        *(Figure(what, "bare point read", a_second[name], bare, "/s", reach) for what, name, reach in rows),
        *(Figure(what, "Feast's online store", a_second[name], feast, "/s", 5) for what, name, _ in rows),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--small", action="store_true", help="1,000 customers, two short rounds")
    parser.add_argument("--feast", default=os.environ.get("FEAST_PYTHON"), help="an interpreter that has Feast")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.customers, arguments.rounds, arguments.seconds = 1_000, 2, 0.5
    with served() as service, ExitStack() as stack:
        url, database_url = service.url, service.database_url
        keys = {name: add_workspace(url, name) for name in (*RUNS, "without-run")}
        asyncio.run(make_bare_table(database_url))
        for name in keys:
            asyncio.run(fill(database_url, name, arguments.customers))
        models = {name: score(url, keys[name], model) for name, model in RUNS.items()}
        for name in RUNS:
            if name.endswith(SINCE):
                order_of_each(url, keys[name], arguments.customers)
        asyncio.run(settle(database_url))
        bare_url = stack.enter_context(bare_service(database_url))
        chance = random.Random(1)
        # Different customers each time: nothing is remembered of most when they are asked for. "Again" asks for a few
        # over and over, whose values are remembered for the day.
        numbers = chance.sample(range(arguments.customers), min(arguments.customers, 20_000))
        live = [f"/v1/customers/{customer_id(number)}/value" for number in numbers]
        cached = [path + "?source=cached" for path in live]
        loads = {
            "bare read": Load(bare_url, [(f"/bare/{number % 20_000}", None) for number in numbers], ""),
            "cached": Load(url, [(path, None) for path in cached], keys["predictive"]),
            "live, contest": Load(url, [(path, None) for path in live], keys["predictive"]),
            "live, contest, since": Load(url, [(path, None) for path in live], keys["predictive-since"]),
            "live, contest, again": Load(url, [(path, None) for path in live[:300]], keys["predictive-since"]),
            "live, textbook": Load(url, [(path, None) for path in live], keys["textbook"]),
            "live, textbook, since": Load(url, [(path, None) for path in live], keys["textbook-since"]),
            "live, without a run": Load(url, [(path, None) for path in live], keys["without-run"]),
        }
        if arguments.feast:
            feast_url = stack.enter_context(feast_service(arguments.feast, service.folder, arguments.customers))
            loads["Feast"] = Load(
                feast_url, [("/get-online-features", feast_question(n)) for n in numbers], "", may_fail=True
            )
        else:
            print("Feast is left out: name an interpreter that has it by --feast or FEAST_PYTHON.")
        figures = measure(loads, rounds=arguments.rounds, seconds=arguments.seconds, connections=arguments.connections)
        print(f"The contest chose the model {models['predictive']!r}.")
        bare = figures["bare read"]["a_second"]
        for name, figure in figures.items():
            print(
                f"{name:24} {figure['a_second']:7,.0f}/s {figure['a_second'] / bare:6.2f} of the bare read;"
                f" p50 {1_000 * figure['p50']:.2f} ms, p99 {1_000 * figure['p99']:.2f} ms",
                flush=True,
            )
        print(table(told(figures)))


if __name__ == "__main__":
    main()
