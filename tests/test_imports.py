"""Imports: a file of any shape becomes events, once; what is wrong with it is told."""

import asyncio
import contextlib
import json
import random
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.imports import cutting, execution, receiving
from app.imports.progress import ImportRecord
from app.store import queue
from app.transactions import committed
from tests.conftest import Client, gzipped, make_client, ndjson, order

ORDERS = {
    "kind": "orders",
    "columns": {"order_id": "order", "customer_id": "customer", "occurred_at": "date", "amount": "total"},
}
LINES = {
    "kind": "lines",
    "columns": {
        "order_id": "invoice",
        "customer_id": "customer",
        "occurred_at": "date",
        "quantity": "quantity",
        "unit_price": "price",
    },
}
LINES_HEADER = "invoice,customer,date,quantity,price,note\n"


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """The content as a network brings it."""
    for start in range(0, len(content), 100):
        yield content[start : start + 100]


async def send(client: Client, content: bytes | str, mapping: dict[str, Any] | None = None, **headers: str) -> Any:
    kind = {"Content-Type": "text/csv" if mapping else "application/x-ndjson"}
    return await client.http.post(
        "/v1/imports",
        params={"mapping": json.dumps(mapping)} if mapping else {},
        headers=kind | {name.replace("_", "-"): value for name, value in headers.items()},
        content=pieces(content if isinstance(content, bytes) else content.encode()),
    )


async def work(client: Client, engine: AsyncEngine, import_id: str) -> dict[str, Any]:
    await execution.run_import_job(engine, import_id.encode(), asyncio.Event())
    return await client.get(f"/v1/imports/{import_id}")


async def run(
    client: Client, engine: AsyncEngine, content: bytes | str, mapping: dict[str, Any] | None = None, **headers: str
) -> dict[str, Any]:
    """Import a file as the service and its worker do, and answer the finished import."""
    response = await send(client, content, mapping, **headers)
    assert response.status_code == 202, response.text
    assert response.headers["Location"] == f"/v1/imports/{response.json()['id']}"
    assert response.json()["status"] == "queued"
    done = await work(client, engine, response.json()["id"])
    assert done["status"] == "succeeded"
    assert done["progress"] == 1
    return done


def counts(done: dict[str, Any]) -> dict[str, int]:
    """The counts that are not zero."""
    return {name: count for name, count in done["counts"].items() if count}


async def refused(client: Client, content: bytes | str, mapping: dict[str, Any] | None = None, **headers: str) -> Any:
    """The problem that a file is refused with; nothing of it stays."""
    response = await send(client, content, mapping, **headers)
    assert 400 <= response.status_code < 500, response.text
    assert (await client.get("/v1/imports"))["data"] == []
    return response.json()


async def left(engine: AsyncEngine, client: Client) -> dict[str, int]:
    """How much of the workspace's imports waits in the database."""
    found = {}
    for table in ("import_chunks", "import_lines", "import_orders"):
        statement = f"SELECT count(*) FROM {table} WHERE import_id IN (SELECT id FROM imports WHERE workspace_id = :id)"
        async with engine.connect() as connection:
            found[table] = (await connection.execute(text(statement), {"id": client.workspace.id})).scalar_one()
    return found


async def stored(client: Client, customer_id: str = "c-1") -> list[dict[str, Any]]:
    """A customer's events, oldest first."""
    events = (await client.get(f"/v1/customers/{customer_id}/events", limit=1000))["data"]
    return sorted(events, key=lambda event: (event["occurred_at"], event["id"]))


async def summary(client: Client, customer_id: str = "c-1") -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"/v1/customers/{customer_id}"))["summary"]
    return found


# ---- NDJSON ---------------------------------------------------------------------------------------------------------


async def test_events_are_stored_once_however_often_the_file_is_sent(client: Client, engine: AsyncEngine) -> None:
    content = ndjson(*(order(f"o-{number}", customer_id=f"c-{number % 7}") for number in range(50)))
    done = await run(client, engine, content)
    assert counts(done) == {"lines": 50, "accepted": 50}
    assert (done["format"], done["mapping"], done["error"], done["bad_rows"]) == ("ndjson", None, None, [])
    assert (done["received_bytes"], done["received_lines"]) == (len(content), 50)
    assert counts(await run(client, engine, gzipped(content), Content_Encoding="gzip")) == {
        "lines": 50,
        "duplicates": 50,
    }
    assert (await summary(client))["order_count"] == 7
    assert await left(engine, client) == {"import_chunks": 0, "import_lines": 0, "import_orders": 0}


