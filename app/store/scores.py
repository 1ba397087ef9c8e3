"""The scores that runs store: written fresh into a partition, read by customer, or listed by any sort."""

import itertools
from collections import namedtuple
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, SmallInteger, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from app.analytics.population import UNITS_PER_CURRENCY
from app.score_columns import Column, Documents, Moneys, Names, RealLists, Reals, ScoreColumns, Wholes
from app.store import copy_format, distribution
from app.store.engine import DriverStatement, copy_in, several
from app.store.tables import SCORE_COLUMNS

SHARED_PARTITION = 0
ROWS_AT_ONCE = 2_000
"""So many are encoded at once: their bytes stay in the processor's cache."""

_COLUMNS = tuple(column.name for column in SCORE_COLUMNS)
# Fields of one width first: the fewer gaps a row has, the faster it is written.
_BY_WIDTH = tuple(
    column.name
    for column in sorted(
        SCORE_COLUMNS, key=lambda column: (isinstance(column.type, Text | JSONB), bool(column.nullable))
    )
)
_HISTORY_COLUMNS = ("r", "f", "m", "segment", "abc_grade", "net_spend", "clv_total", "churn_state", "churn_type")
_WHOLES = {
    column.name: copy_format.int2 if isinstance(column.type, SmallInteger) else copy_format.int4
    for column in SCORE_COLUMNS
}
CLASS_WORDS = ("segment", "abc_grade", "churn_state", "churn_type", "lifecycle_status")
"""What rows of a class have in common, beside the order of magnitude of their net spend."""

StoredScores: Any = namedtuple("StoredScores", ("customer_id", *_COLUMNS))  # type: ignore[misc]
"""A row of scores as it is stored: the customer's id and the score columns in their order."""


def selected_scores(prefix: str = "") -> str:
    """What a statement selects for the fields of ``StoredScores`` after the id, under names that begin so."""
    # JSON travels as text: its readers parse it, and its writers have made it.
    shown = ("CAST(scores.evidence AS text)" if name == "evidence" else f"scores.{name}" for name in _COLUMNS)
    return ", ".join(f"{one} AS {prefix}{name}" for one, name in zip(shown, _COLUMNS, strict=True))


SELECTED_SCORES = f"customer_id, {selected_scores()}"


def table_of(partition: int) -> str:
    return "scores" if partition == SHARED_PARTITION else f"scores_run_{int(partition)}"


async def make_partition(connection: AsyncConnection, partition: int) -> None:
    """A table for one run's scores, without indexes yet, so that it loads fast (see ``app/store/score_lists.py``).

    Until it is attached no vacuum begins by itself: an index that is to be made waits for one, and so does attaching.
    """
    name = table_of(partition)
    await connection.execute(
        text(f"CREATE TABLE {name} (LIKE scores INCLUDING DEFAULTS) WITH (autovacuum_enabled = false)")
    )
    # With this check, attaching need not read the rows again.
    await connection.execute(text(f"ALTER TABLE {name} ADD CHECK (partition = {int(partition)})"))
    # On a cluster the rows then go to their shards at once, and stay there when it is attached.
    await distribution.distribute_beside(connection, name, "scores")


_SORT_IN_MEMORY = text("SET LOCAL maintenance_work_mem = '128MB'")


async def analyze_partition(connection: AsyncConnection, partition: int) -> None:
    """Let plans know the table from the first read on, once no index of it is being made."""
    await connection.execute(text("SET LOCAL lock_timeout = '10min'"))
    await connection.execute(text(f"ANALYZE {table_of(partition)}"))


async def make_index(connection: AsyncConnection, statement: str) -> None:
    """Make an index of ``score_lists.indexes_of`` in one process of the server: the caller makes some side by side."""
    await connection.execute(_SORT_IN_MEMORY)
    await connection.execute(text("SET LOCAL max_parallel_maintenance_workers = 0"))
    await connection.execute(text(statement))


async def attach_partition(connection: AsyncConnection, partition: int) -> None:
    """Make the table a partition of ``scores``, which builds its key."""
    await connection.execute(_SORT_IN_MEMORY)
    await connection.execute(
        text(f"ALTER TABLE scores ATTACH PARTITION {table_of(partition)} FOR VALUES IN ({int(partition)})")
    )
    await connection.execute(text(f"ALTER TABLE {table_of(partition)} RESET (autovacuum_enabled)"))


async def drop_scores(connection: AsyncConnection, workspace_id: int, run_id: int, partition: int) -> None:
    """Delete what a run stored."""
    if partition == SHARED_PARTITION:
        await connection.execute(
            text("DELETE FROM scores WHERE workspace_id = :workspace_id AND partition = 0 AND run_id = :run_id"),
            {"workspace_id": workspace_id, "run_id": run_id},
        )
    else:
        await connection.execute(text(f"DROP TABLE {table_of(partition)}"))


async def drop_unfinished(connection: AsyncConnection, workspace_id: int, run_id: int) -> None:
    """Delete what was stored of a run that has not ended, wherever that was."""
    await connection.execute(text("UPDATE runs SET score_classes = NULL WHERE id = :run_id"), {"run_id": run_id})
    await connection.execute(text(f"DROP TABLE IF EXISTS {table_of(run_id)}"))
    await drop_scores(connection, workspace_id, run_id, SHARED_PARTITION)
    await connection.execute(
        text("DELETE FROM score_history WHERE workspace_id = :workspace_id AND run_id = :run_id"),
        {"workspace_id": workspace_id, "run_id": run_id},
    )


