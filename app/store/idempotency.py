"""Answers to requests that carried an ``Idempotency-Key``, kept so that a repetition gets the same one."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

KEPT = timedelta(hours=24)


async def try_lock(connection: AsyncConnection, number: int) -> bool:
    """Whether nobody else works on this now. Held until the transaction ends, however it ends."""
    return bool(
        (await connection.execute(text("SELECT pg_try_advisory_xact_lock(:number)"), {"number": number})).scalar_one()
    )


async def find_answer(connection: AsyncConnection, key_id: str, digest: bytes) -> Row[Any] | None:
    return (
        await connection.execute(
            text(
                "SELECT fingerprint, status, sealed FROM idempotent_answers"
                " WHERE key_id = :key_id AND digest = :digest AND at > now() - CAST(:kept AS interval)"
            ),
            {"key_id": key_id, "digest": digest, "kept": KEPT},
        )
    ).one_or_none()


async def insert_answer(
    connection: AsyncConnection,
    key_id: str,
    digest: bytes,
    fingerprint: bytes,
    status: int,
    sealed: bytes,
    at: datetime,
) -> None:
    """Keep an answer, in the place of one that is too old to count and not pruned yet."""
    await connection.execute(
        text(
            "INSERT INTO idempotent_answers AS a (key_id, digest, fingerprint, status, sealed, at)"
            " VALUES (:key_id, :digest, :fingerprint, :status, :sealed, :at)"
            " ON CONFLICT (key_id, digest) DO UPDATE SET fingerprint = EXCLUDED.fingerprint,"
            " status = EXCLUDED.status, sealed = EXCLUDED.sealed, at = EXCLUDED.at"
            " WHERE a.at <= now() - CAST(:kept AS interval)"
        ),
        {
            "key_id": key_id,
            "digest": digest,
            "fingerprint": fingerprint,
            "status": status,
            "sealed": sealed,
            "at": at,
            "kept": KEPT,
        },
    )


async def prune_answers(connection: AsyncConnection) -> None:
    await connection.execute(
        text("DELETE FROM idempotent_answers WHERE at <= now() - CAST(:kept AS interval)"), {"kept": KEPT}
    )
