import time
from typing import Any

import asyncpg
import pytest
from asyncpg.exceptions._base import DataError as InvalidInput
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.store import queue
from app.store.engine import create_engine, driver_connection, is_outage


def told_by_the_driver(error: Exception) -> Exception:
    """The driver's error as SQLAlchemy's adapter raises it: another one, caused by it."""
    adapted = Exception(str(error))
    adapted.__cause__ = error
    return adapted


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InterfaceError(None, None, told_by_the_driver(asyncpg.InterfaceError("another operation"))), True),
        (InterfaceError(None, None, told_by_the_driver(InvalidInput("invalid input"))), False),
        (DBAPIError(None, None, asyncpg.ConnectionDoesNotExistError()), True),
        (DBAPIError(None, None, asyncpg.UndefinedTableError()), False),
        (ConnectionResetError(), True),
        (ValueError(), False),
    ],
)
def test_an_outage_is_told_from_a_fault_of_ours(error: Exception, expected: bool) -> None:
    assert is_outage(error) is expected


LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


async def timeouts(connection: Any) -> dict[str, str]:
    return {name: await connection.fetchval(f"SHOW {name}") for name in LIMITS}


async def test_no_connection_waits_for_ever(database_url: str) -> None:
    expected = {"statement_timeout": "30s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "1min"}
    engine = create_engine(database_url)
    async with engine.connect() as connection:
        assert await timeouts(await driver_connection(connection)) == expected
    await engine.dispose()
    # Runs take as long as they take; their locks don't.
    engine = create_engine(database_url, statement_timeout_ms=0)
    async with engine.connect() as connection:
        assert await timeouts(await driver_connection(connection)) == expected | {"statement_timeout": "0"}
    await engine.dispose()
    async with queue._connection(database_url) as raw:
        assert await timeouts(raw) == expected


async def test_whoever_finds_no_free_connection_is_told_soon(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=1, pool_timeout_s=0.1)
    async with engine.connect():
        begin = time.monotonic()
        with pytest.raises(PoolTimeout):
            await engine.connect()
        assert time.monotonic() - begin < 1
    await engine.dispose()
