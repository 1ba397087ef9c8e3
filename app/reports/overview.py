"""Customers, orders and revenue, in total and by month, from the orders themselves."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.reports.months import last_months
from app.reports.terms import ZERO, CurrencyCode, mean, mean_money
from app.scalars import Instant, SignedMoney
from app.store import reports as store
from app.store.engine import autocommit
from app.store.workspaces import Workspace


@dataclass(frozen=True, slots=True)
class OverviewMonth:
    """A calendar month in the workspace's time zone; the last one up to `as_of`."""

    month: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}$", examples=["2026-01"])]
    orders: Annotated[int, Field(description="That count at `as_of`.", examples=[320])]
    revenue: Annotated[SignedMoney, Field(description="Net of the orders, less refunds without order.")]
    average_order_value: Annotated[SignedMoney | None, Field(description="revenue / orders")]
    buyers: Annotated[int, Field(description="Customers with an order of the month.", examples=[250])]
    new_customers: Annotated[int, Field(description="Buyers whose first order is of the month.", examples=[60])]
    returning_customers: Annotated[int, Field(description="buyers - new_customers", examples=[190])]
    purchase_frequency: Annotated[float | None, Field(description="orders / buyers", examples=[1.28])]
    repeat_rate: Annotated[float | None, Field(description="returning_customers / buyers", examples=[0.76])]


@dataclass(frozen=True, slots=True)
class Overview:
    """The workspace's customers and orders at a moment, from the events themselves; no run is needed.

    Orders count as everywhere: placed by then, not cancelled and not wholly refunded by then, net of refunds, booked
    on the order's day.
    """

    as_of: Instant
    currency: CurrencyCode
    time_zone: Annotated[str, Field(examples=["Europe/Berlin"])]
    customers: Annotated[int, Field(description="With any event.", examples=[1000])]
    buyers: Annotated[int, Field(description="With an order that counts.", examples=[900])]
    repeat_buyers: Annotated[int, Field(description="With orders on two days or more.", examples=[400])]
    orders: Annotated[int, Field(description="That count.", examples=[2900])]
    revenue: Annotated[SignedMoney, Field(description="Net of the orders, less refunds without order.")]
    average_order_value: Annotated[SignedMoney | None, Field(description="revenue / orders")]
    purchase_frequency: Annotated[float | None, Field(description="orders / buyers", examples=[3.22])]
    repeat_rate: Annotated[float | None, Field(description="repeat_buyers / buyers", examples=[0.44])]
    months: Annotated[list[OverviewMonth], Field(description="Oldest first, empty months too.")]


@dataclass(slots=True)
class _MonthSums:
    """Sums over rows of ``store.sum_by_month``."""

    orders: int = 0
    revenue: Decimal = ZERO
    buyers: int = 0
    new: int = 0
    repeat: int = 0

    def add(self, row: Row[Any]) -> None:
        self.orders += row.orders
        self.revenue += row.net
        self.buyers += row.customers
        self.new += row.new_customers
        self.repeat += row.repeat_customers


async def overview_report(engine: AsyncEngine, workspace: Workspace, as_of: datetime, months: int) -> Overview:
    """Totals of all time up to ``as_of``, and its last ``months`` calendar months."""
    async with autocommit(engine).connect() as connection:
        rows = await store.sum_by_month(connection, workspace.id, as_of)
    by_month: defaultdict[date | None, _MonthSums] = defaultdict(_MonthSums)
    everything = _MonthSums()
    for row in rows:
        if row.part != store.CUSTOMERS:
            by_month[row.month].add(row)
            everything.add(row)
    customers = sum(row.customers for row in rows if row.part == store.CUSTOMERS)

    def month(day: date) -> OverviewMonth:
        sums = by_month[day]
        returning = sums.buyers - sums.new
        return OverviewMonth(
            month=f"{day.year:04}-{day.month:02}",
            orders=sums.orders,
            revenue=sums.revenue,
            average_order_value=mean_money(sums.revenue, sums.orders),
            buyers=sums.buyers,
            new_customers=sums.new,
            returning_customers=returning,
            purchase_frequency=mean(sums.orders, sums.buyers),
            repeat_rate=mean(returning, sums.buyers),
        )

    return Overview(
        as_of=as_of,
        currency=workspace.currency,
        time_zone=workspace.time_zone.key,
        customers=customers,
        # Each buyer is new once.
        buyers=everything.new,
        repeat_buyers=everything.repeat,
        orders=everything.orders,
        revenue=everything.revenue,
        average_order_value=mean_money(everything.revenue, everything.orders),
        purchase_frequency=mean(everything.orders, everything.new),
        repeat_rate=mean(everything.repeat, everything.new),
        months=[month(day) for day in last_months(workspace.local_day(as_of), months)],
    )
