"""Connections to PostgreSQL."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import asyncpg
from sqlalchemy import TextClause, event, text
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.engine import Connection, ExceptionContext
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.store import wall

# asyncpg reads libpq's URLs itself, with all their options, so the URL needs no translation.
SERVER_SETTINGS = {
    "application_name": "perennial",
    "jit": "off",
    "TimeZone": "UTC",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
    # A server that lost its client without a word lets go of its locks.
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
_ANSWER_PATIENCE_S = 5.0

# What is acknowledged is on disk, whatever the server's default is; remote_apply promises even more. By a statement
# and not among the settings above, which would hide from `lossy_settings` what the server itself is set to.
_WAIT_FOR_COMMITS = (
    "SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
)
_DURABLE = ("fsync", "full_page_writes", "synchronous_commit")


def create_engine(
    database_url: str, *, pool_size: int = 10, statement_timeout_ms: int = 30_000, pool_timeout_s: float = 10.0
) -> AsyncEngine:
    """An engine for ``database_url``; ``statement_timeout_ms`` = 0 lets a statement run as long as it takes.

    Whoever waits longer than ``pool_timeout_s`` for a connection is told that there is none.
    """
    settings = {**SERVER_SETTINGS, "statement_timeout": str(statement_timeout_ms)}
    # Where the server itself can't be heard any more, nobody would end the statement but us.
    patience = statement_timeout_ms / 1000 + _ANSWER_PATIENCE_S if statement_timeout_ms else None

    async def connect() -> Any:
        with translated_errors():
            connection = await asyncpg.connect(
                database_url, server_settings=settings, timeout=10, command_timeout=patience
            )
            await connection.execute(_WAIT_FOR_COMMITS)
            return connection

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout_s,
        # Errors are logged, and the values that customers sent don't belong there.
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "handle_error", _hide_details)
    event.listen(engine.sync_engine, "before_execute", _guard)
    return engine


def _guard(
    _connection: Connection, statement: Any, _many: Any, values: Mapping[str, Any], _options: Mapping[str, Any]
) -> None:
    if isinstance(statement, TextClause):  # All statements of the store are; others are those of alembic.
        wall.guard(statement.text, values)


def _hide_details(context: ExceptionContext) -> None:
    """Let no error quote a row: the server's DETAIL does, and every wrapping of the error repeats it."""
    error: BaseException | None = context.sqlalchemy_exception or context.original_exception
    while error is not None:
        if isinstance(error, asyncpg.PostgresError):
            error.detail = None
        error.args = tuple(part.partition("\nDETAIL:")[0] if isinstance(part, str) else part for part in error.args)
        error = error.__cause__ or getattr(error, "orig", None)


_DIALECT: Any = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]

# Made once an engine: making one takes longer than a read.
_FOR_READS: WeakKeyDictionary[AsyncEngine, AsyncEngine] = WeakKeyDictionary()


def autocommit(engine: AsyncEngine) -> AsyncEngine:
    """The same pool for reads: a statement is its own transaction, so a read is one round trip instead of three."""
    if engine not in _FOR_READS:
        _FOR_READS[engine] = engine.execution_options(isolation_level="AUTOCOMMIT")
    return _FOR_READS[engine]


@contextmanager
def translated_errors(driver: Any = None) -> Iterator[None]:
    """Give errors of the driver itself the form that SQLAlchemy gives them, so that callers know one form.

    ``driver`` is the connection that it is about: one whose state the driver lost is ended.
    """
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        if isinstance(error, asyncpg.PostgresError):
            error.detail = None  # It quotes rows.
        # Said where the server ends the connection at the very moment of the question.
        if isinstance(error, asyncpg.InternalClientError) and driver is not None:
            driver.terminate()
        gone = isinstance(error, asyncpg.PostgresConnectionError | asyncpg.InterfaceError | asyncpg.InternalClientError)
        raise DBAPIError(None, None, error, connection_invalidated=gone) from error


def is_outage(error: BaseException) -> bool:
    """Whether the database is out of reach or has no room now, as opposed to a statement that is wrong."""
    if isinstance(error, PoolTimeout | OSError | asyncpg.InterfaceError):
        return True
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        if isinstance(error, InterfaceError):
            # A connection that broke in the midst of a COPY can't even roll back. A value that could not be sent, a
            # ValueError below, is a fault of ours.
            return not isinstance(getattr(error.orig, "__cause__", None), ValueError)
        error = error.orig or error
    sqlstate = getattr(error, "sqlstate", None) or ""
    # 08: connection; 53: resources; 57P: shutdown, crash, starting up; 40: deadlock, given up on after some tries;
    # 55P03 and 57014: a lock or a statement that took too long.
    return sqlstate[:2] in ("08", "40", "53") or sqlstate[:3] == "57P" or sqlstate in ("55P03", "57014")


