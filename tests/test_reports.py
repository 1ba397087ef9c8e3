"""Reports equal what plain Python makes of the events that were sent."""

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from app import run_fitting
from tests.conftest import Client, event, make_client, order
from tests.histories import histories
from tests.test_runs import run

ZONE = "America/New_York"
FIRST, SECOND = "2025-12-31T23:30:00Z", "2026-03-15T12:00:00Z"

SEGMENT_ROWS = {
    5: "new_customers potential_loyalists potential_loyalists champions champions",
    4: "promising potential_loyalists potential_loyalists loyal_customers loyal_customers",
    3: "about_to_sleep about_to_sleep need_attention loyal_customers loyal_customers",
    2: "hibernating hibernating at_risk at_risk cant_lose",
    1: "hibernating hibernating at_risk at_risk cant_lose",
}
GRID = {"44": "stars", "43": "stars", "11": "lost"}


def shop_events(seed: int, customers: int = 40) -> list[dict[str, Any]]:
    """Orders of a few years with cancellations, refunds, credits, costs and another currency; and two prospects."""
    chance = random.Random(seed)
    events = [event("customer.created", name, "2024-06-01T00:00:00Z", name="Ada") for name in ("prospect-1", "zoë")]
    for number in range(customers):
        customer_id = f"c-{number:02}"
        begin = datetime(2023, 10, 1, tzinfo=UTC) + timedelta(days=chance.randrange(870))
        for placed in range(chance.choice([1, 1, 1, 2, 3, 5, 8, 12])):
            at = begin + timedelta(days=chance.choice([0, 0, 3, 20, 45, 90, 200, 300]) * placed, hours=placed * 5)
            if at.year > 2026 or at > datetime(2026, 3, 20, tzinfo=UTC):
                break
            order_id, amount = f"o-{placed}", Decimal(chance.randrange(0, 400_000)) / 1000
            foreign = {"currency": "EUR", "exchange_rate": "0.0625"} if chance.random() < 0.2 else {}
            cost = {"cost": f"{amount * chance.randrange(0, 12) / 10:.4f}"} if chance.random() < 0.7 else {}
            sent = {"customer_id": customer_id, **foreign, **cost}
            events.append(order(order_id, str(amount), at.isoformat(), **sent))
            later = (at + timedelta(days=chance.choice([-1, 0, 10, 100]))).isoformat()
            change = chance.random()
            if change < 0.1:
                events.append(event("order.cancelled", customer_id, later, order_id=order_id))
            elif change < 0.3 and amount > 1:
                part = amount if change < 0.15 else (amount / 3).quantize(Decimal("0.01"))
                events.append(event("order.refunded", customer_id, later, order_id=order_id, amount=str(part)))
            elif change < 0.4:
                credit = {"amount": str(chance.choice([1, 30, 900])), "currency": "USD"}
                events.append(event("order.refunded", customer_id, later, **credit))
    return events


@dataclass
class Booked:
    """What counts of a customer: day, net and cost of each order, and day and amount of each credit."""

    orders: list[tuple[date, Decimal, Decimal]] = field(default_factory=list)
    credits: list[tuple[date, Decimal]] = field(default_factory=list)

    @property
    def days(self) -> list[date]:
        return sorted({day for day, _, _ in self.orders})

    def net(self, after: date = date.min) -> Decimal:
        credits = sum((amount for day, amount in self.credits if day > after), Decimal(0))
        return sum((net for day, net, _ in self.orders if day > after), Decimal(0)) - credits

    def margin(self) -> Decimal:
        return self.net() - sum((cost for _, _, cost in self.orders), Decimal(0))

    def count(self, after: date = date.min) -> int:
        return sum(day > after for day, _, _ in self.orders)


def money(exact: Fraction) -> Decimal:
    return Decimal(round(exact * 10_000)).scaleb(-4)


def rate(data: dict[str, Any]) -> Fraction:
    return Fraction(data.get("exchange_rate") or "1")


