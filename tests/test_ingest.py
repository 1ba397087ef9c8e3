"""What becomes of events: each is stored exactly once, whatever order and however often they come."""

import asyncio
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.analytics.summary import OrderEvent, summarise
from app.store import customers as customer_store
from app.store import events as event_store
from app.store.engine import is_unique_violation
from app.store.event_format import encode_events
from tests.conftest import Client, event, make_client, ndjson, order


def receipt(accepted: int = 0, duplicates: int = 0, *errors: dict[str, Any]) -> dict[str, Any]:
    return {"accepted": accepted, "duplicates": duplicates, "rejected": len(errors), "errors": list(errors)}


async def codes(client: Client, *events: dict[str, Any]) -> list[tuple[int, str, str]]:
    """Index, code and pointer of each rejection."""
    answer = await client.record(*events)
    assert answer["accepted"] + answer["duplicates"] + answer["rejected"] == len(events)
    assert answer["rejected"] == len(answer["errors"])
    return [(error["index"], error["code"], error["pointer"]) for error in answer["errors"]]


async def net_spend(client: Client, customer_id: str = "c-1") -> str:
    summary: dict[str, str] = (await client.get(f"/v1/customers/{customer_id}"))["summary"]
    return summary["net_spend"]


async def test_an_order_is_stored_once_however_often_it_is_sent(client: Client) -> None:
    placed = order("o-1")
    assert await client.record(placed) == receipt(1)
    assert await client.record(placed) == receipt(0, 1)
    customer = await client.get("/v1/customers/c-1")
    assert customer["summary"]["order_count"] == 1
    assert customer["summary"]["net_spend"] == "10.00"


