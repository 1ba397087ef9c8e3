"""Keyset cursors: opaque to the caller, bound to the list and filters that they were made for."""

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.errors import InvalidRequest
from app.scalars import read_instant, show_instant, storable


def _fingerprint(listing: str, filters: Mapping[str, Any]) -> str:
    text = json.dumps([listing, sorted(filters.items())], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def encode_cursor(listing: str, filters: Mapping[str, Any], position: list[str | int | float | datetime | None]) -> str:
    """A cursor that stands after ``position`` (the sort keys of the last row) of a list under ``filters``."""
    # Not as ASCII, which would need twelve bytes for one character of an id and make cursors too long to send back.
    content = json.dumps(
        [_fingerprint(listing, filters), *position], separators=(",", ":"), ensure_ascii=False, default=show_instant
    )
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def invalid_cursor() -> InvalidRequest:
    return InvalidRequest("cursor is not one that this list gave out.", code="invalid_cursor", pointer="cursor")


def decode_cursor(listing: str, filters: Mapping[str, Any], cursor: str, *kinds: type) -> list[Any]:
    """The position that ``encode_cursor`` was given: one key of each of ``kinds``.

    Anyone can make up a cursor, so the keys are only what the database can be asked about. Raises ``InvalidRequest``
    (``invalid_cursor``) where the cursor is none of ours, or was made under other filters.
    """
    try:
        content = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        fingerprint, *keys = content
        position = [_read_key(key, kind) for key, kind in zip(keys, kinds, strict=True)]
    except (binascii.Error, ValueError, TypeError, RecursionError):
        raise invalid_cursor() from None
    if fingerprint != _fingerprint(listing, filters):
        raise InvalidRequest(
            "cursor belongs to another list or to other filters: start again without it.",
            code="invalid_cursor",
            pointer="cursor",
        )
    return position


def _read_key(key: Any, kind: type) -> Any:
    """The key where it is one of the kind (any scalar for ``object``); raises ``ValueError`` where not."""
    if kind is datetime:
        return read_instant(key)
    sound = isinstance(key, kind) and not isinstance(key, bool)
    if isinstance(key, str):
        sound = sound and storable(key)
    elif isinstance(key, int):
        sound = sound and -(2**63) <= key < 2**63
    elif isinstance(key, float):
        sound = sound and math.isfinite(key)
    else:
        sound = sound and key is None
    if not sound:
        raise ValueError("no such key")
    return key
