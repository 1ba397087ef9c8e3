"""Reading request bodies: bounded, decompressed, and parsed so that one bad event spoils no other."""

import json
import re
import zlib
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import jiter
from starlette.requests import Request

from app.candidates import Unreadable
from app.errors import BodyTooLarge, InvalidRequest, MalformedBody, UnsupportedMediaType

MAX_EVENTS = 10_000
_GZIP = 16 + zlib.MAX_WBITS
_SLICE = 1 << 14
_LINE = re.compile(rb"[^\n]+")


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body after decompression. Raises ``BodyTooLarge`` as soon as it is, before it is held in memory."""
    chunks = []
    size = 0
    async for chunk in decompressed(request, limit_bytes):
        size += len(chunk)
        if size > limit_bytes:
            raise BodyTooLarge(f"The body must have at most {limit_bytes} bytes after decompression.")
        chunks.append(chunk)
    return b"".join(chunks)


async def decompressed(request: Request, limit_bytes: int | None = None) -> AsyncIterator[bytes]:
    """The body's bytes as its Content-Encoding (gzip or none) says, in pieces of bounded size."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        async for chunk in request.stream():
            yield chunk
        return
    if encoding != "gzip":
        raise UnsupportedMediaType("Content-Encoding must be gzip or left out.", code="unsupported_encoding")
    piece = 1 << 20 if limit_bytes is None else limit_bytes + 1
    decoder = zlib.decompressobj(_GZIP)
    begun = False
    received = 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if limit_bytes is not None and received > limit_bytes:
                raise BodyTooLarge(f"The body must have at most {limit_bytes} bytes.")
            # In slices, since what is left is copied at the end of every member, and members can be tiny and many.
            for start in range(0, len(chunk), _SLICE):
                rest = chunk[start : start + _SLICE]
                while rest:
                    begun = True
                    yield decoder.decompress(rest, piece)
                    rest = decoder.unconsumed_tail
                    if decoder.eof:
                        # A gzip file may have several members, one after another.
                        rest, decoder, begun = decoder.unused_data, zlib.decompressobj(_GZIP), False
    except zlib.error:
        raise MalformedBody("The body is not valid gzip.", code="malformed_gzip") from None
    if begun:
        raise MalformedBody("The gzip body ends too early.", code="malformed_gzip")


def read_events(body: bytes) -> list[Any]:
    """The items of ``{"events": […]}``.

    An item that is no JSON value by the strict rules (NaN, a key twice, text that is not Unicode) comes back as
    ``Unreadable`` where the envelope around it can be read nevertheless.
    """
    try:
        envelope = _strict(body)
    except ValueError:
        envelope = _lenient(body)
    if isinstance(envelope, Unreadable):
        raise MalformedBody("The body has a key twice, or a number that is not finite, outside of its events.")
    if not isinstance(envelope, dict):
        raise InvalidRequest('The body must be an object: {"events": [...]}.', pointer="")
    if set(envelope) - {"events"}:
        raise InvalidRequest('The body must have no field but "events".', code="unknown_field", pointer="")
    items = envelope.get("events")
    if not isinstance(items, list):
        raise InvalidRequest("events must be a list of events.", pointer="/events")
    return _counted(items)


def read_event_lines(body: bytes) -> list[Any]:
    """The items of an NDJSON body, one a line; blank lines are skipped."""
    items: list[Any] = []
    for found in _LINE.finditer(body):
        line = found.group()
        if not line.isspace():
            # Counted on the way: ten megabytes can be millions of lines.
            items.append(_line(line))
            _counted(items)
    return items


def _line(line: bytes) -> Any:
    try:
        return _strict(line)
    except ValueError:
        return Unreadable("The line is not a valid JSON object.")


def _counted(items: list[Any]) -> list[Any]:
    if len(items) > MAX_EVENTS:
        raise InvalidRequest(
            f"A request must have at most {MAX_EVENTS} events.", code="too_many_events", pointer="/events"
        )
    return items


def _strict(body: bytes) -> Any:
    return jiter.from_json(
        body, allow_inf_nan=False, catch_duplicate_keys=True, float_mode="decimal", cache_mode="keys"
    )


def _lenient(body: bytes) -> Any:
    """Parse what the strict parser refused, putting ``Unreadable`` in the place of the objects at fault."""
    try:
        # Bytes that are no UTF-8 become lone surrogates, which the event's own validation refuses.
        return json.loads(
            body.decode("utf-8", "surrogateescape"),
            object_pairs_hook=_object,
            parse_constant=lambda _name: Unreadable("The event has a number that is not finite."),
            parse_float=_number,
            parse_int=lambda digits: int(digits) if len(digits) < 20 else _number(digits),
        )
    except RecursionError:
        raise MalformedBody("The body is nested too deeply.") from None
    except ValueError:
        raise MalformedBody("The body is not valid JSON.") from None


def _number(digits: str) -> Any:
    try:
        return Decimal(digits)
    except ArithmeticError:
        return Unreadable("The event has a number that is out of range.")


def _object(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) < len(pairs):
        return Unreadable("The event has a key twice.")
    return next((value for value in found.values() if isinstance(value, Unreadable)), found)