SPELLINGS: dict[str, Callable[[dict[str, Any]], None]] = {
    "another zone": lambda sent: sent.update(occurred_at="2025-01-03T18:00:00+08:00"),
    "a small t and z": lambda sent: sent.update(occurred_at="2025-01-03t10:00:00z"),
    "a fraction of zero": lambda sent: sent.update(occurred_at="2025-01-03T10:00:00.000Z"),
    "sent later": lambda sent: sent.update(sent_at="2025-02-01T00:00:00Z"),
    "no zero at the end": lambda sent: sent["data"].update(amount="12.5"),
    "zeros at the end": lambda sent: sent["data"].update(amount="12.5000"),
    "a number": lambda sent: sent["data"].update(amount=12.5),
    "zeros at the front": lambda sent: sent["data"].update(amount="0012.50"),
    "another zero": lambda sent: sent["data"].update(cost="-0"),
    "a null where nothing was": lambda sent: sent["data"].update(channel=None),
    "an item's other zero": lambda sent: sent["data"]["items"][1].update(quantity="-0"),
    "an item's other decimals": lambda sent: sent["data"]["items"][0].update(quantity=2, unit_price=6.25),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_the_same_content_in_another_spelling_is_a_duplicate(client: Client, spelling: str) -> None:
    items = [{"sku": "s", "quantity": "2.0", "unit_price": "6.2500"}, {"quantity": "0"}]
    placed = order("o-1", "12.50", id="e-1", cost="0.00", items=items, sent_at=None)
    placed["data"].pop("sent_at")
    assert await client.record(placed) == receipt(1)
    respelled = json.loads(json.dumps(placed))
    SPELLINGS[spelling](respelled)
    assert respelled != placed
    assert await client.record(respelled) == receipt(0, 1)
    assert await client.record(respelled | {"id": "e-2"}) == receipt(0, 1)


async def test_attributes_in_another_order_are_the_same_content(client: Client) -> None:
    told = {"id": "e-1", "customer_id": "c-1", "type": "customer.updated", "occurred_at": "2025-01-01T00:00:00Z"}
    assert await client.record({**told, "data": {"attributes": {"a": 1, "b": 12.5}}}) == receipt(1)
    assert await client.record({**told, "data": {"attributes": {"b": 12.50, "a": 1.0}}}) == receipt(0, 1)


CHANGES: dict[str, dict[str, Any]] = {
    "occurred_at": {"occurred_at": "2025-01-03T10:00:00.000001Z"},
    "type": {"type": "order.cancelled", "data": {"order_id": "o-1"}},
    "amount": {"data": {"order_id": "o-1", "amount": "10.0001", "currency": "USD"}},
    "another order": {"data": {"order_id": "o-2", "amount": "10.00", "currency": "USD"}},
    "a cost": {"data": {"order_id": "o-1", "amount": "10.00", "currency": "USD", "cost": "0"}},
    "a channel": {"data": {"order_id": "o-1", "amount": "10.00", "currency": "USD", "channel": "web"}},
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_known_event_id_with_other_content_is_a_conflict_and_changes_nothing(
    client: Client, change: str
) -> None:
    placed = order("o-1", id="e-1")
    await client.record(placed)
    before = await client.get("/v1/customers/c-1/events")
    assert await client.record(placed | CHANGES[change]) == receipt(
        0,
        0,
        {
            "index": 0,
            "id": "e-1",
            "code": "event_conflict",
            "detail": "This event id is recorded already with other content.",
            "pointer": "/id",
        },
    )
    assert await client.get("/v1/customers/c-1/events") == before
    assert await client.record(placed) == receipt(0, 1)


async def test_an_order_is_one_whatever_its_event_is_called(client: Client) -> None:
    await client.record(order("o-1", "10.00", id="e-1"))
    assert await client.record(order("o-1", "10.00", id="e-2")) == receipt(0, 1)
    assert await codes(client, order("o-1", "11.00", id="e-3")) == [(0, "order_conflict", "/data/order_id")]
    assert await net_spend(client) == "10.00"


async def test_a_batch_is_judged_in_its_order(client: Client) -> None:
    batch = [
        order("o-1", "1.00", id="e-1"),
        order("o-1", "1.0", id="e-1"),
        order("o-2", "2.00", id="e-1"),
        order("o-1", "3.00", id="e-2"),
        order("o-1", "1.00", id="e-3"),
        order("o-2", "2.00", id="e-4"),
    ]
    answer = await client.record(*batch)
    assert (answer["accepted"], answer["duplicates"]) == (2, 2)
    assert [(error["index"], error["code"]) for error in answer["errors"]] == [
        (2, "event_conflict"),
        (3, "order_conflict"),
    ]
    assert await net_spend(client) == "3.00"
    answer = await client.record(*batch)
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (0, 4, 2)


async def test_customers_may_use_the_same_ids(client: Client) -> None:
    first, second = order("o-1", "1.00", id="e-1"), order("o-1", "2.00", id="e-1", customer_id="c-2")
    assert await client.record(first, second) == receipt(2)
    assert (await net_spend(client), await net_spend(client, "c-2")) == ("1.00", "2.00")


async def test_workspaces_may_use_the_same_ids(app: FastAPI, client: Client) -> None:
    other = await make_client(app)
    async with other.http:
        assert await client.record(order("o-1", "1.00", id="e-1")) == receipt(1)
        assert await other.record(order("o-1", "2.00", id="e-1")) == receipt(1)
        assert (await net_spend(client), await net_spend(other)) == ("1.00", "2.00")


async def test_the_good_events_of_a_batch_are_stored_and_each_bad_one_is_named(client: Client) -> None:
    answer = await client.record(
        order("o-1", "1.00"),
        order("o-2", "-1.00", id="bad-1"),
        order("o-3", "2.00"),
        event("order.exploded", id="bad-2"),
        {"id": "bad-3"},
        order("o-4", "3.00", occurred_at="yesterday", id="bad-4"),
        order("o-5", "4.00", colour="red", id="bad-5"),
        order("o-6", "5.00"),
    )
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (3, 0, 5)
    assert answer["errors"] == [
        {
            "index": 1,
            "id": "bad-1",
            "code": "invalid_value",
            "detail": "amount must be at least 0.",
            "pointer": "/data/amount",
        },
        {
            "index": 3,
            "id": "bad-2",
            "code": "unknown_type",
            "detail": "type must be one of the event types.",
            "pointer": "/type",
        },
        {"index": 4, "id": "bad-3", "code": "missing_field", "detail": "type is required.", "pointer": "/type"},
        {
            "index": 5,
            "id": "bad-4",
            "code": "invalid_value",
            "detail": 'occurred_at must be an RFC 3339 instant with a zone, such as "2026-01-31T09:30:00Z".',
            "pointer": "/occurred_at",
        },
        {
            "index": 6,
            "id": "bad-5",
            "code": "unknown_field",
            "detail": "colour is not a known field.",
            "pointer": "/data/colour",
        },
    ]
    assert await net_spend(client) == "8.00"


@pytest.mark.parametrize(
    ("field", "pointer"),
    [("a.b", "/data/a.b"), ("order.placed", "/data/order.placed"), ("a b", "/data"), ("x" * 65, "/data")],
)
async def test_an_unknown_field_is_pointed_at_where_its_name_is_plain(client: Client, field: str, pointer: str) -> None:
    assert await codes(client, order("o-1", **{field: "1"})) == [(0, "unknown_field", pointer)]


async def test_a_fault_within_a_list_is_told_with_its_place(client: Client) -> None:
    answer = await client.record(order("o-1", items=[{"sku": "a"}, 5]))
    assert answer["errors"][0]["detail"] == "items/1 must be an object."
    assert answer["errors"][0]["pointer"] == "/data/items/1"


async def test_the_lines_of_ndjson_are_a_batch(client: Client) -> None:
    body = b"\r\n" + ndjson(order("o-1"), order("o-2")) + b"\n\n{broken\n" + ndjson(order("o-3")) + b"\n"
    response = await client.http.post("/v1/events", content=body, headers={"Content-Type": "application/x-ndjson"})
    answer = response.json()
    assert (answer["accepted"], answer["rejected"]) == (3, 1)
    assert [(error["index"], error["code"]) for error in answer["errors"]] == [(2, "malformed_event")]


# ---- Time, money and refunds ----------------------------------------------------------------------------------------


async def test_events_of_the_far_past_and_the_future_are_refused(client: Client) -> None:
    now = datetime.now(UTC)
    assert await codes(
        client,
        order("o-1", occurred_at="1970-01-01T00:00:00Z"),
        order("o-2", occurred_at="1969-12-31T23:59:59.999999Z"),
        order("o-3", occurred_at=(now + timedelta(hours=23, minutes=59)).isoformat()),
        order("o-4", occurred_at=(now + timedelta(hours=24, minutes=1)).isoformat()),
    ) == [(1, "occurred_at_out_of_range", "/occurred_at"), (3, "occurred_at_out_of_range", "/occurred_at")]


async def test_a_foreign_currency_needs_a_rate(client: Client) -> None:
    assert await codes(
        client,
        order("o-1", currency="EUR"),
        order("o-2", currency="EUR", exchange_rate="1.1"),
        order("o-3", exchange_rate="1.1"),
        order("o-4", exchange_rate="1.0"),
        event("order.refunded", amount="1", currency="EUR"),
        event("order.refunded", amount="1", currency="EUR", exchange_rate="0.5"),
        event("order.refunded", amount="1"),
    ) == [
        (0, "exchange_rate_required", "/data/exchange_rate"),
        (2, "exchange_rate_not_one", "/data/exchange_rate"),
        (4, "exchange_rate_required", "/data/exchange_rate"),
        (6, "invalid_value", "/data"),
    ]
    assert await net_spend(client) == "20.50"


async def test_money_is_rounded_half_to_even_after_exchange(client: Client) -> None:
    rate = {"currency": "EUR", "exchange_rate": "0.5"}
    await client.record(order("o-1", "0.0001", customer_id="c-1", **rate))
    await client.record(order("o-1", "0.0003", customer_id="c-2", **rate))
    await client.record(order("o-1", "0.0005", customer_id="c-3", **rate))
    assert [await net_spend(client, f"c-{number}") for number in (1, 2, 3)] == ["0.00", "0.0002", "0.0002"]


def refund(amount: str, id: str | None = None, **data: Any) -> dict[str, Any]:
    return event("order.refunded", id=id, occurred_at="2025-01-04T10:00:00Z", amount=amount, **data)


FOREIGN = {"currency": "EUR", "exchange_rate": "2"}


@pytest.mark.parametrize(
    "named", [{"currency": "USD"}, {"currency": "EUR", "exchange_rate": "3"}, {"exchange_rate": "3"}]
)
async def test_a_refund_in_another_currency_or_rate_than_its_known_order_is_refused(
    client: Client, named: dict[str, str]
) -> None:
    other = refund("4.00", order_id="o-1", **named)
    await client.record(order("o-1", "10.00", **FOREIGN))
    assert await codes(client, other) == [(0, "currency_mismatch", "/data/currency")]
    # Before the order came nobody can know; then it counts nothing, so that the figures are the same.
    other["customer_id"] = "c-2"
    assert await client.record(other) == receipt(1)
    assert await client.record(order("o-1", "10.00", customer_id="c-2", **FOREIGN)) == receipt(1)
    await client.record({**refund("1.00", order_id="o-1", currency="EUR", exchange_rate="2"), "customer_id": "c-2"})
    assert (await net_spend(client), await net_spend(client, "c-2")) == ("20.00", "18.00")


async def test_a_refund_in_another_currency_is_refused_beside_its_order_too(client: Client) -> None:
    other = refund("4.00", order_id="o-1", currency="EUR")
    assert await codes(client, order("o-1", "10.00"), other) == [(1, "currency_mismatch", "/data/currency")]
    assert await net_spend(client) == "10.00"


async def test_an_order_for_nothing_is_not_refunded_in_another_currency(client: Client) -> None:
    await client.record(refund("1.00", order_id="o-1", currency="EUR"), order("o-1", "0.00"))
    assert (await client.get("/v1/customers/c-1"))["summary"]["order_count"] == 1
    await client.record(refund("1.00", order_id="o-1"))
    assert (await client.get("/v1/customers/c-1"))["summary"]["order_count"] == 0


async def test_a_rate_of_one_in_the_own_currency_is_none(client: Client) -> None:
    await client.record(order("o-1", "10.00", id="e-1"), refund("1.00", order_id="o-2", exchange_rate="1"))
    assert await client.record(order("o-1", "10.00", id="e-1", exchange_rate="1.0")) == receipt(0, 1)
    assert await client.record(refund("2.00", order_id="o-1", currency="USD", exchange_rate="1")) == receipt(1)
    assert await client.record(order("o-2", "10.00")) == receipt(1)
    assert await net_spend(client) == "17.00"


@pytest.mark.parametrize("named", [{}, {"currency": "EUR"}, {"currency": "EUR", "exchange_rate": "2.0"}])
async def test_a_refund_in_the_currency_of_its_order_counts(client: Client, named: dict[str, str]) -> None:
    named = {"order_id": "o-1", **named}
    await client.record(refund("1.00", **named), order("o-1", "10.00", **FOREIGN), refund("2.00", **named))
    assert await net_spend(client) == "14.00"


# ---- Concurrency ----------------------------------------------------------------------------------------------------


async def test_a_batch_that_goes_on_from_the_last_purchase_day_counts_that_day_once(client: Client) -> None:
    await client.record(
        order("o-1", occurred_at="2025-01-01T00:00:00Z"), order("o-2", occurred_at="2025-01-03T01:00:00Z")
    )
    await client.record(
        order("o-3", occurred_at="2025-01-05T00:00:00Z"), order("o-4", occurred_at="2025-01-03T02:00:00Z")
    )
    summary = (await client.get("/v1/customers/c-1"))["summary"]
    assert (summary["order_count"], summary["purchase_days"]) == (4, 3)
    assert (summary["first_purchase_day"], summary["last_purchase_day"]) == ("2025-01-01", "2025-01-05")


async def test_many_concurrent_copies_of_a_batch_are_stored_once(app: FastAPI, client: Client) -> None:
    chance = random.Random(48)
    batch = [
        order(
            f"o-{number}", f"{number + 1}.25", f"2025-01-{1 + number % 28:02}T10:00:00Z", customer_id=f"c-{number % 40}"
        )
        for number in range(200)
    ]
    batch += [
        event("order.refunded", f"c-{number % 40}", "2025-02-01T00:00:00Z", order_id=f"o-{number}", amount="0.50")
        for number in range(0, 200, 10)
    ]
    batch += [event("customer.created", f"c-{number}", name=f"Name {number}") for number in range(40)]
    answers = await asyncio.gather(*(client.record(*chance.sample(batch, len(batch))) for _ in range(48)))
    assert sum(answer["accepted"] for answer in answers) == len(batch)
    assert sum(answer["duplicates"] for answer in answers) == 47 * len(batch)
    assert sum(answer["rejected"] for answer in answers) == 0
    page = await client.get("/v1/customers", limit=1_000)
    assert sum(customer["summary"]["event_count"] for customer in page["data"]) == len(batch)
    total = sum(Decimal(customer["summary"]["net_spend"]) for customer in page["data"])
    assert total == sum(number + Decimal("1.25") for number in range(200)) - 20 * Decimal("0.50")


async def test_concurrent_writers_of_the_same_customers_leave_exact_summaries(client: Client) -> None:
    chance = random.Random(7)
    begin = datetime(2025, 1, 1, tzinfo=UTC)
    batches: list[list[dict[str, Any]]] = []
    references: tuple[list[OrderEvent], list[OrderEvent]] = ([], [])
    for writer in range(24):
        batch = []
        for number in range(6):
            customer = (writer + number) % 2
            moment = begin + timedelta(days=chance.randrange(60), hours=chance.randrange(24))
            amount = Decimal(chance.randrange(1, 10_000)) / 100
            order_id = f"o-{writer}-{number}"
            batch.append(order(order_id, str(amount), moment.isoformat(), customer_id=f"c-{customer}"))
            references[customer].append(OrderEvent("placed", moment, moment.date(), order_id, amount))
            if number == 5:
                batch.append(event("order.cancelled", f"c-{customer}", moment.isoformat(), order_id=order_id))
                references[customer].append(OrderEvent("cancelled", moment, moment.date(), order_id))
        batches.append(batch)
    answers = await asyncio.gather(*(client.record(*batch) for batch in batches))
    assert sum(answer["accepted"] for answer in answers) == 24 * 7
    for customer, reference in enumerate(references):
        expected = summarise(reference, datetime(2026, 1, 1, tzinfo=UTC), begin.date() + timedelta(days=365))
        summary = (await client.get(f"/v1/customers/c-{customer}"))["summary"]
        assert summary["order_count"] == expected.order_count
        assert summary["purchase_days"] == expected.purchase_days
        assert summary["first_purchase_day"] == str(expected.first_purchase_day)
        assert summary["last_purchase_day"] == str(expected.last_purchase_day)
        assert Decimal(summary["net_spend"]) == expected.net_spend


async def test_a_large_batch_is_stored_although_the_same_events_keep_coming_one_by_one(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [order(f"o-{number}", customer_id=f"c-{number % 7}") for number in range(150)]
    copied = event_store.insert_events
    one_by_one: list[asyncio.Task[dict[str, Any]]] = []

    async def outrun(connection: Any, events: Any) -> None:
        if len(events.stream) > 10_000:  # The batch, after it has looked for what is known.
            one_by_one.append(asyncio.create_task(client.record(batch[len(one_by_one)])))
            await asyncio.wait(one_by_one, timeout=0.5)
        await copied(connection, events)

    monkeypatch.setattr(event_store, "insert_events", outrun)
    assert await client.record(*batch) == receipt(148, 2)
    assert await asyncio.gather(*one_by_one) == [receipt(1), receipt(1), receipt(0, 1)]


async def test_many_senders_of_the_same_events_in_batches_of_their_own_are_all_answered(client: Client) -> None:
    chance = random.Random(5)
    events = [order(f"o-{number}", customer_id=f"c-{number % 30}") for number in range(400)]

    async def send(size: int) -> list[dict[str, Any]]:
        shuffled = chance.sample(events, len(events))
        return [await client.record(*shuffled[start : start + size]) for start in range(0, len(shuffled), size)]

    answers = [answer for sent in await asyncio.gather(*map(send, (5, 20, 80, 110, 150, 400))) for answer in sent]
    assert sum(answer["accepted"] for answer in answers) == len(events)
    assert sum(answer["duplicates"] for answer in answers) == 5 * len(events)


async def test_a_batch_that_the_database_breaks_off_is_tried_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 0
    insert = event_store.insert_events

    async def insert_at_last(*arguments: Any) -> None:
        nonlocal failures
        failures += 1
        if failures < 4:
            raise DBAPIError(None, None, _Deadlock())
        await insert(*arguments)

    monkeypatch.setattr(event_store, "insert_events", insert_at_last)
    assert await client.record(order("o-1")) == receipt(1)
    assert failures == 4
    assert (await client.get("/v1/customers/c-1"))["summary"]["order_count"] == 1


class _Deadlock(Exception):
    sqlstate = "40P01"


async def test_a_lost_connection_stores_nothing_and_the_next_try_all(
    app: FastAPI, engine: AsyncEngine, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = customer_store.add_changes

    async def lose(connection: Any, *arguments: Any) -> None:
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        async with engine.begin() as other:
            await other.execute(text("SELECT pg_terminate_backend(CAST(:pid AS int))"), {"pid": pid})
        await update(connection, *arguments)

    monkeypatch.setattr(customer_store, "add_changes", lose)
    response = await client.http.post("/v1/events", json={"events": [order("o-1", id="e-1")]})
    assert response.status_code == 503
    assert response.json()["code"] == "unavailable"
    assert response.headers["retry-after"]
    monkeypatch.undo()
    assert (await client.http.get("/v1/customers/c-1")).status_code == 404
    assert await client.record(order("o-1", id="e-1")) == receipt(1)


async def test_an_error_of_the_copy_has_the_form_of_all_database_errors(engine: AsyncEngine, client: Client) -> None:
    row = event_store.EventRow(
        client.workspace.id,
        "c-1",
        "e-1",
        "order.placed",
        datetime(2025, 1, 1, tzinfo=UTC),
        datetime(2025, 1, 1, tzinfo=UTC),
        bytes(16),
        datetime(2025, 1, 1, tzinfo=UTC).date(),
        *[None] * 6,
    )
    with pytest.raises(DBAPIError) as raised:
        async with engine.begin() as connection:
            await event_store.insert_events(connection, encode_events([row, row]))
    assert is_unique_violation(raised.value)
