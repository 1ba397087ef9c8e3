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

from app.analytics.summary import Summary, summarise
from app.store.figures import (
    FIGURE_COLUMNS,
    FIGURES_OF_CUSTOMER_RANGE,
    FIGURES_OF_CUSTOMERS,
    LIFETIME_COLUMNS,
    LIVE_FIGURES,
    PERIOD_COLUMNS,
)
from tests.conftest import make_workspace
from tests.histories import History, deliveries, histories
from tests.test_summary import deliver

WINDOWS = st.sampled_from([None, 1, 30, 180, 365, 366, 900])


def expected_figures(history: History, customer_id: str, window_days: int | None) -> dict[str, Any]:
    return asdict(summarise(history.reference(customer_id), history.as_of, history.as_of_day, window_days))


async def fetch(engine: AsyncEngine, statement: TextClause, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    async with engine.connect() as connection:
        rows = await connection.execute(statement, values)
        return {row["customer_id"]: dict(row) for row in rows.mappings()}


@pytest.mark.parametrize("statement", ["of customers", "of a range"])
@given(data=st.data())
async def test_figures_of_any_moment_equal_the_reference(engine: AsyncEngine, statement: str, data: Any) -> None:
    history, window_days = data.draw(histories()), data.draw(WINDOWS)
    workspace, _ = await make_workspace(engine, time_zone=history.time_zone.key)
    await deliver(engine, workspace, data.draw(deliveries(history)))
    values = {
        "workspace_id": workspace.id,
        "as_of": history.as_of,
        "as_of_day": history.as_of_day,
        "window_days": window_days,
    }
    if statement == "of customers":
        asked = data.draw(st.sets(st.sampled_from(["c0", "c1", "c2", "c3", "nobody"])))
        found = await fetch(engine, FIGURES_OF_CUSTOMERS, values | {"customer_ids": sorted(asked)})
    else:
        after, until = data.draw(st.sampled_from([("", "c9"), ("c0", "c2"), ("c1", "c1"), ("b", "c0")]))
        asked = {customer_id for customer_id in history.customer_ids if after < customer_id <= until}
        found = await fetch(engine, FIGURES_OF_CUSTOMER_RANGE, values | {"after": after, "until": until})
    assert set(found) <= asked & set(history.customer_ids)
    nothing = asdict(Summary())
    for customer_id in asked & set(history.customer_ids):
        row = {name: found.get(customer_id, nothing)[name] for name in FIGURE_COLUMNS}
        assert row == expected_figures(history, customer_id, window_days), customer_id


@given(data=st.data())
async def test_live_figures_equal_the_reference_from_the_latest_order_event_on(engine: AsyncEngine, data: Any) -> None:
    history, window_days = data.draw(histories()), data.draw(WINDOWS)
    workspace, _ = await make_workspace(engine, time_zone=history.time_zone.key)
    await deliver(engine, workspace, data.draw(deliveries(history)))
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
        "partition": None,
        "run_id": None,
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


async def test_orders_meet_their_adjustments_without_a_join_whatever_the_statistics(engine: AsyncEngine) -> None:
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
