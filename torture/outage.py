"""A database outage is an outage, not a bug."""

import asyncio
import time
from collections import Counter

import httpx

from app.embedded.folder import temporary_folder
from app.migrate import bootstrap, migrate
from tests.test_launcher import Launcher
from torture.findings import Finding, Scale
from torture.mutants import settings_for
from torture.service import KEY, client, free_port, own_database, until_ready

PROMISE = "a database outage is an outage, not a bug"
CLIENTS = 20
WITHIN_S = 1.0
WITHIN_SMALL_S = 5.0
"""In the short form, beside other tests."""


async def outage(scale: Scale, mutant: str | None = None) -> Finding:
    """Stop and start PostgreSQL under load."""
    outages, length_s = (2, 1.0) if scale.small else (10, 3.0)
    within_s = WITHIN_SMALL_S if scale.small else WITHIN_S
    statuses: Counter[str] = Counter()
    late: list[float] = []
    successes: list[float] = []
    slowest = 0.0
    stop = asyncio.Event()

    async def caller(http: httpx.AsyncClient, number: int) -> None:
        nonlocal slowest
        count = 0
        while not stop.is_set():
            count += 1
            begun = time.monotonic()
            try:
                if number % 2:
                    response = await http.get("/v1/customers/c-1/value")
                else:
                    order = {"order_id": f"o-{number}-{count}", "amount": "1", "currency": "USD"}
                    event = {"id": f"e-{number}-{count}", "type": "order.placed", "customer_id": "c-1",
                             "occurred_at": "2025-01-01T00:00:00Z", "data": order}  # fmt: skip
                    response = await http.post("/v1/events", json={"events": [event]})
            except httpx.TransportError as error:
                statuses[type(error).__name__] += 1
                continue
            ended = time.monotonic()
            slowest = max(slowest, ended - begun)
            if response.status_code == 503 and "retry-after" not in response.headers:
                statuses["503 without Retry-After"] += 1
            else:
                statuses[str(response.status_code)] += 1
            if response.status_code == 200:
                successes.append(ended)
            await asyncio.sleep(0.01)

    with temporary_folder() as folder, own_database(folder) as database:
        await migrate(database.url)
        await bootstrap(database.url, KEY, "USD")
        port = free_port()
        settings = {"PERENNIAL_DATABASE_URL": database.url, "PORT": str(port), **settings_for(mutant)}
        with Launcher(folder, **settings):
            async with client(f"http://127.0.0.1:{port}") as http:
                await until_ready(http)
                callers = [asyncio.create_task(caller(http, number)) for number in range(CLIENTS)]
                await asyncio.sleep(0.5)
                for _ in range(outages):
                    database.stop()
                    await asyncio.sleep(length_s)
                    database.start()
                    back = time.monotonic()
                    while not (after := [moment for moment in successes if moment > back]):
                        await asyncio.sleep(0.005)
                        if time.monotonic() - back > 30:
                            break
                    late.append((after[0] if after else time.monotonic()) - back)
                    await asyncio.sleep(0.3)
                stop.set()
                await asyncio.gather(*callers)
    allowed = statuses["200"] + statuses["503"] + statuses["404"]
    others = sum(statuses.values()) - allowed
    others_told = {status: count for status, count in statuses.items() if status not in ("200", "404", "503")} or "none"
    return Finding(
        PROMISE,
        f"PostgreSQL stopped and started {outages} times under {CLIENTS} clients",
        f"{statuses['200']:,} answers 200, {statuses['503']:,} answers 503 with Retry-After, others: {others_told};"
        f" first success {max(late):.2f} s after it is back at the latest; slowest answer {slowest:.1f} s",
        f"only 200 and 503; first success ≤ {within_s:g} s",
        others == 0 and statuses["503"] > 0 and max(late) <= within_s,
    )
