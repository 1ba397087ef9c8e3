"""Figures of a few customers, from the rows that the store answers, as scoring takes them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection

from app.analytics.lifecycle import DEFAULT_LIMITS as STATUS_LIMITS
from app.analytics.population import UNITS_LIMIT, UNITS_PER_CURRENCY
from app.analytics.summary import COUNT_FIGURES, DAY_FIGURES, MONEY_FIGURES
from app.population import EPOCH_DAY, Population, day_number
from app.store import populations as population_store
from app.store.populations import FoundCustomer
from app.store.workspaces import Workspace


def population_of(
    customer_ids: Sequence[str],
    rows: Mapping[str, FoundCustomer],
    as_of_day: int,
    window_days: int | None,
) -> Population:
    """The figures of a few customers as arrays; one with nothing booked has zeros."""
    found = [rows[customer_id].figures or {} for customer_id in customer_ids]

    def column(name: str) -> list[Any]:
        return [row.get(name) for row in found]

    figures: dict[str, Any] = {}
    for name in COUNT_FIGURES:
        figures[name] = np.array([value or 0 for value in column(name)], dtype=np.int64)
    for name in DAY_FIGURES:
        figures[name] = np.array([day_number(day or EPOCH_DAY) for day in column(name)], dtype=np.int64)
    for name in MONEY_FIGURES:
        units = [int((money or 0) * UNITS_PER_CURRENCY) for money in column(name)]
        # A sum beyond 64 bits stays exact as a Python integer.
        fits = max(map(abs, units), default=0) < UNITS_LIMIT
        figures[name] = np.array(units, dtype=np.int64 if fits else np.object_)
    if window_days is None:
        figures["window_order_count"] = figures["order_count"]
        figures["window_net_spend"] = figures["net_spend"]
    return Population(as_of_day, customer_ids, figures)


async def latest_days(
    connection: AsyncConnection, workspace: Workspace, customer_id: str, as_of: datetime
) -> list[int]:
    """The last purchase days that keep a status, the latest first."""
    days = await population_store.latest_purchase_days(
        connection, workspace.id, customer_id, as_of, STATUS_LIMITS.active_purchase_days
    )
    return [day_number(day) for day in days]
