"""Explanations hold: what is said to be missing is missing, to the last unit, and what is said to come comes."""

import random
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from app.explanation import cut_money
from tests.conftest import Client, event, order
from tests.test_runs import run

AS_OF = "2026-01-01T12:00:00Z"
LAST = datetime.fromisoformat(AS_OF)
BY_DAYS = {"churn": {"method": "inactivity"}, "clv": {"model": "textbook"}}
UNIT = Decimal("0.0001")


def before(days: int) -> str:
    return (LAST - timedelta(days=days)).isoformat().replace("+00:00", "Z")


@pytest_asyncio.fixture
async def shop(client: Client) -> AsyncIterator[Client]:
    """Customers whose orders lie around every limit of days, one of them in the red, and one who never bought."""
    events = [event("customer.created", "prospect", "2024-01-01T00:00:00Z", name="Ada")]
    gaps = (0, 1, 5, 30, 89, 90, 91, 150, 179, 180, 181, 200, 364, 365, 366, 400)
    for number in range(24):
        days = [gaps[number % 16], *(gaps[(number * 3 + step) % 16] for step in range(number % 7))]
        events += [
            order(f"o-{place}", f"{number * 7 + place}.{number:02}", before(day), customer_id=f"c-{number:02}")
            for place, day in enumerate(days)
        ]
    events += [order(f"o-{day}", "12.00", before(day), customer_id="c-24") for day in (400, 150)]
    events.append(event("order.refunded", "c-07", before(3), amount="500.00", currency="USD"))
    assert (await client.record(*events))["rejected"] == 0
    yield client


async def live(client: Client, name: str, as_of: str = AS_OF, **query: Any) -> dict[str, Any]:
    return await client.get(f"/v1/customers/{name}/value", as_of=as_of, **query)


async def names(client: Client) -> list[str]:
    return [one["customer_id"] for one in (await client.get("/v1/values", limit=1000))["data"]]


async def explained(client: Client, **query: Any) -> dict[str, dict[str, Any]]:
    """The explained value of every customer."""
    path = "/v1/customers/{}/value"
    return {name: await client.get(path.format(name), explain=True, **query) for name in await names(client)}


async def values(client: Client, as_of: str = AS_OF) -> dict[str, dict[str, Any]]:
    """The live value of every customer."""
    query = {"customer_ids": await names(client), "as_of": as_of}
    response = await client.http.post("/v1/values/query", json=query)
    return {one["customer_id"]: one for one in response.json()["data"]}


async def buy(client: Client, orders: dict[str, Decimal]) -> None:
    """An order more of each of these customers."""
    sent = [order(f"more-{amount}", f"{amount:f}", AS_OF, customer_id=name) for name, amount in orders.items()]
    assert (await client.record(*sent))["accepted"] == len(orders)


