"""Customers who share a history are valued once, and each gets what they would get alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.analytics import predictive, tabulation
from app.analytics.clv import ClvFit
from app.analytics.fit import Component, FittedModel
from app.analytics.gamma_gamma import FittedSpend
from app.analytics.summary import CustomerFigures
from app.analytics.tabulation import KeptTables
from app.analytics.valuation import ClvValues, value_clv
from tests.analytics.test_remembered import TERMS, customers, fit_of, rows_of

MEMBERS = ("bg_nbd", "mbg_nbd", "pareto_nbd", "mbg_cnbd_k")


@pytest.fixture(scope="module")
def fits() -> dict[str, ClvFit]:
    models = {name: fit_of(name) for name in MEMBERS}
    weights = ((0.4, 0.3, 0.2), (0.3, 0.1, 0.2), (0.2, 0.2, 0.3), (0.1, 0.4, 0.3))
    parts = [
        Component(made.purchases, share) for made, share in zip(models.values(), weights, strict=True) if made.purchases
    ]
    first = models["bg_nbd"]
    credible = FittedSpend("mean", "negative_margin", None, 5.0, 0.3, 0.2, None)

    def blend(parts: list[Component]) -> ClvFit:
        return replace(first, purchases=FittedModel("blend", {}, 0.0, {}, (), first.customers, tuple(parts)))

    return models | {
        "blend": blend(parts),
        "blend without a memory of timing": blend(parts[:3]),
        "credible mean": replace(first, basis="revenue", spend=credible),
        "negative margins": replace(first, spend=credible, spread=first.spend),
    }


def shared(size: int, most_cost: float) -> CustomerFigures:
    """Customers of few histories, each with money of their own: costs are up to so large a share of what is spent."""
    random = np.random.default_rng(3)
    figures = rows_of(customers(20, 3), random.integers(0, 20, size))
    net, first_day = (spend * random.uniform(0.5, 2.0, size) for spend in (figures.net_spend, figures.first_day_spend))
    first_day = np.minimum(net, first_day)
    cost = random.uniform(0.0, most_cost, size)
    return replace(
        figures,
        order_spend=net,
        net_spend=net,
        first_day_spend=first_day,
        net_cost=net * cost,
        first_day_cost=first_day * cost,
    )


def valued(fit: ClvFit, figures: CustomerFigures, **options: Any) -> ClvValues:
    return value_clv(fit, figures, np.zeros(figures.order_count.size, dtype=np.int8), TERMS, **options)


def assert_same(found: ClvValues, expected: ClvValues) -> None:
    for name in ClvValues.__slots__:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-10, atol=1e-13, err_msg=name)


NAMES = (*MEMBERS, "blend", "blend without a memory of timing", "credible mean", "negative margins")


@pytest.mark.parametrize("name", NAMES)
def test_customers_who_share_a_history_are_valued_as_each_alone(fits: dict[str, ClvFit], name: str) -> None:
    figures = shared(40, 2.0 if name == "negative margins" else 0.9)
    assert not figures.has_order.all()
    alone = [valued(fits[name], rows_of(figures, np.array([row]))) for row in range(40)]
    together = valued(fits[name], figures)
    joined = (np.concatenate([getattr(one, figure) for one in alone]) for figure in ClvValues.__slots__)
    assert_same(together, ClvValues(*joined))
    assert (together.interval_low <= together.interval_high)[figures.has_order].all()


def test_a_history_is_scored_once_whatever_the_money(fits: dict[str, ClvFit], monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[int] = []
    score = predictive.score

    def counting(fitted: FittedModel, x: Any, *arguments: Any) -> Any:
        scored.append(x.size)
        return score(fitted, x, *arguments)

    monkeypatch.setattr(predictive, "score", counting)
    figures = shared(500, 0.9)
    found = valued(fits["bg_nbd"], figures)
    bought = figures.has_order
    histories = np.stack([figures.frequency, figures.recency_days, figures.T_days])[:, bought]
    assert scored == [len(np.unique(histories.T, axis=0))]
    assert len(np.unique(found.predicted[bought])) > 2 * scored[0]


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_a_population_share_tables_and_get_the_same_values(
    fits: dict[str, ClvFit], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabulation, "FEW_ROWS", 0)
    figures = customers(600, 5)
    expected = valued(fits[name], figures)
    kept = KeptTables().of("run")
    random = np.random.default_rng(6)
    for rows in np.array_split(random.permutation(600), 3):
        found = valued(fits[name], rows_of(figures, rows), kept=kept)
        assert_same(found, ClvValues(*(getattr(expected, figure)[rows] for figure in ClvValues.__slots__)))
    assert kept.tables._cells


def test_a_cell_that_is_kept_is_not_tabulated_again(fits: dict[str, ClvFit], monkeypatch: pytest.MonkeyPatch) -> None:
    figures, kept = customers(2_000, 5), KeptTables().of("run")
    expected = valued(fits["blend without a memory of timing"], figures, kept=kept)
    monkeypatch.delattr(tabulation, "_tabulate")
    assert_same(valued(fits["blend without a memory of timing"], figures, kept=kept), expected)


def test_more_cells_than_are_kept_are_tabulated_as_without_keeping(
    fits: dict[str, ClvFit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabulation, "MOST_CELLS", 100)
    figures, kept = customers(2_000, 5), KeptTables().of("run")
    assert_same(valued(fits["bg_nbd"], figures, kept=kept), valued(fits["bg_nbd"], figures))
    assert not kept.tables._cells
