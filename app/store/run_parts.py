"""Runs at work: the parts that a population is cut into, and what is staged of each until the run has ended.

Whoever does a part holds its row by a lock that ends with the transaction, and stores what came of it in the same
transaction: a part is done once, whatever dies. The tables are not logged: after a crash of the server they are empty,
and the run begins again.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection


def pack(columns: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays by name as one value of a row."""
    packed = io.BytesIO()
    np.savez(packed, **columns)  # type: ignore[arg-type]  # The names are none of its other parameters.
    return packed.getvalue()


def unpack(packed: bytes) -> Mapping[str, NDArray[Any]]:
    """The arrays of ``pack``; each is made when it is asked for."""
    columns: Mapping[str, NDArray[Any]] = np.load(io.BytesIO(packed), allow_pickle=False)
    return columns


_LEADING = 7_306  # the first of the two keys of the advisory locks on runs


async def lead_run(connection: AsyncConnection, run_id: int) -> None:
    """Be the only one to lead a run, until the transaction ends; waits for whoever does, as long as for any lock."""
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(:space, :run_id)"), {"space": _LEADING, "run_id": run_id}
    )
    await hold(connection)


async def is_led(connection: AsyncConnection, run_id: int) -> bool:
    """Whether a worker leads a run; if not, nobody begins to until the transaction ends."""
    taken: bool = (
        await connection.execute(
            text("SELECT pg_try_advisory_xact_lock(:space, :run_id)"), {"space": _LEADING, "run_id": run_id}
        )
    ).scalar_one()
    return not taken


# ---- The run --------------------------------------------------------------------------------------------------------


async def begin_run(
    connection: AsyncConnection, workspace_id: int, run_id: int, snapshot: str, erased_before: int, ends: Sequence[str]
) -> None:
    """Put a run to work: ``ends`` are the last ids of its parts, rising. Its parts are read as of ``snapshot``."""
    await connection.execute(
        text(
            "INSERT INTO runs_at_work (run_id, workspace_id, snapshot, erased_before)"
            " VALUES (:run_id, :workspace_id, :snapshot, :erased_before)"
        ),
        {"run_id": run_id, "workspace_id": workspace_id, "snapshot": snapshot, "erased_before": erased_before},
    )
    await connection.execute(
        text(
            "INSERT INTO run_parts (workspace_id, run_id, part, after_id, until_id)"
            " SELECT :workspace_id, :run_id, part, coalesce(lag(until_id) OVER (ORDER BY part), ''), until_id"
            " FROM unnest(CAST(:ends AS text[])) WITH ORDINALITY AS cut (until_id, part)"
        ),
        {"workspace_id": workspace_id, "run_id": run_id, "ends": list(ends)},
    )


_AT_WORK = text(
    "SELECT run_id, workspace_id, snapshot, erased_before, partition, CAST(grades AS text) AS grades,"
    " CAST(models AS text) AS models, CAST(fitted AS text) AS fitted, CAST(curve AS text) AS curve"
    " FROM runs_at_work WHERE run_id = :run_id"
)


async def find_run_at_work(connection: AsyncConnection, run_id: int) -> Row[Any] | None:
    """What all parts of a run need to know: ``grades`` once it is read, ``models`` once it is added up by them,
    ``fitted`` and ``partition`` once it is valued by those; JSON as text."""
    return (await connection.execute(_AT_WORK, {"run_id": run_id})).one_or_none()


async def get_run_at_work(connection: AsyncConnection, run_id: int) -> Row[Any]:
    """The same of a run that is at work."""
    return (await connection.execute(_AT_WORK, {"run_id": run_id})).one()


async def list_runs_at_work(connection: AsyncConnection) -> list[int]:
    return list((await connection.execute(text("SELECT run_id FROM runs_at_work ORDER BY run_id"))).scalars())


async def keep_grades(connection: AsyncConnection, run_id: int, grades: Mapping[str, Any]) -> None:
    await _keep(connection, run_id, "grades", grades)


async def keep_models(connection: AsyncConnection, run_id: int, models: Mapping[str, Any]) -> None:
    await _keep(connection, run_id, "models", models)


async def _keep(connection: AsyncConnection, run_id: int, column: str, what: Mapping[str, Any]) -> None:
    await connection.execute(
        text(f"UPDATE runs_at_work SET {column} = CAST(:what AS jsonb) WHERE run_id = :run_id"),
        {"run_id": run_id, "what": json.dumps(what)},
    )


async def keep_fit(
    connection: AsyncConnection, run_id: int, partition: int, fitted: Mapping[str, Any], curve: Mapping[str, Any]
) -> None:
    await connection.execute(
        text(
            "UPDATE runs_at_work SET fitted = CAST(:fitted AS jsonb), curve = CAST(:curve AS jsonb),"
            " partition = :partition WHERE run_id = :run_id"
        ),
        {"run_id": run_id, "partition": partition, "fitted": json.dumps(fitted), "curve": json.dumps(curve)},
    )


async def end_run(connection: AsyncConnection, workspace_id: int, run_id: int) -> None:
    """Forget what was staged of a run."""
    of_run = {"workspace_id": workspace_id, "run_id": run_id}
    for table in ("run_parts", "runs_at_work"):
        await connection.execute(
            text(f"DELETE FROM {table} WHERE workspace_id = :workspace_id AND run_id = :run_id"), of_run
        )


# ---- Parts ----------------------------------------------------------------------------------------------------------

