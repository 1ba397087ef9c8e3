"""Ways to break the service that the programme must see. They live here, never in the product."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MUTATING = Path(__file__).resolve().parent / "mutating"


def settings_for(mutant: str | None) -> dict[str, str]:
    """The environment in which the processes of a service are that mutant; of none, the service as it is."""
    if mutant is None:
        return {}
    if mutant not in MUTANTS:
        raise SystemExit(f"There is no mutant {mutant!r}. There are: {', '.join(MUTANTS)}.")
    return {"PYTHONPATH": str(_MUTATING), "TORTURE_MUTANT": mutant}


def answer_before_commit() -> None:
    """The habit of dependencies that commit after the response was made."""
    from app import ingest as ingesting

    ingest: Any = ingesting
    tasks: set[asyncio.Task[None]] = set()

    async def answered_first(engine: Any, step: Any) -> Any:
        connection = await engine.connect()
        transaction = await connection.begin()
        answer = await step(connection, True)

        async def commit_later() -> None:
            await asyncio.sleep(0.02)
            await transaction.commit()
            await connection.close()

        task = asyncio.create_task(commit_later())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return answer

    ingest.committed = answered_first


def relaxed_commits() -> None:
    """``synchronous_commit = off``: commits that are on their way to the disk."""
    from app.store import engine

    engine._WAIT_FOR_COMMITS = "SELECT set_config('synchronous_commit', 'off', false)"


def split_batch() -> None:
    """A batch in several transactions."""
    from app.ingest import EventRecorder

    whole = EventRecorder._record_alone

    async def in_parts(self: Any, workspace: Any, items: Any, received_at: Any, is_long: bool) -> Any:
        outcomes = []
        for start in range(0, len(items), 100):
            outcomes += await whole(self, workspace, items[start : start + 100], received_at, is_long)
        return outcomes

    EventRecorder._record_alone = in_parts  # type: ignore[method-assign]


def unsorted_batch() -> None:
    """Events copied and customers locked in whatever order."""
    from app import recording

    def unsorted(things: Any) -> list[Any]:
        found = list(things)
        random.shuffle(found)
        return found

    recording.sorted = unsorted  # type: ignore[attr-defined]


def doubled_retry() -> None:
    """What is sent again counts again."""
    from app import ingest as ingesting
    from app import recording
    from app.store import customers

    ingest: Any = ingesting
    record = recording.record_rows

    async def doubled(connection: Any, workspace: Any, rows: Any, received_at: Any, *more: Any) -> Any:
        verdicts = await record(connection, workspace, rows, received_at, *more)
        known = [row for row, verdict in zip(rows, verdicts, strict=True) if verdict == "duplicate"]
        if known:
            joined = recording._form(known).joined_changes
            await customers.add_changes(connection, workspace.id, joined, received_at, settled=True)
        return verdicts

    ingest.record_rows = doubled


def body_held() -> None:
    """A body is read to its end before it is found too large."""
    from app.api import bodies
    from app.errors import BodyTooLarge

    async def hold(request: Any, limit_bytes: int) -> bytes:
        body = b"".join([piece async for piece in bodies.decompressed(request)])
        if len(body) > limit_bytes:
            raise BodyTooLarge("The body is too large.")
        return body

    bodies.read_body = hold


def outage_unknown() -> None:
    """An outage taken for a fault of ours."""
    from app.api import problems as answering

    problems: Any = answering
    problems.is_outage = lambda _error: False


def hasty_stop() -> None:
    """A stop that waits for nobody."""
    import signal
    import subprocess

    # The launcher runs as the main module, which can't be imported to be changed.
    send_signal = subprocess.Popen.send_signal

    def kill(process: Any, number: int) -> None:
        is_ours = any("uvicorn" in str(part) or "app.worker" in str(part) for part in process.args)
        send_signal(process, signal.SIGKILL if is_ours else number)

    subprocess.Popen.send_signal = kill  # type: ignore[method-assign, assignment]


def part_for_all() -> None:
    """Parts of a run that nobody holds while they are done."""
    from sqlalchemy import text

    from app.store import run_parts

    for name in ("_UNREAD", "_UNSUMMED", "_UNVALUED", "_UNSCORED"):
        setattr(run_parts, name, text(getattr(run_parts, name).text.replace("FOR UPDATE SKIP LOCKED", "")))


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (
        answer_before_commit,
        relaxed_commits,
        split_batch,
        unsorted_batch,
        doubled_retry,
        body_held,
        outage_unknown,
        hasty_stop,
        part_for_all,
    )
}