def book(events: Iterable[dict[str, Any]], as_of: str, zone: str) -> dict[str, Booked]:
    """All customers with an event by ``as_of``."""
    until = datetime.fromisoformat(as_of)
    known = [one for one in events if datetime.fromisoformat(one["occurred_at"]) <= until]
    cancelled = {(one["customer_id"], one["data"]["order_id"]) for one in known if one["type"] == "order.cancelled"}
    refunds: dict[Any, Fraction] = defaultdict(Fraction)
    for one in known:
        if one["type"] == "order.refunded" and "order_id" in one["data"]:
            refunds[one["customer_id"], one["data"]["order_id"]] += Fraction(one["data"]["amount"])
    found: dict[str, Booked] = defaultdict(Booked)
    for one in known:
        customer, data = found[one["customer_id"]], one["data"]
        day = datetime.fromisoformat(one["occurred_at"]).astimezone(ZoneInfo(zone)).date()
        if one["type"] == "order.placed":
            amount, refunded = Fraction(data["amount"]), refunds[one["customer_id"], data["order_id"]]
            if (one["customer_id"], data["order_id"]) in cancelled or (refunded and refunded >= amount):
                continue
            kept = (amount - refunded) / amount if refunded else Fraction(1)
            cost = Fraction(data.get("cost") or "0") * kept * rate(data)
            customer.orders.append((day, money((amount - refunded) * rate(data)), money(cost)))
        elif one["type"] == "order.refunded" and "order_id" not in data:
            customer.credits.append((day, money(Fraction(data["amount"]) * rate(data))))
    return found


@dataclass
class Scored:
    """A customer with an order that counts, graded."""

    r: int
    f: int
    m: int
    segment: str | None
    days: int
    orders: int
    net: Decimal


def score(
    booked: dict[str, Booked], as_of: str, zone: str, k: int = 5, window: int | None = None, grid: Any = None
) -> tuple[dict[str, Scored], list[list[float]]]:
    """Grades of the customers who bought, and the cut points."""
    today = datetime.fromisoformat(as_of).astimezone(ZoneInfo(zone)).date()
    after = today - timedelta(days=window) if window else date.min
    figures = {
        name: ((today - one.days[-1]).days, one.count(after), one.net(after))
        for name, one in booked.items()
        if one.days
    }
    quantiles = [number / k for number in range(1, k)]
    cuts = [np.quantile([float(row[part]) for row in figures.values()], quantiles).tolist() for part in range(3)]
    scores = {}
    for name, (days, orders, net) in figures.items():
        r = k - sum(cut < days for cut in cuts[0])
        f, m = (1 + sum(cut < float(figure) for cut in cuts[part]) for part, figure in ((1, orders), (2, net)))
        segment = None
        if grid:
            segment = grid.get(f"{r}{f}")
        elif k == 5:
            segment = SEGMENT_ROWS[r].split()[f - 1]
        elif k == 3:
            segment = "high_value" if r + f + m >= 8 else "medium_value" if r + f + m >= 5 else "low_value"
        scores[name] = Scored(r, f, m, segment, days, orders, net)
    return scores, cuts


def grade(spends: dict[str, Decimal]) -> dict[str, str]:
    """ABC: falling by spend, then by id."""
    total = sum(max(spend, Decimal(0)) for spend in spends.values())
    before, grades = Decimal(0), {}
    for name in sorted(spends, key=lambda name: (-spends[name], name)):
        grades[name] = "A" if before < total * Decimal("0.80") else "B" if before < total * Decimal("0.95") else "C"
        before += max(spends[name], Decimal(0))
    return grades


def shown(amount: Decimal) -> str:
    """As the API shows money."""
    whole, _, fraction = f"{amount:.4f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def mean_money(total: Decimal, count: int) -> str | None:
    return shown(money(Fraction(total) / count)) if count else None


def share(part: Any, whole: Any) -> Any:
    return pytest.approx(float(part) / float(whole)) if whole > 0 else None


def means(of: list[Scored]) -> dict[str, Any]:
    return {
        "days_since_last_order": share(sum(one.days for one in of), len(of)),
        "order_count": share(sum(one.orders for one in of), len(of)),
        "net_spend": mean_money(sum((one.net for one in of), Decimal(0)), len(of)),
    }


