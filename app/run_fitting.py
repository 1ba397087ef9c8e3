"""How a run is fitted: by rounds over its parts, and by what its leader makes of each round.

Once all parts are read, the leader knows from their counts where grades end; any worker adds a part up by them. From
the sums the leader fits the models; any worker values a part by them. From what customers are worth the leader
completes the fit. What is known of single customers stays in the parts.
"""

import asyncio
import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from app.analytics.churn_learning import Learned
from app.analytics.clv import ClvFit
from app.analytics.counted import Counted, Place
from app.analytics.tabulation import TablesOfFit
from app.analytics.tally import PurchaseTally, RankTally
from app.churn_typing import interactions_of, learn_from_labels
from app.fitting import (
    Graded,
    Grades,
    PartSums,
    RankedPopulation,
    cut_population,
    fit_models,
    fit_population,
    id_at,
    nobody,
    rank_population,
    sum_part,
    tally_part,
    value_part,
)
from app.population import Population
from app.run_parts import SharedRun, pack_estimates, staged_population
from app.store import interactions as interaction_store
from app.store import run_parts as store
from app.store import scores as score_store
from app.store.engine import autocommit
from app.store.run_parts import pack, unpack

LARGE_RUN_CUSTOMERS = 20_000
"""From here on a run has a partition of its own; smaller ones share one."""

MOST_LABELS = 20_000


def grades_of(at_work: Row[Any]) -> Grades:
    return Grades.from_dict(json.loads(at_work.grades))


def models_of(at_work: Row[Any]) -> ClvFit:
    return ClvFit.from_dict(json.loads(at_work.models))


# ---- With a part ----------------------------------------------------------------------------------------------------


async def sum_next(shared: SharedRun, grades: Grades) -> bool:
    """Add up a part that nobody has taken, by the grades of the population; False if there is none.

    Raises ``Interrupted``.
    """
    shared.go_on()
    async with shared.engine.begin() as connection:
        staged = await store.take_unsummed(connection, *shared.key)
        if staged is None:
            return False
        sums = await asyncio.to_thread(_sum, shared, grades, staged)
        await store.keep_sums(connection, *shared.key, staged.part, sums)
    return True


def _sum(shared: SharedRun, grades: Grades, staged: Row[Any]) -> bytes:
    population, _ = staged_population(shared, staged)
    days = None if staged.purchase_days is None else np.frombuffer(staged.purchase_days, dtype=np.int32)
    known_before = unpack(staged.before)["known"]
    return pack(sum_part(population, shared.settings, grades, known_before, days).to_arrays())


async def value_next(shared: SharedRun, grades: Grades, models: ClvFit, tables: TablesOfFit) -> bool:
    """Value a part that nobody has taken, by the models of the population; False if there is none.

    ``tables`` are kept from one part to the next. Raises ``Interrupted``.
    """
    shared.go_on()
    async with shared.engine.begin() as connection:
        staged = await store.take_unvalued(connection, *shared.key)
        if staged is None:
            return False
        estimates, worth = await asyncio.to_thread(_value, shared, grades, models, tables, staged)
        await store.keep_values(connection, *shared.key, staged.part, estimates, worth)
    return True


def _value(
    shared: SharedRun, grades: Grades, models: ClvFit, tables: TablesOfFit, staged: Row[Any]
) -> tuple[bytes, bytes]:
    population, _ = staged_population(shared, staged)
    before = unpack(staged.before)["spend"]
    values, share, worth = value_part(population, shared.settings, grades, models, before, tables)
    return pack_estimates(values, share), pack({"values": worth.values, "customers": worth.customers})


# ---- Between rounds -------------------------------------------------------------------------------------------------


async def rank_parts(shared: SharedRun) -> None:
    """Find where grades end, and tell each part what stands before it. Raises ``TotalTooLarge``."""
    async with autocommit(shared.engine).connect() as connection:
        parts = await store.list_parts(connection, *shared.key)
        tallies = await _told(shared, connection, parts, "tally", RankTally.from_arrays)
        tallies = tallies or [_tally_of_nobody(shared)[0]]
        ranked = await asyncio.to_thread(rank_population, tallies, shared.settings, shared.as_of_day)
        del tallies
        ids = await _ids_at_boundaries(shared, connection, parts, ranked)
    grades = await asyncio.to_thread(cut_population, ranked, shared.settings, ids)
    async with shared.engine.begin() as connection:
        for part, before in zip(parts, ranked.before, strict=False):
            shared.go_on()
            packed = pack({"spend": before.spend, "known": before.known})
            await store.keep_before(connection, *shared.key, part.part, packed)
        await store.keep_grades(connection, shared.run.id, grades.to_dict())