_OF_RUN = "FROM run_parts WHERE workspace_id = :workspace_id AND run_id = :run_id"
_FREE = "ORDER BY part LIMIT 1 FOR UPDATE SKIP LOCKED"
# Of what the version before has read, nothing is counted: its parts are read again.
_UNREAD = text(f"SELECT part, after_id, until_id {_OF_RUN} AND tally IS NULL {_FREE}")
_UNSUMMED = text(
    f"SELECT part, ids, figures, purchase_days, before {_OF_RUN} AND before IS NOT NULL AND sums IS NULL {_FREE}"
)
_UNVALUED = text(f"SELECT part, ids, figures, before {_OF_RUN} AND sums IS NOT NULL AND worth IS NULL {_FREE}")
_UNSCORED = text(f"SELECT part, ids, figures, estimates {_OF_RUN} AND estimates IS NOT NULL AND NOT scored {_FREE}")
_DONE = text(
    "SELECT count(*) AS parts, count(tally) AS read, count(sums) AS summed, count(worth) AS valued,"
    " count(*) FILTER (WHERE scored) AS scored,"
    f" coalesce(sum(customers), 0)::integer AS customers {_OF_RUN}"
)


async def take_unread(connection: AsyncConnection, workspace_id: int, run_id: int) -> Row[Any] | None:
    """A part that nobody has read nor reads; it is the caller's until the transaction ends."""
    return await _take(connection, _UNREAD, workspace_id, run_id)


async def take_unsummed(connection: AsyncConnection, workspace_id: int, run_id: int) -> Row[Any] | None:
    """A part that nobody has added up nor adds up, with what was staged of it."""
    return await _take(connection, _UNSUMMED, workspace_id, run_id)


async def take_unvalued(connection: AsyncConnection, workspace_id: int, run_id: int) -> Row[Any] | None:
    """A part that nobody has valued nor values, with what was staged of it."""
    return await _take(connection, _UNVALUED, workspace_id, run_id)


async def take_unscored(connection: AsyncConnection, workspace_id: int, run_id: int) -> Row[Any] | None:
    """A part that nobody has scored nor scores, with what was staged of it."""
    return await _take(connection, _UNSCORED, workspace_id, run_id)


async def _take(connection: AsyncConnection, free: TextClause, workspace_id: int, run_id: int) -> Row[Any] | None:
    found = (await connection.execute(free, {"workspace_id": workspace_id, "run_id": run_id})).one_or_none()
    if found is not None:
        # The transaction holds the part and nothing else while its figures are worked out elsewhere.
        await hold(connection)
    return found


async def hold(connection: AsyncConnection) -> None:
    """Let the transaction be idle for as long as the caller lives."""
    await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


async def keep_read(
    connection: AsyncConnection,
    workspace_id: int,
    run_id: int,
    part: int,
    *,
    customers: int,
    ids: str,
    figures: bytes,
    purchase_days: bytes | None,
    tally: bytes,
) -> None:
    staged = {"customers": customers, "ids": ids, "figures": figures, "purchase_days": purchase_days, "tally": tally}
    await _change(connection, workspace_id, run_id, part, staged)


async def keep_before(connection: AsyncConnection, workspace_id: int, run_id: int, part: int, before: bytes) -> None:
    """Stage what stands before the part in the order of all customers."""
    await _change(connection, workspace_id, run_id, part, {"before": before})


async def keep_sums(connection: AsyncConnection, workspace_id: int, run_id: int, part: int, sums: bytes) -> None:
    """Stage the sums of the part. Its purchase days have served, but the version before would ask for them."""
    await _change(connection, workspace_id, run_id, part, {"sums": sums})


async def keep_values(
    connection: AsyncConnection, workspace_id: int, run_id: int, part: int, estimates: bytes, worth: bytes
) -> None:
    """Stage what the models say of the customers of the part, and the counts of what they are worth."""
    await _change(connection, workspace_id, run_id, part, {"estimates": estimates, "worth": worth})


async def mark_scored(connection: AsyncConnection, workspace_id: int, run_id: int, part: int) -> None:
    await _change(connection, workspace_id, run_id, part, {"scored": True})


async def _change(
    connection: AsyncConnection, workspace_id: int, run_id: int, part: int, columns: Mapping[str, Any]
) -> None:
    await connection.execute(
        text(
            f"UPDATE run_parts SET {', '.join(f'{name} = :{name}' for name in columns)}"
            " WHERE workspace_id = :workspace_id AND run_id = :run_id AND part = :part"
        ),
        {"workspace_id": workspace_id, "run_id": run_id, "part": part, **columns},
    )


async def list_parts(connection: AsyncConnection, workspace_id: int, run_id: int) -> Sequence[Row[Any]]:
    """Number, last id and customers of each part, in the order of ids."""
    return (
        await connection.execute(
            text(f"SELECT part, until_id, customers {_OF_RUN} ORDER BY part"),
            {"workspace_id": workspace_id, "run_id": run_id},
        )
    ).all()


async def read_part(
    connection: AsyncConnection, workspace_id: int, run_id: int, part: int, columns: Sequence[str]
) -> Row[Any]:
    """What was staged of a part, by the names of the columns."""
    return (
        await connection.execute(
            text(f"SELECT {', '.join(columns)} {_OF_RUN} AND part = :part"),
            {"workspace_id": workspace_id, "run_id": run_id, "part": part},
        )
    ).one()


async def count_done(connection: AsyncConnection, workspace_id: int, run_id: int) -> Row[Any]:
    """How many parts and customers a run has, and how many parts are read, summed, valued and scored."""
    return (await connection.execute(_DONE, {"workspace_id": workspace_id, "run_id": run_id})).one()
