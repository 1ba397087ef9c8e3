"""Keyset cursors: opaque to the caller, bound to the list and filters that they were made for."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from app.errors import InvalidRequest


def _fingerprint(listing: str, filters: Mapping[str, Any]) -> str:
    text = json.dumps([listing, sorted(filters.items())], default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def encode_cursor(listing: str, filters: Mapping[str, Any], position: list[str | int | float | None]) -> str:
    """A cursor that stands after ``position`` (the sort keys of the last row) of a list under ``filters``."""
    content = json.dumps([_fingerprint(listing, filters), *position], separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def decode_cursor(listing: str, filters: Mapping[str, Any], cursor: str, *kinds: type) -> list[Any]:
    """The position that ``encode_cursor`` was given: one key of each of ``kinds``.

    Raises ``InvalidRequest`` (``invalid_cursor``) where the cursor is none of ours, or was made under other filters.
    """
    try:
        content = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        content = None
    if (
        not isinstance(content, list)
        or len(content) != len(kinds) + 1
        or not all(isinstance(key, kind) for key, kind in zip(content[1:], kinds, strict=True))
    ):
        raise InvalidRequest("cursor is not one that this list gave out.", code="invalid_cursor", pointer="cursor")
    if content[0] != _fingerprint(listing, filters):
        raise InvalidRequest(
            "cursor belongs to another list or to other filters: start again without it.",
            code="invalid_cursor",
            pointer="cursor",
        )
    return content[1:]
