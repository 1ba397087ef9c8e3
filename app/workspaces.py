"""Use cases of workspaces and their keys: who may call, and with which scopes.

A key is 256 random bits shown once; only its SHA-256 is stored. A fast hash is enough, because nobody can guess
256 random bits, and an indexed hash makes the look-up one probe whatever the number of keys. That the index compares
hashes in a time which depends on them tells nothing: to use it one would have to make keys whose hashes begin as a
stored one does, which is to invert SHA-256, and would learn a hash, which is no key.
"""

import functools
import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args
from zoneinfo import available_timezones

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import audit
from app.bounded import forget_oldest
from app.errors import Conflict, Forbidden, InvalidRequest, NotFound, Unauthenticated
from app.shared_reads import SharedReads
from app.store import workspaces as store
from app.store.engine import autocommit
from app.store.workspaces import KeyHolder, Workspace

Scope = Literal["events:write", "customers:read", "scores:read", "runs:write", "admin", "operator"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_WORKSPACE = "default"
LONGEST_GRACE_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key at the one moment when it can be shown."""

    id: str
    key: str
    scopes: tuple[str, ...]
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """The new key, and when the old one ends: None where it has ended."""

    new: NewKey
    old_ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyRecord:
    id: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None


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
        forget_oldest(_LAST_KNOWN, MOST_KNOWN)
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


async def add_workspace(
    connection: AsyncConnection,
    name: str,
    currency: str,
    time_zone: str,
    scopes: Collection[str],
    key: str | None = None,
    maker: KeyHolder | None = None,
) -> NewKey:
    """Make a workspace and its first key, in the caller's transaction.

    Raises ``Conflict`` (``workspace_exists``) where the name is taken, and ``InvalidRequest`` for a time zone that
    there is not.
    """
    if time_zone not in _time_zones():
        raise InvalidRequest('time_zone must be an IANA name such as "Europe/Berlin".', pointer="/time_zone")
    now = datetime.now(UTC)
    new = NewKey(_make_key_id(), key or make_key(), in_order(scopes))
    workspace_id = await store.insert_workspace(connection, name, currency, time_zone, now)
    if workspace_id is None:
        raise Conflict("A workspace with this id exists already.", code="workspace_exists")
    await store.insert_key(connection, workspace_id, new.id, hash_key(new.key), new.scopes, now)
    # A workspace's trail names no key of another: the maker's act is told in the maker's own.
    await audit.note(connection, workspace_id, None, "key.created", new.id, now)
    if maker is not None:
        await audit.note(connection, maker.workspace.id, maker.key_id, "workspace.created", name, now)
    return new


async def create_workspace(
    engine: AsyncEngine, name: str, currency: str, time_zone: str, scopes: Collection[str], key: str | None = None
) -> NewKey:
    """``add_workspace`` in a transaction of its own."""
    async with engine.begin() as connection:
        return await add_workspace(connection, name, currency, time_zone, scopes, key)


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


async def add_key(
    connection: AsyncConnection, holder: KeyHolder, scopes: Collection[str], expires_at: datetime | None = None
) -> NewKey:
    """A further key of the caller's workspace, in the caller's transaction.

    Raises ``Forbidden`` where it would be wider than the caller's own, or live longer, and ``InvalidRequest`` where it
    would have ended before it began.
    """
    _refuse_wider(scopes, holder)
    now = datetime.now(UTC)
    _refuse_past(expires_at, now)
    _refuse_longer(expires_at, await _own_key(connection, holder))
    new = NewKey(_make_key_id(), make_key(), in_order(scopes), expires_at)
    await store.insert_key(connection, holder.workspace.id, new.id, hash_key(new.key), new.scopes, now, expires_at)
    await audit.note(connection, holder.workspace.id, holder.key_id, "key.created", new.id, now)
    return new


async def rotate_key(
    connection: AsyncConnection,
    holder: KeyHolder,
    key_id: str,
    grace_seconds: int = 0,
    expires_at: datetime | None = None,
) -> RotatedKey:
    """A new key in the place of another one of the workspace, which ends after the grace. In the caller's transaction.

    The new key has the scopes of the old one, and its end unless ``expires_at`` names another. Raises ``NotFound``
    where no such key works, ``Conflict`` where it was rotated before, ``Forbidden`` where it is wider than the
    caller's own: whoever rotates a key gets to hold it.
    """
    now = datetime.now(UTC)
    _refuse_past(expires_at, now)
    caller_ends_at = await _own_key(connection, holder)
    old = await store.lock_key(connection, holder.workspace.id, key_id)
    if old is None:
        raise _unknown_key()
    _refuse_wider(old.scopes, holder)
    if old.replaced_by is not None:
        raise Conflict("This key was rotated before; rotate the one that took its place.", code="key_rotated")
    expires_at = expires_at or old.expires_at
    _refuse_longer(expires_at, caller_ends_at)
    new = NewKey(_make_key_id(), make_key(), in_order(old.scopes), expires_at)
    await store.insert_key(connection, holder.workspace.id, new.id, hash_key(new.key), new.scopes, now, expires_at)
    ends_at = await store.replace_key(connection, holder.workspace.id, key_id, new.id, now, grace_seconds)
    await audit.note(connection, holder.workspace.id, holder.key_id, "key.rotated", key_id, now)
    await audit.note(connection, holder.workspace.id, holder.key_id, "key.created", new.id, now)
    return RotatedKey(new, ends_at)


def _refuse_wider(scopes: Collection[str], holder: KeyHolder) -> None:
    if not set(scopes) <= holder.scopes:
        raise Forbidden("A new key can't have scopes that the calling key lacks.", code="scope_too_wide")


def _refuse_past(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest("expires_at must lie in the future.", pointer="/expires_at")


def _refuse_longer(expires_at: datetime | None, caller_ends_at: datetime | None) -> None:
    if caller_ends_at is not None and (expires_at is None or expires_at > caller_ends_at):
        raise Forbidden("A new key can't live longer than the calling key.", code="expires_too_late")


async def _own_key(connection: AsyncConnection, holder: KeyHolder) -> datetime | None:
    """When the calling key ends. It is held until the transaction ends: one that is revoked meanwhile makes no keys."""
    own = await store.lock_key(connection, holder.workspace.id, holder.key_id)
    if own is None:
        raise Unauthenticated("This key is not known.", code="unknown_key")
    ends_at: datetime | None = own.expires_at
    return ends_at


async def list_keys(engine: AsyncEngine, workspace: Workspace, after: str | None, limit: int) -> list[KeyRecord]:
    async with autocommit(engine).connect() as connection:
        rows = await store.list_keys(connection, workspace.id, after, limit)
    return [KeyRecord(row.id, in_order(row.scopes), row.created_at, row.expires_at) for row in rows]


async def revoke_key(engine: AsyncEngine, holder: KeyHolder, key_id: str) -> None:
    """End a key of the caller's workspace, at once. Raises ``NotFound``."""
    now = datetime.now(UTC)
    async with engine.begin() as connection:
        if not await store.revoke_key(connection, holder.workspace.id, key_id, now):
            raise _unknown_key()
        await audit.note(connection, holder.workspace.id, holder.key_id, "key.revoked", key_id, now)


def _unknown_key() -> NotFound:
    return NotFound("There is no such key in this workspace.", code="key_not_found")
