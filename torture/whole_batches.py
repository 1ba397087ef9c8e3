"""A batch is all its valid events or none, wherever it is cut off and whatever is wrong with one of it."""

import asyncio
import random
import statistics
import time
from collections import Counter
from typing import Any

import httpx

from app.embedded.folder import temporary_folder
from app.migrate import bootstrap, migrate
from torture.findings import Finding, Scale, kept_as_far
from torture.service import KEY, OwnDatabase, WebProcess, client, own_database, until_ready

PROMISE = "a batch is all its valid events or none"
KILLS = 200
BATCH_EVENTS = 1_000
CUSTOMERS_A_BATCH = 50


def batch(number: int) -> list[dict[str, Any]]:
    """Orders of customers that no other batch has."""
    return [
        {
            "id": f"e-{place}",
            "type": "order.placed",
            "customer_id": f"b{number}-{place % CUSTOMERS_A_BATCH}",
            "occurred_at": f"2025-{1 + place % 12:02}-{1 + place % 28:02}T10:00:00Z",
            "data": {"order_id": f"o-{place}", "amount": "10.25", "currency": "USD"},
        }
        for place in range(BATCH_EVENTS)
    ]


async def killed(scale: Scale, mutant: str | None = None) -> Finding:
    """Kill the web process at a random moment of a batch, again and again; a standby takes its place."""
    kills = 8 if scale.small else KILLS
    until = time.monotonic() + scale.seconds
    chance = random.Random(0)
    answered = 0
    sizes: Counter[int] = Counter()
    wrong = 0
    with temporary_folder() as folder, own_database(folder) as database:
        await migrate(database.url)
        await bootstrap(database.url, KEY, "USD")
        web = WebProcess(database.url, mutant)
        try:
            took = await _time_of_a_batch(web)
            for number in range(kills):
                if time.monotonic() > until:
                    break
                standby = WebProcess(database.url, mutant)
                async with client(web.url) as http:
                    await until_ready(http)
                    sending = asyncio.create_task(http.post("/v1/events", json={"events": batch(number)}))
                    await asyncio.sleep(chance.uniform(0.2, 2.0) * took)
                    web.end()
                    try:
                        receipt = (await sending).json()
                    except httpx.TransportError:
                        receipt = None
                web = standby
                stored = await _stored(database, number)
                sizes[stored] += 1
                answered += receipt is not None
                wrong += stored not in (0, BATCH_EVENTS)
                wrong += receipt is not None and receipt["accepted"] != stored
                wrong += await _summed(database, number) != stored
        finally:
            web.end()
    return Finding(
        PROMISE,
        f"kill −9 in the midst of batches of {BATCH_EVENTS:,}, {sum(sizes.values())} times of {kills}",
        f"none of it {sizes[0]} times, all of it {sizes[BATCH_EVENTS]} times ({answered} were still answered),"
        f" a part {sum(count for size, count in sizes.items() if size not in (0, BATCH_EVENTS))} times;"
        f" {wrong} receipts or summaries other than what is stored",
        "never a part; reported = stored",
        kept_as_far(wrong == 0, sum(sizes.values()) == kills),
    )


async def poisoned(scale: Scale, mutant: str | None = None) -> Finding:
    """One event that is refused, first, in the middle, and last."""
    wrong = 0
    with temporary_folder() as folder, own_database(folder) as database:
        await migrate(database.url)
        await bootstrap(database.url, KEY, "USD")
        web = WebProcess(database.url, mutant)
        try:
            async with client(web.url) as http:
                await until_ready(http)
                places = (0, BATCH_EVENTS // 2, BATCH_EVENTS - 1)
                for number, place in enumerate(places):
                    events = batch(number)
                    events[place]["data"]["amount"] = "-1"
                    receipt = (await http.post("/v1/events", json={"events": events})).json()
                    stored = await _stored(database, number)
                    told = (receipt["accepted"], receipt["rejected"], [error["index"] for error in receipt["errors"]])
                    wrong += told != (BATCH_EVENTS - 1, 1, [place]) or stored != BATCH_EVENTS - 1
        finally:
            web.end()
    return Finding(
        PROMISE,
        f"an event that is refused first, in the middle, last of {BATCH_EVENTS:,}",
        f"the other {BATCH_EVENTS - 1} stored and reported, the one named, {len(places) - wrong} times of 3",
        "reported = stored",
        wrong == 0,
    )


async def _time_of_a_batch(web: WebProcess) -> float:
    took = []
    async with client(web.url) as http:
        await until_ready(http)
        for number in range(5):
            begun = time.monotonic()
            (await http.post("/v1/events", json={"events": batch(1_000_000 + number)})).raise_for_status()
            took.append(time.monotonic() - begun)
    return statistics.median(took)


async def _stored(database: OwnDatabase, number: int) -> int:
    """How many events of a batch are stored, once the server has noticed that their sender is gone."""
    while await database.fetch(
        "SELECT FROM pg_stat_activity WHERE application_name = 'perennial' AND state <> 'idle'"
        " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
    ):
        await asyncio.sleep(0.01)
    (row,) = await database.fetch("SELECT count(*) FROM events WHERE customer_id LIKE $1", f"b{number}-%")
    return int(row[0])


async def _summed(database: OwnDatabase, number: int) -> int:
    (row,) = await database.fetch(
        "SELECT coalesce(sum(event_count), 0) FROM customer_summary WHERE customer_id LIKE $1", f"b{number}-%"
    )
    return int(row[0])
