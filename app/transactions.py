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


async def committed(engine: AsyncEngine, step: Callable[[AsyncConnection, bool], Awaitable[Result]]) -> Result:
    """What ``step`` answers, once its transaction is committed.

    It may be called more than once; its second argument says whether it is called again.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            async with engine.begin() as connection:
                return await step(connection, tries_left < _TRIES - 1)
        except BeginAgain:
            if tries_left == 0:
                raise
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _RETRIED or tries_left == 0:
                raise
    raise AssertionError("unreachable")