async def test_bad_lines_are_told_and_good_ones_stored(client: Client, engine: AsyncEngine) -> None:
    good, late = order("o-1"), order("o-1", "11.00")
    content = b"\n".join(
        [b"\xef\xbb\xbf" + ndjson(good), b"", b'{"id": secret}', ndjson(order("o-2", "-1")), ndjson(late), b"[1]"]
    )
    done = await run(client, engine, content)
    assert counts(done) == {"lines": 5, "accepted": 1, "rejected": 4}
    assert [(row["line"], row["code"]) for row in done["bad_rows"]] == [
        (3, "malformed_event"),
        (4, "invalid_value"),
        (5, "order_conflict"),
        (6, "invalid_value"),
    ]
    assert done["bad_rows"][1]["detail"] == "/data/amount: amount must be at least 0."
    assert "secret" not in json.dumps(done)


async def test_the_first_thousand_bad_rows_are_listed_and_all_are_counted(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "CHUNK_BYTES", 3_000)
    done = await run(client, engine, b'{"id":1}\n' * 1_500 + ndjson(order("o-1")))
    assert counts(done) == {"lines": 1_501, "accepted": 1, "rejected": 1_500}
    assert [row["line"] for row in done["bad_rows"]] == list(range(1, 1_001))


# ---- Refusals -------------------------------------------------------------------------------------------------------


