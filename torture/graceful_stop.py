"""A stop loses nothing: what was begun is answered, a run and an import go on after the next start."""

import asyncio
import json
import signal
import time
from typing import Any

import httpx

from app.embedded.folder import temporary_folder
from app.migrate import bootstrap, migrate
from tests.test_launcher import PATIENCE, Launcher
from torture.findings import Finding, Scale
from torture.mutants import settings_for
from torture.service import KEY, client, free_port, own_database, until_ready
from torture.whole_batches import batch

PROMISE = "graceful stop"
IN_FLIGHT = 50
EVENTS_A_BATCH = 200
JSON = {"Content-Type": "application/json"}


def _lines(prefix: str, count: int, customers: int) -> bytes:
    return b"\n".join(
        json.dumps({
            "id": f"{prefix}{number}", "type": "order.placed", "customer_id": f"i-{number % customers}",
            "occurred_at": f"202{number % 5}-{1 + number % 12:02}-{1 + number % 28:02}T10:00:00Z",
            "data": {"order_id": f"{prefix}{number}", "amount": "12.50", "currency": "USD"},
        }).encode()
        for number in range(count)
    )  # fmt: skip


async def _import(http: httpx.AsyncClient, content: bytes) -> str:
    response = await http.post("/v1/imports", content=content, headers={"Content-Type": "application/x-ndjson"})
    response.raise_for_status()
    import_id: str = response.json()["id"]
    return import_id


async def _until(http: httpx.AsyncClient, path: str, *statuses: str) -> dict[str, Any]:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found: dict[str, Any] = (await http.get(path)).json()
        if found["status"] in statuses:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"{path} did not become {statuses}")


async def stopped(scale: Scale, mutant: str | None = None) -> Finding:
    events, customers = (20_000, 4_000) if scale.small else (200_000, 40_000)
    answers: list[httpx.Response | None] = []
    with temporary_folder() as folder, own_database(folder) as database:
        await migrate(database.url)
        await bootstrap(database.url, KEY, "USD")
        port = free_port()
        settings = {"PERENNIAL_DATABASE_URL": database.url, "PORT": str(port), "PERENNIAL_LOG_LEVEL": "error"}
        async with client(f"http://127.0.0.1:{port}") as http:
            with Launcher(folder, **settings, **settings_for(mutant)) as launcher:
                await until_ready(http)
                first = await _import(http, _lines("a", customers, customers))
                await _until(http, f"/v1/imports/{first}", "succeeded")
                second = await _import(http, _lines("b", events, customers))
                await _until(http, f"/v1/imports/{second}", "running")
                run = (await http.post("/v1/runs", json={})).json()["id"]
                await _until(http, f"/v1/runs/{run}", "running", "succeeded")

                # Made before, so that all are sent at once.
                bodies = [json.dumps({"events": batch(number)[:EVENTS_A_BATCH]}) for number in range(IN_FLIGHT)]

                async def send(number: int) -> httpx.Response | None:
                    try:
                        return await http.post("/v1/events", content=bodies[number], headers=JSON)
                    except httpx.TransportError:
                        return None

                # Connected before, so that all of them are with the service when it is asked to end.
                await asyncio.gather(*(http.get("/health/live") for _ in range(IN_FLIGHT)))
                sending = [asyncio.create_task(send(number)) for number in range(IN_FLIGHT)]
                await asyncio.sleep(0.3)
                launcher.process.send_signal(signal.SIGTERM)
                begun = time.monotonic()
                answers = await asyncio.gather(*sending)
                await asyncio.to_thread(launcher.process.wait, PATIENCE)
                took = time.monotonic() - begun
            rows = await database.fetch("SELECT status FROM runs UNION ALL SELECT status FROM imports")
            unfinished = sum(row[0] not in ("succeeded", "failed") for row in rows)
            stored = {
                row[0]: row[1]
                for row in await database.fetch(
                    "SELECT split_part(customer_id, '-', 1), count(*) FROM events"
                    " WHERE customer_id LIKE 'b%' GROUP BY 1"
                )
            }
            with Launcher(folder, **settings):
                await until_ready(http)
                done = await _until(http, f"/v1/imports/{second}", "succeeded", "failed")
                ran = await _until(http, f"/v1/runs/{run}", "succeeded", "failed")
        (imported,) = await database.fetch("SELECT count(*) FROM events WHERE customer_id LIKE 'i-%'")
    answered = sum(answer is not None and answer.status_code == 200 for answer in answers)
    turned_away = sum(answer is not None and answer.status_code == 503 for answer in answers)
    unclean = 0
    for number, answer in enumerate(answers):
        accepted = answer.json()["accepted"] if answer is not None and answer.status_code == 200 else 0
        unclean += stored.get(f"b{number}", 0) != accepted
    whole = imported[0] == customers + events and done["counts"]["accepted"] == events
    return Finding(
        PROMISE,
        f"SIGTERM with {IN_FLIGHT} batches of {EVENTS_A_BATCH} in flight,"
        f" a run and an import of {events:,} events going",
        f"{answered} answered 200, {turned_away} 503, {IN_FLIGHT - answered - turned_away} not at all;"
        f" {unclean} stored other than answered; ended in {took:.1f} s with {unfinished} of run and import unfinished;"
        f" then the import {done['status']} ({'all' if whole else 'not all'} events, once), the run {ran['status']}",
        "all answered or cleanly uncommitted; run and import resume",
        unclean == 0 and whole and done["status"] == ran["status"] == "succeeded" and answered > 0,
    )
