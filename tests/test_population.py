"""Figures of customers in the form that scoring takes, and the numbers that tell them apart."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from app.analytics.population import UNITS_PER_CURRENCY
from app.analytics.summary import COUNT_FIGURES, DAY_FIGURES, MONEY_FIGURES
from app.few_customers import population_of
from app.population import SCORES_VERSION, Population
from app.store.populations import FoundCustomer

FIGURES = (*COUNT_FIGURES, *DAY_FIGURES, *MONEY_FIGURES)


def population(as_of_day: int = 20_000, kind: Any = np.int64, **changed: int) -> Population:
    """Two customers; what is changed is of the second."""
    figures = {name: np.array([number, number * 1_000], dtype=kind) for number, name in enumerate(FIGURES)}
    for name, value in changed.items():
        figures[name][1] = value
    return Population(as_of_day, ("c-1", "c-2"), figures)


@pytest.mark.parametrize("name", sorted({*FIGURES} - {"prior_year_order_count"}))
def test_a_digest_tells_every_figure(name: str) -> None:
    first, second = population().digests().tolist()
    value = int(population().figures[name][1])
    for other in (value + 1, value - 1, -value - 7, value + 10_000, value + 2**40):
        changed = population(**{name: other}).digests().tolist()
        assert changed[0] == first
        assert changed[1] != second


def test_a_digest_tells_the_day_and_which_figure_has_a_value() -> None:
    assert not set(population().digests().tolist()) & set(population(20_001).digests().tolist())
    swapped = population(net_spend=int(population().figures["net_cost"][1]))
    swapped.figures["net_cost"][1] = population().figures["net_spend"][1]
    assert swapped.digests()[1] != population().digests()[1]


def test_a_digest_tells_the_version_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    before = population().digests().tolist()
    monkeypatch.setattr("app.population.SCORES_VERSION", SCORES_VERSION + 1)
    assert not set(population().digests().tolist()) & set(before)


def test_figures_that_no_score_depends_on_change_no_digest() -> None:
    assert population(prior_year_order_count=77).digests().tolist() == population().digests().tolist()


def test_a_digest_is_of_the_numbers_however_they_are_held() -> None:
    large = population(kind=object, net_spend=2**70 + 5)
    assert large.digests()[0] == population().digests()[0]
    assert large.digests()[1] != population().digests()[1]
    assert population(kind=object).digests().tolist() == population().digests().tolist()
    assert population(kind=np.int32).digests().tolist() == population().digests().tolist()


def test_many_figures_have_as_many_digests() -> None:
    chance = np.random.default_rng(1)
    size = 200_000
    figures = {name: chance.integers(0, 4, size) * 10_000 for name in FIGURES if name != "prior_year_order_count"}
    told = Population(20_000, [str(number) for number in range(size)], figures)
    rows = np.unique(np.stack(list(figures.values())), axis=1).shape[1]
    assert len(set(told.digests().tolist())) == rows


@pytest.mark.parametrize("amounts", [(2**63 + 1, -1), (2**63 + 1, 5), (-(2**70), 3), (7, -8)])
def test_money_of_few_customers_stays_exact_whatever_its_size(amounts: tuple[int, int]) -> None:
    rows = {
        f"c-{place}": FoundCustomer({"net_spend": Decimal(units) / UNITS_PER_CURRENCY}, 0, None)
        for place, units in enumerate(amounts)
    }
    told = population_of(list(rows), rows, 20_000, None)
    assert told.figures["net_spend"].tolist() == list(amounts)
