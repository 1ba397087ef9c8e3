"""A web process that is asked to end answers what was sent to it before the sender could know."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import uvicorn

from app.api import protocol
from app.main import create_app
from app.settings import Settings
from tests.raw_http import serving

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: perennial.test\r\n\r\n"


@pytest_asyncio.fixture
async def server(database_url: str) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    async with serving(create_app(Settings(database_url=database_url, throwaway_database=True))) as found:
        yield found


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has been answered once, and is kept."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    assert b"200 OK" in await reader.readuntil(b"}")
    return reader, writer


async def until_ending(server: uvicorn.Server) -> None:
    server.should_exit = True
    while server.servers[0].is_serving():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("used", [True, False], ids=["used", "fresh"])
async def test_a_request_on_its_way_when_the_process_is_asked_to_end_is_answered(
    server: tuple[uvicorn.Server, int], used: bool
) -> None:
    process, port = server
    reader, writer = await connect(port) if used else await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(0.05)
    await until_ending(process)
    writer.write(REQUEST)
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer.lower()
    writer.close()


async def test_idle_connections_end_soon(server: tuple[uvicorn.Server, int]) -> None:
    process, port = server
    reader, writer = await connect(port)
    await until_ending(process)
    assert await asyncio.wait_for(reader.read(), 5 * protocol.STOP_GRACE_SECONDS) == b""
    writer.close()


async def test_the_test_catches_a_process_that_hangs_up_at_once(
    server: tuple[uvicorn.Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "STOP_GRACE_SECONDS", 0.0)
    process, port = server
    reader, writer = await connect(port)
    await until_ending(process)
    await asyncio.sleep(0.02)
    writer.write(REQUEST)
    try:
        answer = await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:
        answer = b""
    assert answer == b""
    writer.close()
