"""What every request passes through: an id, safe headers, a bound on its body, and a last answer if all else fails.

Pure ASGI: context variables and streamed responses pass through untouched.
"""

import asyncio
import logging
import random
import re
import secrets
import time
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import logs
from app.api.limits import HELD_BACK_S, Limits, Turns
from app.api.observation import CLIENT_GONE, Observation
from app.api.problems import http_problem, problem_response, told
from app.api.shortcuts import Shortcut, Shortcuts, answer
from app.errors import RateLimited
from app.store import wall

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SMALL_BODY_BYTES = 1_000_000
"""Bound on bodies that are read whole into a model; streams (events, imports) keep their own."""

DISCARDED_BYTES = 100_000_000
DISCARD_SECONDS = 5.0

_NO_CONTENT = b"default-src 'none'; frame-ancestors 'none'"
SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", _NO_CONTENT),
    # Nearly all of it is personal data, and none of it gets better by lying in a cache.
    (b"cache-control", b"no-store"),
)
"""What every answer carries, whoever asks for it."""

# The interactive page, where it is served, is the one that may load something: what it shows the document with.
_DOCS_HEADERS = tuple(
    (
        name,
        b"default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; connect-src 'self'; "
        b"style-src 'unsafe-inline' https://cdn.jsdelivr.net; img-src 'self' data: https://fastapi.tiangolo.com; "
        b"frame-ancestors 'none'"
        if value is _NO_CONTENT
        else value,
    )
    for name, value in SAFE_HEADERS
)
_DOCS_PATH = "/docs"

_UNLIMITED_PATHS = "/health/"
STREAMING_PATHS = ("/v1/events", "/v1/imports")


class RequestMiddleware:
    def __init__(self, app: ASGIApp, limits: Limits, observation: Observation, shortcuts: Shortcuts) -> None:
        self.app = app
        self._shortcuts = shortcuts
        self._limits = limits
        self._observation = observation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        body = _Body(scope, receive, headers)
        turn = _Turn()
        status = 0
        began = time.perf_counter()
        logs.request_id.set(request_id)
        span = self._observation.begin(headers)
        # Until a key is known to be of a workspace.
        entered = wall.enter_as_nobody()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status >= 400:
                    await body.discard()
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    *(_DOCS_HEADERS if scope["path"] == _DOCS_PATH else SAFE_HEADERS),
                ]
                # All work is done: whoever reads the answer slowly keeps nobody from theirs.
                turn.end()
            await send(message)

        authorization = headers.get("authorization")
        workspace = self._limits.workspace_of(authorization) if authorization else None
        shortcut = self._shortcuts.find(scope)
        try:
            # Without a key nothing is done that would cost anything.
            if authorization and not scope["path"].startswith(_UNLIMITED_PATHS):
                account = self._limits.count(workspace)
                if shortcut is not None and shortcut[0].shares_reads:
                    if self._limits.others_call(account):
                        await turn.begin(self._limits.read_turns, account)
                elif scope["path"] not in STREAMING_PATHS:
                    # Taken in before the turn begins: whoever sends slowly keeps nobody waiting.
                    await body.take_in()
                    await turn.begin(self._limits.turns, account)
            await self._answer(scope, body.receive, send_with_headers, shortcut)
        except RateLimited as error:
            # Not all that were refused together are to be back together.
            await asyncio.sleep(random.uniform(*HELD_BACK_S))  # noqa: S311
            await told(error)(scope, receive, send_with_headers)
        except HTTPException as error:
            await http_problem(error.status_code)(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = status or CLIENT_GONE
        except Exception:
            logger.exception("unexpected error")
            if status:
                raise
            response = problem_response(500, "internal_error", "Something went wrong on our side.")
            await response(scope, receive, send_with_headers)
        finally:
            wall.leave(entered)
            turn.end()
            if workspace is None and authorization:
                workspace = self._limits.workspace_of(authorization)
            seconds = time.perf_counter() - began
            name = workspace.name if workspace else None
            self._observation.end(scope, status or CLIENT_GONE, seconds, name, span)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, found: tuple[Shortcut, dict[str, str]] | None
    ) -> None:
        if found is not None:
            # Noted as the framework notes them, for those who ask what was called.
            scope["route"], scope["path_params"] = found
            response = await answer(found[0], Request(scope, receive, send))
            if response is not None:
                await response(scope, receive, send)
                return
            del scope["route"], scope["path_params"]
        await self.app(scope, receive, send)


class _Turn:
    """At most one turn, ended once."""

    def __init__(self) -> None:
        self._taken: tuple[Turns, int] | None = None

    async def begin(self, turns: Turns, account: int) -> None:
        await turns.begin(account)
        self._taken = turns, account

    def end(self) -> None:
        if self._taken is not None:
            (turns, account), self._taken = self._taken, None
            turns.end(account)


class _Body:
    """A request's body on its way in."""

    def __init__(self, scope: Scope, receive: Receive, headers: Headers) -> None:
        self._headers = headers
        self._http_version = scope["http_version"]
        self._receive = receive
        self._received = 0
        self._bounded = scope["path"] not in STREAMING_PATHS
        self._complete = False
        self._taken: bytes | None = None

    async def take_in(self) -> None:
        """Receive the whole body, if there is one, before anybody asks for it. Raises ``HTTPException`` (413)."""
        if "content-length" not in self._headers and "transfer-encoding" not in self._headers:
            return
        pieces = []
        while not self._complete:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            pieces.append(message.get("body", b""))
        self._taken = b"".join(pieces)

    async def receive(self) -> Message:
        """Refuse a body beyond the bound while it arrives, whatever its Content-Length says."""
        if self._taken is not None:
            taken, self._taken = self._taken, None
            return {"type": "http.request", "body": taken, "more_body": False}
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._bounded and self._received > SMALL_BODY_BYTES:
            raise HTTPException(413)
        return message

    async def discard(self) -> None:
        """Take in the rest of a refused body, within limits, where the connection ends with the answer.

        A client that is still sending when the connection ends would see it broken, and never see the answer.
        """
        headers = self._headers
        ends = "close" in headers.get("connection", "").lower() or self._http_version == "1.0"
        announced = "content-length" in headers or "transfer-encoding" in headers
        if self._complete or not ends or not announced or "expect" in headers:
            return
        self._bounded = False
        until = self._received + DISCARDED_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while not self._complete and self._received < until:
                    await self.receive()