def part(of: list[Scored], everyone: list[Scored]) -> dict[str, Any]:
    net, total = (sum((one.net for one in some), Decimal(0)) for some in (of, everyone))
    return {
        "customers": len(of),
        "customer_share": share(len(of), len(everyone)),
        "net_spend": shown(net),
        "net_spend_share": share(net, total),
    }


async def send(client: Client, events: list[dict[str, Any]]) -> None:
    receipt = await client.record(*events)
    assert receipt["rejected"] == 0, receipt


@pytest.mark.parametrize(
    ("k", "window", "grid", "large"),
    [
        (5, None, None, False),
        (5, 90, None, True),
        (3, None, None, False),
        (4, 400, None, False),
        (4, None, GRID, False),
    ],
)
async def test_rfm_report_equals_a_count_by_hand(
    app: FastAPI, engine: AsyncEngine, monkeypatch: Any, k: int, window: int | None, grid: Any, large: bool
) -> None:
    client, events = await make_client(app, time_zone=ZONE), shop_events(k)
    if large:
        monkeypatch.setattr(run_fitting, "LARGE_RUN_CUSTOMERS", 10)
    await send(client, events)
    done = await run(client, engine, as_of=SECOND, settings={"rfm": {"k": k, "window_days": window, "grid": grid}})
    booked = book(events, SECOND, ZONE)
    scores, cuts = score(booked, SECOND, ZONE, k, window, grid)
    everyone = list(scores.values())
    report = await client.get("/v1/reports/rfm")
    assert (report["run_id"], report["as_of"], report["currency"]) == (done["id"], SECOND, "USD")
    assert (report["k"], report["window_days"]) == (k, window)
    assert report["customers"] == len(scores) > 30
    assert report["customers_without_order"] == len(booked) - len(scores) > 1
    assert report["net_spend"] == part(everyone, everyone)["net_spend"]
    assert report["mean"] == means(everyone)
    assert report["cut_points"]["r"] == pytest.approx(cuts[0])
    assert report["cut_points"]["f"] == pytest.approx(cuts[1])
    assert [float(cut) for cut in report["cut_points"]["m"]] == pytest.approx(cuts[2], abs=1e-4)
    grades = range(1, k + 1)
    assert [(cell["r"], cell["f"]) for cell in report["grid"]] == [(r, f) for r in reversed(grades) for f in grades]
    for cell in report["grid"]:
        of = [one for one in everyone if (one.r, one.f) == (cell["r"], cell["f"])]
        segments = {one.segment for one in of}
        expected = {"r": cell["r"], "f": cell["f"], "segment": segments.pop() if len(segments) == 1 else None}
        assert cell == expected | part(of, everyone)
    names = {one.segment for one in everyone}
    assert names <= {row["segment"] for row in report["segments"]}
    assert sum(row["customers"] for row in report["segments"]) == len(everyone)
    for row in report["segments"]:
        of = [one for one in everyone if one.segment == row["segment"]]
        assert row == {"segment": row["segment"], "mean": means(of)} | part(of, everyone)
    if k == 5:
        assert len(report["segments"]) == 10
    await client.http.aclose()


