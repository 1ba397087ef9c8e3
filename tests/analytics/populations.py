"""Fits of small populations, given a row a customer in the order of ids: cut into parts, as runs have them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.analytics.counted import Counted, Place, find_place
from app.analytics.pareto import (
    AbcFit,
    AbcSettings,
    ParetoCurve,
    cumulative_share,
    grade_by_boundaries,
    rank_spend,
    spend_before,
)
from app.analytics.rfm import RfmFit, RfmSettings, f_boundaries, fit_rfm


def _counts(values: NDArray[np.int64], has_order: NDArray[np.bool_], parts: int) -> list[Counted]:
    rows = np.array_split(np.arange(values.size), parts)
    return [Counted.of(values[some][has_order[some]]) for some in rows]


def _ids(
    places: Sequence[Place], values: NDArray[np.int64], has_order: NDArray[np.bool_], ids: Sequence[str], parts: int
) -> dict[Place, str]:
    """The ids of customers by place, looked for as a run does: in the part that they are in."""
    found = {}
    rows = np.array_split(np.arange(values.size), parts)
    for place in places:
        part, there = find_place(place, _counts(values, has_order, parts))
        alike = rows[part][(values[rows[part]] == there.value) & has_order[rows[part]]]
        found[place] = ids[int(alike[there.nth])]
    return found


def fit_rfm_of(
    settings: RfmSettings,
    *,
    days_since_last_order: NDArray[np.int64],
    order_count: NDArray[np.int64],
    net_spend: NDArray[np.float64],
    has_order: NDArray[np.bool_],
    customer_ids: Sequence[str],
    parts: int = 1,
) -> RfmFit:
    units = np.rint(net_spend * 10_000).astype(np.int64)
    days, orders, spend = (
        Counted.joined(_counts(figures, has_order, parts)) for figures in (days_since_last_order, order_count, units)
    )
    ranked = _ids(f_boundaries(settings, orders), order_count, has_order, customer_ids, parts)
    return fit_rfm(settings, days_since_last_order=days, order_count=orders, net_spend=spend, ranked=ranked)


@dataclass(frozen=True)
class Graded:
    """A population by ABC: codes and shares (n,)."""

    fit: AbcFit
    grade: NDArray[np.int8]
    cumulative_share: NDArray[np.float64]
    curve: ParetoCurve


def grade_abc(
    ids: Sequence[str],
    units: NDArray[np.int64],
    has_order: NDArray[np.bool_],
    settings: AbcSettings | None = None,
    parts: int = 1,
) -> Graded:
    counts = _counts(units, has_order, parts)
    spend = Counted.joined(counts)
    ranked = rank_spend(spend, settings)
    fit = ranked.fit(_ids(ranked.places, units, has_order, ids, parts))
    rows = np.array_split(np.arange(units.size), parts)
    shares = [
        cumulative_share(units[some], has_order[some], before, fit.positive_units)
        for some, before in zip(rows, spend_before(spend, counts), strict=True)
    ]
    return Graded(fit, grade_by_boundaries(fit, units, has_order, ids), np.concatenate(shares), ranked.curve)