@pytest.mark.parametrize("rfm", [{}, {"ties": "first"}, {"preset": "thirds", "window_days": 100}])
async def test_missing_days_orders_and_money_give_the_next_score_and_no_less(
    shop: Client, engine: AsyncEngine, rfm: dict[str, Any]
) -> None:
    done = await run(shop, engine, as_of=AS_OF, settings={**BY_DAYS, "rfm": rfm})
    k, missing = done["fitted"]["rfm"]["k"], {}
    for name, value in (await explained(shop, as_of=AS_OF)).items():
        why = value["explanation"]["rfm"]
        for letter in "rfm":
            assert why[letter]["score"] == value["rfm"][letter]
            assert (why[letter]["next_score"] is None) == (why[letter]["distance"] is None)
        assert [why[letter]["unit"] for letter in "rfm"] == ["days", "orders", "USD"]
        if name == "prospect":
            continue
        r, f, m = why["r"], why["f"], why["m"]
        assert r["figure"] == value["rfm"]["days_since_last_order"]
        assert f["figure"] == value["rfm"]["order_count"]
        assert m["figure"] == value["rfm"]["net_spend"]
        assert r["score"] == k - sum(cut < r["figure"] for cut in r["cut_points"])
        assert m["score"] == 1 + sum(Decimal(cut) < Decimal(m["figure"]) for cut in m["cut_points"])
        if r["distance"] is not None:
            nearer = r["figure"] - r["distance"]
            assert r["next_score"] == k - sum(cut < nearer for cut in r["cut_points"])
            assert r["score"] == k - sum(cut < nearer + 1 for cut in r["cut_points"])
        missing[name] = f, m
    assert {f["distance"] is None for f, _ in missing.values()} == {True, False}
    # Orders of nothing, one by one.
    for placed in range(max(f["distance"] or 0 for f, _ in missing.values())):
        lacking = [name for name, (f, _) in missing.items() if (f["distance"] or 0) > placed]
        assert {(await values(shop))[name]["rfm"]["f"] - missing[name][0]["score"] for name in lacking} == {0}
        await shop.record(*(order(f"none-{placed}", "0", AS_OF, customer_id=name) for name in lacking))
    after = await values(shop)
    assert [after[name]["rfm"]["f"] for name in missing] == [f["next_score"] or f["score"] for f, _ in missing.values()]
    better = {name: m for name, (_, m) in missing.items() if m["distance"] is not None}
    assert len(better) > 10
    await buy(shop, {name: Decimal(m["distance"]) - UNIT for name, m in better.items()})
    after = await values(shop)
    assert [after[name]["rfm"]["m"] for name in better] == [m["score"] for m in better.values()]
    await buy(shop, dict.fromkeys(better, UNIT))
    after = await values(shop)
    assert [after[name]["rfm"]["m"] for name in better] == [m["next_score"] for m in better.values()]


async def test_missing_money_gives_the_next_grade_and_no_less(shop: Client, engine: AsyncEngine) -> None:
    await run(shop, engine, as_of=AS_OF, settings=BY_DAYS)
    report = await shop.get("/v1/reports/abc")
    bands = [{"grade": one["grade"], "net_spend": one["net_spend"]} for one in report["boundaries"]]
    better = {}
    for name, value in (await explained(shop, as_of=AS_OF)).items():
        why = value["explanation"]["abc"]
        assert (why["grade"], why["net_spend"]) == (value["abc"]["grade"], value["abc"]["net_spend"])
        assert why["boundaries"] == bands
        assert why["next_grade"] == {"A": None, "B": "A", "C": "B", None: None}[why["grade"]]
        if why["distance"] is not None:
            better[name] = why
    assert {why["grade"] for why in better.values()} == {"B", "C"}
    await buy(shop, {name: Decimal(why["distance"]) - UNIT for name, why in better.items()})
    after = await values(shop)
    assert [after[name]["abc"]["grade"] for name in better] == [why["grade"] for why in better.values()]
    await buy(shop, dict.fromkeys(better, UNIT))
    after = await values(shop)
    assert [after[name]["abc"]["grade"] for name in better] == [why["next_grade"] for why in better.values()]


async def test_states_and_statuses_change_on_the_day_that_is_told(shop: Client, engine: AsyncEngine) -> None:
    await run(shop, engine, as_of=AS_OF, settings=BY_DAYS)
    expected: dict[int, dict[tuple[str, str, str], str]] = defaultdict(dict)
    seen = set()
    for name, value in (await explained(shop, as_of=AS_OF)).items():
        churn, lifecycle = value["explanation"]["churn"], value["explanation"]["lifecycle"]
        assert churn["state"] == value["churn"]["state"]
        assert {key: lifecycle[key] for key in ("status", "stage")} == value["lifecycle"]
        assert (churn["method"], churn["at_risk_after_days"], churn["churned_after_days"]) == ("inactivity", 90, 180)
        for part, key, why, after in (
            ("churn", "state", churn, churn["next_state"]),
            ("lifecycle", "status", lifecycle, lifecycle["next_status"]),
        ):
            seen.add((why[key], after))
            if why["days_until_next"] is None:
                assert after is None
                expected[2_000][name, part, key] = why[key]
            else:
                assert after != why[key]
                expected[why["days_until_next"] - 1][name, part, key] = why[key]
                expected[why["days_until_next"]][name, part, key] = after
        if lifecycle["days_until_next"] is not None:
            assert lifecycle["next_status_on"] == before(-lifecycle["days_until_next"])[:10]
    for days, places in expected.items():
        later = await values(shop, before(-days))
        assert {place: later[place[0]][place[1]][place[2]] for place in places} == places, days
    assert seen == {
        ("active", "at_risk"),
        ("at_risk", "churned"),
        ("churned", None),
        ("never_purchased", None),
        ("new", "inactive"),
        ("new", "active"),
        ("active", "inactive"),
        ("active", "occasional"),
        ("occasional", "inactive"),
        ("inactive", None),
        ("prospect", None),
    }