async def test_a_truncated_gzip_is_refused_with_the_line_reached(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "CHUNK_BYTES", 4_000)
    rows = "".join(f"o-{number},c-1,2024-01-01,{random.random():.4f}\n" for number in range(4_000))
    whole = gzipped(("order,customer,date,total\n" + rows).encode())
    problem = await refused(client, whole[: len(whole) // 2], ORDERS, Content_Encoding="gzip")
    assert problem["code"] == "malformed_gzip"
    line = int(problem["detail"].split("up to line ")[1].split(";")[0])
    assert 1_000 < line < 3_500
    assert await left(engine, client) == {"import_chunks": 0, "import_lines": 0, "import_orders": 0}


@pytest.mark.parametrize(
    ("content", "mapping", "code"),
    [
        (b"", None, "empty_file"),
        (b"\n \n", None, "empty_file"),
        (b"", ORDERS, "empty_file"),
        (b'[{"id": 1}]', None, "wrong_format"),
        (b"order,customer\n1,2\n", None, "wrong_format"),
        (b'{"id": 1}\n', ORDERS, "wrong_format"),
        (b"PK\x03\x04sheet", ORDERS, "wrong_format"),
        (gzipped(b"order,customer\n"), ORDERS, "wrong_format"),
        (b"order,customer,date,total\n\x00\x01\x02\n", ORDERS, "wrong_format"),
        ("order,customer,date,total\n".encode("utf-16"), ORDERS, "wrong_format"),
        (b"order,customer,date,total,gr\xf6\xdfe\n", ORDERS, "wrong_encoding"),
        (b"order,customer,date,sum\n", ORDERS, "missing_column"),
        (b'order,customer,date,total\n1,2,3,"4\n', ORDERS, "malformed_csv"),
        (b"order,customer,date,total\n", ORDERS | {"currency": "EUR"}, "exchange_rate_required"),
        (b"order,customer,date,total\n", ORDERS | {"kind": "carts"}, "invalid_value"),
        (b"order,customer,date,total\n", ORDERS | {"colour": "red"}, "unknown_field"),
    ],
)
async def test_a_file_that_is_not_what_it_says_is_refused(
    client: Client, content: bytes, mapping: dict[str, Any] | None, code: str
) -> None:
    assert (await refused(client, content, mapping))["code"] == code


async def test_type_and_mapping_must_fit_each_other(client: Client) -> None:
    response = await client.http.post("/v1/imports", headers={"Content-Type": "text/csv"}, content=b"a,b\n")
    assert (response.status_code, response.json()["code"]) == (422, "mapping_required")
    response = await client.http.post("/v1/imports", headers={"Content-Type": "text/plain"}, content=b"a,b\n")
    assert response.status_code == 415
    response = await client.http.post(
        "/v1/imports", params={"mapping": "{}"}, headers={"Content-Type": "application/x-ndjson"}, content=b"{}\n"
    )
    assert response.status_code == 422


async def test_a_file_that_comes_in_large_pieces_is_cut_into_chunks_of_one_batch(
    client: Client, engine: AsyncEngine
) -> None:
    lines = [f"o-{number:07},c-{number % 100},2024-05-01T10:00:00+00:00,12.50" for number in range(30_000)]
    response = await client.http.post(
        "/v1/imports",
        params={"mapping": json.dumps(ORDERS)},
        headers={"Content-Type": "text/csv"},
        content="\n".join(["order,customer,date,total", *lines, ""]).encode(),
    )
    assert response.status_code == 202
    async with engine.connect() as connection:
        of_import = text("SELECT content FROM import_chunks WHERE import_id = :id")
        chunks = (await connection.execute(of_import, {"id": response.json()["id"]})).scalars().all()
    sizes = [zlib.decompress(chunk).count(b"\n") for chunk in chunks]
    assert sum(sizes) == 30_000
    assert max(sizes) <= execution.BATCH_EVENTS


async def test_an_upload_that_breaks_off_leaves_nothing(
    client: Client, app: FastAPI, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "CHUNK_BYTES", 200)
    messages = [{"type": "http.request", "body": ndjson(order("o-1")) + b"\n", "more_body": True}] * 5
    messages.append({"type": "http.disconnect"})
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def keep(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {client.key}".encode()), (b"content-type", b"application/x-ndjson")]
    scope = {"type": "http", "method": "POST", "path": "/v1/imports", "query_string": b"", "headers": headers}
    await app(scope | {"http_version": "1.1", "raw_path": b"/v1/imports", "scheme": "http"}, receive, keep)
    assert sent[0]["status"] == 400
    async with engine.connect() as connection:
        found = await connection.execute(
            text("SELECT count(*) FROM imports WHERE workspace_id = :id"), {"id": client.workspace.id}
        )
        assert found.scalar_one() == 0


async def test_what_a_killed_process_left_of_an_upload_is_hidden_and_then_removed(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "CHUNK_BYTES", 100)
    pause, reached = asyncio.Event(), asyncio.Event()

    async def stream() -> AsyncIterator[bytes]:
        yield ndjson(order("o-1")) + b"\n"
        reached.set()
        await pause.wait()

    async def killed(*_: object) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(receiving, "_discard", killed)

    async def commit(complete: receiving.Completion) -> ImportRecord:
        return await committed(engine, lambda connection, _again: complete(connection))

    upload = asyncio.create_task(receiving.receive_import(engine, client.workspace, "ndjson", None, stream(), commit))
    await reached.wait()
    upload.cancel()
    await asyncio.gather(upload, return_exceptions=True)
    assert (await left(engine, client))["import_chunks"] == 1
    assert (await client.get("/v1/imports"))["data"] == []
    await execution.remove_abandoned_uploads(engine)
    assert (await left(engine, client))["import_chunks"] == 1
    monkeypatch.setattr(execution, "ABANDONED_AFTER", timedelta(0))
    await execution.remove_abandoned_uploads(engine)
    assert (await left(engine, client))["import_chunks"] == 0


# ---- Orders ---------------------------------------------------------------------------------------------------------


async def test_rows_become_orders_and_credits(client: Client, engine: AsyncEngine) -> None:
    content = (
        "order,customer,date,total\n1,c-1,2024-01-01,10\n2,c-1,2024-01-02,0\n3,c-1,2024-01-03,-4\n4,,2024-01-04,7\n"
    )
    assert counts(await run(client, engine, content, ORDERS)) == {
        "lines": 4,
        "accepted": 3,
        "skipped_without_customer": 1,
    }
    assert [(event["id"], event["type"], event["data"]["amount"]) for event in await stored(client)] == [
        ("order-1", "order.placed", "10.00"),
        ("order-2", "order.placed", "0.00"),
        ("refund-3", "order.refunded", "4.00"),
    ]
    assert (await summary(client))["net_spend"] == "6.00"
    again = await run(client, engine, content, ORDERS | {"cancellations": "drop"})
    assert counts(again) == {"lines": 4, "duplicates": 2, "skipped_without_customer": 1, "dropped_cancellations": 1}


async def test_bad_rows_name_line_and_column_and_repeat_nothing(client: Client, engine: AsyncEngine) -> None:
    content = (
        "order,customer,date,total\n1,c-1,2024-01-01,10\n2,c-1,2024-01-02,secret\n3,c-1,2024-01-03,5,6\n"
        "1,c-1,2024-01-01,99\n4,c-1,2024-01-04,8\n"
    )
    done = await run(client, engine, content, ORDERS)
    assert counts(done) == {"lines": 5, "accepted": 2, "rejected": 3}
    assert [(row["line"], row["code"]) for row in done["bad_rows"]] == [
        (3, "invalid_value"),
        (4, "malformed_row"),
        (5, "event_conflict"),
    ]
    assert done["bad_rows"][0]["detail"] == 'Column "total": must be a number such as 12.50.'
    assert "secret" not in json.dumps(done)
    assert (await summary(client))["net_spend"] == "18.00"


async def test_rows_without_id_are_told_apart_by_their_occurrence(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "CHUNK_BYTES", 40)
    mapping = {"kind": "orders", "columns": {name: name for name in ("customer_id", "occurred_at", "amount")}}
    header, row = "customer_id,occurred_at,amount\n", "c-1,2024-01-01,10\n"
    first = header + row * 3 + "c-1,2024-01-01,11\n"
    assert counts(await run(client, engine, first, mapping)) == {"lines": 4, "accepted": 4}
    assert counts(await run(client, engine, first, mapping)) == {"lines": 4, "duplicates": 4}
    # A later file that goes further, with a column more and other rows between.
    later = header.replace("\n", ",note\n") + f"c-2,2024-01-01,10,x\n{row[:-1]},y\n" * 4
    assert counts(await run(client, engine, later, mapping)) == {"lines": 8, "accepted": 5, "duplicates": 3}
    assert (await summary(client))["order_count"] == 5
    dropped = await run(client, engine, header + row * 4, mapping | {"duplicates": "drop"})
    assert counts(dropped) == {"lines": 4, "duplicates": 1, "dropped_duplicate_lines": 3}


async def test_other_dialects_of_csv_are_read(client: Client, engine: AsyncEngine) -> None:
    content = '\ufeffOrder;Customer;Date;Total\r\n1;"c;1";31.12.2024;"1.234,50"\r\n\r\n2;c 2;31.12.2024;2\r\n'
    mapping = {
        "kind": "orders",
        "columns": {"order_id": "Order", "customer_id": "Customer", "occurred_at": "Date", "amount": "Total"},
        "occurred_at_format": "%d.%m.%Y",
        "delimiter": ";",
        "decimal_separator": ",",
        "thousands_separator": ".",
        "id_replacement": "-",
    }
    assert counts(await run(client, engine, content, mapping)) == {"lines": 2, "accepted": 2}
    assert (await summary(client, "c;1"))["net_spend"] == "1234.50"
    assert (await summary(client, "c-2"))["net_spend"] == "2.00"


async def test_orders_keep_currency_cost_channel_and_campaign(client: Client, engine: AsyncEngine) -> None:
    columns = {name: name for name in ("order_id", "customer_id", "occurred_at", "amount", "cost", "channel")}
    mapping = {
        "kind": "orders",
        "columns": columns | {"campaign_id": "campaign"},
        "currency": "EUR",
        "exchange_rate": "1.5",
    }
    content = "order_id,customer_id,occurred_at,amount,cost,channel,campaign\n1,c-1,2024-01-01,10,4,web,spring\n"
    await run(client, engine, content, mapping)
    (event,) = await stored(client)
    assert event["data"] == {
        "order_id": "1",
        "amount": "10.00",
        "currency": "EUR",
        "exchange_rate": "1.50",
        "cost": "4.00",
        "channel": "web",
        "campaign_id": "spring",
    }
    assert (await summary(client))["net_spend"] == "15.00"


# ---- Lines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicates", ["keep", "drop"])
@pytest.mark.parametrize("cancellations", ["refund", "drop"])
async def test_lines_in_any_order_are_summed_to_orders(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, cancellations: str, duplicates: str
) -> None:
    monkeypatch.setattr(cutting, "CHUNK_BYTES", 500)
    monkeypatch.setattr(execution, "BATCH_ORDERS", 7)
    dice = random.Random(20250101)
    lines = []
    for number in range(300):
        invoice = dice.randrange(60)
        cancels = invoice % 5 == 0
        lines.append(
            (
                f"{'C' if cancels else ''}{invoice}",
                "" if invoice % 11 == 0 else f"c-{invoice % 3}",
                f"2024-03-{1 + invoice % 28:02} 10:{dice.randrange(60):02}",
                dice.randrange(1, 5) * (-1 if cancels else 1),
                dice.choice(["1.25", "0", "3.333", "10"]),
                str(number),
            )
        )
    lines += dice.choices(lines, k=40)
    dice.shuffle(lines)
    content = LINES_HEADER + "".join(",".join(map(str, line)) + "\n" for line in lines)
    mapping = LINES | {"cancellation_prefix": "C", "cancellations": cancellations, "duplicates": duplicates}
    done = await run(client, engine, content, mapping)

    counted = [line for line in lines if line[1] and not (cancellations == "drop" and line[0].startswith("C"))]
    if duplicates == "drop":
        counted = list(dict.fromkeys(counted))
    sums: dict[tuple[str, str], Decimal] = {}
    moments: dict[tuple[str, str], str] = {}
    for invoice_id, customer, moment, quantity, price, _ in counted:
        key = (customer, invoice_id)
        sums[key] = sums.get(key, Decimal(0)) + quantity * Decimal(price)
        moments[key] = min(moments.get(key, moment), moment)
    expected = {
        (customer, f"{'refund' if invoice.startswith('C') else 'order'}-{invoice}"): (
            abs(amount),
            moments[customer, invoice].replace(" ", "T") + ":00Z",
        )
        for (customer, invoice), amount in sums.items()
        if amount or not invoice.startswith("C")
    }
    found = {
        (customer, event["id"]): (Decimal(event["data"]["amount"]), event["occurred_at"])
        for customer in ("c-0", "c-1", "c-2")
        for event in await stored(client, customer)
    }
    assert found == expected
    for customer in ("c-0", "c-1", "c-2"):
        net = sum(amount for (whose, _), amount in sums.items() if whose == customer)
        assert Decimal((await summary(client, customer))["net_spend"]) == net
    assert done["counts"]["lines"] == len(lines)
    assert done["counts"]["skipped_without_customer"] == sum(not line[1] for line in lines)
    assert (done["counts"]["dropped_duplicate_lines"] > 0) == (duplicates == "drop")
    again = await run(client, engine, content, mapping)
    assert (again["counts"]["accepted"], again["counts"]["duplicates"]) == (0, len(expected))
    assert await left(engine, client) == {"import_chunks": 0, "import_lines": 0, "import_orders": 0}


async def test_an_order_of_two_customers_becomes_one_of_each(client: Client, engine: AsyncEngine) -> None:
    content = LINES_HEADER + "1,c-1,2024-01-02,1,5,\n1,c-2,2024-01-01,2,3,\n1,c-1,2024-01-01,1,1,\n"
    assert counts(await run(client, engine, content, LINES)) == {"lines": 3, "accepted": 2}
    (first,), (second,) = await stored(client), await stored(client, "c-2")
    assert (first["data"]["amount"], first["occurred_at"]) == ("6.00", "2024-01-01T00:00:00Z")
    assert (second["data"]["amount"], second["data"]["order_id"]) == ("6.00", "1")


async def test_lines_of_negative_quantity_leave_the_rest_of_their_order(client: Client, engine: AsyncEngine) -> None:
    content = (
        LINES_HEADER + "1,c-1,2024-01-01,4,5,\n1,c-1,2024-01-09,-1,5,\n2,c-1,2024-01-02,1,-8,\n3,c-1,2024-01-02,-1,0,\n"
    )
    done = await run(client, engine, content, LINES)
    assert counts(done) == {"lines": 4, "accepted": 3, "dropped_cancellations": 1}
    assert [(event["id"], event["data"]["amount"], event["occurred_at"][:10]) for event in await stored(client)] == [
        ("order-1", "20.00", "2024-01-01"),
        ("credit-2", "8.00", "2024-01-02"),
        ("refund-1", "5.00", "2024-01-09"),
    ]
    assert (await summary(client))["net_spend"] == "7.00"


async def test_orders_that_can_not_be_summed_are_told(client: Client, engine: AsyncEngine) -> None:
    mapping = LINES | {
        "columns": LINES["columns"] | {"currency": "currency", "exchange_rate": "rate", "cost": "cost"},  # type: ignore[operator]
        "cancellation_prefix": "C",
    }
    content = (
        "invoice,customer,date,quantity,price,currency,rate,cost\n"
        "1,c-1,2024-01-01,1,5,USD,,\n1,c-1,2024-01-01,1,5,EUR,1.1,\n"
        "C2,c-1,2024-01-01,1,5,USD,,\n"
        "3,c-1,2024-01-01,1,5,USD,,-2\n"
        "4,c-1,2024-01-01,1,5,USD,,2\n4,c-1,2024-01-01,1,5,USD,,\n"
    )
    done = await run(client, engine, content, mapping)
    assert counts(done) == {"lines": 6, "accepted": 1, "rejected": 3}
    assert [(row["line"], row["code"]) for row in done["bad_rows"]] == [
        (2, "mixed_currencies"),
        (4, "cancellation_not_negative"),
        (5, "cost_negative"),
    ]
    (event,) = await stored(client)
    assert event["data"] == {"order_id": "4", "amount": "10.00", "currency": "USD"}


async def test_items_are_kept_where_asked_for(client: Client, engine: AsyncEngine) -> None:
    mapping = {"kind": "lines", "items": True, "columns": LINES["columns"] | {"sku": "note"}}  # type: ignore[operator]
    content = LINES_HEADER + "1,c-1,2024-01-01,2,5,red\n1,c-1,2024-01-01,1,2.5,\n"
    await run(client, engine, content, mapping)
    (event,) = await stored(client)
    assert event["data"]["items"] == [
        {"sku": "red", "quantity": "2.00", "unit_price": "5.00"},
        {"quantity": "1.00", "unit_price": "2.50"},
    ]


# ---- Cancellations --------------------------------------------------------------------------------------------------


async def test_notes_of_returned_orders_cancel_them(client: Client, engine: AsyncEngine) -> None:
    orders = LINES_HEADER + "1,c-1,2024-01-02,1,5,\n1,c-2,2024-01-01,2,3,\n2,c-1,2024-01-03,1,1,\n"
    await run(client, engine, orders, LINES)
    mapping = {"kind": "cancellations", "columns": {"order_id": "Order ID"}}
    notes = "Returned,Order ID\nYes,1\nYes,1\nYes,9\n"
    done = await run(client, engine, notes, mapping)
    assert counts(done) == {"lines": 3, "accepted": 2, "duplicates": 2, "rejected": 1}
    assert [(row["line"], row["code"]) for row in done["bad_rows"]] == [(4, "order_not_found")]
    assert (await summary(client))["net_spend"] == "1.00"
    assert (await summary(client, "c-2"))["order_count"] == 0


# ---- Jobs -----------------------------------------------------------------------------------------------------------


class SetSoon(asyncio.Event):
    """The end of a worker that comes once a job has asked for it so many times."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self._left = asked

    def is_set(self) -> bool:
        self._left -= 1
        return self._left < 0


async def test_an_import_cut_short_goes_on_where_it_stopped(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "CHUNK_BYTES", 300)
    monkeypatch.setattr(execution, "BATCH_EVENTS", 4)
    monkeypatch.setattr(execution, "BATCH_ORDERS", 3)
    lines = LINES_HEADER + "".join(f"{number % 10},c-1,2024-01-01,1,{number},\n" for number in range(100))
    events = ndjson(*(order(f"e-{number}", customer_id="c-2") for number in range(30)))
    for content, mapping in ((lines, LINES), (events, None)):
        import_id = (await send(client, content, mapping)).json()["id"]
        progress = [0.0]
        while (found := await client.get(f"/v1/imports/{import_id}"))["status"] != "succeeded":
            assert found["status"] != "failed"
            assert found["progress"] >= progress[-1]
            progress.append(found["progress"])
            with contextlib.suppress(queue.Interrupted):
                await execution.run_import_job(engine, import_id.encode(), SetSoon(asked=1))
        assert len(set(progress)) > 3
        assert found["counts"]["accepted"] == (10 if mapping else 30)
        assert found["counts"]["lines"] == (100 if mapping else 30)
    assert (await summary(client))["net_spend"] == f"{sum(range(100))}.00"
    assert (await summary(client, "c-2"))["order_count"] == 30


async def test_an_import_that_was_begun_with_other_batches_fails_and_can_be_sent_again(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "BATCH_EVENTS", 4)
    events = ndjson(*(order(f"e-{number}") for number in range(8)))
    import_id = (await send(client, events)).json()["id"]
    with pytest.raises(queue.Interrupted):
        await execution.run_import_job(engine, import_id.encode(), SetSoon(asked=0))
    monkeypatch.setattr(execution, "BATCH_EVENTS", 8)
    begun = await work(client, engine, import_id)
    assert (begun["status"], begun["counts"]["accepted"]) == ("failed", 4)
    again = await work(client, engine, (await send(client, events)).json()["id"])
    assert (again["status"], again["counts"]["accepted"], again["counts"]["duplicates"]) == ("succeeded", 4, 4)


async def test_two_workers_at_one_import_count_nothing_twice(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "CHUNK_BYTES", 300)
    content = LINES_HEADER + "".join(f"{number},c-{number % 5},2024-01-01,1,2,\n" for number in range(100))
    import_id = (await send(client, content, LINES)).json()["id"]
    jobs = (execution.run_import_job(engine, import_id.encode(), asyncio.Event()) for _ in range(4))
    for outcome in await asyncio.gather(*jobs, return_exceptions=True):
        assert outcome is None or isinstance(outcome, queue.Interrupted)
    done = await work(client, engine, import_id)
    assert (done["status"], counts(done)) == ("succeeded", {"lines": 100, "accepted": 100})
    assert counts(await work(client, engine, import_id)) == {"lines": 100, "accepted": 100}


async def test_an_unexpected_error_fails_the_import_and_drops_what_waits(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import_id = (await send(client, LINES_HEADER + "1,c-1,2024-01-01,1,2,\n", LINES)).json()["id"]

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(execution, "order_event", broken)
    done = await work(client, engine, import_id)
    assert (done["status"], done["error"]["code"]) == ("failed", "internal_error")
    assert "ZeroDivisionError" in caplog.text
    assert "ZeroDivisionError" not in json.dumps(done)
    assert await left(engine, client) == {"import_chunks": 0, "import_lines": 0, "import_orders": 0}


async def test_an_import_that_kills_every_worker_is_given_up(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_id = (await send(client, ndjson(order("o-1")))).json()["id"]

    async def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(execution._Work, "run", killed)
        for _ in range(execution.MAX_FRUITLESS_STARTS):
            with pytest.raises(KeyboardInterrupt):
                await execution.run_import_job(engine, import_id.encode(), asyncio.Event())
    done = await work(client, engine, import_id)
    assert (done["status"], done["error"]["code"]) == ("failed", "interrupted")


# ---- Reading them ---------------------------------------------------------------------------------------------------


async def test_imports_are_listed_newest_first_for_their_workspace_alone(
    client: Client, app: FastAPI, engine: AsyncEngine
) -> None:
    ids = [(await send(client, ndjson(order(f"o-{number}")))).json()["id"] for number in range(5)]
    page = await client.get("/v1/imports", limit=3)
    rest = await client.get("/v1/imports", limit=3, cursor=page["next_cursor"])
    assert [one["id"] for one in page["data"] + rest["data"]] == ids[::-1]
    assert rest["next_cursor"] is None
    stranger = await make_client(app)
    async with stranger.http:
        assert (await stranger.get("/v1/imports"))["data"] == []
        response = await stranger.http.get(f"/v1/imports/{ids[0]}")
        assert (response.status_code, response.json()["code"]) == (404, "import_not_found")


async def test_importing_needs_the_scope_to_write_events(client: Client) -> None:
    made = await client.http.post("/v1/keys", json={"scopes": ["customers:read"]})
    headers = {"Authorization": f"Bearer {made.json()['key']}", "Content-Type": "application/x-ndjson"}
    for call in (client.http.get, client.http.post):
        response: httpx.Response = await call("/v1/imports", headers=headers)
        assert (response.status_code, response.json()["code"]) == (403, "scope_missing")


async def test_the_clock_that_counts_is_that_of_the_upload(client: Client, engine: AsyncEngine) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(hours=23)).strftime("%Y-%m-%dT%H:%M:%SZ")
    later = (datetime.now(UTC) + timedelta(hours=25)).strftime("%Y-%m-%dT%H:%M:%SZ")
    done = await run(client, engine, ndjson(order("o-1", occurred_at=tomorrow), order("o-2", occurred_at=later)))
    assert counts(done) == {"lines": 2, "accepted": 1, "rejected": 1}