async def fit_parts(shared: SharedRun) -> None:
    """Fit the models to the sums of all parts."""
    async with autocommit(shared.engine).connect() as connection:
        parts = await store.list_parts(connection, *shared.key)
        grades = grades_of(await store.get_run_at_work(connection, shared.run.id))
        read_sums = partial(PartSums.from_arrays, cuts=len(grades.cuts))
        sums = await _told(shared, connection, parts, "sums", read_sums)
        tallies = await _told(shared, connection, parts, "tally", PurchaseTally.from_arrays)
    if not parts:
        of_nobody = nobody(shared.as_of_day, shared.settings)
        sums = [sum_part(of_nobody, shared.settings, grades, np.zeros(0, dtype=np.int64), None)]
        tallies = [_tally_of_nobody(shared)[1]]
    models = await asyncio.to_thread(fit_models, tallies, sums, shared.settings, grades)
    async with shared.engine.begin() as connection:
        await store.keep_models(connection, shared.run.id, models.to_dict())


async def complete_fit(shared: SharedRun) -> None:
    """Put the fit together from what customers are worth and what people said of them; make room for the scores."""
    run_id = shared.run.id
    async with autocommit(shared.engine).connect() as connection:
        at_work = await store.get_run_at_work(connection, run_id)
        parts = await store.list_parts(connection, *shared.key)
        learned = await _learn(shared, connection, parts)
        worth = await _told(
            shared, connection, parts, "worth", lambda counts: Counted(counts["values"], counts["customers"])
        )
    grades = grades_of(at_work)
    fitted = await asyncio.to_thread(fit_population, worth, shared.settings, grades, models_of(at_work), learned)
    large = sum(part.customers for part in parts) >= LARGE_RUN_CUSTOMERS
    partition = run_id if large else score_store.SHARED_PARTITION
    async with shared.engine.begin() as connection:
        if large:
            await score_store.make_partition(connection, partition)
        await store.keep_fit(connection, run_id, partition, fitted.to_dict(), grades.to_dict()["curve"])


_Told = TypeVar("_Told")


async def _told(
    shared: SharedRun,
    connection: AsyncConnection,
    parts: Sequence[Row[Any]],
    column: str,
    read: Callable[[Mapping[str, NDArray[Any]]], _Told],
) -> list[_Told]:
    """What each part tells in a column, read from its arrays."""
    told = []
    for part in parts:
        shared.go_on()
        staged = await store.read_part(connection, *shared.key, part.part, [column])
        told.append(await asyncio.to_thread(lambda packed: read(unpack(packed)), staged[0]))
    return told


async def _customers(shared: SharedRun, connection: AsyncConnection, part: Row[Any]) -> Population:
    shared.go_on()
    staged = await store.read_part(connection, *shared.key, part.part, ["ids", "figures"])
    population, _ = await asyncio.to_thread(staged_population, shared, staged)
    return population


def _tally_of_nobody(shared: SharedRun) -> tuple[RankTally, PurchaseTally]:
    return tally_part(nobody(shared.as_of_day, shared.settings), shared.settings)


async def _ids_at_boundaries(
    shared: SharedRun, connection: AsyncConnection, parts: Sequence[Row[Any]], ranked: RankedPopulation
) -> dict[Graded, dict[Place, str]]:
    """The ids of the last customers of grades, each part with any of them read once."""
    wanted: defaultdict[int, list[tuple[Graded, Place, Place]]] = defaultdict(list)
    for graded, places in ranked.boundaries.items():
        for place, (index, there) in places.items():
            wanted[index].append((graded, place, there))
    ids: dict[Graded, dict[Place, str]] = {graded: {} for graded in ranked.boundaries}
    for index, some in wanted.items():
        population = await _customers(shared, connection, parts[index])
        for graded, place, there in some:
            ids[graded][place] = id_at(population, shared.settings, graded, there)
    return ids


async def _learn(shared: SharedRun, connection: AsyncConnection, parts: Sequence[Row[Any]]) -> Learned | None:
    """Learn churn types from people's verdicts on customers of the population; None where there are none."""
    workspace, as_of, churn = shared.workspace, shared.run.as_of, shared.settings.churn
    labels = await interaction_store.read_labels(connection, workspace.id, as_of, MOST_LABELS)
    ends = [part.until_id for part in parts]
    in_part: defaultdict[int, list[str]] = defaultdict(list)
    for label in labels:
        in_part[bisect_left(ends, label.customer_id)].append(label.customer_id)
    figures: dict[str, tuple[int, bool]] = {}
    for index, some in in_part.items():
        if index == len(parts):
            continue
        population = await _customers(shared, connection, parts[index])
        arrays, ids = population.arrays, population.customer_ids
        for one in some:
            row = bisect_left(ids, one)
            if row < len(ids) and ids[row] == one:
                figures[one] = int(arrays.last_purchase_day[row]), bool(arrays.has_order[row])
    known = [(label, *figures[label.customer_id]) for label in labels if label.customer_id in figures]
    if not known:
        return None
    labelled = [label.customer_id for label, _, _ in known]
    events = await interaction_store.read_interactions(connection, workspace.id, labelled, as_of)
    return await asyncio.to_thread(
        learn_from_labels,
        interactions_of(events, labelled, as_of, workspace.time_zone, churn),
        np.array([day for _, day, _ in known]),
        np.array([has_order for _, _, has_order in known]),
        [label.type for label, _, _ in known],
    )
