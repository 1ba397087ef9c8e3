"""The HTTP protocol of the web processes: whole answers, and clients that send no HTTP, or send and read it too slowly.

Each connection notes when a request began and how much of it came. Once a second one sweep looks at all of them, so
patience costs a request next to nothing, and thousands of slow connections cost a walk over thousands of numbers.
"""

import asyncio
import secrets
from http import HTTPStatus
from weakref import WeakSet

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from app.api.middleware import SAFE_HEADERS
from app.api.problems import problem_response

SWEEP_SECONDS = 1.0
HEAD_SECONDS = 10.0
"""From the first byte, or from the connection on, until the head of the request is there."""

BODY_SECONDS = 30.0
LEAST_BYTES_PER_SECOND = 1_000
"""After ``BODY_SECONDS`` a body must have come at this rate on average; a whole answer must be read at it."""

READ_SECONDS = 20.0
"""In so many seconds a client must read some of its answer, at the rate above."""

STOP_GRACE_SECONDS = 0.5
"""How long idle connections stay open when the service is asked to end, for requests that are on their way."""

MOST_HEAD_BYTES = 65_536
LINGER_SECONDS = 1.0
"""How long a refused connection stays open for the client to see the answer."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Answers:
    """A connection as answers are written to it: the head of each is held until its body begins, and goes with it.

    Written one after the other, a small answer would be two calls of the system, two packets, and would wake its
    client twice. The price: the head of a streamed answer comes with its first piece.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self._in_body = False
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._in_body or data == _CONTINUE:
            self._transport.write(data)
        elif self._head is None:
            self._head = data
        else:
            self._transport.writelines((self._head, data))
            self._head, self._in_body = None, True

    def end(self) -> None:
        """What is written next is the head of another answer."""
        if self._head is not None:
            self._transport.write(self._head)
        self._head, self._in_body = None, False

    def close(self) -> None:
        if not self.is_closing():
            self.end()
        self._transport.close()


class ProblemProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds on what it waits for, problems in the place of plain text, and whole answers."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._answers = _Answers(transport)
        self._begun_at: float | None = self.loop.time()
        self._in_head = True
        self._refused = False
        self._received = 0
        self._unread = 0
        self._read_at = 0.0
        self._ending = False
        if self.server_state not in _SWEPT:
            _SWEPT.add(self.server_state)
            self.loop.call_later(SWEEP_SECONDS, _sweep, self.loop, self.server_state)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._begun_at is None:
            self._begun_at, self._received = self.loop.time(), 0
        self._received += len(data)
        super().data_received(data)
        if self._in_head and self._received > MOST_HEAD_BYTES and not self._refused:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", "The head is too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        if self._begun_at is None:
            self._begun_at, self._received = self.loop.time(), 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._begun_at, self._received = self.loop.time(), 0
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = self._answers  # type: ignore[assignment]  # It has all that a cycle asks for.
            if self._ending:
                self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._begun_at = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._answers.end()
        super().on_response_complete()

    def shutdown(self) -> None:
        """Answer what is being worked on, and what was sent before the client could know that the service ends."""
        self._ending = True
        if self._is_idle():
            self.loop.call_later(STOP_GRACE_SECONDS, self._end_if_idle)
        else:
            self.cycle.keep_alive = False

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _end_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()

    def sweep(self, now: float) -> None:
        """End the connection where the client is too slow."""
        if self.transport.is_closing() and not self.transport.get_write_buffer_size():
            return
        if self._begun_at is not None and not self._refused and self._is_slow(now):
            if not self._in_head and self.cycle.response_started:
                self.transport.abort()
            else:
                # An application that waits for the rest sees the client as gone.
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", "The request came too slowly.")
            return
        unread = self.transport.get_write_buffer_size()
        if not unread:
            self._unread = 0
        elif not self._unread:
            self._unread, self._read_at = unread, now
        elif now - self._read_at > READ_SECONDS:
            if self._unread - unread < LEAST_BYTES_PER_SECOND * READ_SECONDS:
                self.transport.abort()
            else:
                self._unread, self._read_at = unread, now

    def _is_slow(self, now: float) -> bool:
        waited = now - (self._begun_at or now)
        if self._in_head:
            return waited > HEAD_SECONDS
        if self.flow.read_paused:
            # Not the client's fault: we don't read on. Its time begins anew.
            self._begun_at, self._received = now, 0
            return False
        return waited > BODY_SECONDS and self._received < (waited - BODY_SECONDS) * LEAST_BYTES_PER_SECOND

    def send_400_response(self, msg: str) -> None:
        self._refuse(HTTPStatus.BAD_REQUEST, "bad_request", "The request is not valid HTTP.")

    def _refuse(self, status: HTTPStatus, code: str, detail: str) -> None:
        response = problem_response(status, code, detail)
        response.headers["X-Request-Id"] = secrets.token_hex(8)
        response.headers["Connection"] = "close"
        head = b"".join(name + b": " + value + b"\r\n" for name, value in (*response.raw_headers, *SAFE_HEADERS))
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + bytes(response.body))
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            # Nothing may follow, not even a head that is held.
            self.cycle.transport = self.transport
            self.cycle.message_event.set()
        # A client that is still sending would see a closed connection as broken, and never see the answer.
        self._refused = True
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


_SWEPT: "WeakSet[ServerState]" = WeakSet()


def _sweep(loop: asyncio.AbstractEventLoop, state: ServerState) -> None:
    now = loop.time()
    for connection in list(state.connections):
        if isinstance(connection, ProblemProtocol):
            connection.sweep(now)
    if state.connections:
        loop.call_later(SWEEP_SECONDS, _sweep, loop, state)
    else:
        _SWEPT.discard(state)
