"""Use cases of workspaces and their keys: who may call, and with which scopes.

A key is 256 random bits shown once; only its SHA-256 is stored. A fast hash is enough, because nobody can guess
256 random bits, and an indexed hash makes the look-up one probe whatever the number of keys.
"""

import functools
import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args
from zoneinfo import available_timezones

from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import Conflict, Forbidden, InvalidRequest, NotFound
from app.shared_reads import SharedReads
from app.store import workspaces as store
from app.store.engine import autocommit
from app.store.workspaces import KeyHolder, Workspace

Scope = Literal["events:write", "customers:read", "scores:read", "runs:write", "admin", "operator"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_WORKSPACE = "default"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key at the one moment when it can be shown."""

    id: str
    key: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyRecord:
    id: str
    scopes: tuple[str, ...]
    created_at: datetime


def hash_key(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def make_key() -> str:
    return "prn_" + secrets.token_urlsafe(32)


def _make_key_id() -> str:
    return "key_" + secrets.token_hex(8)


@functools.cache
def _time_zones() -> set[str]:
    # A list, because a ZoneInfo made of an unknown name would read files by that name.
    return available_timezones()


def in_order(scopes: Collection[str]) -> tuple[str, ...]:
    return tuple(scope for scope in SCOPES if scope in scopes)


async def authenticate(engine: AsyncEngine, key: str) -> KeyHolder | None:
    """Who holds the key, or None. Always against the database, after the request came: a revoked key stops at once."""
    key_hash = hash_key(key)
    holder = await _HOLDERS.get(engine, key_hash)
    if holder is None:
        _LAST_KNOWN.pop(key_hash, None)
    else:
        _LAST_KNOWN[key_hash] = holder
        if len(_LAST_KNOWN) > MOST_KNOWN:
            del _LAST_KNOWN[next(iter(_LAST_KNOWN))]
    return holder


def last_known_holder(key: str) -> KeyHolder | None:
    """Who held the key when it was last looked up: a guess, to begin with what nobody is told unless it still holds."""
    return _LAST_KNOWN.get(hash_key(key))


MOST_KNOWN = 4_096
_LAST_KNOWN: dict[bytes, KeyHolder] = {}


async def _find_holders(engine: AsyncEngine, key_hashes: Sequence[bytes]) -> dict[bytes, KeyHolder]:
    async with autocommit(engine).connect() as connection:
        return await store.find_key_holders(connection, key_hashes)


_HOLDERS: SharedReads[AsyncEngine, KeyHolder] = SharedReads(_find_holders)


async def create_workspace(
    engine: AsyncEngine, name: str, currency: str, time_zone: str, scopes: Collection[str], key: str | None = None
) -> NewKey:
    """Make a workspace and its first key.

    Raises ``Conflict`` (``workspace_exists``) where the name is taken, and ``InvalidRequest`` for a time zone that
    there is not.
    """
    if time_zone not in _time_zones():
        raise InvalidRequest('time_zone must be an IANA name such as "Europe/Berlin".', pointer="/time_zone")
    created_at = datetime.now(UTC)
    new = NewKey(_make_key_id(), key or make_key(), in_order(scopes))
    async with engine.begin() as connection:
        workspace_id = await store.insert_workspace(connection, name, currency, time_zone, created_at)
        if workspace_id is None:
            raise Conflict("A workspace with this id exists already.", code="workspace_exists")
        await store.insert_key(connection, workspace_id, new.id, hash_key(new.key), new.scopes, created_at)
    return new


async def bootstrap(
    engine: AsyncEngine, key: str | None, currency: str, time_zone: str = "UTC", make: bool = True
) -> str | None:
    """On an empty database make the workspace ``default``, with all scopes; its key, or None where nothing was made."""
    async with engine.connect() as connection:
        if await store.any_workspace(connection):
            return None
    if key is None and not make:
        return None
    try:
        return (await create_workspace(engine, DEFAULT_WORKSPACE, currency, time_zone, SCOPES, key)).key
    except Conflict:
        # Another process came first between the look and the insert.
        return None


async def create_key(engine: AsyncEngine, holder: KeyHolder, scopes: Collection[str]) -> NewKey:
    """A further key of the caller's workspace. Raises ``Forbidden`` where it would be wider than the caller's own."""
    if not set(scopes) <= holder.scopes:
        raise Forbidden("A new key can't have scopes that the calling key lacks.", code="scope_too_wide")
    new = NewKey(_make_key_id(), make_key(), in_order(scopes))
    async with engine.begin() as connection:
        await store.insert_key(
            connection, holder.workspace.id, new.id, hash_key(new.key), new.scopes, datetime.now(UTC)
        )
    return new


async def list_keys(engine: AsyncEngine, workspace: Workspace, after: str | None, limit: int) -> list[KeyRecord]:
    async with autocommit(engine).connect() as connection:
        rows = await store.list_keys(connection, workspace.id, after, limit)
    return [KeyRecord(row.id, in_order(row.scopes), row.created_at) for row in rows]


async def revoke_key(engine: AsyncEngine, workspace: Workspace, key_id: str) -> None:
    async with engine.begin() as connection:
        if not await store.revoke_key(connection, workspace.id, key_id, datetime.now(UTC)):
            raise NotFound("There is no such key in this workspace.", code="key_not_found")
