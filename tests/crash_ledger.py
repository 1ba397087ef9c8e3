"""A client that keeps a ledger of what was acknowledged to it, while the service is killed again and again."""

import asyncio
import itertools
import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from tests.test_launcher import PATIENCE, Launcher, until_ended

KEY = "prn_ledger"
WRITERS = 6
CUSTOMERS = 12
VICTIMS = ("web", "postgres", "launcher")


@dataclass
class Ledger:
    """What was sent, and what of it was acknowledged."""

    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    unsure: list[list[dict[str, Any]]] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    stored_unacknowledged: int = 0

    def acknowledge(self, batch: list[dict[str, Any]], receipt: dict[str, Any]) -> None:
        assert receipt["accepted"] + receipt["duplicates"] == len(batch), receipt
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


async def survive(kills: int, data_dir: Path, seed: int = 0) -> Ledger:
    """Write through as many kills; raises ``AssertionError`` where something acknowledged is lost or doubled."""
    chance = random.Random(seed)
    ledger = Ledger()
    batches = _batches(chance)
    for number in range(kills + 1):
        with Launcher(data_dir, PERENNIAL_BOOTSTRAP_KEY=KEY) as launcher:
            url = await asyncio.to_thread(launcher.until_serving)
            async with httpx.AsyncClient(
                base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=PATIENCE
            ) as http:
                await _compare(http, ledger)
                for batch in ledger.unsure:
                    ledger.acknowledge(batch, (await _post(http, batch)).json())
                ledger.unsure.clear()
                if number == kills:
                    stored = await _compare(http, ledger)
                    assert stored == ledger.sent.keys()
                    return ledger
                writers = [asyncio.create_task(_write(http, batches, ledger)) for _ in range(WRITERS)]
                await asyncio.sleep(chance.uniform(0.2, 1.0))
                victim = VICTIMS[number % len(VICTIMS)]
                processes = launcher.processes()
                os.kill(processes[victim], signal.SIGKILL)
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


async def _compare(http: httpx.AsyncClient, ledger: Ledger) -> set[str]:
    """Read back all that is stored: all that was acknowledged is there, nothing twice, and the summaries agree."""
    stored: defaultdict[str, list[str]] = defaultdict(list)
    for customer in (await http.get("/v1/customers", params={"limit": 1000})).json()["data"]:
        customer_id = customer["customer_id"]
        cursor = ""
        while cursor is not None:
            page = (
                await http.get(f"/v1/customers/{customer_id}/events", params={"limit": 1000, "cursor": cursor})
            ).json()
            stored[customer_id] += [event["id"] for event in page["data"]]
            cursor = page["next_cursor"]
        events = [ledger.sent[event_id] for event_id in stored[customer_id]]
        assert {event["customer_id"] for event in events} == {customer_id}
        assert customer["summary"]["event_count"] == customer["summary"]["order_count"] == len(events)
        assert customer["summary"]["purchase_days"] == len({event["occurred_at"] for event in events})
        assert Decimal(customer["summary"]["net_spend"]) == sum(Decimal(event["data"]["amount"]) for event in events)
    ids = [event_id for event_ids in stored.values() for event_id in event_ids]
    assert len(ids) == len(set(ids)), "stored twice"
    assert ledger.acknowledged <= set(ids), "acknowledged and lost"
    ledger.stored_unacknowledged += len(set(ids) - ledger.acknowledged)
    return set(ids)