@pytest.mark.parametrize("basis", ["revenue", "margin"])
async def test_abc_report_equals_a_count_by_hand(app: FastAPI, engine: AsyncEngine, basis: str) -> None:
    client, events = await make_client(app, time_zone=ZONE), shop_events(11)
    await send(client, events)
    done = await run(client, engine, as_of=SECOND, settings={"abc": {"basis": basis}})
    booked = book(events, SECOND, ZONE)
    spends = {name: one.net() if basis == "revenue" else one.margin() for name, one in booked.items() if one.days}
    assert min(spends.values()) < 0
    grades = grade(spends)
    positive = sum(max(spend, Decimal(0)) for spend in spends.values())
    report = await client.get("/v1/reports/abc", run_id=done["id"])
    assert (report["run_id"], report["basis"], report["as_of"]) == (done["id"], basis, SECOND)
    assert (report["customers"], report["customers_without_order"]) == (len(spends), len(booked) - len(spends))
    assert report["net_spend"] == shown(sum(spends.values(), Decimal(0)))
    assert report["positive_net_spend"] == shown(Decimal(positive))
    for row, name in zip(report["grades"], "ABC", strict=True):
        of = [spend for customer, spend in spends.items() if grades[customer] == name]
        assert row == {
            "grade": name,
            "customers": len(of),
            "customer_share": share(len(of), len(spends)),
            "net_spend": shown(sum(of, Decimal(0))),
            "net_spend_share": share(sum(max(spend, Decimal(0)) for spend in of), positive),
        }
    last = {name: min(spend for customer, spend in spends.items() if grades[customer] == name) for name in "AB"}
    assert report["boundaries"] == [
        {"grade": "A", "share": 0.8, "net_spend": shown(last["A"])},
        {"grade": "B", "share": 0.95, "net_spend": shown(last["B"])},
    ]
    falling = sorted((max(spend, Decimal(0)) for spend in spends.values()), reverse=True)
    assert [point["customers"] for point in report["curve"]] == list(range(len(spends) + 1))
    for point in report["curve"]:
        assert point["customer_share"] == share(point["customers"], len(spends))
        assert point["net_spend_share"] == share(sum(falling[: point["customers"]]), positive)
    await client.http.aclose()


def expected_overview(events: list[dict[str, Any]], as_of: str, zone: str, months: int) -> dict[str, Any]:
    booked = book(events, as_of, zone)
    today = datetime.fromisoformat(as_of).astimezone(ZoneInfo(zone)).date()
    buyers = [one for one in booked.values() if one.days]
    orders, revenue = (
        sum(one.count() for one in booked.values()),
        sum((one.net() for one in booked.values()), Decimal(0)),
    )
    repeat = sum(len(one.days) > 1 for one in buyers)
    rows = []
    for back in range(months - 1, -1, -1):
        number = today.year * 12 + today.month - 1 - back
        month = f"{number // 12}-{number % 12 + 1:02}"
        of_orders = [net for one in buyers for day, net, _ in one.orders if f"{day:%Y-%m}" == month]
        of_credits = [amount for one in booked.values() for day, amount in one.credits if f"{day:%Y-%m}" == month]
        who = [one for one in buyers if any(f"{day:%Y-%m}" == month for day in one.days)]
        new = sum(f"{one.days[0]:%Y-%m}" == month for one in who)
        net = sum(of_orders, Decimal(0)) - sum(of_credits, Decimal(0))
        rows.append(
            {
                "month": month,
                "orders": len(of_orders),
                "revenue": shown(net),
                "average_order_value": mean_money(net, len(of_orders)),
                "buyers": len(who),
                "new_customers": new,
                "returning_customers": len(who) - new,
                "purchase_frequency": share(len(of_orders), len(who)),
                "repeat_rate": share(len(who) - new, len(who)),
            }
        )
    return {
        "as_of": as_of,
        "currency": "USD",
        "time_zone": zone,
        "customers": len(booked),
        "buyers": len(buyers),
        "repeat_buyers": repeat,
        "orders": orders,
        "revenue": shown(revenue),
        "average_order_value": mean_money(revenue, orders),
        "purchase_frequency": share(orders, len(buyers)),
        "repeat_rate": share(repeat, len(buyers)),
        "months": rows,
    }


async def test_overview_equals_a_count_by_hand_at_any_moment(app: FastAPI) -> None:
    client, events = await make_client(app, time_zone=ZONE), shop_events(3, customers=60)
    await send(client, events)
    for as_of in (FIRST, SECOND, "2024-02-01T03:00:00Z", "2020-01-01T00:00:00Z"):
        expected = expected_overview(events, as_of, ZONE, 24)
        assert await client.get("/v1/reports/overview", as_of=as_of) == expected
    assert expected["customers"] == 0
    now = await client.get("/v1/reports/overview", months=120)
    assert len(now["months"]) == 120
    assert now["orders"] == sum(month["orders"] for month in now["months"]) > 100
    await client.http.aclose()


