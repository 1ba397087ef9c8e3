"""The report on lifetime value equals what plain Python makes of the events sent and the values listed."""

import random
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from app import run_fitting
from app.reports.clv import MOST_BINS, bin_edges
from tests.conftest import Client, event, make_client, order
from tests.test_runs import AS_OF, run

AS_OF_DAY = date(2026, 1, 1)


def shop_events(customers: int = 150) -> list[dict[str, Any]]:
    """Customers who buy at a rate of their own, and leave with a chance of their own; and one who never bought."""
    chance = random.Random(11)
    events = [event("customer.created", "prospect", "2025-01-01T00:00:00Z", name="Ada")]
    for number in range(customers):
        day, gap, worth = chance.uniform(0, 600), 1 / chance.gammavariate(0.9, 1 / 40), chance.gammavariate(6, 10)
        leaving = chance.betavariate(0.8, 2.5)
        for placed in range(40):
            moment = f"{date(2024, 1, 1) + timedelta(days=int(day))}T12:00:00Z"
            amount = f"{chance.gammavariate(8, worth / 8):.2f}"
            events.append(order(f"o-{placed}", amount, moment, customer_id=f"c-{number:03}"))
            day += chance.expovariate(1 / gap)
            if day >= 730 or chance.random() < leaving:
                break
    return events


EVENTS = shop_events()


@pytest_asyncio.fixture
async def shop(client: Client) -> AsyncIterator[Client]:
    assert (await client.record(*EVENTS))["rejected"] == 0
    yield client


async def values_of(client: Client) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = (await client.get("/v1/values", limit=1000))["data"]
    return values


async def code(client: Client, path: str, **query: Any) -> tuple[int, str]:
    response = await client.http.get(path, params=query)
    return response.status_code, response.json()["code"]


def check_distribution(told: dict[str, Any], figures: list[Decimal]) -> None:
    assert told["customers"] == len(figures)
    assert Decimal(told["sum"]) == sum(figures)
    assert Decimal(told["mean"]) == round(sum(figures) / len(figures), 4)
    assert (Decimal(told["minimum"]), Decimal(told["maximum"])) == (min(figures), max(figures))
    for quantile in told["quantiles"]:
        exact = np.quantile([float(figure) for figure in figures], quantile["share"])
        assert float(quantile["value"]) == pytest.approx(exact, abs=1e-4)
    bins = told["bins"]
    assert 1 <= len(bins) <= MOST_BINS
    assert (bins[0]["low"], bins[-1]["high"]) == (told["minimum"], told["maximum"])
    for number, one in enumerate(bins):
        low, high, last = Decimal(one["low"]), Decimal(one["high"]), number == len(bins) - 1
        within = [figure for figure in figures if low <= figure and (figure < high or last)]
        assert (one["customers"], Decimal(one["money"])) == (len(within), sum(within))
        assert last or one["high"] == bins[number + 1]["low"]
    widths = {Decimal(one["high"]) - Decimal(one["low"]) for one in bins[1:-1]}
    assert len(widths) <= 1


@pytest.mark.parametrize("large", [False, True])
async def test_distributions_equal_a_count_by_hand(
    shop: Client, engine: AsyncEngine, monkeypatch: Any, large: bool
) -> None:
    if large:
        monkeypatch.setattr(run_fitting, "LARGE_RUN_CUSTOMERS", 10)
    done = await run(shop, engine, settings={"clv": {"model": "bg_nbd"}})
    report = await shop.get("/v1/reports/clv")
    assert (report["run_id"], report["as_of"], report["currency"]) == (done["id"], AS_OF, "USD")
    values = await values_of(shop)
    for name in ("total", "predicted"):
        figures = [Decimal(value["clv"][name]) for value in values if value["clv"][name] is not None]
        assert len(figures) == 150
        check_distribution(report[name], figures)
        assert len(report[name]["bins"]) > 15


