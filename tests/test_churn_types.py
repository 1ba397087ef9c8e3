"""Why customers leave: each type told as a story through HTTP, live and cached."""

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.conftest import Client, event, order
from tests.test_runs import run

AS_OF = "2026-01-01T00:00:00Z"
Story = list[tuple[str, str, dict[str, Any]]]

STORIES: dict[str, tuple[Story, str, str | None]] = {
    "moved-away": ([("customer.relocated", "2025-07-01T09:00:00Z", {"service_area": "outside"})], "natural", None),
    "died": ([("customer.deceased", "2025-07-01T09:00:00Z", {})], "natural", None),
    "closed": ([("customer.closed_business", "2025-07-01T09:00:00Z", {})], "natural", None),
    "price": (
        [
            ("price.objected", "2025-06-20T09:00:00Z", {}),
            ("competitor.chosen", "2025-07-01T09:00:00Z", {"competitor": "Rival", "reason": "price"}),
        ],
        "competitive",
        None,
    ),
    "ignored": (
        [
            ("complaint.opened", "2025-06-20T09:00:00Z", {"complaint_id": "k-1", "severity": "high"}),
            ("support.unresolved", "2025-07-01T09:00:00Z", {}),
        ],
        "negligent",
        None,
    ),
    "late": (
        [
            ("delivery.failed", "2025-06-20T09:00:00Z", {"order_id": "o-1"}),
            ("order.delivered", "2025-07-03T09:00:00Z", {"order_id": "o-1", "promised_at": "2025-06-20T09:00:00Z"}),
            ("survey.answered", "2025-07-04T09:00:00Z", {"kind": "csat", "score": 1}),
        ],
        "negligent",
        None,
    ),
    "card": (
        [
            ("payment.failed", "2025-07-01T09:00:00Z", {"reason": "expired_card"}),
            ("renewal.missed", "2025-07-05T09:00:00Z", {}),
        ],
        "passive",
        "non_malicious",
    ),
    "angry": (
        [
            ("complaint.opened", "2025-06-20T09:00:00Z", {"complaint_id": "k-1", "severity": "low"}),
            ("payment.withheld", "2025-07-01T09:00:00Z", {}),
        ],
        "passive",
        "retaliatory",
    ),
    "fraud": (
        [
            ("payment.overdue", "2025-06-01T09:00:00Z", {}),
            ("payment.overdue", "2025-07-01T09:00:00Z", {}),
            ("credit.downgraded", "2025-07-05T09:00:00Z", {}),
            ("fraud.flagged", "2025-07-06T09:00:00Z", {}),
        ],
        "passive",
        "malicious",
    ),
    "silent": ([], "unknown", None),
    "words": (
        [("exit.answered", "2025-07-01T09:00:00Z", {"text": "竞争对手更便宜,所以我换了一家"})],
        "competitive",
        None,
    ),
}


async def tell(client: Client) -> None:
    events = []
    for name, (story, _, _) in STORIES.items():
        events.append(order("o-1", occurred_at="2025-06-01T09:00:00Z", customer_id=name))
        events += [event(kind, name, moment, **data) for kind, moment, data in story]
    receipt = await client.record(*events)
    assert receipt["rejected"] == 0, receipt


@pytest.fixture
async def told(client: Client, engine: AsyncEngine) -> Client:
    await tell(client)
    done = await run(client, engine)
    assert done["status"] == "succeeded", done
    return client


async def test_each_story_is_told_as_its_type_live_and_cached(told: Client) -> None:
    for name, (story, churn_type, subtype) in STORIES.items():
        for query in ({"as_of": AS_OF}, {"source": "cached"}):
            value = await told.get(f"/v1/customers/{name}/value", **query)
            churn = value["churn"]
            assert churn["state"] == "churned"
            assert (churn["type"], churn["subtype"]) == (churn_type, subtype), (name, churn)
            assert abs(sum(churn["type_probabilities"].values()) - 1) < 1e-9
            assert bool(churn["evidence"]) == bool(story)
            assert value["recommended_action"]["code"]
    listed = await told.get("/v1/values", churn_type="passive")
    assert [value["customer_id"] for value in listed["data"]] == ["angry", "card", "fraud"]


