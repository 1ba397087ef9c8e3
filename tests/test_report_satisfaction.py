"""Satisfaction figures equal what plain Python makes of the events sent."""

import random
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio
from fastapi import FastAPI

from tests.conftest import Client, event, make_client, order
from tests.test_report_clv import code

ZONE = "America/New_York"
CUSTOMERS = [f"c-{number}" for number in range(12)]
MOMENTS = ("2025-11-02T06:30:00Z", "2025-07-01T03:59:59Z", "2025-03-09T04:30:00Z")
COUNTS = ("complaints", "complaints_open", "csat_answers", "nps_answers", "deliveries")


def happenings(seed: int) -> list[dict[str, Any]]:
    """Complaints told and not, opened and closed again, surveys of all scales, deliveries about midnights."""
    chance = random.Random(seed)
    begin = datetime(2024, 10, 1, tzinfo=UTC)
    sent = []

    def moment() -> datetime:
        # Many at the same moment, many about the borders of New York's days, some where its clocks change.
        if chance.random() < 0.1:
            return datetime(2025, chance.choice([3, 11]), chance.choice([2, 9]), chance.randrange(4, 9), tzinfo=UTC)
        return begin + timedelta(days=chance.randrange(420), hours=chance.choice([0, 3, 4, 5, 12]))

    for customer in CUSTOMERS[:-1]:
        sent.append(order("o-1", occurred_at="2024-10-01T00:00:00Z", customer_id=customer))
        for _ in range(90):
            at = moment().isoformat()
            kind = chance.choice(["complaint.opened", "complaint.reopened", "complaint.resolved", "survey", "delivery"])
            if kind.startswith("complaint"):
                data: dict[str, Any] = {"complaint_id": f"k-{chance.randrange(9)}"}
                if kind == "complaint.resolved" and chance.random() < 0.5:
                    data["satisfied"] = chance.random() < 0.5
                sent.append(event(kind, customer, at, **data))
            elif kind == "survey":
                scale = chance.choice([None, None, 5, 10, 100])
                mark: dict[str, Any] = {"kind": chance.choice(["nps", "csat", "effort", None])}
                mark["score"] = chance.choice([None, chance.randrange(11), chance.randrange(101) / 10])
                mark["scale"] = scale
                sent.append(event("survey.answered", customer, at, **{k: v for k, v in mark.items() if v is not None}))
            else:
                promise = {}
                if chance.random() < 0.8:
                    promise["promised_at"] = (moment() if chance.random() < 0.5 else _near(at, chance)).isoformat()
                sent.append(event("order.delivered", customer, at, order_id="o-1", **promise))
    # At one moment an opening comes before a resolution.
    at = "2025-02-01T12:00:00Z"
    for kind in ("complaint.resolved", "complaint.opened"):
        sent.append(event(kind, CUSTOMERS[0], at, complaint_id="at-once"))
    return [*sent, event("customer.created", CUSTOMERS[-1], "2024-10-01T00:00:00Z")]


def _near(at: str, chance: random.Random) -> datetime:
    return datetime.fromisoformat(at) + timedelta(hours=chance.choice([-30, -24, -5, -1, 0, 3, 20]))


def local(moment: str) -> datetime:
    return datetime.fromisoformat(moment).astimezone(ZoneInfo(ZONE))


def goodness(data: dict[str, Any]) -> float:
    top = data.get("scale") or {"nps": 10, "csat": 5}[data["kind"]]
    bottom = 0 if data["kind"] == "nps" else 1
    mark: float = (data["score"] - bottom) / (top - bottom)
    return min(max(mark, 0), 1)


def figures(sent: list[dict[str, Any]], as_of: str, month: str | None = None, who: str | None = None) -> dict[str, Any]:
    """By hand: of all, of a month or of a customer."""
    known = [one for one in sent if datetime.fromisoformat(one["occurred_at"]) <= datetime.fromisoformat(as_of)]
    if who:
        known = [one for one in known if one["customer_id"] == who]

    def shown(one: dict[str, Any]) -> bool:
        return month is None or f"{local(one['occurred_at']):%Y-%m}" == month

    courses = defaultdict(list)
    for one in known:
        if one["type"].startswith("complaint"):
            courses[one["customer_id"], one["data"]["complaint_id"]].append(one)
    complaints, still_open, lasted = 0, 0, []
    order_of = ("complaint.opened", "complaint.reopened", "complaint.resolved")
    for course in courses.values():
        course.sort(key=lambda one: (datetime.fromisoformat(one["occurred_at"]), order_of.index(one["type"])))
        if not shown(course[0]):
            continue
        complaints += 1
        opened = [one for one in course if one["type"] == "complaint.opened"]
        if course[-1]["type"] != "complaint.resolved":
            still_open += 1
        elif opened:
            end, start = (datetime.fromisoformat(one["occurred_at"]) for one in (course[-1], opened[0]))
            lasted.append((end - start).total_seconds() / 86_400)
    told = [one for one in known if shown(one)]
    marks: dict[str, list[float]] = {"nps": [], "csat": []}
    for one in told:
        data = one["data"]
        if one["type"] == "survey.answered" and data.get("kind") in marks and "score" in data:
            marks[data["kind"]].append(goodness(data))
    promoters, detractors = sum(mark >= 0.9 for mark in marks["nps"]), sum(mark < 0.7 for mark in marks["nps"])
    content = sum(mark >= 0.75 for mark in marks["csat"])
    promised = [one for one in told if one["type"] == "order.delivered" and "promised_at" in one["data"]]
    late = sum(local(one["occurred_at"]).date() > local(one["data"]["promised_at"]).date() for one in promised)

    def share(part: float, of: int) -> Any:
        return pytest.approx(part / of, abs=1e-6) if of else None

    return {
        "complaints": complaints,
        "complaints_open": still_open,
        "resolution_days": pytest.approx(median(lasted), abs=1e-6) if lasted else None,
        "csat_answers": len(marks["csat"]),
        "csat": share(content, len(marks["csat"])),
        "nps_answers": len(marks["nps"]),
        "nps": share(100 * (promoters - detractors), len(marks["nps"])),
        "deliveries": len(promised),
        "late_share": share(late, len(promised)),
    }


