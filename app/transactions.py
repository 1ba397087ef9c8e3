"""A transaction that is tried again where the database asks for it."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

Result = TypeVar("Result")

_TRIES = 10
_RETRIED = {"40001", "40P01"}  # serialization_failure, deadlock_detected


class BeginAgain(Exception):
    """Raised by a step whose transaction is to be undone and tried again."""


async def committed(engine: AsyncEngine, step: Callable[[AsyncConnection, int], Awaitable[Result]]) -> Result:
    """What ``step`` answers, once its transaction is committed.

    It may be called more than once; its second argument says how many times it was before.
    """
    for tries in range(_TRIES):
        is_last = tries == _TRIES - 1
        try:
            async with engine.begin() as connection:
                return await step(connection, tries)
        except BeginAgain:
            if is_last:
                raise
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _RETRIED or is_last:
                raise
    raise AssertionError("unreachable")
