"""Customers as they are read back: profiles, summaries, lists and events."""

import random
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Client, event, make_client, order


def told(id: str, occurred_at: str, **profile: Any) -> dict[str, Any]:
    return event("customer.updated", "c-1", occurred_at, id, **profile)


async def profile(client: Client, customer_id: str = "c-1") -> dict[str, Any]:
    """The fields that are set."""
    answer = await client.get(f"/v1/customers/{customer_id}")
    return {name: value for name, value in answer["profile"].items() if value not in (None, {})}


async def test_a_customer_exists_from_its_first_event(client: Client) -> None:
    assert (await client.http.get("/v1/customers/c-1")).json()["code"] == "customer_not_found"
    assert (await client.http.get("/v1/customers/c-1/events")).json()["code"] == "customer_not_found"
    await client.record(event("order.cancelled", order_id="o-1"))
    answer = await client.get("/v1/customers/c-1")
    assert answer["summary"]["event_count"] == 1
    assert answer["summary"]["order_count"] == 0
    assert answer["summary"]["first_purchase_day"] is None
    assert answer["summary"]["net_spend"] == "0.00"


FULL_PROFILE = {
    "name": "王小明",
    "email": "wang@example.com",
    "phone": "+86 10 1234 5678",
    "kind": "business",
    "gender": "male",
    "birth_date": "1990-02-28",
    "country": "CN",
    "region": "北京",
    "city": "Beijing",
    "occupation": "engineer",
    "income": "120000.50",
    "acquired_via": "web",
    "referred_by": "c-2",
    "attributes": {"tier": "gold", "age": 35, "share": 0.5, "vip": True},
}


async def test_a_profile_comes_back_as_it_was_told(client: Client) -> None:
    await client.record(told("e-1", "2025-01-01T00:00:00Z", **FULL_PROFILE))
    assert await profile(client) == FULL_PROFILE


async def test_per_field_the_latest_word_wins_whatever_the_order_of_arrival(client: Client) -> None:
    await client.record(told("e-2", "2025-03-01T00:00:00Z", name="Late", city="Paris"))
    await client.record(told("e-1", "2025-02-01T00:00:00Z", name="Early", country="FR"))
    assert await profile(client) == {"name": "Late", "city": "Paris", "country": "FR"}


async def test_of_the_same_moment_the_greater_event_id_wins(client: Client) -> None:
    moment = "2025-01-01T00:00:00Z"
    await client.record(told("e-b", moment, name="B"), told("e-a", moment, name="A", city="X"))
    # By their bytes: small letters are greater than capitals.
    await client.record(told("e-Z", moment, name="Z", city="Y"))
    assert await profile(client) == {"name": "B", "city": "X"}


async def test_null_takes_a_field_away_until_it_is_told_later(client: Client) -> None:
    await client.record(told("e-2", "2025-02-01T00:00:00Z", name=None))
    await client.record(told("e-1", "2025-01-01T00:00:00Z", name="Early", city="Paris"))
    assert await profile(client) == {"city": "Paris"}
    await client.record(told("e-3", "2025-03-01T00:00:00Z", name="Late"))
    assert await profile(client) == {"name": "Late", "city": "Paris"}


async def test_attributes_merge_by_key(client: Client) -> None:
    await client.record(told("e-1", "2025-01-01T00:00:00Z", attributes={"a": 1, "b": 2, "c": 3}))
    await client.record(told("e-3", "2025-03-01T00:00:00Z", attributes={"a": 30}))
    await client.record(told("e-2", "2025-02-01T00:00:00Z", attributes={"a": 20, "b": None}))
    assert await profile(client) == {"attributes": {"a": 30, "c": 3}}


async def test_null_takes_all_attributes_away_that_were_told_before(client: Client) -> None:
    await client.record(told("e-3", "2025-03-01T00:00:00Z", attributes={"b": 3}))
    await client.record(told("e-2", "2025-02-01T00:00:00Z", attributes=None))
    await client.record(told("e-1", "2025-01-01T00:00:00Z", attributes={"a": 1, "b": 1}))
    assert await profile(client) == {"attributes": {"b": 3}}


