"""Exactly once, in any order: the same events in a thousand deliveries leave one state, that of the plain reference."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import httpx

from app.analytics.summary import summarise
from app.embedded.folder import temporary_folder
from app.migrate import bootstrap, migrate
from app.store.figures import LIFETIME_COLUMNS
from tests.histories import Event, History, make_event
from tests.test_summary import expected_summary
from torture.findings import Finding, Scale, kept_as_far
from torture.service import KEY, OwnDatabase, WebProcess, client, own_database, until_ready

PROMISE = "exactly once, in any order"
AS_OF = datetime(2025, 3, 9, 23, 59, 59, tzinfo=UTC)
EARLIER = datetime(2024, 9, 1, 12, tzinfo=UTC)
CUSTOMERS = 6
AT_ONCE = 8
LARGE_COPIES = 24
CROWD_ORDERS = 4_000
CROWD_COPIES = 4


def history(seed: int) -> History:
    """Orders in two currencies with cancellations, refunds, refunds without order, and all of it late or early."""
    chance = random.Random(seed)
    zone = ZoneInfo("America/New_York")
    events: list[Event] = []

    def moment() -> datetime:
        return AS_OF - timedelta(
            days=chance.choice([0, 1, 30, 179, 180, 364, 365, 366, 730]), hours=chance.randrange(24)
        )

    for number in range(CUSTOMERS):
        customer_id = f"c-{number}"
        for place in range(chance.randint(2, 6)):
            order_id = f"o{place}"
            amount = Decimal(chance.choice(["0", "0.0003", "10", "33.3333", "129.90", "5000.01"]))
            rate = chance.choice([None, None, "0.5", "1.08345"])
            currency = "USD" if rate is None else "EUR"
            cost = chance.choice([None, Decimal("3.3333")])

            def add(what: str, **data: Any) -> None:
                name = f"{order_id}-{len(events)}"  # noqa: B023 - called within the turn
                events.append(make_event(zone, customer_id, name, what, moment(), data, rate, order_id))  # noqa: B023

            add("placed", amount=amount, currency=currency, exchange_rate=rate, cost=cost)
            if chance.random() < 0.2:
                add("cancelled")
            for _ in range(chance.choice([0, 0, 1, 2])):
                part = Decimal(chance.choice(["0.3333", "0.5", "1"]))
                add("refunded", amount=max((amount * part).quantize(Decimal("0.0001")), Decimal("0.0001")))
        if chance.random() < 0.5:
            data = {"amount": Decimal("2.5"), "currency": "USD", "exchange_rate": None}
            events.append(make_event(zone, customer_id, "credit", "refunded", moment(), data, None, None))
    return History(zone, tuple(events), AS_OF)


class _Service:
    """Two web processes that compete, replaced when one is killed."""

    def __init__(self, database: OwnDatabase, mutant: str | None) -> None:
        self.database = database
        self._mutant = mutant
        self.webs = [WebProcess(database.url, mutant) for _ in range(2)]
        self.kills = 0
        self.statuses: Counter[int] = Counter()

    def replace(self) -> None:
        """Kill one of the two."""
        place = self.kills % 2
        self.webs[place].end()
        self.webs[place] = WebProcess(self.database.url, self._mutant)
        self.kills += 1

    def end(self) -> None:
        for web in self.webs:
            web.end()

    async def send(self, http: httpx.AsyncClient, key: str, path: str, body: Any, chance: random.Random) -> Any:
        """Until it is answered, by whichever process."""
        while True:
            url = chance.choice(self.webs).url + path
            try:
                response = await http.post(url, json=body, headers={"Authorization": f"Bearer {key}"})
            except httpx.TransportError:
                await asyncio.sleep(0.02)
                continue
            self.statuses[response.status_code] += 1
            if response.status_code < 400:
                return response
            if response.status_code not in (429, 500, 503):
                raise AssertionError(response.text)
            await asyncio.sleep(0.02)

    async def workspace(self, http: httpx.AsyncClient, name: str, chance: random.Random) -> str:
        """The key of a new one."""
        while True:
            body = {"id": f"{name}-{chance.randrange(10**9)}", "currency": "USD", "time_zone": "America/New_York"}
            try:
                made = await self.send(http, KEY, "/v1/workspaces", body, chance)
            except AssertionError:
                continue  # The name went with a process that was killed after it had made it.
            key: str = made.json()["key"]
            return key


async def exactly_once(scale: Scale, mutant: str | None = None) -> list[Finding]:
    permutations, kills, times, copies = (6, 1, 2, 8) if scale.small else (1_000, 20, 10, 32)
    told = history(1)
    wires = [event.wire for event in told.events]
    states: Counter[str] = Counter()
    until = time.monotonic() + scale.seconds
    with temporary_folder() as folder, ExitStack() as stack:
        database = stack.enter_context(own_database(folder))
        await migrate(database.url)
        await bootstrap(database.url, KEY, "USD")
        service = _Service(database, mutant)
        stack.callback(service.end)
        async with client(service.webs[0].url, connections=200) as http:
            for web in service.webs:
                async with client(web.url) as one:
                    await until_ready(one)
            serial = await _deliver(service, http, "serial", [[wire] for wire in wires for _ in range(times)], 1, 0)
            shuffled = [_batches(wires, random.Random(number), 1) for number in range(copies)]
            concurrent = await _deliver(service, http, "concurrent", [b for part in shuffled for b in part], copies, 1)
            # More than share a transaction: these meet at the locks of their customers.
            whole = [random.Random(number).sample(wires * 2, 2 * len(wires)) for number in range(LARGE_COPIES)]
            large = await _deliver(service, http, "large", whole, LARGE_COPIES, 2)
            # So large that their copying crosses, in part with the same orders.
            crowded = [await _crowd(service, http, number) for number in range(1 if scale.small else 10)]
            turns = asyncio.Semaphore(AT_ONCE)
            done = 0

            async def permute(number: int) -> None:
                nonlocal done
                async with turns:
                    if time.monotonic() > until:
                        return
                    chance = random.Random(number)
                    batches = _batches(wires, chance, 3)
                    state = await _deliver(service, http, f"p{number}", batches, chance.choice([1, 2, 6]), number)
                    states[state] += 1
                    done += 1
                    if done % (permutations // (kills + 1)) == 0 and service.kills < kills:
                        service.replace()

            await asyncio.gather(*(permute(number) for number in range(permutations)))
        (row,) = await database.fetch("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    reference = _reference(told)
    states.update((serial, concurrent, large))
    right = [state for state in states if _figures_of(json.loads(state)) == reference]
    wrong = sum(states.values()) - sum(states[state] for state in right)
    failures = sum(count for status, count in service.statuses.items() if status >= 500)
    return [
        Finding(
            PROMISE,
            f"{len(wires)} events of {CUSTOMERS} customers: each {times} times serially,"
            f" {copies} times concurrently and shuffled, in small batches and in large ones, {CROWD_ORDERS:,} orders in"
            f" {CROWD_COPIES} shuffles at once {len(crowded)} times,"
            f" and in {done:,} permutations of {permutations:,} with repetitions, by two web processes of which"
            f" {service.kills} were killed in between",
            f"{sum(states.values()):,} deliveries, {len(states)} state, {wrong} other than the reference;"
            f" {sum(crowded):,} of {len(crowded) * CROWD_ORDERS:,} shuffled orders accepted;"
            f" {sum(service.statuses.values()):,} answers, {failures} of them 5xx; {row[0]} deadlocks",
            "one state, byte for byte, that of the reference; 0 5xx; 0 deadlocks",
            kept_as_far(
                len(states) == 1 and set(crowded) == {CROWD_ORDERS} and wrong == failures == row[0] == 0,
                done == permutations,
            ),
        )
    ]


def _batches(wires: Sequence[Any], chance: random.Random, most: int) -> list[list[Any]]:
    """All of them, each up to so many times, shuffled and cut."""
    sent = [wire for wire in wires for _ in range(chance.randint(1, most))]
    chance.shuffle(sent)
    batches = []
    while sent:
        size = chance.choice([1, 3, 8, 40])
        batches.append(sent[:size])
        sent = sent[size:]
    return batches


async def _deliver(
    service: _Service, http: httpx.AsyncClient, name: str, batches: list[list[Any]], at_once: int, seed: int
) -> str:
    """Deliver to a workspace of its own, by so many senders; its state in the end, as text."""
    chance = random.Random(seed)
    key = await service.workspace(http, name, chance)
    rest = iter(batches)

    async def sender() -> None:
        for batch in rest:
            receipt = (await service.send(http, key, "/v1/events", {"events": batch}, chance)).json()
            assert receipt["rejected"] == 0, receipt

    await asyncio.gather(*(sender() for _ in range(at_once)))
    return await _state(service, http, key, chance)


async def _crowd(service: _Service, http: httpx.AsyncClient, seed: int) -> int:
    """How many orders are accepted in all of several shuffles of the same new ones, sent at the same time."""
    chance = random.Random(seed)
    key = await service.workspace(http, "crowd", chance)
    orders = [
        {
            "id": f"e-{number}",
            "type": "order.placed",
            "customer_id": f"c-{number % (CROWD_ORDERS // 4)}",
            "occurred_at": (AS_OF - timedelta(minutes=number)).isoformat(),
            "data": {"order_id": f"o-{number}", "amount": "1.00", "currency": "USD"},
        }
        for number in range(CROWD_ORDERS)
    ]
    shuffles = [chance.sample(orders, len(orders)) for _ in range(CROWD_COPIES)]
    receipts = await asyncio.gather(
        *(service.send(http, key, "/v1/events", {"events": orders}, chance) for orders in shuffles)
    )
    return sum(receipt.json()["accepted"] for receipt in receipts)


async def _state(service: _Service, http: httpx.AsyncClient, key: str, chance: random.Random) -> str:
    """All that is stored and all that is answered, but for when it came and in which workspace."""
    asked = {"customer_ids": [f"c-{number}" for number in range(CUSTOMERS)]}
    answers = []
    for as_of in (EARLIER, AS_OF):
        body = asked | {"as_of": as_of.isoformat(), "horizon_days": 365}
        answers.append((await service.send(http, key, "/v1/values/query", body, chance)).json())
    (row,) = await service.database.fetch(
        """
