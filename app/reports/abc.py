"""ABC: counts and money by grade, and the Pareto curve, from a run."""

import json
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncEngine

from app.analytics.pareto import GRADES, AbcBoundary, AbcFit
from app.reports.terms import CurrencyCode, RunId, Share, share_of
from app.runs import fitted_run
from app.scalars import Instant, SignedMoney, money_of
from app.store.engine import autocommit
from app.store.workspaces import Workspace
from app.stored_run import succeeded_run


@dataclass(frozen=True, slots=True)
class AbcGrade:
    """The customers of a grade."""

    grade: Annotated[str, Field(examples=["A"])]
    customers: Annotated[int, Field(examples=[180])]
    customer_share: Share
    net_spend: SignedMoney
    net_spend_share: Annotated[
        float | None,
        Field(description="Of all positive net spend, negative left out; null of nothing.", examples=[0.8]),
    ]


@dataclass(frozen=True, slots=True)
class AbcLimit:
    """Where a grade ends: customers whose net spend is at least this have the grade, or a better one.

    Among equal spends the ids decide, in their order.
    """

    grade: Annotated[str, Field(examples=["A"])]
    share: Annotated[
        float, Field(description="Has the grade while the share before the customer is below this.", examples=[0.8])
    ]
    net_spend: Annotated[SignedMoney | None, Field(description="Of the last one; null where nobody has the grade.")]


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """A point of the Pareto curve: the share of positive net spend that the first customers bring."""

    customers: Annotated[int, Field(description="Counted from the one who spends most.", examples=[20])]
    customer_share: Annotated[float, Field(examples=[0.2])]
    net_spend_share: Annotated[float, Field(examples=[0.8])]


@dataclass(frozen=True, slots=True)
class AbcReport:
    """How the money is spread over the customers. It is stored with its run, and stays when the scores are gone."""

    run_id: RunId
    as_of: Instant
    currency: CurrencyCode
    basis: Annotated[str, Field(description="`revenue`, or `margin`: net spend less cost.", examples=["revenue"])]
    customers: Annotated[int, Field(description="With an order that counts.", examples=[900])]
    customers_without_order: Annotated[int, Field(examples=[100])]
    net_spend: SignedMoney
    positive_net_spend: Annotated[SignedMoney, Field(description="Customers below zero left out.")]
    grades: Annotated[list[AbcGrade], Field(description="A, B, C.")]
    boundaries: Annotated[list[AbcLimit], Field(description="Of A and of B.")]
    curve: Annotated[list[ParetoPoint], Field(description="At most 200 points, the ends of A and B among them.")]


async def abc_report(engine: AsyncEngine, workspace: Workspace, run_name: str | None = None) -> AbcReport:
    """The grades and the Pareto curve of a run, or of the latest.

    Raises ``Conflict`` (``no_run``, ``run_not_succeeded``) and ``NotFound`` (``run_not_found``).
    """
    async with autocommit(engine).connect() as connection:
        row = await succeeded_run(connection, workspace, run_name)
    run, curve = fitted_run(row), json.loads(row.curve)
    fit = run.fitted.abc
    return AbcReport(
        run_id=run.name,
        as_of=run.as_of,
        currency=workspace.currency,
        basis=run.settings.abc.basis,
        customers=fit.customers,
        customers_without_order=row.customers - fit.customers,
        net_spend=money_of(sum(total.net_spend_units for total in fit.totals)),
        positive_net_spend=money_of(fit.positive_units),
        grades=_grades(fit),
        boundaries=[_limit("A", fit.a_share, fit.last_a), _limit("B", fit.b_share, fit.last_b)],
        curve=[
            ParetoPoint(*point)
            for point in zip(curve["customers"], curve["customer_share"], curve["spend_share"], strict=True)
        ],
    )


def _grades(fit: AbcFit) -> list[AbcGrade]:
    a, b, _ = fit.totals
    # Only C has customers without positive spend.
    positive = (a.net_spend_units, b.net_spend_units, fit.positive_units - a.net_spend_units - b.net_spend_units)
    return [
        AbcGrade(
            grade,
            total.customers,
            share_of(total.customers, fit.customers),
            money_of(total.net_spend_units),
            share_of(spend, fit.positive_units),
        )
        for grade, total, spend in zip(GRADES, fit.totals, positive, strict=True)
    ]


def _limit(grade: str, share: str, last: AbcBoundary | None) -> AbcLimit:
    return AbcLimit(grade, float(share), None if last is None else money_of(last.net_spend_units))
