"""What is done with a part of a run: its customers are read and added up, and, once the run is fitted, scored.

Any worker may do any part, several side by side. A part is taken, done and kept in one transaction: whoever dies over
it leaves it for another.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.analytics.booking import WINDOW_FIGURES, add_up, empty_figures
from app.analytics.valuation import ClvValues
from app.churn_typing import StoredEvents, encoded_interactions
from app.fitting import tally_part
from app.population import Population, day_number
from app.scoring import Fitted, score_columns
from app.store import interactions as interaction_store
from app.store import populations as population_store
from app.store import queue
from app.store import run_parts as store
from app.store import scores as score_store
from app.store.engine import autocommit
from app.store.run_parts import pack, unpack
from app.store.workspaces import Workspace
from app.workspace_settings import WorkspaceSettings

CUSTOMERS_A_WRITE = 20_000
INTERACTIONS_A_WRITE = 300_000

_INTERACTION_COUNT = "interaction_count"
_CUMULATIVE_SHARE = "cumulative_share"


@dataclass(frozen=True, slots=True)
class SharedRun:
    """A run, as those who do its parts know it. ``ending`` asks them to stop."""

    engine: AsyncEngine
    run: Row[Any]
    workspace: Workspace
    settings: WorkspaceSettings
    ending: asyncio.Event

    @property
    def key(self) -> tuple[int, int]:
        """The workspace and the run, by which parts are found."""
        return self.workspace.id, self.run.id

    @property
    def as_of_day(self) -> int:
        return day_number(self.workspace.local_day(self.run.as_of))

    def go_on(self) -> None:
        """A point at which a part can be left. Raises ``Interrupted`` where the worker is to stop."""
        if self.ending.is_set():
            raise queue.Interrupted


async def forget_unfinished(connection: AsyncConnection, workspace_id: int, run_id: int) -> None:
    """Delete all that a run which has not ended has come to: it begins again, or failed. For whoever leads it."""
    await store.end_run(connection, workspace_id, run_id)
    await score_store.drop_unfinished(connection, workspace_id, run_id)


# ---- Reading --------------------------------------------------------------------------------------------------------


async def read_next(shared: SharedRun, snapshot: str) -> bool:
    """Read a part that nobody has taken, and stage its figures; False if there is none.

    Raises ``TotalTooLarge``, ``SnapshotGone`` and ``Interrupted``.
    """
    shared.go_on()
    async with shared.engine.begin() as connection:
        part = await store.take_unread(connection, *shared.key)
        if part is None:
            return False
        as_then = shared.engine.execution_options(isolation_level="REPEATABLE READ")
        async with as_then.connect() as reading:
            await population_store.enter_snapshot(reading, snapshot)
            ids, figures, days = await _read(shared, reading, part.after_id, part.until_id)
        await store.keep_read(
            connection,
            *shared.key,
            part.part,
            customers=len(ids),
            ids="\n".join(ids),
            figures=await asyncio.to_thread(pack, figures),
            # They serve to try predictive models on.
            purchase_days=None if shared.settings.clv.model == "textbook" else days.tobytes(),
            tally=await asyncio.to_thread(_tally, shared, ids, figures),
        )
    return True


async def _read(
    shared: SharedRun, connection: AsyncConnection, after: str, until: str
) -> tuple[list[str], dict[str, NDArray[Any]], NDArray[np.int32]]:
    """Ids, figures (with the number of interactions) and all purchase days of the customers of a part."""
    window_days = shared.settings.rfm.window_days
    ids: list[str] = []
    figures: list[dict[str, NDArray[Any]]] = []
    days: list[NDArray[np.int32]] = []
    workspace_id, _ = shared.key
    async for piece in population_store.read_population(connection, workspace_id, shared.run.as_of, after, until):
        shared.go_on()
        into = empty_figures(len(piece.customer_ids), window_days)
        days.append(await asyncio.to_thread(add_up, piece.bookings, into, shared.as_of_day, window_days))
        ids += piece.customer_ids
        figures.append({**into, _INTERACTION_COUNT: piece.interaction_counts})
    if not figures:  # Whoever was here is gone since the parts were cut, where they are not read as of one moment.
        figures = [{**empty_figures(0, window_days), _INTERACTION_COUNT: np.zeros(0, dtype=np.int32)}]
    joined = {name: np.concatenate([one[name] for one in figures]) for name in figures[0]}
    return ids, joined, np.concatenate([np.zeros(0, dtype=np.int32), *days])


def _tally(shared: SharedRun, ids: list[str], figures: dict[str, NDArray[Any]]) -> bytes:
    population, _ = _population(shared, ids, figures)
    ranks, purchases = tally_part(population, shared.settings)
    return pack(ranks.to_arrays() | purchases.to_arrays())


def staged_population(shared: SharedRun, staged: Row[Any]) -> tuple[Population, NDArray[np.int32]]:
    """The customers of a part, and how many interactions each has."""
    return _population(shared, staged.ids.split("\n") if staged.ids else [], unpack(staged.figures))


def _population(
    shared: SharedRun, ids: list[str], figures: Mapping[str, NDArray[Any]]
) -> tuple[Population, NDArray[np.int32]]:
    # Those of the window are those of all time where there is no window.
    own = {name: figures[lifetime] for name, lifetime in WINDOW_FIGURES.items()} | dict(figures)
    counts = own.pop(_INTERACTION_COUNT)
    return Population(shared.as_of_day, ids, own), counts


# ---- Scoring --------------------------------------------------------------------------------------------------------


def pack_estimates(values: ClvValues, cumulative_share: NDArray[np.float64]) -> bytes:
    """What the population as a whole says of customers of a part, as it is staged."""
    return pack({**{name: getattr(values, name) for name in ClvValues.__slots__}, _CUMULATIVE_SHARE: cumulative_share})


async def score_next(shared: SharedRun, fitted: Fitted, partition: int) -> bool:
    """Score a part that nobody has taken, and store its scores and their history; False if there is none.

    Raises ``Interrupted``.
    """
    shared.go_on()
    async with shared.engine.begin() as connection:
        staged = await store.take_unscored(connection, *shared.key)
        if staged is None:
            return False
        if staged.ids:
            part = await asyncio.to_thread(_StagedPart.of, shared, staged)
            for rows in pieces(part.interaction_counts):
                shared.go_on()
                events = await _interactions(shared, part.population.customer_ids[rows], part.interaction_counts[rows])
                scores, history = await asyncio.to_thread(_score, shared, fitted, partition, part, rows, events)
                await score_store.copy_scores(connection, partition, scores)
                await score_store.copy_to_history(connection, history)
        await store.mark_scored(connection, *shared.key, staged.part)
    return True


@dataclass(frozen=True, slots=True)
class _StagedPart:
    population: Population
    clv: ClvValues
    cumulative_share: NDArray[np.float64]
    interaction_counts: NDArray[np.int32]

    @classmethod
    def of(cls, shared: SharedRun, staged: Row[Any]) -> "_StagedPart":
        population, counts = staged_population(shared, staged)
        estimates = unpack(staged.estimates)
        return cls(
            population,
            ClvValues(*(estimates[name] for name in ClvValues.__slots__)),
            estimates[_CUMULATIVE_SHARE],
            counts,
        )


async def _interactions(shared: SharedRun, ids: Sequence[str], counts: NDArray[np.int32]) -> StoredEvents | None:
    if not counts.any():
        return None
    workspace_id, _ = shared.key
    async with autocommit(shared.engine).connect() as connection:
        return await interaction_store.read_encoded_interactions(
            connection,
            workspace_id,
            ids,
            shared.run.as_of,
            list(shared.settings.churn.custom_events),
            trust_sender=shared.settings.churn.trust_custom_events,
        )


def pieces(interaction_counts: NDArray[np.int32]) -> Iterator[slice]:
    """Customers that are scored at a time: so many that neither they nor their interactions are too many."""
    size = interaction_counts.size
    before = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(interaction_counts, dtype=np.int64)))
    start = 0
    while start < size:
        most = int(np.searchsorted(before, before[start] + INTERACTIONS_A_WRITE, side="right")) - 1
        stop = min(max(most, start + 1), start + CUSTOMERS_A_WRITE, size)
        yield slice(start, stop)
        start = stop


def _score(
    shared: SharedRun, fitted: Fitted, partition: int, part: _StagedPart, rows: slice, stored: StoredEvents | None
) -> tuple[list[bytes], list[bytes]]:
    """The scores of ``rows`` of the part and their history, as they are stored."""
    population = part.population.part(rows)
    settings, (workspace_id, run_id), as_of = shared.settings, shared.key, shared.run.as_of
    interactions = None
    if stored is not None and stored.event_ids.size:
        size = len(population.customer_ids)
        interactions = encoded_interactions(stored, size, as_of, shared.workspace.time_zone, settings.churn)
    scores = score_columns(
        population,
        settings,
        fitted,
        horizon_days=settings.clv.horizon_days,
        interactions=interactions,
        clv=part.clv.part(rows),
        cumulative_share=part.cumulative_share[rows],
    )
    return (
        list(score_store.encode_scores(scores, population.digests(), workspace_id, run_id, partition)),
        list(score_store.encode_history(scores, workspace_id, run_id, as_of)),
    )
