"""What every request passes through: an id, safe headers, a bound on its body, and a last answer if all else fails.

Pure ASGI: context variables and streamed responses pass through untouched.
"""

import asyncio
import logging
import re
import secrets
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem_response

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

STREAMING_PATHS = ("/v1/events", "/v1/imports")


class RequestMiddleware:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        body = _Body(scope, receive)
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if message["status"] >= 400:
                    await body.discard()
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    *(_DOCS_HEADERS if scope["path"] == _DOCS_PATH else SAFE_HEADERS),
                ]
            await send(message)

        try:
            await self.app(scope, body.receive, send_with_headers)
        except Exception:
            logger.exception("unexpected error, request %s", request_id)
            if started:
                raise
            response = problem_response(500, "internal_error", "Something went wrong on our side.")
            await response(scope, receive, send_with_headers)


class _Body:
    """A request's body on its way in."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._received = 0
        self._bounded = scope["path"] not in STREAMING_PATHS
        self._complete = False

    async def receive(self) -> Message:
        """Refuse a body beyond the bound while it arrives, whatever its Content-Length says."""
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
        headers = Headers(scope=self._scope)
        ends = "close" in headers.get("connection", "").lower() or self._scope["http_version"] == "1.0"
        announced = "content-length" in headers or "transfer-encoding" in headers
        if self._complete or not ends or not announced or "expect" in headers:
            return
        self._bounded = False
        until = self._received + DISCARDED_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while not self._complete and self._received < until:
                    await self.receive()
