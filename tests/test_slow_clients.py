"""Clients that send or read slowly are cut off, and keep nobody else waiting. All over real sockets."""

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.api import protocol
from tests.test_hostile_input import Service, service

__all__ = ["service"]

SLOW_SENDERS, SLOW_READERS = (1_000, 200) if "TORTURE" in os.environ else (250, 50)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All bounds in tenths of their seconds."""
    for name in ("HEAD_SECONDS", "BODY_SECONDS", "READ_SECONDS"):
        monkeypatch.setattr(protocol, name, 0.4)
    monkeypatch.setattr(protocol, "SWEEP_SECONDS", 0.05)


@pytest_asyncio.fixture
async def many_sockets() -> AsyncIterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def head(service: Service, line: str, *more: str) -> bytes:
    lines = [f"{line} HTTP/1.1", "Host: perennial.test", f"Authorization: Bearer {service.key}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def told(reader: asyncio.StreamReader, seconds: float = 5.0) -> bytes:
    """What the server says until it closes the connection."""
    return await asyncio.wait_for(reader.read(), seconds)


def is_problem(answer: bytes, status: int, code: str) -> bool:
    start, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in start
    assert b"x-frame-options: DENY" in start
    return start.startswith(b"HTTP/1.1 %d " % status) and b'"code":"%s"' % code.encode() in body


@pytest.mark.parametrize("sent", [b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_head_that_does_not_come_is_given_up(service: Service, impatient: None, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(sent)
    assert is_problem(await told(reader), 408, "request_timeout")
    writer.close()


async def test_a_head_that_drips_is_given_up(service: Service, impatient: None) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    answer = asyncio.create_task(told(reader))
    writer.write(b"GET / HTTP/1.1\r\nX-Drip: ")
    while not answer.done():
        writer.write(b"X")
        await asyncio.sleep(0.05)
    assert is_problem(answer.result(), 408, "request_timeout")
    writer.close()


async def test_the_test_catches_a_service_that_waits(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    with pytest.raises(TimeoutError):
        await told(reader, 1.0)
    writer.close()


@pytest.mark.parametrize("path", ["/v1/events", "/v1/imports", "/v1/values/query", "/v1/nothing"])
async def test_a_body_that_does_not_come_is_given_up(service: Service, impatient: None, path: str) -> None:
    kind = "application/x-ndjson" if path in ("/v1/events", "/v1/imports") else "application/json"
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(head(service, f"POST {path}", f"Content-Type: {kind}", "Content-Length: 100000") + b"{")
    assert is_problem(await told(reader), 408, "request_timeout")
    writer.close()


async def test_a_body_that_comes_slowly_and_steadily_is_taken(
    service: Service, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LEAST_BYTES_PER_SECOND", 100)
    body = b'{"customer_ids": ["' + b"x" * 128 + b'"]}'
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(
        head(
            service,
            "POST /v1/values/query",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
    )
    for start in range(0, len(body), 15):
        writer.write(body[start : start + 15])
        await asyncio.sleep(0.1)
    assert (await told(reader)).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize("sent", [b"GET /" + b"x" * 100_000, b"GET / HTTP/1.1\r\n" + b"X-Big: 12345678\r\n" * 10_000])
async def test_a_head_without_end_is_refused(service: Service, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(sent)
    assert is_problem(await told(reader), 431, "head_too_large")
    writer.close()


async def slow_reader(service: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that asks for more than fits into all buffers between, and reads none of it."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.setblocking(False)
    await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", service.port))
    reader, writer = await asyncio.open_connection(sock=one, limit=1)
    writer.write(head(service, "GET /openapi.json") * 60)
    return reader, writer


async def connections(service: Service) -> int:
    """How many connections the service holds."""
    return len(service.server.server_state.connections)


async def test_an_answer_that_is_not_read_is_given_up(service: Service, impatient: None) -> None:
    before = await connections(service)
    _, writer = await slow_reader(service)
    async with asyncio.timeout(10):
        while await connections(service) == before:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        while await connections(service) > before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    writer.close()


async def test_slow_clients_keep_nobody_waiting(service: Service, many_sockets: None) -> None:
    slow: list[Any] = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(SLOW_SENDERS)]
    for _, writer in slow:
        writer.write(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    slow += [await slow_reader(service) for _ in range(SLOW_READERS)]
    try:
        for _ in range(30):
            answer = await asyncio.wait_for(service.send("GET", "/v1/customers"), 1)
            assert answer.status == 200
    finally:
        for _, writer in slow:
            writer.transport.abort()