MOMENTS = [f"2025-01-0{day}T00:00:00Z" for day in (1, 2, 3)]
PROFILES = st.dictionaries(
    st.sampled_from(["name", "city", "email"]), st.sampled_from([None, "x", "y", "z"])
) | st.builds(
    lambda attributes: {"attributes": attributes},
    st.none() | st.dictionaries(st.sampled_from("abc"), st.sampled_from([None, 1, 2.5, "x", True])),
)


def expected_profile(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The definition, said plainly: go through the words in their order and let each replace what was before."""
    known: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for one in sorted(events, key=lambda one: (one["occurred_at"], one["id"])):
        for name, value in one["data"].items():
            if name != "attributes":
                known[name] = value
            elif value is None:
                attributes.clear()
            else:
                attributes |= value
    kept = {name: value for name, value in known.items() if value is not None}
    kept_attributes = {name: value for name, value in attributes.items() if value is not None}
    return kept | ({"attributes": kept_attributes} if kept_attributes else {})


@given(words=st.lists(st.tuples(st.sampled_from(MOMENTS), PROFILES), min_size=1, max_size=8), seed=st.integers(0, 99))
async def test_profiles_are_the_same_whatever_the_order_of_arrival(
    app: FastAPI, words: list[tuple[str, dict[str, Any]]], seed: int
) -> None:
    events = [told(f"e-{number}", moment, **data) for number, (moment, data) in enumerate(words)]
    client = await make_client(app)
    chance = random.Random(seed)
    async with client.http:
        left = chance.sample(events, len(events))
        while left:
            size = chance.randint(1, 4)
            await client.record(*left[:size])
            left = left[size:]
        assert await profile(client) == expected_profile(events)


# ---- Lists ----------------------------------------------------------------------------------------------------------


async def all_pages(client: Client, path: str, **query: Any) -> list[list[dict[str, Any]]]:
    pages = []
    cursor = ""
    while cursor is not None:
        page = await client.get(path, **query, cursor=cursor)
        pages.append(page["data"])
        cursor = page["next_cursor"]
    return pages


LONG_ID = "\N{GRINNING FACE}" * 128


async def test_the_list_of_customers_is_paged_by_id(client: Client) -> None:
    ids = ["Z", "a", "b", "c", "é", "客户", LONG_ID + "", LONG_ID[:-1] + "\N{WINKING FACE}"]
    await client.record(*(order("o-1", customer_id=customer_id) for customer_id in reversed(ids)))
    pages = await all_pages(client, "/v1/customers", limit=3)
    assert [len(page) for page in pages] == [3, 3, 2]
    assert [row["customer_id"] for page in pages for row in page] == sorted(ids)
    assert len(await all_pages(client, "/v1/customers", limit=1)) == len(ids)


async def test_a_cursor_belongs_to_its_filters(client: Client) -> None:
    await client.record(*(order("o-1", customer_id=f"c-{number}") for number in range(3)))
    cursor = (await client.get("/v1/customers", limit=1, q="c"))["next_cursor"]
    assert (await client.get("/v1/customers", limit=2, q="c", cursor=cursor))["data"][0]["customer_id"] == "c-1"
    for query in ({"q": "d"}, {"q": "c", "kind": "business"}, {"q": "c", "country": "FR"}):
        response = await client.http.get("/v1/customers", params={**query, "cursor": cursor})
        assert (response.status_code, response.json()["code"]) == (422, "invalid_cursor")
    response = await client.http.get("/v1/keys", params={"cursor": cursor})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_cursor")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"q": "C-1"}, ["c-1"]),
        ({"q": "über"}, ["c-1"]),
        ({"q": "ÜBER"}, ["c-1"]),
        ({"q": "küche-É"}, ["küche-é"]),
        ({"q": "小明"}, ["c-2"]),
        ({"q": "@EXAMPLE."}, ["c-1", "c-2"]),
        ({"q": "555"}, ["c-2"]),
        ({"q": "%"}, []),
        ({"q": "_"}, []),
        ({"q": "'"}, ["c-1"]),
        ({"kind": "business"}, ["c-2"]),
        ({"country": "fr"}, ["c-1"]),
        ({"country": "FR", "q": "c-2"}, []),
        ({"updated_since": "2000-01-01T00:00:00Z", "q": "c-"}, ["c-1", "c-2"]),
        ({"updated_since": "2100-01-01T00:00:00+01:00"}, []),
        ({"updated_since": "0001-01-01T00:00:00Z", "kind": "business"}, ["c-2"]),
    ],
)
async def test_customers_are_found_by(client: Client, query: dict[str, str], found: list[str]) -> None:
    await client.record(
        event("customer.created", "c-1", name="D'Übermut", email="d@example.com", country="FR"),
        event("customer.created", "c-2", name="王小明", email="w@example.org", phone="555", kind="business"),
        order("o-1", customer_id="küche-é"),
    )
    assert [row["customer_id"] for row in (await client.get("/v1/customers", **query))["data"]] == found


async def test_events_come_back_newest_first_in_their_normal_form(client: Client) -> None:
    sent = order(
        "o-1",
        "12.5",
        "2025-01-03T18:00:00.5+08:00",
        id="e-1",
        currency="EUR",
        exchange_rate="1.10",
        cost=3,
        channel="web",
        items=[{"sku": "s", "quantity": 2}],
    )
    await client.record(sent, told("e-2", "2025-01-02T00:00:00Z", name="N", city=None))
    await client.record(
        *(event("order.cancelled", id=f"x-{n}", occurred_at="2024-01-01T00:00:00Z", order_id="o") for n in range(5))
    )
    pages = await all_pages(client, "/v1/customers/c-1/events", limit=2)
    rows = [row for page in pages for row in page]
    assert [row["id"] for row in rows] == ["e-1", "e-2", "x-4", "x-3", "x-2", "x-1", "x-0"]
    received_at = rows[0].pop("received_at")
    assert received_at.endswith("Z")
    assert rows[0] == {
        "id": "e-1",
        "type": "order.placed",
        "occurred_at": "2025-01-03T10:00:00.500000Z",
        "customer_id": "c-1",
        "data": {
            "order_id": "o-1",
            "amount": "12.50",
            "currency": "EUR",
            "exchange_rate": "1.10",
            "cost": "3.00",
            "channel": "web",
            "items": [{"sku": "s", "quantity": "2.00"}],
        },
    }
    assert rows[1]["data"] == {"name": "N", "city": None}


async def test_what_came_back_can_be_sent_again(client: Client) -> None:
    await client.record(
        order("o-1", "12.5", currency="EUR", exchange_rate="1", cost="0", items=[]),
        order("o-2", "0", campaign_id="x", exchange_rate="1"),
        event("order.refunded", amount="1", order_id="o-1"),
        event("order.refunded", amount="1", currency="EUR", exchange_rate="1.5"),
        event("order.delivered", order_id="o-1", promised_at="2025-01-01T00:00:00+01:00"),
        told("e-1", "2025-01-01T00:00:00Z", **FULL_PROFILE),
    )
    rows = (await client.get("/v1/customers/c-1/events"))["data"]
    again = [{name: value for name, value in row.items() if name != "received_at"} for row in rows]
    assert await client.record(*again) == {"accepted": 0, "duplicates": 6, "rejected": 0, "errors": []}


async def test_updated_at_is_when_the_last_event_was_received(client: Client) -> None:
    await client.record(order("o-1"))
    first = (await client.get("/v1/customers/c-1"))["summary"]["updated_at"]
    await client.record(order("o-1"))
    assert (await client.get("/v1/customers/c-1"))["summary"]["updated_at"] == first
    await client.record(order("o-2"))
    assert (await client.get("/v1/customers/c-1"))["summary"]["updated_at"] > first
