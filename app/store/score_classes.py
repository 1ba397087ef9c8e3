"""Classes of a run's scores: rows with the same words, and the same order of magnitude of net spend.

Filtered lists of large runs are merged from them; see ``app/store/score_lists.py``.
"""

import json
import math
from dataclasses import dataclass
from decimal import Decimal
from statistics import NormalDist
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.scores import CLASS_WORDS, table_of

SORTS = (
    "customer_id",
    "net_spend",
    "days_since_last_order",
    "order_count",
    "clv_total",
    "churn_probability",
)
BOUNDED = ("net_spend", "clv_total")
"""The columns that filters bound."""

_TOLD_OF_AMOUNTS = (
    "min({name}) AS low_{name}, max({name}) AS high_{name},"
    " avg({name}) AS mean_{name}, stddev_pop({name}) AS deviation_{name}"
)


@dataclass(frozen=True, slots=True)
class Amounts:
    """What is known of an amount of money in the rows of a class; no row has it where there is no ``lowest``."""

    lowest: Decimal | None
    highest: Decimal | None
    mean: float
    deviation: float

    def share(self, at_least: Decimal | None, at_most: Decimal | None) -> float:
        """About what share of the rows is within bounds: as if amounts were lognormal, or normal where some are not
        above zero."""
        if not self.deviation:
            return 1.0
        up_to = 1.0 if at_most is None else self._share_below(at_most)
        return up_to - (0.0 if at_least is None else self._share_below(at_least))

    def _share_below(self, amount: Decimal) -> float:
        if self.lowest is None or self.lowest <= 0:
            return NormalDist(self.mean, self.deviation).cdf(float(amount))
        variance = math.log1p((self.deviation / self.mean) ** 2)
        logarithms = NormalDist(math.log(self.mean) - variance / 2, math.sqrt(variance))
        return logarithms.cdf(math.log(max(amount, self.lowest)))


@dataclass(frozen=True, slots=True)
class ScoreClass:
    """Rows of a run with the same words: their amounts of money, and how many of them have a value of each sort."""

    code: int
    customers: int
    words: dict[str, str | None]
    amounts: dict[str, Amounts]
    valued: dict[str, int]

    @classmethod
    def of(cls, told: dict[str, Any]) -> "ScoreClass":
        """From what ``keep_classes`` kept, its numbers read as ``Decimal``."""
        return cls(
            int(told["score_class"]),
            int(told["customers"]),
            {word: told[word] for word in CLASS_WORDS},
            {
                name: Amounts(
                    told[f"low_{name}"],
                    told[f"high_{name}"],
                    float(told[f"mean_{name}"] or 0),
                    float(told[f"deviation_{name}"] or 0),
                )
                for name in BOUNDED
            },
            {sort: int(told[f"valued_{sort}"]) for sort in SORTS},
        )


async def keep_classes(connection: AsyncConnection, workspace_id: int, run_id: int, partition: int) -> None:
    """Tell the classes of the scores in a run's own table from all of them, and keep them with the run.

    Rows that a version without classes has stored have none; then nothing is kept.
    """
    await connection.execute(
        text(f"""
            UPDATE runs SET score_classes = (
                SELECT CASE WHEN count(score_class) = count(*) THEN jsonb_agg(told) END FROM (
                    SELECT score_class, {", ".join(CLASS_WORDS)}, count(*) AS customers,
                           {", ".join(_TOLD_OF_AMOUNTS.format(name=name) for name in BOUNDED)},
                           {", ".join(f"count({sort}) AS valued_{sort}" for sort in SORTS)}
                    FROM {table_of(partition)} WHERE workspace_id = :workspace_id AND run_id = :run_id
                    GROUP BY score_class, {", ".join(CLASS_WORDS)}
                ) AS told
            ) WHERE id = :run_id
        """),
        {"workspace_id": workspace_id, "run_id": run_id},
    )


async def read_classes(connection: AsyncConnection, run_id: int) -> tuple[ScoreClass, ...] | None:
    """The classes that a run's scores fall into; None where none are kept, as on a cluster.

    Scores that were deleted since they were told leave their class as it was: it is then looked into in vain.
    """
    kept = await connection.execute(
        text("SELECT CAST(score_classes AS text) FROM runs WHERE id = :run_id"), {"run_id": run_id}
    )
    classes = json.loads(kept.scalar_one() or "[]", parse_int=Decimal, parse_float=Decimal)
    # Runs from before their rows had classes, and an older worker beside this version, keep codes of another kind.
    if not classes or any("score_class" not in told for told in classes):
        return None
    return tuple(ScoreClass.of(told) for told in classes)
