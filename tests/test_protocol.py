"""How answers are written to a connection."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from app.api.protocol import ProblemProtocol
from tests import raw_http


class Written(asyncio.Transport):
    """A connection that notes each call of the system."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        self.calls.append(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with its path, or as that says; ``/echo`` with what it was sent."""
    if scope["type"] != "http":
        return
    path = scope["path"]
    body = (await receive())["body"] if path == "/echo" else path.encode()
    status = 204 if path == "/nothing" else 200
    headers = [] if path in ("/nothing", "/streamed") else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if path == "/broken":
        await asyncio.sleep(0.01)
        raise RuntimeError("no body for this head")
    if path == "/streamed":
        for piece in (b"one", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if headers == [] else body})


def connect() -> tuple[Written, ProblemProtocol]:
    transport = Written()
    config = uvicorn.Config(app, log_level="critical", http=ProblemProtocol, ws="none", loop="none")
    config.load()
    protocol = ProblemProtocol(config=config, server_state=ServerState(), app_state={})
    protocol.connection_made(transport)
    return transport, protocol


def request(line: str, *more: str) -> bytes:
    return "\r\n".join((f"{line} HTTP/1.1", "Host: x", *more, "", "")).encode()


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


async def written(*lines: str) -> list[bytes]:
    """The calls of the system that answer requests which are sent together."""
    transport, protocol = connect()
    protocol.data_received(b"".join(map(request, lines)))
    await asyncio.sleep(0.05)
    protocol.connection_lost(None)
    return transport.calls


@pytest.mark.parametrize(
    ("line", "body"), [("GET /some", b"/some"), ("HEAD /some", b""), ("GET /nothing", b""), ("GET /broken", b"")]
)
async def test_an_answer_is_written_at_once(line: str, body: bytes) -> None:
    (answer,) = await written(line)
    assert answer.startswith(b"HTTP/1.1 20")
    assert body_of(answer) == body


async def test_requests_that_are_sent_together_are_answered_in_order_and_each_at_once() -> None:
    answers = await written("GET /first", "HEAD /second", "GET /nothing", "GET /last")
    assert [answer[9:12] for answer in answers] == [b"200", b"200", b"204", b"200"]
    assert [body_of(answer) for answer in answers] == [b"/first", b"", b"", b"/last"]


async def test_a_streamed_answer_is_written_as_it_comes() -> None:
    begun, *rest = await written("GET /streamed")
    assert body_of(begun) == b"3\r\none\r\n"
    assert rest == [b"3\r\ntwo\r\n", b"0\r\n\r\n"]


async def test_a_client_that_asks_whether_to_go_on_is_told_before_it_sends() -> None:
    async with raw_http.serving(app) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("POST /echo", "Content-Length: 4", "Expect: 100-continue"))
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"body")
        assert await asyncio.wait_for(raw_http.read_answer(reader), 5) == (200, b"body")
        writer.close()


async def test_nothing_is_written_to_a_client_that_has_gone() -> None:
    transport, protocol = connect()
    protocol.data_received(request("GET /broken"))
    await asyncio.sleep(0)
    transport.is_closed = True
    protocol.connection_lost(None)
    await asyncio.sleep(0.05)
    assert transport.calls == []


async def test_nothing_follows_a_refusal() -> None:
    transport, protocol = connect()
    protocol.data_received(request("GET /broken"))
    await asyncio.sleep(0)
    protocol.data_received(b"\x00 this is no HTTP\r\n\r\n")
    await asyncio.sleep(0.05)
    (refusal,) = transport.calls
    assert refusal.startswith(b"HTTP/1.1 400 ")
    assert body_of(refusal).endswith(b"}")
    protocol.connection_lost(None)
