"""The command that imports a file, against a service that runs."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from app import import_file
from app.imports import execution
from tests.conftest import Client, ndjson, order

MAPPING = {
    "kind": "orders",
    "columns": {"order_id": "order", "customer_id": "customer", "occurred_at": "date", "amount": "total"},
}


@pytest_asyncio.fixture
async def url(app: FastAPI) -> AsyncIterator[str]:
    """The service on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


async def run(client: Client, engine: AsyncEngine, *arguments: str) -> int:
    """The command's exit status; what it sends is worked off meanwhile."""
    command = asyncio.ensure_future(asyncio.to_thread(import_file.main, arguments))
    while not command.done():
        await asyncio.wait({command}, timeout=0.05)
        for one in (await client.get("/v1/imports"))["data"]:
            if one["status"] == "queued":
                await execution.run_import_job(engine, one["id"].encode(), asyncio.Event())
    return command.result()


async def test_a_file_is_sent_followed_and_told_about(
    client: Client,
    engine: AsyncEngine,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PERENNIAL_KEY", client.key)
    file, mapping, events = tmp_path / "orders.csv.gz", tmp_path / "map.json", tmp_path / "events.ndjson"
    file.write_bytes(gzip.compress(b"order,customer,date,total\n1,c-1,2024-01-01,10\n2,c-1,2024-01-02,ten\n"))
    mapping.write_text(json.dumps(MAPPING))
    events.write_bytes(ndjson(order("o-9")))
    assert await run(client, engine, str(file), "--map", str(mapping), "--url", url) == 0
    told = capsys.readouterr().out
    assert "succeeded" in told
    assert 'Column "total": must be a number' in told
    assert await run(client, engine, str(events), "--url", url) == 0
    assert (await client.get("/v1/customers/c-1"))["summary"]["order_count"] == 2


async def test_what_keeps_it_from_importing_is_told(
    client: Client,
    engine: AsyncEngine,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, mapping = tmp_path / "orders.csv", tmp_path / "map.json"
    file.write_text("order,customer,date,sum\n")
    monkeypatch.delenv("PERENNIAL_KEY", raising=False)

    async def told(*arguments: object) -> str:
        assert await run(client, engine, *map(str, arguments)) == 1
        return " ".join(capsys.readouterr().err.split())

    assert "Set PERENNIAL_KEY" in await told(file, "--url", url)
    monkeypatch.setenv("PERENNIAL_KEY", client.key)
    assert "can't be read" in await told(tmp_path / "none.csv", "--url", url)
    mapping.write_text("{}")
    assert "mapping: kind is required" in await told(file, "--map", mapping, "--url", url)
    mapping.write_text(json.dumps(MAPPING))
    assert '422 missing_column: The header has no column amount ("total")' in await told(
        file, "--map", mapping, "--url", url
    )
    assert "400 wrong_format" in await told(file, "--url", url)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert "can't be reached" in await told(file, "--url", f"http://127.0.0.1:{closed.getsockname()[1]}")


async def test_an_import_that_fails_is_a_failure_of_the_command(
    client: Client, engine: AsyncEngine, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setenv("PERENNIAL_KEY", client.key)
    monkeypatch.setattr(execution, "read_event_lines", broken)
    file = tmp_path / "events.ndjson"
    file.write_bytes(ndjson(order("o-1")))
    assert await run(client, engine, str(file), "--url", url) == 1
