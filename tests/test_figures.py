"""The figures by SQL equal the reference in every field, to the last digit, at any moment."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.analytics.booking import add_up, empty_figures
from app.analytics.population import UNITS_PER_CURRENCY
from app.analytics.summary import DAY_FIGURES, MONEY_FIGURES, Summary, counted_orders, summarise
from app.population import day_number
from app.store import populations
from app.store.figures import (
    FIGURE_COLUMNS,
    FIGURES_OF_CUSTOMERS,
    LIFETIME_COLUMNS,
    LIVE_FIGURES,
    PERIOD_COLUMNS,
)
from tests.conftest import Client, make_workspace, order
from tests.histories import History, deliveries, histories
from tests.test_summary import deliver

WINDOWS = st.sampled_from([None, 1, 30, 180, 365, 366, 900])


def expected_figures(history: History, customer_id: str, window_days: int | None) -> dict[str, Any]:
    return asdict(summarise(history.reference(customer_id), history.as_of, history.as_of_day, window_days))


async def fetch(engine: AsyncEngine, statement: TextClause, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    async with engine.connect() as connection:
        rows = await connection.execute(statement, values)
        return {row["customer_id"]: dict(row) for row in rows.mappings()}


@given(data=st.data())
async def test_figures_of_any_moment_equal_the_reference(engine: AsyncEngine, data: Any) -> None:
    sent, window_days = data.draw(histories(others=True)), data.draw(WINDOWS)
    workspace, _ = await make_workspace(engine, time_zone=sent.time_zone.key)
    history = await deliver(engine, workspace, sent, data.draw(deliveries(sent)))
    values = {
        "workspace_id": workspace.id,
        "as_of": history.as_of,
        "as_of_day": history.as_of_day,
        "window_days": window_days,
    }
    asked = data.draw(st.sets(st.sampled_from(["c0", "c1", "c2", "c3", "nobody"])))
    found = await fetch(engine, FIGURES_OF_CUSTOMERS, values | {"customer_ids": sorted(asked)})
    assert set(found) <= asked & set(history.customer_ids)
    nothing = asdict(Summary())
    for customer_id in asked & set(history.customer_ids):
        row = {name: found.get(customer_id, nothing)[name] for name in FIGURE_COLUMNS}
        assert row == expected_figures(history, customer_id, window_days), customer_id


@given(data=st.data())
async def test_figures_of_a_run_equal_the_reference(engine: AsyncEngine, data: Any) -> None:
    sent, window_days = data.draw(histories(others=True)), data.draw(WINDOWS)
    workspace, _ = await make_workspace(engine, time_zone=sent.time_zone.key)
    history = await deliver(engine, workspace, sent, data.draw(deliveries(sent)))
    found: dict[str, dict[str, Any]] = {}
    days: dict[str, list[int]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(populations, "CUSTOMERS_A_PIECE", data.draw(st.integers(1, 4)))
        async with engine.connect() as connection:
            async for piece in populations.read_population(connection, workspace.id, history.as_of, "", "\U0010ffff"):
                ids = piece.customer_ids
                figures = empty_figures(len(ids), window_days)
                purchase_days = add_up(piece.bookings, figures, day_number(history.as_of_day), window_days)
                ends = figures["purchase_days"].cumsum().tolist()
                for place, customer_id in enumerate(ids):
                    found[customer_id] = {name: column[place].item() for name, column in figures.items()}
                    begin = ends[place] - found[customer_id]["purchase_days"]
                    days[customer_id] = purchase_days[begin : ends[place]].tolist()
    known = {event.customer_id for event in history.events if event.reference.occurred_at <= history.as_of}
    assert list(found) == sorted(known)
    for customer_id in known:
        expected = expected_figures(history, customer_id, window_days)
        if window_days is None:
            assert expected.pop("window_order_count") == expected["order_count"]
            assert expected.pop("window_net_spend") == expected["net_spend"]
        for name, figure in expected.items():
            if name in DAY_FIGURES:
                expected[name] = day_number(figure) if figure else 0
            elif name in MONEY_FIGURES:
                expected[name] = int(figure * UNITS_PER_CURRENCY)
        assert found[customer_id] == expected, customer_id
        orders = counted_orders(history.reference(customer_id), history.as_of)
        assert days[customer_id] == sorted({day_number(order.day) for order in orders})


async def test_customers_whose_hashes_are_equal_are_told_apart(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await client.record(*(order(f"o-{n}", f"{n}.00", customer_id=f"c-{n % 7}") for n in range(30)))
    as_of = datetime(2026, 1, 1, tzinfo=UTC)

    async def spends(engine: AsyncEngine) -> dict[str, int]:
        async with engine.connect() as connection:
            [piece] = [
                one async for one in populations.read_population(connection, client.workspace.id, as_of, "", "c-9")
            ]
        figures = empty_figures(len(piece.customer_ids))
        add_up(piece.bookings, figures, 20_454)
        return dict(zip(piece.customer_ids, figures["net_spend"].tolist(), strict=True))

    engine = client.http._transport.app.state.engine  # type: ignore[attr-defined]
    expected = {f"c-{n}": sum(range(n, 30, 7)) * UNITS_PER_CURRENCY for n in range(7)}
    assert await spends(engine) == expected
    # With the seed 0 every customer has the same hash.
    for name in ("_IDS", "_UNADJUSTED"):
        statement = getattr(populations, name).text.replace(
            "hashtextextended(", "sign(CAST(:seed AS bigint))::bigint * hashtextextended("
        )
        monkeypatch.setattr(populations, name, text(statement))
    assert await spends(engine) == expected


@given(data=st.data())
async def test_live_figures_equal_the_reference_from_the_latest_order_event_on(engine: AsyncEngine, data: Any) -> None:
    sent, window_days = data.draw(histories(others=True)), data.draw(WINDOWS)
    workspace, _ = await make_workspace(engine, time_zone=sent.time_zone.key)
    history = await deliver(engine, workspace, sent, data.draw(deliveries(sent)))
    # The tightest that is allowed: just before the first day of the longest period.
    days = max(2 * 365, window_days or 0)
    first_day = history.as_of_day - timedelta(days=days - 1)
    since = datetime.combine(first_day, time(), history.time_zone) - timedelta(microseconds=1)
    values = {
        "workspace_id": workspace.id,
        "as_of": history.as_of,
        "as_of_day": history.as_of_day,
        "window_days": window_days,
        "since": since,
        "customer_ids": ["nobody", *history.customer_ids],
    }
    found = await fetch(engine, LIVE_FIGURES, values)
    assert sorted(found) == history.customer_ids
    for customer_id, row in found.items():
        if history.as_of < row["latest_order_event_at"]:
            continue
        if window_days is None:
            row |= {"window_order_count": row["order_count"], "window_net_spend": row["net_spend"]}
        figures = {name: row[name] for name in LIFETIME_COLUMNS} | {name: row[name] or 0 for name in PERIOD_COLUMNS}
        assert figures == expected_figures(history, customer_id, window_days), customer_id


async def test_orders_meet_their_adjustments_by_grouping_or_by_index_whatever_the_statistics(
    engine: AsyncEngine,
) -> None:
    workspace, _ = await make_workspace(engine)
    values = {
        "workspace_id": workspace.id,
        "customer_ids": ["c-1"],
        "as_of": datetime(2025, 1, 1, tzinfo=UTC),
        "as_of_day": date(2025, 1, 1),
        "window_days": None,
    }
    async with engine.connect() as connection:
        plan = "\n".join((await connection.execute(text(f"EXPLAIN {FIGURES_OF_CUSTOMERS.text}"), values)).scalars())
    assert "Aggregate" in plan
    assert not any(join in plan for join in ("Nested Loop", "Join"))
    # A refund that tells a currency asks for its order's, and for nothing else's.
    looked_up = plan.rpartition("SubPlan")[2].partition("->  Subquery")[0]
    assert "uq_events_order" in looked_up
    assert "(order_id = events" in looked_up
