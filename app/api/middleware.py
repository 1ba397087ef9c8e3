"""What every request passes through: an id, safe headers, a bound on its body, and a last answer if all else fails.

Pure ASGI: context variables and streamed responses pass through untouched.
"""

import logging
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem_response

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SMALL_BODY_BYTES = 1_000_000
"""Bound on bodies that are read whole into a model; streams (events, imports) keep their own."""

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
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self.app(scope, _bounded(scope, receive), send_with_headers)
        except Exception:
            logger.exception("unexpected error, request %s", request_id)
            if started:
                raise
            response = problem_response(500, "internal_error", "Something went wrong on our side.")
            await response(scope, receive, send_with_headers)


def _bounded(scope: Scope, receive: Receive) -> Receive:
    """Refuse a body beyond the bound while it arrives, whatever its Content-Length says."""
    if scope["path"] in STREAMING_PATHS:
        return receive
    received = 0

    async def receive_bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > SMALL_BODY_BYTES:
            raise HTTPException(413)
        return message

    return receive_bounded
