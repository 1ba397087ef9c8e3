import asyncpg
import pytest
from asyncpg.exceptions._base import DataError as InvalidInput
from sqlalchemy.exc import DBAPIError, InterfaceError

from app.store.engine import is_outage


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
