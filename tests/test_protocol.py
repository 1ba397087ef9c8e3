"""How answers are written to a connection."""

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from app.api import protocol
from tests import raw_http


class Written:
    """A transport that notes each call of the system."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def writelines(self, pieces: Any) -> None:
        self.calls.append(b"".join(pieces))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        self.calls.append(b"(closed)")


def answers() -> tuple[Written, Any]:
    transport = Written()
    return transport, protocol._Answers(transport)  # type: ignore[arg-type]


def test_an_answer_is_written_at_once() -> None:
    transport, connection = answers()
    for number in (b"1", b"2"):
        connection.write(b"head %b, " % number)
        connection.write(b"body")
        connection.end()
    assert transport.calls == [b"head 1, body", b"head 2, body"]


def test_a_streamed_answer_is_written_as_it_comes() -> None:
    transport, connection = answers()
    for piece in (b"head, ", b"first, ", b"second, ", b"last"):
        connection.write(piece)
    connection.end()
    assert transport.calls == [b"head, first, ", b"second, ", b"last"]


def test_a_head_without_a_body_is_written_when_it_ends() -> None:
    transport, connection = answers()
    connection.write(b"head")
    connection.end()
    connection.write(b"another")
    connection.close()
    assert transport.calls == [b"head", b"another", b"(closed)"]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers as the path says; ``/echo`` with what it was sent."""
    if scope["type"] != "http":
        return
    body = (await receive())["body"] if scope["path"] == "/echo" else scope["path"].encode()
    if scope["path"] == "/slow":
        await asyncio.sleep(0.05)
    status = 204 if scope["path"] == "/nothing" else 200
    headers = [] if status == 204 else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if scope["path"] == "/broken":
        raise RuntimeError("no body for this head")
    await send({"type": "http.response.body", "body": b"" if status == 204 else body})


async def exchange(*sent: bytes) -> bytes:
    """What comes back for what is sent piece after piece, until the connection is closed."""
    async with raw_http.serving(app) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in sent:
            writer.write(piece)
            await asyncio.sleep(0.1)
        writer.write(b"GET /end HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        told = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return told


async def test_requests_that_are_sent_together_are_answered_in_order() -> None:
    sent = b"".join(b"%b HTTP/1.1\r\nHost: x\r\n\r\n" % line for line in (b"GET /slow", b"HEAD /head", b"GET /nothing"))
    answered = (await exchange(sent)).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answered] == [b"200", b"200", b"204", b"200"]
    assert [answer.partition(b"\r\n\r\n")[2] for answer in answered] == [b"/slow", b"", b"", b"/end"]


async def test_each_answer_of_a_connection_comes_in_one_piece_and_none_waits_for_the_next() -> None:
    async with raw_http.serving(app) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for line, body in ((b"HEAD /head", b""), (b"GET /first", b"/first"), (b"GET /second", b"/second")):
            writer.write(line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            answered = await asyncio.wait_for(reader.read(65_536), 5)
            assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answered.endswith(b"\r\n\r\n" + body)
        writer.close()


async def test_a_client_that_asks_whether_to_go_on_is_told_before_it_sends() -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    async with raw_http.serving(app) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert await asyncio.wait_for(raw_http.read_answer(reader), 5) == (200, b"body")
        writer.close()


async def test_a_head_whose_body_fails_is_told_before_the_connection_ends(caplog: pytest.LogCaptureFixture) -> None:
    answered = await exchange(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answered.endswith(b"\r\n\r\n")
    assert answered.count(b"HTTP/1.1 ") == 1
