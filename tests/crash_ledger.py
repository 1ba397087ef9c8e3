"""A client that keeps a ledger of what was acknowledged to it, while the service is killed again and again."""

import asyncio
import itertools
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from tests.test_launcher import PATIENCE, Launcher, until_ended

KEY = "prn_ledger"
WRITERS = 6
CUSTOMERS = 12
VICTIMS = ("web", "postgres", "launcher")


@dataclass
class Ledger:
    """What was sent, what of it was acknowledged, and what was found amiss."""

    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    unsure: list[list[dict[str, Any]]] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    stored_unacknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    inexact: int = 0

    @property
    def is_exact(self) -> bool:
        return self.lost == self.doubled == self.inexact == 0

    def acknowledge(self, batch: list[dict[str, Any]], receipt: dict[str, Any]) -> None:
        if receipt["accepted"] + receipt["duplicates"] != len(batch):
            self.inexact += 1
        self.acknowledged.update(event["id"] for event in batch)


def _batches(chance: random.Random) -> Iterator[list[dict[str, Any]]]:
    """Orders of a few customers, so that all writers touch the same ones."""
    numbers = itertools.count()
    while True:
        yield [
            {
                "id": f"e-{number}",
                "type": "order.placed",
                "customer_id": f"c-{chance.randrange(CUSTOMERS)}",
                "occurred_at": f"2025-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}T10:00:00Z",
                "data": {"order_id": f"o-{number}", "amount": f"{number % 1000}.25", "currency": "USD"},
            }
            for number in itertools.islice(numbers, chance.randint(1, 40))
        ]


async def survive(
    kills: int,
    data_dir: Path,
    seed: int = 0,
    *,
    victims: tuple[str, ...] = VICTIMS,
    number: signal.Signals = signal.SIGKILL,
    settings: Mapping[str, str] | None = None,
    seconds: float = float("inf"),
) -> Ledger:
    """Write through as many kills, comparing after each start what is stored with what was acknowledged.

    It ends early where anything is amiss, since a loss can't be mended by more of them, and when the time is up.
    """
    until = time.monotonic() + seconds
    chance = random.Random(seed)
    ledger = Ledger()
    batches = _batches(chance)
    for round_number in range(kills + 1):
        with Launcher(data_dir, PERENNIAL_BOOTSTRAP_KEY=KEY, **(settings or {})) as launcher:
            url = await asyncio.to_thread(launcher.until_serving)
            async with httpx.AsyncClient(
                base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=PATIENCE
            ) as http:
                await _compare(http, ledger, data_dir)
                for batch in ledger.unsure:
                    ledger.acknowledge(batch, (await _post(http, batch)).json())
                ledger.unsure.clear()
                if round_number == kills or not ledger.is_exact or time.monotonic() > until:
                    stored = await _compare(http, ledger, data_dir)
                    ledger.lost += len(ledger.sent.keys() - stored) if ledger.is_exact else 0
                    return ledger
                writers = [asyncio.create_task(_write(http, batches, ledger)) for _ in range(WRITERS)]
                await asyncio.sleep(chance.uniform(0.1, 0.6))
                victim = victims[round_number % len(victims)]
                processes = launcher.processes()
                os.kill(processes[victim], number)
                ledger.kills[victim] += 1
                await asyncio.gather(*writers)
                await asyncio.to_thread(launcher.process.wait, PATIENCE)
                await asyncio.to_thread(until_ended, processes)
    raise AssertionError("unreachable")


async def _post(http: httpx.AsyncClient, batch: list[dict[str, Any]]) -> httpx.Response:
    return await http.post("/v1/events", json={"events": batch})


async def _write(http: httpx.AsyncClient, batches: Iterator[list[dict[str, Any]]], ledger: Ledger) -> None:
    """Send batch after batch until one gets no answer."""
    while True:
        batch = next(batches)
        ledger.sent.update((event["id"], event) for event in batch)
        with suppress(httpx.TransportError):
            response = await _post(http, batch)
            if response.status_code == 200:
                ledger.acknowledge(batch, response.json())
                continue
            assert response.status_code == 503, response.text
        ledger.unsure.append(batch)
        return


async def _compare(http: httpx.AsyncClient, ledger: Ledger, data_dir: Path) -> set[str]:
    """Compare all that is stored: all that was acknowledged is there, nothing twice, and the summaries agree."""
    connection = await asyncpg.connect(f"postgresql://perennial@/perennial?host={data_dir}/data/socket")
    try:
        rows = await connection.fetch("SELECT customer_id, event_id FROM events")
    finally:
        await connection.close()
    stored: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for customer_id, event_id in rows:
        stored[customer_id].append(ledger.sent[event_id])
    summaries = {
        customer["customer_id"]: customer["summary"]
        for customer in (await http.get("/v1/customers", params={"limit": 1000})).json()["data"]
    }
    ledger.inexact += len(summaries.keys() ^ stored.keys())
    for customer_id in summaries.keys() & stored.keys():
        summary, events = summaries[customer_id], stored[customer_id]
        ledger.inexact += not (
            {event["customer_id"] for event in events} == {customer_id}
            and summary["event_count"] == summary["order_count"] == len(events)
            and summary["purchase_days"] == len({event["occurred_at"] for event in events})
            and Decimal(summary["net_spend"]) == sum(Decimal(event["data"]["amount"]) for event in events)
        )
    ids = {event_id for _, event_id in rows}
    ledger.doubled += len(rows) - len(ids)
    ledger.lost += len(ledger.acknowledged - ids)
    ledger.stored_unacknowledged += len(ids - ledger.acknowledged)
    return ids