async def test_a_predictive_model_is_told_with_its_errors(shop: Client, engine: AsyncEngine) -> None:
    done = await run(shop, engine, settings={"clv": {"model": "bg_nbd", "horizon_days": 180}})
    fitted = done["fitted"]["clv"]
    report = await shop.get("/v1/reports/clv", run_id=done["id"])
    assert (report["model"], report["basis"], report["horizon_days"]) == ("bg_nbd", "revenue", 180)
    assert (report["discount_rate"], report["customers"]) == (0.1, 150)
    assert report["params"] == fitted["params"]
    assert report["standard_errors"].keys() == {"r", "alpha", "a", "b"}
    assert report["log_likelihood"] == fitted["log_likelihood"]
    assert (report["members"], report["contest"], report["fallback_reason"]) == ([], None, None)
    spend = report["spend"]
    assert (spend["method"], spend["reason"], spend["variance_within"]) == ("gamma_gamma", None, None)
    assert spend["gamma_gamma"]["params"] == fitted["gamma_gamma"]
    assert abs(spend["correlation"]) <= spend["correlation_limit"] == 0.3
    p, q, v = (fitted["gamma_gamma"][name] for name in "pqv")
    assert float(spend["mean"]) == pytest.approx(p * v / (q - 1), abs=1e-4)
    calibration = report["calibration"]
    assert calibration["deciles"] == fitted["calibration"]["deciles"]
    for name in ("holdout_days", "aggregate_error", "rmse", "mae", "correlation"):
        assert calibration[name] == fitted["calibration"][name]
    forecast = sum(group["customers"] * group["forecast"] for group in calibration["deciles"])
    actual = sum(group["customers"] * group["actual"] for group in calibration["deciles"])
    assert calibration["aggregate_error"] == pytest.approx(forecast / actual - 1)


async def test_the_contest_and_its_winner_are_told(shop: Client, engine: AsyncEngine) -> None:
    done = await run(shop, engine)
    report = await shop.get("/v1/reports/clv")
    contest, record = report["contest"], done["fitted"]["clv"]["contest"]
    assert contest["winner"] == report["model"] == record["winner"]
    assert contest["origins"] == record["origins"]
    tried = {one["model"]: one for one in contest["candidates"]}
    assert tried.keys() >= {"bg_nbd", "mbg_nbd", "pareto_nbd", "mbg_cnbd_k"}
    best = max((one for one in tried.values() if one["log_score"] is not None), key=lambda one: one["log_score"])
    assert best["model"] == contest["winner"]
    for entry in record["entries"]:
        told = tried[entry["model"]]
        assert (told["log_score"], told["code"], told["reason"]) == (
            entry["log_score"],
            entry["code"],
            entry["reason"],
        )
        errors = entry["accuracy"] or dict.fromkeys(("rmse", "mae", "correlation", "aggregate_error"))
        assert {name: told[name] for name in errors} == errors
        assert (told["log_score"] is None) == (told["reason"] is not None)
    weights = [one["weights"] for one in contest["candidates"] if one["weights"]]
    assert np.sum(weights, axis=0) == pytest.approx([1, 1, 1])
    if contest["winner"] == "blend":
        assert {member["model"]: member["weights"] for member in report["members"]} == {
            name: one["weights"] for name, one in tried.items() if one["weights"]
        }
        estimated = {f"{one['model']}.{name}" for one in report["members"] for name in one["standard_errors"]}
        assert report["standard_errors"].keys() == estimated <= report["params"].keys()


async def test_textbook_figures_equal_a_count_by_hand(shop: Client, engine: AsyncEngine) -> None:
    await run(shop, engine, settings={"clv": {"model": "textbook", "horizon_days": 730}})
    report = await shop.get("/v1/reports/clv")
    assert (report["model"], report["params"], report["standard_errors"]) == ("textbook", {}, {})
    assert (report["spend"], report["calibration"], report["log_likelihood"]) == (None, None, None)
    segment_of = {value["customer_id"]: value["rfm"]["segment"] for value in await values_of(shop)}
    assert report["textbook"][0]["segment"] is None
    assert len(report["textbook"]) == 11
    for row in report["textbook"]:
        of = {name for name, segment in segment_of.items() if name != "prospect" and row["segment"] in (None, segment)}
        year: list[Decimal] = []
        lately, before = set(), set()
        for one in EVENTS:
            if one["customer_id"] not in of:
                continue
            ago = (AS_OF_DAY - datetime.fromisoformat(one["occurred_at"]).date()).days
            if ago < 365:
                year.append(Decimal(one["data"]["amount"]))
                lately.add(one["customer_id"])
            elif ago < 730:
                before.add(one["customer_id"])
        lost = len(before - lately)
        share = lost / len(before) if len(before) >= 30 else None
        lifespan = 3 if share is None else min(max(1 / share, 1), 5) if share else 5
        assert (row["customers"], row["orders"], Decimal(row["value"])) == (len(of), len(year), sum(year))
        assert (row["prior_buyers"], row["lost_buyers"], row["churn_share"]) == (len(before), lost, share)
        assert row["lifespan_years"] == pytest.approx(lifespan)
        if not of:
            assert row["customer_value"] is None
            continue
        frequency = len(year) / len(of)
        assert row["purchase_frequency"] == pytest.approx(frequency)
        mean = float(sum(year) / len(year)) if year else 0.0
        assert float(row["average_order_value"] or 0) == pytest.approx(mean, abs=1e-4)
        assert float(row["customer_value"]) == pytest.approx(mean * frequency * min(2, lifespan), abs=1e-4)


