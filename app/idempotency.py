"""Use case: a request that its sender may repeat has its effect once, and the repetition gets the first answer.

Claim, effect and answer are one transaction. While it runs a lock of that transaction tells repetitions that the first
request is in flight; a process that dies lets go of it, and has left no effect. A request that was refused has left
none either, so only answers of success are kept, and a repetition of a refused one is tried anew.

An answer may show a new key, which is stored nowhere else. So answers are sealed (AES-256-GCM) under a key that is
derived from the caller's own, which isn't stored either: whoever reads the database can't open them.
docs/decisions/idempotency.md tells more.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.errors import Conflict, InvalidRequest
from app.store import idempotency as store
from app.transactions import committed

_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that may be a repetition."""

    key_id: str
    """The caller's: each key has its own repetitions."""

    digest: bytes
    """SHA-256 of what the caller sent as ``Idempotency-Key``."""

    fingerprint: bytes
    """SHA-256 of the request: where it goes and what it says."""

    secret: str = field(repr=False)
    """The caller's key itself."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller is told of a success."""

    status: int
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(default_factory=dict)
    replayed: bool = False


Step = Callable[[AsyncConnection], Awaitable[Answer]]


async def once(engine: AsyncEngine, attempt: Attempt | None, step: Step) -> Answer:
    """The answer of ``step``, committed; or the one that the same attempt got before. Without an attempt: always anew.

    Raises ``InvalidRequest`` (``idempotency_key_reused``) where the key came with another request before, and
    ``Conflict`` (``idempotency_in_flight``) while the first is being worked on.
    """

    async def act(connection: AsyncConnection, _tries: int) -> Answer:
        if attempt is None:
            return await step(connection)
        if not await store.try_lock(connection, _lock_number(attempt)):
            raise Conflict("The first request with this Idempotency-Key is in flight.", code="idempotency_in_flight")
        # A statement of its own after the lock: it sees what the one who held the lock before has committed.
        known = await store.find_answer(connection, attempt.key_id, attempt.digest)
        if known is not None:
            if not hmac.compare_digest(known.fingerprint, attempt.fingerprint):
                raise InvalidRequest(
                    "This Idempotency-Key came with another request before.",
                    code="idempotency_key_reused",
                    pointer="Idempotency-Key",
                )
            return _opened(attempt, known.status, known.sealed)
        answer = await step(connection)
        await store.insert_answer(
            connection,
            attempt.key_id,
            attempt.digest,
            attempt.fingerprint,
            answer.status,
            _sealed(attempt, answer),
            datetime.now(UTC),
        )
        return answer

    return await committed(engine, act)


async def prune_answers(engine: AsyncEngine) -> None:
    """Forget answers that are older than a day. The worker calls it."""
    async with engine.begin() as connection:
        await store.prune_answers(connection)


def _lock_number(attempt: Attempt) -> int:
    name = hashlib.sha256(attempt.key_id.encode() + b"\0" + attempt.digest).digest()
    return int.from_bytes(name[:8], "big", signed=True)


def _cipher(attempt: Attempt) -> AESGCM:
    # The caller's key has 256 random bits where we made it; HKDF makes another from it, which tells nothing of it.
    derive = HKDF(algorithm=SHA256(), length=32, salt=attempt.digest, info=b"perennial idempotent answer")
    return AESGCM(derive.derive(attempt.secret.encode("utf-8", "surrogateescape")))


def _sealed(attempt: Attempt, answer: Answer) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    content = json.dumps(answer.headers).encode() + b"\n" + answer.body
    return nonce + _cipher(attempt).encrypt(nonce, content, attempt.fingerprint)


def _opened(attempt: Attempt, status: int, sealed: bytes) -> Answer:
    content = _cipher(attempt).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], attempt.fingerprint)
    headers, _, body = content.partition(b"\n")
    return Answer(status, body, json.loads(headers), replayed=True)