@given(data=st.data())
@hypothesis_settings(max_examples=25)
async def test_overview_of_odd_histories_equals_a_count_by_hand(app: FastAPI, data: Any) -> None:
    history = data.draw(histories())
    events = [one.wire for one in history.events]
    client = await make_client(app, time_zone=history.time_zone.key)
    if events:
        await client.record(*events)
    as_of = history.as_of.isoformat().replace("+00:00", "Z")
    expected = expected_overview(events, as_of, history.time_zone.key, 36)
    assert await client.get("/v1/reports/overview", as_of=as_of, months=36) == expected
    await client.http.aclose()


async def test_transitions_equal_a_count_by_hand(app: FastAPI, engine: AsyncEngine) -> None:
    client, events = await make_client(app, time_zone=ZONE), shop_events(5, customers=50)
    await send(client, events)
    places: list[dict[str, tuple[Any, ...]]] = []
    names = []
    for as_of in (FIRST, SECOND):
        done = await run(client, engine, as_of=as_of)
        names.append(done["id"])
        stored = (await client.get("/v1/values", limit=1000))["data"]
        clv = {value["customer_id"]: Decimal(value["clv"]["total"] or 0) for value in stored}
        booked = book(events, as_of, ZONE)
        scores, _ = score(booked, as_of, ZONE)
        grades = grade({name: one.net() for name, one in booked.items() if one.days})
        assert clv.keys() == booked.keys()
        places.append(
            {
                name: (
                    scores[name].segment if name in scores else None,
                    grades.get(name),
                    _state(scores[name].days) if name in scores else "never_purchased",
                    one.net(),
                    clv[name],
                )
                for name, one in booked.items()
            }
        )
    before, after = places
    report = await client.get("/v1/reports/transitions")
    assert report["from_run"] == {"run_id": names[0], "as_of": FIRST}
    assert report["to_run"] == {"run_id": names[1], "as_of": SECOND}
    assert report["customers"] == len(before.keys() & after.keys())
    assert (report["customers_gone"], report["customers_new"]) == (0, len(after.keys() - before.keys()))
    assert report["customers_new"] > 0
    absent = (None, None, None, Decimal(0), Decimal(0))
    for number, table in enumerate(("segments", "grades", "churn_states")):
        cells: dict[Any, list[Any]] = defaultdict(lambda: [0, *[Decimal(0)] * 4])
        for name in before.keys() | after.keys():
            was, now = before.get(name, absent), after.get(name, absent)
            cell = cells[was[number], now[number]]
            cell[0] += 1
            for place, amount in enumerate((was[3], now[3], was[4], now[4]), 1):
                cell[place] += amount
        found = {
            (row["before"], row["after"]): [
                row["customers"],
                row["net_spend_before"],
                row["net_spend_after"],
                row["clv_total_before"],
                row["clv_total_after"],
            ]
            for row in report[table]
        }
        assert found == {key: [cell[0], *map(shown, cell[1:])] for key, cell in cells.items()}, table
        assert len(found) == len(report[table])
    assert [row["before"] for row in report["grades"]] == sorted(
        (row["before"] for row in report["grades"]), key=lambda name: name or "Z"
    )
    back = await client.get("/v1/reports/transitions", from_run=names[1], to_run=names[0])
    assert (back["customers_gone"], back["customers_new"]) == (report["customers_new"], 0)
    await client.http.aclose()


def _state(days: int) -> str:
    return "active" if days <= 90 else "at_risk" if days <= 180 else "churned"


async def code(client: Client, path: str, **query: Any) -> tuple[int, str]:
    response = await client.http.get(path, params=query)
    return response.status_code, response.json()["code"]


