"""Who moved from where to where between two runs, and the money at stake."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.analytics.churn import STATES
from app.analytics.pareto import GRADES
from app.errors import Conflict
from app.reports.terms import CurrencyCode, RunId
from app.runs import fitted_run
from app.scalars import Instant, SignedMoney
from app.scoring import FittedRun
from app.store import reports as store
from app.store.engine import autocommit
from app.store.workspaces import Workspace
from app.stored_run import succeeded_run


@dataclass(frozen=True, slots=True)
class RunMoment:
    """A run, and the moment that its scores speak of."""

    run_id: RunId
    as_of: Instant


@dataclass(frozen=True, slots=True)
class Transition:
    """Customers who were in one place and are in another, and their money in either run.

    A place is null where the run gave the customer none, or did not know the customer.
    """

    before: Annotated[str | None, Field(examples=["at_risk"])]
    after: Annotated[str | None, Field(examples=["champions"])]
    customers: Annotated[int, Field(examples=[17])]
    net_spend_before: SignedMoney
    net_spend_after: SignedMoney
    clv_total_before: SignedMoney
    clv_total_after: SignedMoney


@dataclass(frozen=True, slots=True)
class TransitionsReport:
    """How customers moved between two runs, and the money at stake. Only moves that happened are listed.

    It stands on the history of scores, which is kept for all runs.
    """

    currency: CurrencyCode
    from_run: RunMoment
    to_run: RunMoment
    customers: Annotated[int, Field(description="Scored by both runs.", examples=[950])]
    customers_gone: Annotated[int, Field(description="Scored by `from_run` only.", examples=[0])]
    customers_new: Annotated[int, Field(description="Scored by `to_run` only.", examples=[50])]
    segments: list[Transition]
    grades: list[Transition]
    churn_states: list[Transition]


async def transitions_report(
    engine: AsyncEngine, workspace: Workspace, from_name: str | None = None, to_name: str | None = None
) -> TransitionsReport:
    """Moves from one run to another: to the latest if not told, and from the one before that.

    Raises ``Conflict`` (``no_run``, ``no_earlier_run``, ``run_not_succeeded``) and ``NotFound`` (``run_not_found``).
    """
    async with autocommit(engine).connect() as connection:
        to_row = await succeeded_run(connection, workspace, to_name)
        if from_name is not None:
            from_row = await succeeded_run(connection, workspace, from_name)
        else:
            earlier = await store.find_earlier_run(connection, workspace.id, to_row.id)
            if earlier is None:
                raise Conflict("There is no succeeded run before this one.", code="no_earlier_run")
            from_row = await succeeded_run(connection, workspace, earlier)
        rows = await store.sum_moves(connection, workspace.id, from_row.id, to_row.id)
    from_run, to_run = fitted_run(from_row), fitted_run(to_row)
    by_kind: defaultdict[int, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        by_kind[row.grouped_by].append(row)
    everyone = by_kind[store.ALL_MOVES][0]
    segments = tuple(dict.fromkeys((*from_run.fitted.rfm.segments, *to_run.fitted.rfm.segments)))
    return TransitionsReport(
        currency=workspace.currency,
        from_run=_moment(from_run),
        to_run=_moment(to_run),
        customers=everyone.known_before + everyone.known_after - everyone.customers,
        customers_gone=everyone.customers - everyone.known_after,
        customers_new=everyone.customers - everyone.known_before,
        segments=_transitions(by_kind[store.SEGMENT_MOVES], segments),
        grades=_transitions(by_kind[store.GRADE_MOVES], GRADES),
        churn_states=_transitions(by_kind[store.STATE_MOVES], STATES),
    )


def _moment(run: FittedRun) -> RunMoment:
    return RunMoment(run.name, run.as_of)


def _transitions(rows: Iterable[Row[Any]], places: Sequence[str]) -> list[Transition]:
    """Rows in the order of places, null last."""
    rank: Mapping[str | None, int] = {place: number for number, place in enumerate((*places, None))}
    return [
        Transition(
            row.before,
            row.after,
            row.customers,
            row.net_spend_before,
            row.net_spend_after,
            row.clv_total_before,
            row.clv_total_after,
        )
        for row in sorted(rows, key=lambda row: (rank[row.before], rank[row.after]))
    ]