def is_unique_violation(error: DBAPIError) -> bool:
    """Whether a row was refused because another has its key."""
    # Citus tells what a worker says of a COPY as an error of its own, with the worker's text.
    return getattr(error.orig, "sqlstate", None) == "23505" or "violates unique constraint" in str(error.orig)


@dataclass(frozen=True, slots=True)
class ServerState:
    """What readiness asks of the database."""

    schema_revision: str | None
    """The revision that it is migrated to."""

    lossy_settings: tuple[str, ...]
    """Those of ``fsync``, ``full_page_writes`` and ``synchronous_commit`` that are off: a crash may lose commits."""


async def server_state(engine: AsyncEngine) -> ServerState | None:
    """The state of the database; None where it can't be reached or was never migrated."""
    try:
        async with autocommit(engine).connect() as connection:
            revision = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar_one_or_none()
            # `reset_val` is what the server, the database, the role and the URL say, before what we set ourselves.
            lossy = await connection.execute(
                text("SELECT name FROM pg_settings WHERE name = ANY(:names) AND reset_val = 'off' ORDER BY name"),
                {"names": list(_DURABLE)},
            )
            return ServerState(revision, tuple(lossy.scalars()))
    except (DBAPIError, PoolTimeout, OSError):
        return None


class DriverStatement:
    """A statement for the driver itself, where SQLAlchemy's own work would take longer than the statement.

    ``text`` names its parameters as ``sqlalchemy.text`` does.
    """

    def __init__(self, statement: str) -> None:
        compiled = text(statement).compile(dialect=_DIALECT)
        self._statement = statement
        self._sql = str(compiled)
        self._names: tuple[str, ...] = tuple(compiled.positiontup or ())

    async def fetch(self, connection: AsyncConnection, values: Mapping[str, Any]) -> list[Any]:
        """Records, which are read by name or place.

        For connections in AUTOCOMMIT, or in a transaction that SQLAlchemy has begun by a statement of its own.
        """
        wall.guard(self._statement, values)
        driver = await driver_connection(connection)
        try:
            with translated_errors(driver):
                records: list[Any] = await driver.fetch(self._sql, *(values[name] for name in self._names))
        except (DBAPIError, OSError):
            if driver.is_closed():
                # Asked in its own way, SQLAlchemy sees that the connection is lost, and lets go of the others.
                await connection.execute(text("SELECT 1"))
            raise
        return records


_RECKONED_ELEMENTS = 10


def several(ids: Sequence[str]) -> Sequence[str]:
    """The same ids, repeated where they are few, for ``= ANY`` in a statement that takes longer to plan than to run.

    A plan for any list reckons with ten elements. For a shorter list PostgreSQL would find planning anew cheaper, every
    time, and for one of this length it keeps the plan. Equal elements are looked for once.
    """
    return ids if len(ids) > _RECKONED_ELEMENTS or not ids else [*ids, *[ids[-1]] * (1 + _RECKONED_ELEMENTS - len(ids))]


async def driver_connection(connection: AsyncConnection) -> Any:
    """The asyncpg connection below, for COPY; in a transaction, unless the connection is in AUTOCOMMIT.

    SQLAlchemy begins a transaction with the first statement that it sends itself. What the driver were given before
    would be committed by itself, and stay whatever becomes of the rest.
    """
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    if not driver.is_in_transaction() and not getattr(raw.dbapi_connection, "autocommit", False):
        await connection.execute(text("SELECT 1"))
    return driver


async def copy_in(connection: AsyncConnection, table: str, columns: Sequence[str], pieces: Iterable[bytes]) -> None:
    """Copy the pieces of a stream of binary COPY into a table."""

    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    driver = await driver_connection(connection)
    with translated_errors(driver):
        await driver.copy_to_table(table, source=stream(), columns=columns, format="binary")


async def copy_from_query(connection: AsyncConnection, statement: TextClause, values: Mapping[str, Any]) -> bytearray:
    """What a query answers, as binary COPY has it."""
    wall.guard(statement.text, values)
    compiled = statement.compile(dialect=_DIALECT)
    received = bytearray()

    async def receive(data: bytes) -> None:
        received.extend(data)

    driver = await driver_connection(connection)
    arguments = (values[name] for name in compiled.positiontup or ())
    with translated_errors(driver):
        await driver.copy_from_query(str(compiled), *arguments, output=receive, format="binary")
    return received