SENT = happenings(5)


@pytest_asyncio.fixture
async def shop(app: FastAPI) -> AsyncIterator[Client]:
    made = await make_client(app, time_zone=ZONE)
    async with made.http:
        assert (await made.record(*SENT))["rejected"] == 0
        yield made


@pytest.mark.parametrize("as_of", MOMENTS)
async def test_the_report_equals_a_count_by_hand(shop: Client, as_of: str) -> None:
    report = await shop.get("/v1/reports/satisfaction", as_of=as_of)
    assert (report["as_of"], report["time_zone"]) == (as_of, ZONE)
    everything = figures(SENT, as_of)
    assert report["figures"] == everything
    assert all(everything[name] > 5 for name in COUNTS)
    months = [row["month"] for row in report["months"]]
    assert len(months) == 12
    assert months == sorted(set(months))
    assert months[-1] == f"{local(as_of):%Y-%m}"
    for row in report["months"]:
        assert row["figures"] == figures(SENT, as_of, row["month"]), row["month"]


@pytest.mark.parametrize("as_of", MOMENTS)
async def test_a_customers_figures_equal_a_count_by_hand(shop: Client, as_of: str) -> None:
    total = (await shop.get("/v1/reports/satisfaction", as_of=as_of))["figures"]
    sums = dict.fromkeys(COUNTS, 0)
    for customer in CUSTOMERS:
        told = await shop.get(f"/v1/customers/{customer}/satisfaction", as_of=as_of)
        assert (told["customer_id"], told["as_of"]) == (customer, as_of)
        assert told["figures"] == figures(SENT, as_of, who=customer)
        for name in COUNTS:
            sums[name] += told["figures"][name]
    assert sums == {name: total[name] for name in COUNTS}


async def test_all_months_together_are_all_time(shop: Client) -> None:
    now = await shop.get("/v1/reports/satisfaction", months=120)
    for name in COUNTS:
        assert sum(row["figures"][name] for row in now["months"]) == now["figures"][name]
    short = await shop.get("/v1/reports/satisfaction", months=1)
    assert (len(short["months"]), short["figures"]) == (1, now["figures"])


async def test_moments_before_and_long_after_all_events(shop: Client) -> None:
    nothing = figures([], "2000-01-01T00:00:00Z")
    before = await shop.get("/v1/reports/satisfaction", as_of="1970-01-01T00:00:00Z")
    assert before["figures"] == nothing
    assert {row["month"] for row in before["months"]} >= {"1969-01", "1969-12"}
    after = await shop.get("/v1/reports/satisfaction", as_of="2999-12-31T00:00:00Z")
    assert after["figures"] == figures(SENT, "2999-12-31T00:00:00Z")


async def test_a_workspace_without_events_has_no_figures(client: Client) -> None:
    report = await client.get("/v1/reports/satisfaction")
    assert report["figures"] == figures([], report["as_of"])
    assert len(report["months"]) == 12


async def test_what_is_not_known_is_refused(client: Client, shop: Client) -> None:
    path = f"/v1/customers/{CUSTOMERS[0]}/satisfaction"
    assert await code(client, path) == (404, "customer_not_found")
    assert (await shop.http.get(path)).status_code == 200
    for query in ({"months": 0}, {"months": 121}, {"as_of": "yesterday"}, {"as_of": "1066-01-01T00:00:00Z"}):
        assert await code(client, "/v1/reports/satisfaction", **query) == (422, "invalid_request")
    made = await client.http.post("/v1/keys", json={"scopes": ["customers:read"]})
    lacking = {"Authorization": f"Bearer {made.json()['key']}"}
    for refused in ("/v1/reports/satisfaction", "/v1/customers/c-1/satisfaction"):
        answer = await client.http.get(refused, headers=lacking)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
