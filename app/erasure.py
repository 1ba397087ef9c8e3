"""Use case: erase a customer everywhere, and know the id again, so that nothing late brings the customer back.

All is one transaction. The row of the customer's summary is the lock that every writer of the customer takes, and the
row of the workspace the one that a run takes when it ends: whoever comes after them finds the hash of the id.
docs/decisions/erasure.md says why.
"""

import hmac
import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import audit
from app.customers import unknown_customer
from app.run_parts import forget_unfinished
from app.store import customers as customer_store
from app.store import erasure as store
from app.store import run_parts as part_store
from app.store import runs as run_store
from app.store.engine import autocommit
from app.store.workspaces import KeyHolder, Workspace
from app.transactions import committed


def customer_hash(workspace: Workspace, customer_id: str) -> bytes:
    """What remains of an erased customer's id: its HMAC-SHA256 under the key of the workspace."""
    return hmac.digest(workspace.erasure_key, customer_id.encode(), "sha256")


async def erase_customer(engine: AsyncEngine, holder: KeyHolder, customer_id: str, now: datetime) -> None:
    """Erase a customer of the key's workspace; once it returns, all is committed. Erasing again changes nothing.

    Raises ``NotFound`` for a customer that there is not and never was erased.
    """
    await committed(engine, partial(_erase, holder=holder, customer_id=customer_id, now=now))


async def _erase(
    connection: AsyncConnection, _tries: int, *, holder: KeyHolder, customer_id: str, now: datetime
) -> None:
    workspace = holder.workspace
    await store.begin_erasing(connection, workspace.id)
    hashed = customer_hash(workspace, customer_id)
    if not await store.customer_exists(connection, workspace.id, customer_id):
        if await store.find_erased(connection, workspace.id, [hashed]):
            return
        raise unknown_customer()
    referred = await store.find_referred(connection, workspace.id, customer_id)
    # In sorted order, as every batch locks its customers.
    await customer_store.lock_customers(connection, workspace.id, sorted({customer_id, *referred}), now)
    await store.insert_erased(connection, workspace.id, hashed)
    await store.delete_customer(connection, workspace.id, customer_id)
    await store.blank_referrer(connection, workspace.id, customer_id)
    remaining = [other for other in referred if other != customer_id]
    if remaining:
        await customer_store.recompute_profiles(connection, workspace.id, remaining)
    for run in await store.find_fits_naming(connection, workspace.id, customer_id):
        await store.replace_fit(
            connection, run.id, await _without(connection, workspace, json.loads(run.fitted), customer_id)
        )
    await store.delete_scores(connection, workspace.id, customer_id)
    await store.delete_staged_rows(connection, workspace.id, customer_id)
    # A run that is led leaves the customer out when it ends. One that waits for a worker may wait long.
    for run_id in await run_store.list_unfinished(connection, workspace.id):
        if not await part_store.is_led(connection, run_id):
            await forget_unfinished(connection, workspace.id, run_id)
    await audit.note(connection, workspace.id, holder.key_id, "customer.erased", hashed.hex(), now)


async def _without(
    connection: AsyncConnection, workspace: Workspace, fitted: Mapping[str, Any], customer_id: str
) -> dict[str, Any]:
    """A stored fit that names the last customer of a grade, without naming this one.

    Ids decide between equal figures alone: those up to the boundary's on one side of it, those after it on the other.
    The customer before it by id parts all the others just as it did, whatever their figures are by now.
    """
    before = await store.find_customer_before(connection, workspace.id, customer_id)
    replaced: dict[str, Any] = _replaced(fitted, customer_id, before or "")
    return replaced


def _replaced(part: Any, customer_id: str, stand_in: str) -> Any:
    if isinstance(part, Mapping):
        return {
            name: stand_in
            if name == "customer_id" and value == customer_id
            else _replaced(value, customer_id, stand_in)
            for name, value in part.items()
        }
    if isinstance(part, list):
        return [_replaced(value, customer_id, stand_in) for value in part]
    return part


async def forget_statistics(engine: AsyncEngine) -> None:
    """Have tables sampled anew after an erasure: the planner keeps values of the rows that it last looked at."""
    async with autocommit(engine).connect() as connection:
        tables = await store.find_tables_sampled_before(connection)
    for table in tables:
        async with engine.begin() as connection:
            await store.sample_anew(connection, table)


# ---- What ingest and runs ask ---------------------------------------------------------------------------------------


async def erased_among(
    connection: AsyncConnection, workspace: Workspace, customer_ids: Collection[str]
) -> frozenset[str]:
    """Those of the customers that are erased: one statement where the workspace never erased anyone, else two.

    Only for ids whose locks the caller holds is the answer still true when it comes.
    """
    if not customer_ids or not await store.any_erased(connection, workspace.id):
        return frozenset()
    hashed = _hashed(workspace, customer_ids)
    erased = await store.find_erased(connection, workspace.id, hashed)
    return frozenset(hashed[one] for one in erased)


def _hashed(workspace: Workspace, customer_ids: Iterable[str]) -> dict[bytes, str]:
    return {customer_hash(workspace, customer_id): customer_id for customer_id in customer_ids}


async def leave_out_erased(
    connection: AsyncConnection, workspace: Workspace, run_id: int, partition: int, fitted: dict[str, Any], before: int
) -> dict[str, Any]:
    """Take those out of a run's scores and fit who were erased while it was at work; answers the fit.

    ``before`` is the number of erased customers when the run began to read. From here until the caller's transaction
    ends nobody else is erased.
    """
    await store.begin_erasing(connection, workspace.id)
    if await store.count_erased(connection, workspace.id) == before:
        return fitted
    for customer_id in await store.find_scored_without_summary(connection, workspace.id, run_id, partition):
        await store.delete_scores_of_run(connection, workspace.id, run_id, partition, customer_id)
        await store.delete_history_of_run(connection, workspace.id, run_id, customer_id)
        fitted = await _without(connection, workspace, fitted, customer_id)
    return fitted
