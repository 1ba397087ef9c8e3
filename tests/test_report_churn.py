"""The report on churn equals what plain Python makes of the events sent and the values listed."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from app import run_fitting
from tests.conftest import Client, event, make_client, order
from tests.test_churn_types import STORIES, tell
from tests.test_report_clv import EVENTS, values_of
from tests.test_runs import AS_OF, run

LEAVING = ("at_risk", "churned")
TYPES = ("natural", "competitive", "passive", "negligent", "unknown")
ZONE = "America/New_York"


def stake(values: Iterable[dict[str, Any]]) -> dict[str, Any]:
    of = list(values)

    def total(part: str, name: str) -> Decimal:
        return sum((Decimal(value[part][name] or 0) for value in of), Decimal(0))

    return {
        "customers": len(of),
        "net_spend": total("rfm", "net_spend"),
        "clv_current": total("clv", "current"),
        "clv_predicted": total("clv", "predicted"),
    }


def told_stake(row: dict[str, Any]) -> dict[str, Any]:
    money = {name: Decimal(row[name]) for name in ("net_spend", "clv_current", "clv_predicted")}
    return {"customers": row["customers"], **money}


def check_counts(
    rows: list[dict[str, Any]], values: list[dict[str, Any]], key: Callable[[dict[str, Any]], Any], *names: str
) -> None:
    """Each row holds the values of its key, and the rows hold them all."""
    groups = defaultdict(list)
    for value in values:
        groups[key(value)].append(value)
    keys = [tuple(row[name] for name in names) for row in rows]
    assert len(set(keys)) == len(rows)
    assert {one for one, of in groups.items() if of} <= set(keys)
    for found, row in zip(keys, rows, strict=True):
        assert told_stake(row) == stake(groups[found]), found


def month_of(moment: str, zone: str = "UTC") -> str:
    return f"{datetime.fromisoformat(moment).astimezone(ZoneInfo(zone)):%Y-%m}"


async def test_counts_and_stakes_equal_those_of_the_values(client: Client, engine: AsyncEngine) -> None:
    await tell(client)
    # Some are at risk, some are active, and one never bought.
    for number in range(24):
        moment = f"2025-{9 + number % 4:02}-{10 + number % 7}T09:00:00Z"
        await client.record(order("o-9", f"{number}.25", moment, customer_id=f"late-{number}", cost="0.10"))
    await client.record(event("customer.created", "prospect", "2025-01-01T00:00:00Z"))
    done = await run(client, engine)
    report = await client.get("/v1/reports/churn")
    values = await values_of(client)
    leaving = [value for value in values if value["churn"]["state"] in LEAVING]
    assert (report["run_id"], report["as_of"], report["currency"]) == (done["id"], AS_OF, "USD")
    assert (report["method"], report["horizon_days"], report["customers"]) == ("inactivity", 180, len(values))
    assert (report["probability"], report["calibration"]) == (None, None)
    assert [row["state"] for row in report["states"]] == ["active", "at_risk", "churned", "never_purchased"]
    assert all(row["customers"] for row in report["states"])
    check_counts(report["states"], values, lambda value: (value["churn"]["state"],), "state")
    assert [(row["state"], row["type"]) for row in report["types"]] == [(s, t) for s in LEAVING for t in TYPES]
    check_counts(
        report["types"], leaving, lambda value: (value["churn"]["state"], value["churn"]["type"]), "state", "type"
    )
    passive = [value for value in leaving if value["churn"]["subtype"]]
    assert len(passive) == 3
    check_counts(
        report["subtypes"],
        passive,
        lambda value: (value["churn"]["state"], value["churn"]["subtype"]),
        "state",
        "subtype",
    )
    check_counts(
        report["segments"],
        values,
        lambda value: (value["churn"]["state"], value["churn"]["type"], value["rfm"]["segment"]),
        "state",
        "type",
        "segment",
    )
    assert all(row["customers"] for row in report["segments"])


async def test_reasons_by_month_equal_a_count_by_hand(app: FastAPI, engine: AsyncEngine, monkeypatch: Any) -> None:
    monkeypatch.setattr(run_fitting, "LARGE_RUN_CUSTOMERS", 10)
    client = await make_client(app, time_zone=ZONE)
    sent = []
    for name, (story, _, _) in STORIES.items():
        # A border of months: in New York it is still May.
        sent.append(order("o-1", "12.50", "2025-06-01T03:00:00Z", customer_id=name))
        sent += [event(kind, name, moment, **data) for kind, moment, data in story]
    sent += [
        event("competitor.chosen", "price", "2025-07-01T03:59:59Z", reason="price"),
        event("competitor.chosen", "price", "2025-07-01T04:00:00Z", reason="price"),
        # This speaks against a type, and so is no reason.
        event("survey.answered", "ignored", "2025-07-02T00:00:00Z", kind="csat", score=5),
        event("competitor.mentioned", "late", "2024-03-01T00:00:00Z"),
        event("payment.failed", "angry", "2026-02-01T00:00:00Z"),
        event("complaint.opened", "buyer", "2025-12-20T00:00:00Z", complaint_id="k"),
        order("o-1", "9.00", "2025-12-24T00:00:00Z", customer_id="buyer"),
    ]
    assert (await client.record(*sent))["rejected"] == 0
    await run(client, engine, settings={"churn": {"method": "inactivity"}})
    report = await client.get("/v1/reports/churn", months=9)
    reasons, values = report["reasons"], await values_of(client)
    # At midnight UTC it is still December there.
    assert reasons["months"] == [f"2025-{month:02}" for month in range(4, 13)]

    unread = ("order.placed", "survey.answered", "order.delivered", "complaint.resolved", "visit.recorded")
    counts: Counter[Any] = Counter()
    who = defaultdict(set)
    for one in sent:
        month = month_of(one["occurred_at"], ZONE)
        if one["type"] in unread or one["occurred_at"] > AS_OF or month not in reasons["months"]:
            continue
        chosen = one["type"] in ("competitor.chosen", "competitor.mentioned", "payment.failed")
        key = (month, one["type"], one["data"].get("reason") if chosen else None)
        counts[key] += 1
        who[key].add(one["customer_id"])
    assert {(row["month"], row["event_type"], row["reason"]): row["events"] for row in reasons["events"]} == counts
    assert counts["2025-06", "competitor.chosen", "price"] == 1
    for row in reasons["events"]:
        assert row["customers"] == len(who[row["month"], row["event_type"], row["reason"]])
    speaks = {row["event_type"]: row["speaks_for"] for row in reasons["events"]}
    assert speaks["competitor.chosen"][0] == "competitive"
    assert speaks["complaint.opened"][-1] == "negligent"

    pieces = set()
    for value in values:
        for told in value["churn"]["evidence"] if value["churn"]["state"] in LEAVING else ():
            month = month_of(told["occurred_at"], ZONE)
            if told["weight"] > 0 and month in reasons["months"]:
                pieces.add((month, told["speaks_for"], told["event_type"], value["customer_id"], told["event_id"]))
    events = Counter(piece[:3] for piece in pieces)
    customers = Counter(piece[:3] for piece in {piece[:4] for piece in pieces})
    found = {(row["month"], row["type"], row["event_type"]): row for row in reasons["evidence"]}
    assert {key: row["events"] for key, row in found.items()} == events
    assert {key: row["customers"] for key, row in found.items()} == customers
    assert ("2025-07", "competitive", "exit.answered") in found

    leaving = [value for value in values if value["churn"]["state"] in LEAVING]
    assert {row["month"] for row in reasons["losses"]} == {"2025-05"}
    check_counts(
        reasons["losses"],
        leaving,
        lambda value: (
            f"{datetime(2025, 12, 31, tzinfo=UTC) - timedelta(value['rfm']['days_since_last_order']):%Y-%m}",
            value["churn"]["state"],
            value["churn"]["type"],
        ),
        "month",
        "state",
        "type",
    )
    assert (await client.get("/v1/reports/churn", months=1))["reasons"]["losses"] == []
    await client.http.aclose()


async def test_probabilities_and_their_calibration_are_told(client: Client, engine: AsyncEngine) -> None:
    assert (await client.record(*EVENTS))["rejected"] == 0
    done = await run(client, engine, settings={"clv": {"model": "bg_nbd"}, "churn": {"horizon_days": 90}})
    report = await client.get("/v1/reports/churn")
    assert (report["method"], report["horizon_days"]) == ("probability", 90)
    probabilities = sorted(
        value["churn"]["probability"] for value in await values_of(client) if value["churn"]["probability"] is not None
    )
    told = report["probability"]
    assert told["customers"] == len(probabilities) == 150
    assert told["expected_churned_share"] == pytest.approx(sum(probabilities) / 150)
    edges = np.quantile(probabilities, [number / 10 for number in range(1, 10)])
    deciles: dict[int, list[float]] = defaultdict(list)
    for probability in probabilities:
        deciles[sum(edge <= probability for edge in edges.tolist())].append(probability)
    assert len(deciles) == 10
    assert [group["customers"] for group in told["deciles"]] == [len(of) for _, of in sorted(deciles.items())]
    for group, (_, of) in zip(told["deciles"], sorted(deciles.items()), strict=True):
        assert (group["low"], group["high"]) == (of[0], of[-1])
        assert group["expected_churned_share"] == pytest.approx(sum(of) / len(of))
    assert report["calibration"] == done["fitted"]["churn"]["calibration"]
    assert report["calibration"]["deciles"]


async def test_learning_is_told_with_the_names_of_types(client: Client, engine: AsyncEngine) -> None:
    nothing = await run(client, engine)
    learning = (await client.get("/v1/reports/churn"))["learning"]
    assert nothing["fitted"]["churn"]["learning"] == {}
    assert (learning["serves"], learning["reason"], learning["learned"]) == ("expert", "no_labels", None)
    assert [row["labels"] for row in learning["labels"]] == [0, 0, 0, 0]
    told = {
        "natural": "customer.relocated",
        "competitive": "competitor.chosen",
        "passive": "renewal.missed",
        "negligent": "support.unresolved",
    }
    sent, labels = [], {}
    for number in range(40):
        name, kind = f"c-{number:02}", TYPES[number % 4]
        shown = TYPES[(number + (number % 10 == 0)) % 4]
        sent.append(order("o-1", occurred_at="2025-05-01T09:00:00Z", customer_id=name))
        sent.append(event(told[shown], name, "2025-06-01T09:00:00Z"))
        labels[name] = kind
    await client.record(*sent)
    for name, kind in labels.items():
        verdict = {"type": kind, "labelled_at": "2025-12-01T00:00:00Z"}
        assert (await client.http.post(f"/v1/customers/{name}/churn-label", json=verdict)).status_code == 201
    done = await run(client, engine)
    learning = (await client.get("/v1/reports/churn"))["learning"]
    record = done["fitted"]["churn"]["learning"]
    assert [(row["type"], row["labels"]) for row in learning["labels"]] == [(kind, 10) for kind in TYPES[:4]]
    for name in ("serves", "reason", "strength", "gain", "gain_se"):
        assert learning[name] == record[name]
    for name in ("expert", "learned"):
        for figure in ("log_loss", "log_loss_se", "accuracy"):
            assert learning[name][figure] == record[name][figure]
        assert [row["type"] for row in learning[name]["confusion"]] == list(TYPES[:4])
        assert [sum(row["answers"].values()) for row in learning[name]["confusion"]] == [10, 10, 10, 10]
        for row, counts in zip(learning[name]["confusion"], record[name]["confusion"], strict=True):
            assert [row["answers"][kind] for kind in TYPES] == counts
    # Whom the plain evidence names rightly is what the expert's weights answer.
    right = sum(row["answers"][row["type"]] for row in learning["expert"]["confusion"])
    assert right / 40 == pytest.approx(learning["expert"]["accuracy"])


async def test_labels_come_in_the_language_of_the_caller(client: Client, engine: AsyncEngine) -> None:
    await tell(client)
    await run(client, engine)
    answers = [
        await client.http.get("/v1/reports/churn", headers={"Accept-Language": language}) for language in ("en", "zh")
    ]
    english, chinese = (answer.json() for answer in answers)
    assert answers[1].headers["Vary"] == "Accept-Language"
    for part, names in {
        "states": ("state",),
        "types": ("state", "type"),
        "subtypes": ("state", "subtype"),
        "segments": ("state", "type", "segment"),
    }.items():
        for one, other in zip(english[part], chinese[part], strict=True):
            for name in names:
                assert one[name] == other[name]
                assert one[f"{name}_label"].isascii()
                assert not other[f"{name}_label"].isascii()


async def test_months_out_of_range_are_refused(client: Client) -> None:
    for months in (0, 121, "many"):
        answer = await client.http.get("/v1/reports/churn", params={"months": months})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
