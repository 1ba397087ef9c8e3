"""Memory stays bounded whatever is sent."""

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from app.embedded.folder import temporary_folder
from app.migrate import bootstrap, migrate
from torture.findings import Finding, Scale
from torture.service import KEY, WebProcess, client, memory_kib, own_database, until_ready

PROMISE = "bounded memory"
GIB = 1 << 30
MIB = 1 << 20
BOUND_MIB = 64


async def bounded(scale: Scale, mutant: str | None = None) -> list[Finding]:
    size = 150 * MIB if scale.small else GIB
    findings = []
    with temporary_folder() as folder, own_database(folder) as database:
        await migrate(database.url)
        await bootstrap(database.url, KEY, "USD")
        for what, headers, pieces, allowed in _bodies(size):
            # Each has a process of its own, warmed up: the highest mark of memory can't be taken back.
            web = WebProcess(database.url, mutant)
            try:
                async with client(web.url) as http:
                    await until_ready(http)
                    await _warm_up(http)
                    before = memory_kib(web.process.pid)
                    answer = await _send(http, what.split()[0], headers, pieces)
                    grown = (memory_kib(web.process.pid) - before) / 1024
                    alive = (await http.get("/health/live")).status_code == 200
            finally:
                web.end()
            findings.append(
                Finding(
                    PROMISE,
                    f"`POST {what}`",
                    f"{answer}; highest memory of the web process +{grown:.0f} MiB over that of batches of 10 MB",
                    f"{allowed}; +≤ {BOUND_MIB} MiB",
                    answer == allowed and grown <= BOUND_MIB and alive,
                )
            )
    return findings


def _bodies(size: int) -> list[tuple[str, dict[str, str], Any, str]]:
    mib = size // MIB
    json_body, lines = {"Content-Type": "application/json"}, {"Content-Type": "application/x-ndjson"}
    packed = {"Content-Encoding": "gzip"}
    bomb = _bomb(size)
    told = json_body | {"Content-Length": str(size)}
    return [
        (f"/v1/events of {mib} MiB, Content-Length told", told, _spaces(size), "413"),
        (f"/v1/events of {mib} MiB in chunks", json_body, _spaces(size), "413"),
        (f"/v1/runs of {mib} MiB in chunks", json_body, _spaces(size), "413"),
        (f"/v1/events, {len(bomb) / MIB:.1f} MiB of gzip that are {mib} MiB", json_body | packed, _once(bomb), "413"),
        (f"/v1/imports, {len(bomb) / MIB:.1f} MiB of gzip, a line of {mib} MiB", lines | packed, _once(bomb), "413"),
        (f"/v1/imports of {mib} MiB", lines, _lines(size), "202"),
    ]  # fmt: skip


async def _warm_up(http: httpx.AsyncClient) -> None:
    """Batches and imports of a usual size: what they take stays with the process anyway."""
    events = b",".join([_event(number, 900) for number in range(10_000)])
    for _ in range(3):
        response = await http.post(
            "/v1/events", content=b'{"events":[' + events + b"]}", headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 200, response.text
    await http.post("/v1/imports", headers={"Content-Type": "application/x-ndjson"}, content=_lines(8 * MIB))


async def _send(http: httpx.AsyncClient, path: str, headers: dict[str, str], pieces: AsyncIterator[bytes]) -> str:
    try:
        response = await http.post(path, headers=headers, content=pieces, timeout=600)
    except (httpx.WriteError, httpx.ReadError):
        # The answer came, and then the end of the connection, while the body was still being sent.
        return "413"
    return str(response.status_code)


async def _spaces(size: int) -> AsyncIterator[bytes]:
    piece = b" " * MIB
    yield b'{"events":['
    sent = 11
    while sent < size:
        yield piece[: size - sent]
        sent += len(piece[: size - sent])


async def _once(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1 << 16):
        yield body[start : start + (1 << 16)]


def _bomb(size: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9, mtime=0) as file:
        for _ in range(size // MIB):
            file.write(b" " * MIB)
    return packed.getvalue()


def _event(number: int, length: int) -> bytes:
    """An event of so many bytes."""
    event = {
        "id": f"e-{number}",
        "type": "order.placed",
        "customer_id": f"c-{number % 1000}",
        "occurred_at": "2025-01-01T00:00:00Z",
        "data": {"order_id": f"o-{number}", "amount": "1.25", "currency": "USD"},
    }
    return json.dumps(event).encode().ljust(length)


async def _lines(size: int) -> AsyncIterator[bytes]:
    """Good events, a thousand bytes each; they come as fast as they are taken."""
    sent = number = 0
    while sent < size:
        piece = b"\n".join([_event(number + place, 999) for place in range(1_000)]) + b"\n"
        number = (number + 1_000) % 10_000
        sent += len(piece)
        yield piece
        await asyncio.sleep(0)