async def test_a_fallback_says_why(client: Client, engine: AsyncEngine) -> None:
    await client.record(order("o-1", "10.00", "2025-12-01T00:00:00Z"), order("o-2", "20.00", "2025-12-05T00:00:00Z"))
    await run(client, engine)
    report = await client.get("/v1/reports/clv")
    assert (report["model"], report["fallback_reason"]) == ("textbook", "too_few_customers")
    assert report["fallback_detail"]
    assert (report["total"]["customers"], report["total"]["minimum"]) == (1, report["total"]["maximum"])
    (only,) = report["total"]["bins"]
    assert (only["low"], only["high"], only["customers"]) == (report["total"]["sum"], report["total"]["sum"], 1)


async def test_labels_of_segments_come_in_the_language_of_the_caller(shop: Client, engine: AsyncEngine) -> None:
    await run(shop, engine, settings={"clv": {"model": "textbook"}})
    answer = await shop.http.get("/v1/reports/clv", headers={"Accept-Language": "zh"})
    assert answer.headers["Vary"] == "Accept-Language"
    labels = {row["segment"]: row["segment_label"] for row in answer.json()["textbook"]}
    assert labels["loyal_customers"] == "忠诚客户"
    assert labels[None] is None


async def test_reports_say_why_there_is_none(app: FastAPI, client: Client, engine: AsyncEngine) -> None:
    for path in ("/v1/reports/clv", "/v1/reports/churn"):
        assert await code(client, path) == (409, "no_run")
    oldest = (await run(client, engine))["id"]
    empty = await client.get("/v1/reports/clv")
    assert (empty["total"]["customers"], empty["total"]["sum"], empty["total"]["bins"]) == (0, "0.00", [])
    assert empty["total"]["mean"] is None
    await run(client, engine)
    await run(client, engine)
    queued = (await client.http.post("/v1/runs", json={})).json()["id"]
    made = await client.http.post("/v1/keys", json={"scopes": ["customers:read"]})
    lacking = {"Authorization": f"Bearer {made.json()['key']}"}
    other = await make_client(app)
    foreign = (await run(other, engine))["id"]
    await other.http.aclose()
    for path in ("/v1/reports/clv", "/v1/reports/churn"):
        assert await code(client, path, run_id=oldest) == (410, "run_gone")
        assert await code(client, path, run_id=queued) == (409, "run_not_succeeded")
        assert await code(client, path, run_id="nothing") == (404, "run_not_found")
        assert await code(client, path, run_id=foreign) == (404, "run_not_found")
        assert (await client.http.get(path, headers=lacking)).status_code == 403


async def test_totals_may_be_larger_than_any_amount(client: Client, engine: AsyncEngine) -> None:
    orders = [
        order(f"o-{number}", "99999999999.9999", "2025-12-01T00:00:00Z", customer_id=f"c-{number % 20}")
        for number in range(100)
    ]
    await client.record(*orders)
    await run(client, engine)
    report = await client.get("/v1/reports/clv")
    assert report["textbook"][0]["value"] == "9999999999999.99"
    assert sum(one["customers"] for one in report["total"]["bins"]) == 20
    states = {row["state"]: row for row in (await client.get("/v1/reports/churn"))["states"]}
    assert states["active"]["net_spend"] == "9999999999999.99"


@pytest.mark.parametrize(
    ("least", "most", "low", "high"),
    [
        ("0", "1000000", "0", "431.77"),
        ("-50.5", "20", "-50.5", "20"),
        ("0", "9", "3", "3"),
        ("1", "1", "1", "1"),
        ("0.0001", "0.0004", "0.0001", "0.0004"),
        ("99999999999999.9998", "99999999999999.9999", "99999999999999.9998", "99999999999999.9999"),
    ],
)
def test_edges_are_few_round_and_within_the_range(least: str, most: str, low: str, high: str) -> None:
    edges = bin_edges(Decimal(least), Decimal(most), Decimal(low), Decimal(high))
    assert len(edges) < MOST_BINS
    assert list(edges) == sorted(set(edges))
    assert all(Decimal(least) < edge <= Decimal(most) for edge in edges)
    assert bool(edges) == (least != most)
    assert len({after - before for before, after in pairwise(edges)}) <= 1