async def test_stages_are_explained_by_the_rule_that_gave_them(shop: Client, engine: AsyncEngine) -> None:
    await run(shop, engine, as_of=AS_OF, settings=BY_DAYS)
    rules = set()
    for name, value in (await explained(shop, as_of=AS_OF)).items():
        why = value["explanation"]["lifecycle"]
        rules.add(why["stage_rule"])
        if name == "prospect":
            assert (why["stage"], why["stage_rule"], why["half_year_net_spend"]) == (None, "no_order", None)
            continue
        half, prior = Decimal(why["half_year_net_spend"]), Decimal(why["prior_half_year_net_spend"])
        falls, grows = half < Decimal(why["decline_below"]), half > Decimal(why["growth_above"])
        assert (falls, grows) == (half < prior / 2, half > prior * Decimal("1.1"))
        days = len({one["occurred_at"][:10] for one in await _orders(shop, name)})
        first = min(one["occurred_at"] for one in await _orders(shop, name))
        expected = (
            ("decline", "churn_state")
            if value["churn"]["state"] != "active"
            else ("decline", "spend_fell")
            if falls
            else ("exploration", "few_purchase_days")
            if days < 3
            else ("formation", "young_relationship")
            if first > before(365)
            else ("formation", "spend_grew")
            if grows
            else ("stable", "steady")
        )
        assert (why["stage"], why["stage_rule"]) == expected, name
    assert {"churn_state", "spend_fell", "few_purchase_days", "spend_grew"} <= rules


async def _orders(client: Client, name: str) -> list[dict[str, Any]]:
    listed = (await client.get(f"/v1/customers/{name}/events", limit=1000))["data"]
    return [one for one in listed if one["type"] == "order.placed"]


async def test_textbook_values_follow_from_the_figures_that_are_told(shop: Client, engine: AsyncEngine) -> None:
    await run(shop, engine, as_of=AS_OF, settings=BY_DAYS)
    for name, value in (await explained(shop, as_of=AS_OF, horizon_days=500)).items():
        why = value["explanation"]["clv"]
        assert (why["method"], why["basis"], why["horizon_days"]) == ("textbook", "revenue", 500)
        assert why["discount_rate"] is why["frequency"] is why["T_days"] is None
        assert why["expected_purchase_value"] == value["clv"]["expected_purchase_value"]
        if name == "prospect":
            assert why["textbook"] is None
            continue
        group = why["textbook"]
        assert group["segment"] == value["rfm"]["segment"]
        worth = Decimal(group["average_order_value"] or 0) * Decimal(group["purchase_frequency"])
        years = min(Decimal(500) / 365, Decimal(group["lifespan_years"]))
        assert float(worth * years) == pytest.approx(float(value["clv"]["predicted"]), abs=0.001)


