"""Values that are remembered are those that would be computed."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.analytics import predictive, remembered, tabulation
from app.analytics.clv import ClvFit
from app.analytics.gamma_gamma import fit_spend
from app.analytics.remembered import RememberedValues
from app.analytics.summary import CustomerFigures
from app.analytics.textbook import TextbookFit, TextbookGroup
from app.analytics.valuation import ValuationTerms, mean_purchase_value, value_clv, value_histories

TERMS = ValuationTerms(horizon_days=365, discount_rate=0.1, interval_level=0.9, churn_horizon_days=180)
AS_OF_DAY = 20_000


def customers(size: int, seed: int, regularity: int = 1) -> CustomerFigures:
    """Customers who buy at rates of their own until they leave, and a tenth who never bought."""
    chance = np.random.default_rng(seed)
    age = chance.integers(0, 700, size)
    repeats, recency = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    for row, (mean_days, leaves) in enumerate(
        zip(60 / chance.gamma(0.8, 1.0, size), chance.beta(0.9, 3.0, size), strict=True)
    ):
        day = 0
        while chance.random() > leaves:
            day += 1 + int(min(chance.gamma(regularity, mean_days / regularity), 1e6))
            if day > age[row]:
                break
            repeats[row], recency[row] = repeats[row] + 1, day
    bought = chance.random(size) > 0.1
    first = AS_OF_DAY - age
    spend = np.rint(chance.gamma(2.0, 20.0, size) * (repeats + 1) * 100) / 100
    orders = np.where(bought, repeats + 1, 0)
    none, zero = np.zeros(size, dtype=np.int64), np.zeros(size)
    return CustomerFigures(
        as_of_day=AS_OF_DAY,
        order_count=orders,
        purchase_days=orders,
        first_purchase_day=first,
        last_purchase_day=first + recency,
        net_spend=spend,
        net_cost=spend / 2,
        order_spend=spend,
        first_day_spend=spend / (repeats + 1),
        first_day_cost=spend / 2 / (repeats + 1),
        window_order_count=orders,
        window_net_spend=spend,
        year_order_count=orders,
        year_purchase_days=orders,
        year_net_spend=spend,
        year_cost=zero,
        prior_year_order_count=none,
        half_net_spend=zero,
        prior_half_net_spend=zero,
    )


def rows_of(figures: CustomerFigures, rows: NDArray[np.intp]) -> CustomerFigures:
    columns = (field.name for field in fields(figures) if field.name != "as_of_day")
    return replace(figures, **{name: getattr(figures, name)[rows] for name in columns})


@pytest.fixture(scope="module", params=["bg_nbd", "mbg_nbd", "pareto_nbd", "mbg_cnbd_k"])
def fit(request: pytest.FixtureRequest) -> ClvFit:
    return fit_of(request.param)


def fit_of(model: str) -> ClvFit:
    """A fit of margins, half of what is spent, to customers of whom enough come back."""
    figures = customers(3_000, 1, regularity=3 if model == "mbg_cnbd_k" else 1)
    bought = figures.has_order
    history = [
        column[bought].astype(np.float64) for column in (figures.frequency, figures.recency_days, figures.T_days)
    ]
    nobody = TextbookGroup(0, 0, 0.0, None, 0.0, 0, 0, None, 5.0)
    return ClvFit(
        "margin",
        int(bought.sum()),
        TextbookFit("margin", {}, nobody),
        predictive.fit_model(model, *history),
        fit_spend(history[0], mean_purchase_value(figures, "margin")[bought]),
    )


@pytest.mark.parametrize("horizon_days", [30, 365])
def test_remembered_values_are_those_that_a_run_computes(fit: ClvFit, horizon_days: int) -> None:
    figures, terms = customers(400, 2), replace(TERMS, horizon_days=horizon_days)
    segment = np.zeros(400, dtype=np.int8)
    expected = value_clv(fit, figures, segment, terms)
    memory = RememberedValues()
    for begin, end in ((0, 1), (1, 17), (0, 400), (390, 400)):
        part = rows_of(figures, np.arange(begin, end))
        found = memory.value("run", fit, part, terms)
        for name in found.__slots__:
            np.testing.assert_allclose(
                getattr(found, name), getattr(expected, name)[begin:end], rtol=1e-10, atol=1e-12, err_msg=name
            )


def test_a_history_is_valued_once(fit: ClvFit, monkeypatch: pytest.MonkeyPatch) -> None:
    valued: list[int] = []

    def counting(fit: ClvFit, frequency: NDArray[np.float64], *arguments: Any, **options: Any) -> Any:
        valued.append(frequency.size)
        return value_histories(fit, frequency, *arguments, **options)

    monkeypatch.setattr(remembered, "value_histories", counting)
    memory = RememberedValues()
    one = rows_of(customers(50, 3), np.repeat(np.arange(5), 4))
    spent = one.net_spend * np.arange(1, 21)
    one = replace(one, net_spend=spent, order_spend=spent)
    assert np.unique(np.stack([one.frequency, one.recency_days, one.T_days])[:, one.has_order], axis=1).shape[1] == 4
    for name in ("run", "run", "another run"):
        memory.value(name, fit, one, TERMS)
    assert valued == [4, 4]
    memory.value("run", fit, one, replace(TERMS, horizon_days=30))
    assert valued == [4, 4, 4]
    memory.value("run", fit, one, replace(TERMS, interval_level=0.8))
    assert valued == [4, 4, 4, 4]


def test_what_is_remembered_is_bounded_and_stays_right(fit: ClvFit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST_HISTORIES", 7)
    monkeypatch.setattr(tabulation, "MOST_CELLS", 5)
    monkeypatch.setattr(tabulation, "MOST_SHELVES", 2)
    figures = customers(60, 4)
    expected = value_clv(fit, figures, np.zeros(60, dtype=np.int8), TERMS)
    memory = RememberedValues()
    for _ in range(2):
        found = memory.value("run", fit, figures, TERMS)
        np.testing.assert_allclose(found.interval_high, expected.interval_high, rtol=1e-10)
        assert len(memory._known) == 7
        assert (len(memory._tables._cells), len(memory._tables._shelves)) == (5, 2)