async def test_reports_without_runs_say_why_not(client: Client, engine: AsyncEngine) -> None:
    for path in ("/v1/reports/rfm", "/v1/reports/abc", "/v1/reports/transitions"):
        assert await code(client, path) == (409, "no_run")
    empty = await client.get("/v1/reports/overview", months=1)
    assert (empty["customers"], empty["revenue"], empty["repeat_rate"]) == (0, "0.00", None)
    done = await run(client, engine)
    report = await client.get("/v1/reports/rfm")
    assert (report["customers"], report["net_spend"], report["cut_points"]["m"]) == (0, "0.00", [])
    assert {cell["customers"] for cell in report["grid"]} == {0}
    assert report["mean"] == dict.fromkeys(("days_since_last_order", "order_count", "net_spend"))
    report = await client.get("/v1/reports/abc")
    assert [row["net_spend_share"] for row in report["grades"]] == [None] * 3
    assert report["curve"] == [{"customers": 0, "customer_share": 0.0, "net_spend_share": 0.0}]
    assert await code(client, "/v1/reports/transitions") == (409, "no_earlier_run")
    itself = await client.get("/v1/reports/transitions", from_run=done["id"], to_run=done["id"])
    assert (itself["customers"], itself["segments"]) == (0, [])


async def test_reports_of_runs_that_are_gone_unknown_or_unfinished(client: Client, engine: AsyncEngine) -> None:
    await client.record(order("o-1", "10.00", "2025-12-01T00:00:00Z"))
    oldest = (await run(client, engine))["id"]
    middle = (await run(client, engine))["id"]
    await client.record(order("o-2", "5.00", "2025-12-02T00:00:00Z"))
    latest = (await run(client, engine))["id"]
    assert await code(client, "/v1/reports/rfm", run_id=oldest) == (410, "run_gone")
    assert (await client.get("/v1/reports/abc", run_id=oldest))["net_spend"] == "10.00"
    moved = await client.get("/v1/reports/transitions", from_run=oldest)
    assert (moved["from_run"]["run_id"], moved["to_run"]["run_id"]) == (oldest, latest)
    assert [(row["net_spend_before"], row["net_spend_after"]) for row in moved["grades"]] == [("10.00", "15.00")]
    assert (await client.get("/v1/reports/transitions", to_run=middle))["from_run"]["run_id"] == oldest
    queued = (await client.http.post("/v1/runs", json={})).json()["id"]
    for path, name in (("rfm", "run_id"), ("abc", "run_id"), ("transitions", "from_run"), ("transitions", "to_run")):
        assert await code(client, f"/v1/reports/{path}", **{name: queued}) == (409, "run_not_succeeded")
        assert await code(client, f"/v1/reports/{path}", **{name: "nothing"}) == (404, "run_not_found")


async def test_reports_refuse_what_they_do_not_know(client: Client) -> None:
    for query in ({"months": 0}, {"months": 121}, {"as_of": "yesterday"}, {"as_of": "1066-01-01T00:00:00Z"}):
        assert await code(client, "/v1/reports/overview", **query) == (422, "invalid_request")
    made = await client.http.post("/v1/keys", json={"scopes": ["customers:read"]})
    lacking = {"Authorization": f"Bearer {made.json()['key']}"}
    for path in ("rfm", "abc", "overview", "transitions"):
        response = await client.http.get(f"/v1/reports/{path}", headers=lacking)
        assert (response.status_code, response.json()["code"]) == (403, "scope_missing")


async def test_reports_of_another_workspace_are_unknown(app: FastAPI, client: Client, engine: AsyncEngine) -> None:
    other = await make_client(app)
    await other.record(order("o-1"))
    name = (await run(other, engine))["id"]
    for path, parameter in (("rfm", "run_id"), ("abc", "run_id"), ("transitions", "to_run")):
        assert await code(client, f"/v1/reports/{path}", **{parameter: name}) == (404, "run_not_found")
    assert (await client.get("/v1/reports/overview"))["customers"] == 0
    await other.http.aclose()


async def test_totals_may_be_larger_than_any_amount(client: Client, engine: AsyncEngine) -> None:
    orders = [
        order(f"o-{number}", "99999999999.9999", "2025-12-01T00:00:00Z", customer_id=f"c-{number % 20}")
        for number in range(100)
    ]
    await client.record(*orders)
    await run(client, engine)
    for path in ("rfm", "abc"):
        assert (await client.get(f"/v1/reports/{path}"))["net_spend"] == "9999999999999.99"
    assert (await client.get("/v1/reports/overview"))["revenue"] == "9999999999999.99"