async def test_evidence_names_the_events_and_the_words(told: Client) -> None:
    churn = await told.get("/v1/customers/words/churn", as_of=AS_OF)
    (found,) = churn["evidence"][:1]
    assert found["event_type"] == "exit.answered"
    assert found["speaks_for"] == "competitive"
    assert found["phrase"] in "竞争对手更便宜,所以我换了一家"


async def test_an_active_customer_has_evidence_but_no_type(client: Client) -> None:
    await client.record(
        order("o-1", occurred_at="2025-12-20T09:00:00Z"),
        event("complaint.opened", occurred_at="2025-12-21T09:00:00Z", complaint_id="k-1"),
    )
    churn = await client.get("/v1/customers/c-1/churn", as_of=AS_OF)
    assert (churn["state"], churn["type"], churn["type_probabilities"]) == ("active", None, None)
    assert [found["event_type"] for found in churn["evidence"]] == ["complaint.opened"]


async def test_evidence_of_the_future_says_nothing_of_the_past(client: Client) -> None:
    await client.record(
        order("o-1", occurred_at="2025-01-01T09:00:00Z"),
        event("customer.deceased", occurred_at="2025-12-01T09:00:00Z"),
    )
    before = await client.get("/v1/customers/c-1/churn", as_of="2025-11-01T00:00:00Z")
    after = await client.get("/v1/customers/c-1/churn", as_of=AS_OF)
    assert (before["type"], after["type"]) == ("unknown", "natural")


async def test_an_order_after_a_reported_death_lowers_certainty_and_says_so(client: Client) -> None:
    await client.record(
        order("o-1", occurred_at="2025-01-01T09:00:00Z"),
        event("customer.deceased", occurred_at="2025-02-01T09:00:00Z"),
        order("o-2", occurred_at="2025-03-01T09:00:00Z"),
    )
    churn = await client.get("/v1/customers/c-1/churn", as_of=AS_OF)
    assert churn["type"] == "unknown"
    assert churn["evidence"][0]["contradicted_by"] == "later_order"


async def test_labels_come_in_the_language_of_the_caller(told: Client) -> None:
    path = f"/v1/customers/angry/value?as_of={AS_OF}"
    english = await told.http.get(path)
    chinese = await told.http.get(path, headers={"Accept-Language": "fr, zh-CN;q=0.8, en;q=0.5"})
    assert english.headers["Vary"] == chinese.headers["Vary"] == "Accept-Language"
    codes = {answer.json()["recommended_action"]["code"] for answer in (english, chinese)}
    assert len(codes) == 1
    assert english.json()["recommended_action"]["label"].isascii()
    assert not chinese.json()["recommended_action"]["label"].isascii()


async def test_a_verdict_is_recorded_and_a_run_learns_from_it(told: Client, engine: AsyncEngine) -> None:
    labelled = await told.http.post("/v1/customers/silent/churn-label", json={"type": "negligent"})
    assert labelled.status_code == 201
    unknown = await told.http.post("/v1/customers/nobody/churn-label", json={"type": "negligent"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "customer_not_found")
    refused = await told.http.post("/v1/customers/silent/churn-label", json={"type": "natural", "subtype": "malicious"})
    assert refused.status_code == 422
    done = await run(told, engine, as_of="2026-11-30T00:00:00Z")
    assert done["fitted"]["churn"]["learning"]["reason"] == "too_few_labels"


async def test_a_mixed_story_spreads_its_weight_and_names_no_type_where_nothing_wins(client: Client) -> None:
    def story(name: str, *parts: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
        placed = order("o-1", occurred_at="2025-06-01T09:00:00Z", customer_id=name)
        return [placed, *(event(kind, name, "2025-07-01T09:00:00Z", **data) for kind, data in parts)]

    complaint = ("complaint.opened", {"complaint_id": "k-1", "severity": "high"})
    rival = ("competitor.mentioned", {"competitor": "Rival"})
    await client.record(*story("both", complaint, rival), *story("complaint", complaint), *story("rival", rival))
    probabilities = {
        name: (await client.get(f"/v1/customers/{name}/churn", as_of=AS_OF))["type_probabilities"]
        for name in ("both", "complaint", "rival")
    }
    both, complaint_alone, rival_alone = probabilities.values()
    assert rival_alone["competitive"] < both["competitive"] + both["negligent"]
    assert both["negligent"] < complaint_alone["negligent"]
    assert both["competitive"] < rival_alone["competitive"]
    assert min(both["competitive"], both["negligent"]) > max(both["natural"], both["passive"])