def encode_scores(
    scores: ScoreColumns, figures_digests: NDArray[np.int64], workspace_id: int, run_id: int, partition: int
) -> Iterator[bytes]:
    """Rows of scores as ``copy_scores`` sends them, some thousands at a time. Makes all of them: no work for a loop.

    ``figures_digests`` are of the figures that gave the scores, ``Population.digests``.
    """
    classes = class_codes(scores)
    for start in range(0, len(scores.customer_ids), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        ids = scores.customer_ids[rows]
        fixed = (copy_format.int4(np.full(len(ids), number)) for number in (partition, run_id, workspace_id))
        own = (copy_format.int4(classes[rows]), copy_format.int8(figures_digests[rows]), copy_format.text(ids))
        columns = (_field(name, scores.columns[name], rows) for name in _BY_WIDTH)
        yield copy_format.rows([*fixed, *own, *columns])


def class_codes(scores: ScoreColumns) -> NDArray[np.int32]:
    """The class of each row, shape (n,): equal in a run where the words and half powers of ten of net spend are.

    Net spend below one of the currency is of one class, whatever its size.
    """
    spent = cast(Moneys, scores.columns["net_spend"]).units.astype(np.float64) / UNITS_PER_CURRENCY
    codes = np.zeros(spent.size, dtype=np.int32)
    large = spent >= 1
    codes[large] = 1 + np.floor(2 * np.log10(spent[large])).astype(np.int32)
    for word in CLASS_WORDS:
        named = cast(Names, scores.columns[word])
        codes = codes * np.int32(len(named.names) + 1) + named.codes.astype(np.int32) + np.int32(1)
    return codes


def encode_history(scores: ScoreColumns, workspace_id: int, run_id: int, as_of: datetime) -> Iterator[bytes]:
    """What value change over time needs of the scores, beyond the life of these, as ``copy_to_history`` sends it."""
    for start in range(0, len(scores.customer_ids), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        ids = scores.customer_ids[rows]
        size = len(ids)
        fixed = (
            copy_format.int4(np.full(size, workspace_id)),
            copy_format.int4(np.full(size, run_id)),
            copy_format.timestamptz(as_of, size),
        )
        columns = (_field(name, scores.columns[name], rows) for name in _HISTORY_COLUMNS)
        yield copy_format.rows([*fixed, copy_format.text(ids), *columns])


def _field(name: str, column: Column, rows: slice) -> copy_format.Field:
    known = getattr(column, "known", None)
    known = None if known is None else known[rows]
    match column:
        case Wholes(values=values):
            return _WHOLES[name](values[rows], known)
        case Moneys(units=units):
            return copy_format.numeric(units[rows], known)
        case Reals(values=values):
            return copy_format.float8(values[rows])
        case RealLists(values=values):
            return copy_format.float8_array(values[rows], known)
        case Names(codes=codes, names=names):
            return copy_format.coded_text(codes[rows], names)
        case Documents(values=values):
            return copy_format.jsonb(values[rows])


def _stream(rows: Iterable[bytes]) -> Iterable[bytes]:
    return itertools.chain([copy_format.HEADER], rows, [copy_format.TRAILER])


async def copy_scores(connection: AsyncConnection, partition: int, rows: Iterable[bytes]) -> None:
    """Store scores that ``encode_scores`` made."""
    columns = ("partition", "run_id", "workspace_id", "score_class", "figures_digest", "customer_id", *_BY_WIDTH)
    await copy_in(connection, table_of(partition), columns, _stream(rows))


async def copy_to_history(connection: AsyncConnection, rows: Iterable[bytes]) -> None:
    """Store what ``encode_history`` made."""
    columns = ("workspace_id", "run_id", "as_of", "customer_id", *_HISTORY_COLUMNS)
    await copy_in(connection, "score_history", columns, _stream(rows))


async def list_history(
    connection: AsyncConnection, workspace_id: int, customer_id: str, after: int, limit: int
) -> Sequence[Row[Any]]:
    """What is kept of a customer's scores for good, from the run after ``after`` on, with the runs' names."""
    return (
        await connection.execute(
            text(
                "SELECT history.run_id, runs.name AS run_name, history.as_of, r, f, m, segment, abc_grade, net_spend,"
                " clv_total, churn_state, churn_type FROM score_history AS history"
                " JOIN runs ON runs.id = history.run_id AND runs.status = 'succeeded'"
                " WHERE history.workspace_id = :workspace_id AND history.customer_id = :customer_id"
                " AND history.run_id > :after ORDER BY history.run_id LIMIT :limit"
            ),
            {"workspace_id": workspace_id, "customer_id": customer_id, "after": after, "limit": limit},
        )
    ).all()


_FIND = DriverStatement(
    f"SELECT {SELECTED_SCORES} FROM scores WHERE workspace_id = :workspace_id AND partition = :partition"
    " AND run_id = :run_id AND customer_id = ANY(CAST(:customer_ids AS text[]))"
)


async def find_scores(
    connection: AsyncConnection, workspace_id: int, run_id: int, partition: int, customer_ids: Sequence[str]
) -> list[Any]:
    """``StoredScores`` of those of the customers that the run scored."""
    records = await _FIND.fetch(
        connection,
        {"workspace_id": workspace_id, "partition": partition, "run_id": run_id, "customer_ids": several(customer_ids)},
    )
    return [StoredScores(*record) for record in records]
