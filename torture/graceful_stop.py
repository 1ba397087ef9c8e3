"""A stop loses nothing: what was begun is answered, a run and an import go on after the next start."""

import asyncio
import json
import signal
import time
from typing import Any

import httpx

from app.embedded.folder import temporary_folder
from app.migrate import bootstrap, migrate
from tests.raw_http import Connection, read_answer, request
from tests.test_launcher import PATIENCE, Launcher
from torture.findings import Finding, Scale
from torture.mutants import settings_for
from torture.service import KEY, client, free_port, own_database, until_ready
from torture.whole_batches import batch

PROMISE = "graceful stop"
IN_FLIGHT = 50
EVENTS_A_BATCH = 200


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


async def _connected(port: int) -> Connection:
    """A connection that the service has accepted: it has answered on it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(KEY, "GET", "/health/live"))
    assert (await _answer(reader))[0] == 200
    return reader, writer


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body; 0 where the connection ended without."""
    try:
        return await asyncio.wait_for(read_answer(reader), PATIENCE)
    except (OSError, asyncio.IncompleteReadError):
        return 0, b""


async def stopped(scale: Scale, mutant: str | None = None) -> Finding:
    events, customers = (20_000, 4_000) if scale.small else (200_000, 40_000)
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

                # Made and connected before, so that all are with the service when it is asked to end.
                bodies = [json.dumps({"events": batch(number)[:EVENTS_A_BATCH]}) for number in range(IN_FLIGHT)]
                connections = [await _connected(port) for _ in range(IN_FLIGHT)]
                for (_, writer), body in zip(connections, bodies, strict=True):
                    writer.write(request(KEY, "POST", "/v1/events", body.encode()))
                await asyncio.gather(*(writer.drain() for _, writer in connections))
                launcher.process.send_signal(signal.SIGTERM)
                begun = time.monotonic()
                answers = await asyncio.gather(*(_answer(reader) for reader, _ in connections))
                for _, writer in connections:
                    writer.close()
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
    answered = sum(status == 200 for status, _ in answers)
    turned_away = sum(status in (429, 503) for status, _ in answers)
    unclean = 0
    for number, (status, told) in enumerate(answers):
        unclean += stored.get(f"b{number}", 0) != (json.loads(told)["accepted"] if status == 200 else 0)
    whole = imported[0] == customers + events and done["counts"]["accepted"] == events
    return Finding(
        PROMISE,
        f"SIGTERM with {IN_FLIGHT} batches of {EVENTS_A_BATCH} in flight,"
        f" a run and an import of {events:,} events going",
        f"{answered} answered 200, {turned_away} 429 or 503, {IN_FLIGHT - answered - turned_away} not at all;"
        f" {unclean} stored other than answered; ended in {took:.1f} s with {unfinished} of run and import unfinished;"
        f" then the import {done['status']} ({'all' if whole else 'not all'} events, once), the run {ran['status']}",
        "all answered, nothing stored but what is acknowledged; run and import resume",
        answered + turned_away == IN_FLIGHT
        and answered > 0
        and unclean == 0
        and whole
        and done["status"] == ran["status"] == "succeeded",
    )