async def test_predictive_values_are_explained_by_the_figures_of_their_model(
    client: Client, engine: AsyncEngine
) -> None:
    chance, events = random.Random(1), []
    for number in range(150):
        name, day, rate = f"c-{number:03}", chance.uniform(100, 700), chance.gammavariate(0.6, 0.03)
        while day > 0:
            events.append(order(f"o-{day}", f"{chance.uniform(5, 90):.2f}", before(int(day)), customer_id=name))
            if chance.random() < 0.15:
                break
            day -= chance.expovariate(rate)
    await client.record(*events)
    done = await run(client, engine, as_of=AS_OF, settings={"clv": {"model": "bg_nbd"}})
    assert done["fitted"]["clv"]["model"] == "bg_nbd", done["fitted"]["clv"]["fallback_detail"]
    by_day: dict[str, Decimal] = defaultdict(Decimal)
    for one in events:
        if one["customer_id"] == "c-007":
            by_day[one["occurred_at"][:10]] += Decimal(one["data"]["amount"])
    days = sorted(by_day)
    first, last = (date.fromisoformat(days[place]) for place in (0, -1))
    for query in ({"as_of": AS_OF}, {"source": "cached"}):
        value = await client.get("/v1/customers/c-007/value", explain=True, **query)
        why = value["explanation"]
        assert (why["clv"]["method"], why["clv"]["textbook"], why["clv"]["discount_rate"]) == ("bg_nbd", None, 0.1)
        assert why["clv"]["frequency"] == len(days) - 1 > 0
        assert why["clv"]["recency_days"] == (last - first).days
        assert why["clv"]["T_days"] == (LAST.date() - first).days
        mean = sum(by_day[day] for day in days[1:]) / (len(days) - 1)
        assert float(why["clv"]["monetary_value"]) == pytest.approx(float(mean), abs=1e-4)
        assert (why["churn"]["method"], why["churn"]["at_risk_probability"]) == ("probability", 0.5)
        assert (why["churn"]["probability"], why["churn"]["at_risk_after_days"]) == (
            value["churn"]["probability"],
            None,
        )
        assert why["churn"]["next_state"] is None


async def test_cached_values_are_explained_as_live_ones_until_late_events_come(
    shop: Client, engine: AsyncEngine
) -> None:
    await run(shop, engine, as_of=AS_OF, settings={"churn": {"method": "inactivity"}})
    at_once = await explained(shop, as_of=AS_OF)
    stored = await explained(shop, source="cached")
    for name, value in stored.items():
        assert value["explanation"] == at_once[name]["explanation"], name
        assert value["explanation"]["late_events"] is False
    await shop.record(order("late", "77.00", before(40), customer_id="c-06"))
    late = (await shop.get("/v1/customers/c-06/value", source="cached", explain=True))["explanation"]
    assert late["late_events"] is True
    for part in ("rfm", "abc", "churn"):
        assert late[part] == stored["c-06"]["explanation"][part]
    assert late["lifecycle"]["status_rule"] == stored["c-06"]["explanation"]["lifecycle"]["status_rule"]
    assert late["lifecycle"]["half_year_net_spend"] is late["lifecycle"]["next_status"] is None
    others = await shop.get("/v1/customers/c-05/value", source="cached", explain=True)
    assert others == stored["c-05"]


async def test_nothing_is_explained_unless_asked_for(shop: Client, engine: AsyncEngine) -> None:
    await run(shop, engine, as_of=AS_OF)
    assert (await live(shop, "c-03"))["explanation"] is None
    assert (await live(shop, "c-03", source="live", explain="false"))["explanation"] is None
    assert {one["explanation"] for one in (await shop.get("/v1/values"))["data"]} == {None}
    refused = await shop.http.get("/v1/customers/c-03/value?explain=perhaps")
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


async def test_without_a_run_only_what_needs_no_population_is_explained(shop: Client) -> None:
    why = (await live(shop, "c-04", explain=True))["explanation"]
    assert why["rfm"]["r"] == {
        "figure": 89,
        "unit": "days",
        "score": None,
        "cut_points": [],
        "next_score": None,
        "distance": None,
    }
    assert (why["abc"]["grade"], why["abc"]["boundaries"], why["clv"]["method"]) == (None, [], None)
    assert (why["churn"]["next_state"], why["churn"]["days_until_next"]) == ("at_risk", 2)
    assert why["lifecycle"]["next_status"] is not None


@given(cut=st.floats(-1e9, 1e9), near=st.integers(-2, 2))
def test_rounded_cut_points_of_money_compare_as_the_cut_points_do(cut: float, near: int) -> None:
    amount = Decimal(round(cut * 10_000) + near).scaleb(-4)
    assert (cut_money(cut) < amount) == (cut < float(amount))