WITH own AS (SELECT workspace_id AS id FROM api_keys WHERE key_hash = sha256(CAST($1 AS bytea)))
SELECT
    (SELECT json_agg(to_jsonb(s) - 'workspace_id' - 'updated_at' ORDER BY customer_id)
     FROM customer_summary AS s, own WHERE s.workspace_id = own.id) AS summaries,
    (SELECT json_agg(to_jsonb(e) - 'workspace_id' - 'received_at' ORDER BY customer_id, event_id)
     FROM events AS e, own WHERE e.workspace_id = own.id) AS events
""",
        key.encode(),
    )
    return json.dumps({"summaries": row["summaries"], "events": row["events"], "values": answers})


def _reference(told: History) -> dict[str, Any]:
    """The figures that the plain reference makes of the same events."""
    figures: dict[str, Any] = {}
    for customer_id in told.customer_ids:
        expected = expected_summary(told, customer_id)
        figures[customer_id] = {name: _plain(expected[name]) for name in LIFETIME_COLUMNS} | {
            "event_count": len(told.reference(customer_id))
        }
        for as_of in (EARLIER, AS_OF):
            at = summarise(told.reference(customer_id), as_of, as_of.astimezone(told.time_zone).date())
            figures[f"{customer_id} {as_of.date()}"] = [at.order_count, _plain(at.net_spend)]
    return figures


def _figures_of(state: dict[str, Any]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        row["customer_id"]: {name: _plain(row[name]) for name in (*LIFETIME_COLUMNS, "event_count")}
        for row in json.loads(state["summaries"], parse_float=Decimal)
    }
    for as_of, answer in zip((EARLIER, AS_OF), state["values"], strict=True):
        for value in answer["data"]:
            rfm = value["rfm"]
            figures[f"{value['customer_id']} {as_of.date()}"] = [rfm["order_count"], _plain(Decimal(rfm["net_spend"]))]
    return figures


def _plain(value: Any) -> Any:
    """Numbers by value, days as text."""
    if value is None:
        return None
    return Decimal(value) if isinstance(value, int | Decimal) else str(value)
