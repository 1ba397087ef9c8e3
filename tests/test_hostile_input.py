"""No body, path, query or header makes the service fail, tells it something it stores, or comes back in an answer.

All cases go over a socket, byte by byte, to a served app.
"""

import asyncio
import base64
import json
import random
import resource
import time
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from sqlalchemy import text

from app.api.cursors import decode_cursor, encode_cursor
from app.errors import InvalidRequest
from app.main import create_app
from app.settings import Settings
from app.store.workspaces import Workspace
from tests.conftest import gzipped, make_workspace
from tests.raw_http import serving

CANARY = "cAnArY"
"""Part of all hostile input; no answer may hold it."""

MANY = 10_000


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Service:
    port: int
    workspace: Workspace
    key: str
    app: Any
    server: uvicorn.Server

    async def send(
        self, method: str, target: str | bytes, headers: Mapping[str, str | bytes] | None = None, body: bytes = b""
    ) -> Answer:
        """One request as it is given, with a key and a Content-Length unless told otherwise (None leaves one out)."""
        given: dict[str, Any] = {"Host": "perennial.test", "Authorization": f"Bearer {self.key}", "Connection": "close"}
        if body or method in ("POST", "PATCH"):
            given |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        given |= headers or {}
        lines = [_bytes(method) + b" " + _bytes(target) + b" HTTP/1.1"]
        lines += [_bytes(name) + b": " + _bytes(value) for name, value in given.items() if value is not None]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26)
        try:
            writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            raw = await asyncio.wait_for(reader.read(), 30)
        finally:
            writer.close()
        head, _, content = raw.partition(b"\r\n\r\n")
        status_line, *header_lines = head.decode("latin-1").split("\r\n")
        answered = {name.lower(): value for name, _, value in (line.partition(": ") for line in header_lines)}
        return Answer(int(status_line.split()[1]), answered, content)

    async def post(self, path: str, body: bytes | str, **headers: str) -> Answer:
        return await self.send("POST", path, headers, _bytes(body))


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(database_url: str) -> AsyncIterator[Service]:
    app = create_app(Settings(database_url=database_url, throwaway_database=True))
    async with serving(app) as (server, port):
        workspace, key = await make_workspace(app.state.engine)
        yield Service(port, workspace, key, app, server)


def check(answer: Answer, canary: str = CANARY) -> None:
    """What holds for every answer."""
    assert answer.status < 500, answer.body
    assert answer.headers.get("x-request-id")
    assert canary not in str(answer.headers)
    assert canary.encode() not in answer.body
    if answer.status >= 400 and answer.body:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == answer.status
        assert all(isinstance(problem[name], str) and problem[name] for name in ("type", "title", "code", "detail"))
        for field in problem["errors"]:
            assert field.keys() == {"pointer", "code", "detail"}


# ---- One hostile event among good ones ------------------------------------------------------------------------------


def event_text(
    data: str = '{"order_id": "o-h", "amount": "1", "currency": "USD"}',
    type: str = '"order.placed"',
    id: str = '"e-h"',
    at: str = '"2025-01-01T00:00:00Z"',
    customer: str = '"c-h"',
    more: str = "",
) -> str:
    return f'{{"id": {id}, "type": {type}, "occurred_at": {at}, "customer_id": {customer}, "data": {data}{more}}}'


def order_with(**fields: str) -> str:
    data = {"order_id": '"o-h"', "amount": '"1"', "currency": '"USD"'} | fields
    return event_text("{" + ", ".join(f'"{name}": {value}' for name, value in data.items()) + "}")


def profile_with(fields: str) -> str:
    return event_text("{" + fields + "}", type='"customer.updated"')


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


LONG_DIGITS = "1" + "0" * 5_000
SURROGATE = r'"\ud800"'
AMOUNTS = (
    "NaN Infinity -Infinity 1e400 -1e400 1e999999999 1e99999999999999999999 1e-999999999 -1 -0.01 1.00001 0.00001"
    ' 1e18 1000000000000000000 100000000000 true null [] {} "NaN" "Infinity" "1e999999999" "1e2" "1_000" "0x10" "+1"'
    ' ".5" "1." "-1" "12,50" "" "1." "1.00001" "100000000000" "१२" "\\u0000" "\\ud800"'
).split(" ")
INSTANTS = (
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59-12:00",
    "290000-01-01T00:00:00Z",
    "+290000-01-01T00:00:00Z",
    "2025-00-01T00:00:00Z",
    "2025-13-01T00:00:00Z",
    "2025-02-30T00:00:00Z",
    "2025-01-01T24:00:00Z",
    "2025-01-01T23:59:60Z",
    "2025-01-01T23:60:00Z",
    "2025-01-01T00:00:00",
    "2025-01-01T00:00Z",
    "2025-01-01",
    "2025-01-01T00:00:00+99:99",
    "2025-01-01T00:00:00+24:00",
    "2025-01-01T00:00:00+10:60",
    "2025-01-01T00:00:00+1000",
    "2025-01-01T00:00:00 Z",
    "2025-01-01T00:00:00." + "1" * 100 + "Z",
    "٢٠٢٥-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "2999-01-01T00:00:00Z",
    "",
    CANARY,
)
HOSTILE_EVENTS = {
    **{f"amount {amount}": order_with(amount=amount) for amount in AMOUNTS},
    "amount of 5000 digits": order_with(amount=LONG_DIGITS),
    "amount of 5000 digits as text": order_with(amount=f'"{LONG_DIGITS}"'),
    "amount of 5000 decimals": order_with(amount="1." + "1" * 5_000),
    "amount is the canary": order_with(amount=f'"{CANARY}"'),
    **{
        f"rate {rate}": order_with(currency='"EUR"', exchange_rate=rate)
        for rate in (
            "0",
            "-1",
            "NaN",
            "1e18",
            "1000000000000000000",
            '"1e5"',
            '"0.00000000001"',
            '"1000000000"',
            "1e400",
        )
    },
    "no rate of a foreign currency": order_with(currency='"EUR"'),
    "a rate of the own currency": order_with(exchange_rate='"2"'),
    "too much in the own currency": order_with(amount='"99999999999"', currency='"JPY"', exchange_rate='"2"'),
    "too costly in the own currency": order_with(cost='"99999999999"', currency='"JPY"', exchange_rate='"2"'),
    "a currency in small letters": order_with(currency='"usd"'),
    "a currency that is the canary": order_with(currency=f'"{CANARY}"'),
    "a currency of other letters": order_with(currency='"ＵＳＤ"'),
    **{f"occurred_at {at[:40]}": event_text(at=json.dumps(at)) for at in INSTANTS},
    **{f"occurred_at {at}": event_text(at=at) for at in ("1735689600", "1e400", "null", "[]", "{}", "true", SURROGATE)},
    **{
        f"id {value[:20]}": event_text(id=value)
        for value in ('""', f'"{CANARY} "', f'"{CANARY}/"', f'"{CANARY}%"', f'"{CANARY}\\u0000"', f'"{CANARY}\\n"')
    },
    **{
        f"id {value[:20]}": event_text(id=value)
        for value in (f'"{CANARY}\\u2028"', f'"{CANARY}\\u0085"', f'"{CANARY}\\ud800"', "5", "null", "[]", "{}", "NaN")
    },
    "id of 129 characters": event_text(id=json.dumps(CANARY * 21 + "xyz")),
    "id of a megabyte": event_text(id=json.dumps(CANARY * 170_000)),
    "customer_id with NUL": event_text(customer='"c\\u0000"'),
    "customer_id of 129 characters": event_text(customer=json.dumps("c" * 129)),
    "customer_id is a surrogate": event_text(customer=SURROGATE),
    "customer_id is a number": event_text(customer="1"),
    **{
        f"type {kind}": event_text(type=kind)
        for kind in (
            f'"{CANARY}"',
            f'"order.{CANARY}"',
            "null",
            "5",
            '""',
            "[]",
            "{}",
            "NaN",
            SURROGATE,
            '"Order.Placed"',
        )
    },
    "no type": '{"id": "e-h", "occurred_at": "2025-01-01T00:00:00Z", "customer_id": "c-h", "data": {}}',
    "no data": '{"id": "e-h", "type": "order.placed", "occurred_at": "2025-01-01T00:00:00Z", "customer_id": "c-h"}',
    "an empty object": "{}",
    **{
        f"the event is {item[:20]}": item
        for item in ("1", "1.5", "null", f'"{CANARY}"', "[]", "true", "NaN", nested(150))
    },
    "the event is nested": nested(900),
    **{
        f"data is {data[:20]}": event_text(data)
        for data in ("1", "null", f'"{CANARY}"', "[]", "true", "NaN", "-Infinity", "{}", nested(150), nested(500))
    },
    **{
        f"an unknown field {ascii(name)[:30]}": event_text(more=f", {json.dumps(name)}: 1")
        for name in (f"{CANARY} x", f"{CANARY}\0", f"{CANARY}\ud800", CANARY * 20, "", f"/{CANARY}~", f"{CANARY}é")
    },
    "an unknown field of data": order_with(**{f"{CANARY} x": "1"}),
    "an unknown field that is a surrogate": order_with(**{r"\ud800": "1"}),
    "100000 unknown fields": event_text("{" + ",".join(f'"x{number} {CANARY}": 1' for number in range(100_000)) + "}"),
    "a key twice": event_text(more=', "id": "e-i"'),
    "a key twice in data": order_with(**{"order_id": '"o-i", "order_id": "o-j"'}),
    "an order_id with a slash": order_with(order_id=f'"{CANARY}/"'),
    "a channel with NUL": order_with(channel=f'"{CANARY}\\u0000"'),
    "a channel of 101 characters": order_with(channel=json.dumps("c" * 101)),
    "1001 items": order_with(items=json.dumps([{}] * 1_001)),
    "items is an object": order_with(items="{}"),
    "an item is NaN": order_with(items="[NaN]"),
    "an item is no object": order_with(items=f'["{CANARY}"]'),
    "an item with an unknown field": order_with(items=f'[{{"{CANARY} x": 1}}]'),
    "an item's quantity is infinite": order_with(items='[{"quantity": -Infinity}]'),
    "an item's price is huge": order_with(items='[{"unit_price": 1e999999999}]'),
    **{
        f"a profile: {fields[:40]}": profile_with(fields)
        for fields in (
            f'"name": "{CANARY}\\u0000"',
            '"name": ""',
            '"name": 5',
            f'"name": "{CANARY * 40}"',
            f'"email": "{CANARY}\\ud800"',
            f'"kind": "{CANARY}"',
            f'"birth_date": "{CANARY}"',
            '"birth_date": "2025-02-30"',
            '"birth_date": "0000-01-01"',
            '"birth_date": "+290000-01-01"',
            '"income": NaN',
            '"income": "-1"',
            f'"referred_by": "{CANARY}?"',
            '"attributes": []',
            f'"attributes": "{CANARY}"',
            '"attributes": {"a": [1]}',
            '"attributes": {"a": {"b": 1}}',
            '"attributes": {"a": NaN}',
            '"attributes": {"a": 1e15}',
            '"attributes": {"a": -1e400}',
            '"attributes": {"a": 1e999999999}',
            f'"attributes": {{"a": {LONG_DIGITS}}}',
            '"attributes": {"": 1}',
            '"attributes": {"a\\u0000": 1}',
            '"attributes": {"\\ud800": 1}',
            '"attributes": {"a": "\\ud800"}',
            f'"attributes": {{"{CANARY * 20}": 1}}',
            f'"attributes": {{"a": "{CANARY * 200}"}}',
            '"attributes": ' + json.dumps({str(number): number for number in range(101)}),
            '"attributes": {"a": 1, "a": 2}',
            '"attributes": ' + nested(150),
        )
    },
    **{
        f"a refund: {data}": event_text(data, type='"order.refunded"')
        for data in (
            '{"amount": "1"}',
            '{"amount": "0", "currency": "USD"}',
            '{"amount": "-1", "order_id": "o-1"}',
            '{"amount": "1", "currency": "EUR"}',
            '{"amount": "1", "currency": "USD", "exchange_rate": "1.1"}',
            '{"amount": 1e999999999, "order_id": "o-1"}',
        )
    },
    "a promise of the year 0": event_text(
        '{"order_id": "o", "promised_at": "0000-01-01T00:00:00Z"}', '"order.delivered"'
    ),
    "sent in the year 0": event_text(more=', "sent_at": "0000-01-01T00:00:00Z"'),
    "a body that is no UTF-8": order_with(channel='"BADBYTE"'),
    "a raw surrogate": order_with(channel='"BADSURROGATE"'),
}

_case = iter(range(1_000_000))


def good_event() -> str:
    number = next(_case)
    return event_text(f'{{"order_id": "g-{number}", "amount": "1", "currency": "USD"}}', id=f'"g-{number}"')


def as_bytes(body: str) -> bytes:
    raw = body.encode("utf-8", "surrogatepass")
    return raw.replace(b"BADBYTE", b"\xff\xfe").replace(b"BADSURROGATE", b"\xed\xa0\x80")


@pytest.mark.parametrize("name", HOSTILE_EVENTS)
async def test_a_hostile_event_is_rejected_alone(service: Service, name: str) -> None:
    hostile = HOSTILE_EVENTS[name]
    batch = [good_event(), hostile, good_event()]
    answers = [await service.post("/v1/events", as_bytes(f'{{"events": [{",".join(batch)}]}}'))]
    lines = [good_event(), hostile, "", good_event()]
    answers += [
        await service.send("POST", "/v1/events", {"Content-Type": "application/x-ndjson"}, as_bytes("\n".join(lines)))
    ]
    for answer in answers:
        check(answer)
        assert answer.status == 200, answer.body
        receipt = answer.json()
        assert (receipt["accepted"], receipt["duplicates"], receipt["rejected"]) == (2, 0, 1)
        (error,) = receipt["errors"]
        assert error["index"] == 1
        assert error["id"] in (None, "e-h")
        assert error["code"]
        assert error["detail"].endswith(".")
        assert error["pointer"] == "" or error["pointer"].startswith("/")
    known = json.loads((await service.send("GET", "/v1/customers/c-h/events")).body)
    assert "e-h" not in [event["id"] for event in known["data"]]


# ---- Hostile bodies -------------------------------------------------------------------------------------------------

DEEP = 100_000
BODIES = {
    "nothing": b"",
    "a brace": b"{",
    "null": b"null",
    "a list": b"[]",
    "a text": f'"{CANARY}"'.encode(),
    "a number": b"5",
    "NaN": b"NaN",
    "5000 digits": LONG_DIGITS.encode(),
    "1e999999999": b"1e999999999",
    "true": b"true",
    "two values": b"{} {}",
    "a trailing comma": b'{"events": [],}',
    "single quotes": b"{'events': []}",
    "lists in lists": b"[" * DEEP,
    "lists in lists, closed": b"[" * DEEP + b"]" * DEEP,
    "objects in objects": b'{"a":' * DEEP,
    "objects in objects, closed": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "no UTF-8": b'{"\xff": 1}',
    "UTF-16": '{"events": []}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"events": []}',
    "NUL": b"\0",
    "NUL in a text": b'{"events": "\0"}',
    "a surrogate": rb'{"\ud800": 1}',
    "a key twice": b'{"x": 1, "x": 2}',
    "an unknown field": f'{{"{CANARY} x": 1}}'.encode(),
    "an unknown field with NUL": f'{{"{CANARY}\\u0000": NaN}}'.encode(),
    "a form": f"events={CANARY}".encode(),
    "markup": f"<events>{CANARY}</events>".encode(),
}
EVENT_BODIES = {
    "no list": b'{"events": null}',
    "an object for the list": b'{"events": {}}',
    "a text for the list": f'{{"events": "{CANARY}"}}'.encode(),
    "a further field": f'{{"events": [], "{CANARY}": 1}}'.encode(),
    "NaN beside the list": b'{"events": [], "x": NaN}',
    "the list twice": b'{"events": [], "events": []}',
    "the list nested": b'{"events": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "an event nested": b'{"events": [' + b"[" * DEEP + b"]" * DEEP + b"]}",
    "10001 events": b'{"events": [' + b",".join([b"1"] * 10_001) + b"]}",
    "millions of events": b'{"events": [' + b",".join([b"1"] * 4_900_000) + b"]}",
    "too many bytes": b'{"events": ["' + b"x" * 10_000_000 + b'"]}',
}
JSON_ROUTES = {
    "/v1/keys": ("POST", {400, 422}),
    "/v1/workspaces": ("POST", {400, 422}),
    "/v1/values/query": ("POST", {400, 422}),
    # A run may be asked for without a body.
    "/v1/runs": ("POST", {400, 422, 202}),
    "/v1/settings": ("PATCH", {400, 422, 200}),
    "/v1/events": ("POST", {400, 422}),
}


@pytest.mark.parametrize("path", JSON_ROUTES)
@pytest.mark.parametrize("name", BODIES)
async def test_a_hostile_body_is_refused(service: Service, path: str, name: str) -> None:
    method, statuses = JSON_ROUTES[path]
    answer = await service.send(method, path, {}, BODIES[name])
    check(answer)
    assert answer.status in statuses, answer.body


@pytest.mark.parametrize("name", EVENT_BODIES)
async def test_a_hostile_batch_is_refused(service: Service, name: str) -> None:
    answer = await service.post("/v1/events", EVENT_BODIES[name])
    check(answer)
    assert answer.status in (400, 413, 422), answer.body


HOSTILE_FIELDS = {
    "/v1/keys": [
        {"scopes": []},
        {"scopes": [CANARY]},
        {"scopes": "admin"},
        {"scopes": [None]},
        {"scopes": [["admin"]]},
        {"scopes": ["admin"] * 7},
        {"scopes": [f"{CANARY}\ud800"]},
        {"scopes": ["admin"], f"{CANARY} x": 1},
        {"scopes": [1e308, -(10**4000)]},
        {"scopes": [CANARY] * 50_000},
        {f"{CANARY} {number}": 1 for number in range(30_000)},
    ],
    "/v1/workspaces": [
        {"id": f"{CANARY}/", "currency": "USD", "time_zone": "UTC"},
        {"id": f"{CANARY}\0", "currency": "USD", "time_zone": "UTC"},
        {"id": "\ud800", "currency": "USD", "time_zone": "UTC"},
        {"id": "x", "currency": CANARY, "time_zone": "UTC"},
        {"id": "x", "currency": "USD", "time_zone": f"../../etc/{CANARY}"},
        {"id": "x", "currency": "USD", "time_zone": "\0"},
        {"id": "x", "currency": "USD", "time_zone": "\ud800"},
        {"id": "x", "currency": "USD", "time_zone": CANARY * 1_000},
        {"id": "x", "currency": "USD", "time_zone": "/etc/localtime"},
        {"id": "x", "currency": "USD"},
        {"id": "x", "currency": "USD", "time_zone": "UTC", CANARY + "!": float("nan")},
    ],
    "/v1/values/query": [
        {"customer_ids": CANARY},
        {"customer_ids": [CANARY + "/"]},
        {"customer_ids": ["\0"]},
        {"customer_ids": ["\ud800"]},
        {"customer_ids": [1]},
        {"customer_ids": ["x"] * 1_001},
        {"customer_ids": ["x"], "as_of": CANARY},
        {"customer_ids": ["x"], "as_of": "0001-01-01T00:00:00Z"},
        {"customer_ids": ["x"], "as_of": "9999-12-31T23:59:59Z"},
        {"customer_ids": ["x"], "as_of": "9999-12-31T23:59:59-12:00"},
        {"customer_ids": ["x"], "as_of": 0},
        {"customer_ids": ["x"], "horizon_days": 0},
        {"customer_ids": ["x"], "horizon_days": 10**4000},
        {"customer_ids": ["x"], "horizon_days": float("inf")},
        {"customer_ids": ["x"], "horizon_days": 1.5},
        {"customer_ids": ["x"], "horizon_days": CANARY},
        {"customer_ids": ["x"], CANARY + " x": 1},
    ],
    "/v1/runs": [
        {"as_of": CANARY},
        {"as_of": "0001-01-01T00:00:00Z"},
        {"as_of": "9999-12-31T23:59:59Z"},
        {"as_of": float("nan")},
        {"settings": CANARY},
        {"settings": {CANARY + " x": 1}},
        {"settings": {"rfm": {"k": 10**4000}}},
        {"settings": {"rfm": {"k": float("nan")}}},
        {"settings": {"clv": {"model": CANARY}}},
        {"settings": {"\ud800": {}}},
        {"settings": {"rfm": {"\0": "\0"}}},
    ],
    "/v1/settings": [
        {"rfm": CANARY},
        {"rfm": {CANARY + " x": 1}},
        {"rfm": {"k": 1}},
        {"rfm": {"k": float("inf")}},
        {"rfm": {"window_days": -(10**4000)}},
        {"clv": {"model": f"{CANARY}\0"}},
        {"clv": {"annual_discount_rate": 1e308}},
        {"churn": {"horizon_days": 10**400}},
        {"runs": {"every_hours": float("nan")}},
        {"abc": {"\ud800": "\ud800"}},
        {CANARY + " x": {}},
    ],
}


@pytest.mark.parametrize(
    ("path", "place"), [(path, place) for path in HOSTILE_FIELDS for place in range(len(HOSTILE_FIELDS[path]))]
)
async def test_a_hostile_field_is_refused(service: Service, path: str, place: int) -> None:
    answer = await service.send(JSON_ROUTES[path][0], path, {}, json.dumps(HOSTILE_FIELDS[path][place]).encode())
    check(answer)
    assert answer.status in (400, 422), answer.body


@pytest.mark.parametrize("path", JSON_ROUTES)
@pytest.mark.parametrize("told", ["with its length", "in chunks"])
async def test_an_oversize_body_is_refused(service: Service, path: str, told: str) -> None:
    body = b'{"events": [' + b" " * 11_000_000 + b"]}"
    headers: dict[str, Any] = {}
    if told == "in chunks":
        headers = {"Content-Length": None, "Transfer-Encoding": "chunked"}
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    answer = await service.send(JSON_ROUTES[path][0], path, headers, body)
    check(answer)
    assert answer.status == 413


# ---- Encodings ------------------------------------------------------------------------------------------------------

EMPTY_BATCH = b'{"events": []}'


def bomb(size: int) -> bytes:
    """A gzip body of about a thousandth of ``size``, made in pieces."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    piece = b" " * (1 << 20)
    return b"".join([packer.compress(piece) for _ in range(size >> 20)] + [packer.flush()])


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (gzipped(EMPTY_BATCH), "gzip", 200),
        (gzipped(EMPTY_BATCH), " GZIP ", 200),
        (gzipped(EMPTY_BATCH[:5]) + gzipped(EMPTY_BATCH[5:]), "gzip", 200),
        (gzipped(b"") * 10 + gzipped(EMPTY_BATCH) + gzipped(b""), "gzip", 200),
        (gzipped(EMPTY_BATCH)[:-1], "gzip", 400),
        (gzipped(EMPTY_BATCH)[:12], "gzip", 400),
        (gzipped(EMPTY_BATCH) + CANARY.encode(), "gzip", 400),
        (gzipped(EMPTY_BATCH)[:-8] + b"\0" * 8, "gzip", 400),
        (CANARY.encode(), "gzip", 400),
        (b"", "gzip", 400),
        (EMPTY_BATCH, "gzip", 400),
        (gzipped(EMPTY_BATCH), "identity", 400),
        (gzipped(gzipped(EMPTY_BATCH)), "gzip, gzip", 415),
        (zlib.compress(EMPTY_BATCH), "deflate", 415),
        (EMPTY_BATCH, "br", 415),
        (EMPTY_BATCH, CANARY, 415),
        (EMPTY_BATCH, CANARY * 5_000, 415),
        (gzipped(b"") * 600_000, "gzip", 413),
    ],
)
async def test_a_hostile_encoding_is_refused(service: Service, body: bytes, encoding: str, status: int) -> None:
    answer = await service.send("POST", "/v1/events", {"Content-Encoding": encoding}, body)
    check(answer)
    assert answer.status == status, answer.body


async def test_a_gzip_bomb_is_refused_without_being_held_in_memory(service: Service) -> None:
    body = bomb(1 << 30)
    assert len(body) < 1_100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = await service.send("POST", "/v1/events", {"Content-Encoding": "gzip"}, body)
    check(answer)
    assert answer.status == 413
    # Twice the bound, and what goes with it; the bomb has a gigabyte.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000


async def test_liveness_is_answered_while_a_large_hostile_body_is_read(service: Service) -> None:
    line = b'{"id": "a", "x": NaN}\n'
    sending = asyncio.create_task(
        service.send("POST", "/v1/events", {"Content-Type": "application/x-ndjson"}, b"\n" * 5_000_000 + line * 9_999)
    )
    longest = 0.0
    while not sending.done():
        begun = time.monotonic()
        assert (await service.send("GET", "/health/live")).status == 200
        longest = max(longest, time.monotonic() - begun)
    assert (await sending).json()["rejected"] == 9_999
    assert longest < 1.0


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 415),
        ("", 415),
        ("text/plain", 415),
        ("application/xml", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/x-www-form-urlencoded", 415),
        (CANARY, 415),
        ("application/json" + CANARY, 415),
        ("application/json;" + CANARY * 5_000, 200),
        ("Application/JSON; charset=utf-16", 200),
        (b"\xff\xfe", 415),
    ],
)
async def test_content_types_are_read_strictly(service: Service, content_type: Any, status: int) -> None:
    answer = await service.send("POST", "/v1/events", {"Content-Type": content_type}, EMPTY_BATCH)
    check(answer)
    assert answer.status == status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200),
        (b"\n \n\r\n\t\n", 200),
        (b"\n" * 9_000_000, 200),
        (b"1\n" * 10_001, 422),
        (b"1\n" * 4_900_000, 422),
        (b"x" * 10_000_001, 413),
    ],
)
async def test_hostile_lines_are_refused(service: Service, body: bytes, status: int) -> None:
    answer = await service.send("POST", "/v1/events", {"Content-Type": "application/x-ndjson"}, body)
    check(answer)
    assert answer.status == status


# ---- Paths, queries, cursors, headers, methods ----------------------------------------------------------------------

PATHS = (
    "/v1/customers/{}",
    "/v1/customers/{}/events",
    "/v1/customers/{}/value",
    "/v1/customers/{}/rfm",
    "/v1/customers/{}/abc",
    "/v1/customers/{}/clv",
    "/v1/customers/{}/churn",
    "/v1/runs/{}",
    "/v1/keys/{}",
)
HOSTILE_IDS = (
    CANARY,
    f"{CANARY}%00",
    "%00",
    f"{CANARY}%2F",
    f"%2F{CANARY}",
    "%2e%2e%2f%2e%2e",
    "..",
    f"{CANARY}%0A",
    f"{CANARY}%0D%0AX-Canary:%20{CANARY}",
    f"{CANARY}%7F",
    f"{CANARY}%20",
    f"{CANARY}%C2%85",
    f"{CANARY}%E2%80%A8",
    f"{CANARY}%3F",
    f"{CANARY}%23",
    f"{CANARY}%25",
    f"{CANARY}%",
    f"{CANARY}%zz",
    f"{CANARY}%FF",
    f"{CANARY}%C0%80",
    f"{CANARY}%ED%A0%80",
    f"{CANARY}%F4%90%80%80",
    CANARY * 22,
    CANARY * 1_000,
    "%F0%9F%98%80" * 128,
    f"{CANARY};x=1",
    "'%20OR%201=1--",
    "%7B%7D",
    "*",
    "null",
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("hostile", HOSTILE_IDS)
async def test_a_hostile_path_is_refused(service: Service, path: str, hostile: str) -> None:
    answer = await service.send("DELETE" if "keys" in path else "GET", path.format(hostile))
    check(answer)
    assert answer.status in (404, 405, 422)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//",
        "/v1",
        "/v1/",
        "/v1//events",
        "/v1/events/",
        "/V1/events",
        f"/{CANARY}",
        "/%00",
        "/%ff",
        "/docs",
        "/redoc",
        "/v1/customers/",
    ],
)
async def test_an_unknown_path_is_not_found(service: Service, path: str) -> None:
    answer = await service.send("GET", path)
    check(answer)
    assert answer.status == 404
    assert answer.json()["code"] == "not_found"


LISTS = ("/v1/customers", "/v1/customers/c-known/events", "/v1/keys", "/v1/runs", "/v1/values")
LIMITS = ("0", "1001", "-1", CANARY, "1e9", "1e999999999", "1.5", "", "NaN", "%00", "9" * 30, "9" * 5_000, "%ff", "١")


@pytest.fixture
async def known_customer(service: Service) -> None:
    event = event_text(id='"e-known"', customer='"c-known"')
    check(await service.post("/v1/events", f'{{"events": [{event}]}}'))


@pytest.mark.usefixtures("known_customer")
@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", LIMITS)
async def test_a_hostile_limit_is_refused(service: Service, path: str, limit: str) -> None:
    answer = await service.send("GET", f"{path}?limit={limit}".encode())
    check(answer)
    assert answer.status == (422 if limit.isascii() else 400)
    if answer.status == 422:
        assert answer.json()["errors"][0]["pointer"] == "limit"


_random = random.Random(7)


def _encoded(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


CURSORS = (
    *(base64.urlsafe_b64encode(_random.randbytes(size)).decode() for size in (1, 2, 3, 16, 64, 500)),
    CANARY,
    "%00",
    "%ff",
    "=",
    "====",
    "x" * 2_000,
    "x" * 2_001,
    "ÿ",
    base64.urlsafe_b64encode(b"[" * 1_400).decode(),
    *map(_encoded, [None, 5, "x", {}, [], [[]], [CANARY, CANARY], [CANARY, 10**4000], [None] * 3]),
    *map(_encoded, [{"0": "x"}, ["x", "y", "z", CANARY], "abc"]),
)


@pytest.mark.usefixtures("known_customer")
@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("cursor", CURSORS)
async def test_a_cursor_that_was_never_given_out_is_refused(service: Service, path: str, cursor: str) -> None:
    answer = await service.send("GET", f"{path}?cursor={cursor}")
    check(answer)
    assert answer.status == (422 if cursor.isascii() else 400)


FORGED_KEYS: tuple[Any, ...] = (
    "\0",
    "\ud800",
    "",
    "x" * 1_000,
    CANARY,
    0,
    -1,
    2**31,
    2**63,
    -(2**63) - 1,
    10**4000,
    1e308,
    float("nan"),
    float("inf"),
    True,
    None,
    [],
    {},
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00+14:00",
)


@pytest.mark.usefixtures("known_customer")
@pytest.mark.parametrize("place", range(len(FORGED_KEYS)))
async def test_a_forged_cursor_finds_nothing_but_rows_of_its_list(service: Service, place: int) -> None:
    key: Any = FORGED_KEYS[place]
    customers = {"q": "", "kind": None, "country": "", "updated_since": None}
    values = {
        **dict.fromkeys(("segment", "abc", "churn_state", "churn_type", "lifecycle_status"), ""),
        **dict.fromkeys(("clv_total_min", "clv_total_max", "net_spend_min", "net_spend_max")),
    }
    forged: list[tuple[str, str, dict[str, Any], list[Any]]] = [
        ("/v1/customers?", "customers", customers, [key]),
        ("/v1/keys?", "keys", {}, [key]),
        ("/v1/runs?", "runs", {}, [key]),
        ("/v1/customers/c-known/events?", "events", {"customer_id": "c-known"}, [key, "x"]),
        ("/v1/customers/c-known/events?", "events", {"customer_id": "c-known"}, ["2025-01-01T00:00:00Z", key]),
        *(
            (f"/v1/values?sort={sort}&", "values", {**values, "sort": sort}, position)
            for sort in ("net_spend", "order_count", "churn_probability", "-clv_total")
            for position in ([key, None, "x"], ["run_x", key, "x"], ["run_x", None, key])
        ),
    ]
    for path, listing, bound, position in forged:
        cursor = _forge(listing, bound, position)
        answer = await service.send("GET", f"{path}cursor={cursor}")
        check(answer)
        assert answer.status in (200, 404, 409, 410, 422), (path, position, answer.body)


@pytest.mark.parametrize("key", ["\0", "\ud800", 2**63, -(2**63) - 1, 1e400, True, [], {}])
def test_no_key_of_a_cursor_is_more_than_the_database_can_be_asked_about(key: Any) -> None:
    with pytest.raises(InvalidRequest):
        decode_cursor("list", {}, _forge("list", {}, [key]), object)


def _forge(listing: str, bound: dict[str, Any], position: list[Any]) -> str:
    """What ``encode_cursor`` would give, were it given such keys."""
    content = encode_cursor(listing, bound, [])
    fingerprint = json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))
    return _encoded([*fingerprint, *position])


QUERIES = {
    "/v1/customers": [
        "q=%00",
        f"q={CANARY * 40}",
        f"kind={CANARY}",
        "kind=",
        "kind=%00",
        f"country={CANARY * 20}",
        "country=%00",
        *(
            f"updated_since={at}"
            for at in (CANARY, "", "0", "2025-01-01", "0000-01-01T00:00:00Z", "%00", "290000-01-01T00:00:00Z")
        ),
        "updated_since=0001-01-01T00:00:00%2B14:00",
    ],
    "/v1/customers/c-known/value": [
        f"source={CANARY}",
        f"as_of={CANARY}",
        "as_of=",
        "as_of=%00",
        "as_of=0001-01-01T00:00:00Z",
        "as_of=9999-12-31T23:59:59Z",
        "as_of=9999-12-31T23:59:59-14:00",
        "as_of=2025-01-01T00:00:00+10:99",
        "horizon_days=0",
        "horizon_days=-1",
        "horizon_days=1e9",
        "horizon_days=" + "9" * 5_000,
        "horizon_days=NaN",
        f"horizon_days={CANARY}",
        f"run_id={CANARY}%00",
        f"run_id={CANARY * 22}",
        f"explain={CANARY}",
        "source=cached&as_of=2025-01-01T00:00:00Z",
        "source=cached&horizon_days=30",
    ],
    "/v1/values": [
        f"sort={CANARY}",
        "sort=%00",
        "sort=--net_spend",
        f"abc={CANARY}",
        f"churn_state={CANARY}%00",
        "segment=%00",
        "segment=" + CANARY * 50,
        *(
            f"net_spend_min={amount}"
            for amount in ("NaN", "1e999999999", "9" * 5_000, CANARY, "1_0", "%00", "Infinity")
        ),
        "clv_total_max=1.00001",
    ],
}


@pytest.mark.usefixtures("known_customer")
@pytest.mark.parametrize(("path", "query"), [(path, query) for path in QUERIES for query in QUERIES[path]])
async def test_a_hostile_query_is_refused(service: Service, path: str, query: str) -> None:
    answer = await service.send("GET", f"{path}?{query}")
    check(answer)
    if not query.startswith("explain"):
        assert answer.status == 422, answer.body


@pytest.mark.usefixtures("known_customer")
@pytest.mark.parametrize(
    "path",
    [*LISTS, "/v1/customers/c-known", "/v1/customers/c-known/value", "/health/live", "/health/ready", "/openapi.json"],
)
@pytest.mark.parametrize(
    "query",
    [
        f"{CANARY}=1",
        f"%00=%00&{CANARY}",
        "%ff=%ff",
        "&" * 5_000,
        "a=1&" * 5_000,
        "limit=5&limit=7",
        "limit[]=5",
        "=",
        "?" * 100,
        f"x={CANARY * 5_000}",
    ],
)
async def test_what_a_query_says_beyond_its_parameters_is_ignored(service: Service, path: str, query: str) -> None:
    answer = await service.send("GET", f"{path}?{query}")
    check(answer)
    # There is no run of which values could be listed.
    assert answer.status == (409 if path == "/v1/values" else 200), answer.body


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": None},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {CANARY}"},
        {"Authorization": f"Bearer {CANARY}"},
        {"Authorization": f"Bearer {CANARY} {CANARY}"},
        {"Authorization": f"Bearer {CANARY * 10_000}"},
        {"Authorization": b"Bearer \xff\xfe\x80"},
        {"Authorization": b"\xff"},
        {"Authorization": "Bearer \t"},
    ],
)
async def test_a_hostile_key_is_unknown(service: Service, headers: dict[str, Any]) -> None:
    answer = await service.send("GET", "/v1/customers", headers)
    check(answer)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Request-Id": CANARY * 11},
        {"X-Request-Id": f"{CANARY} x"},
        {"X-Request-Id": f"{CANARY}é"},
        {"X-Request-Id": ""},
        {"X-Request-Id": b"\xff"},
        {"Accept-Language": CANARY * 10_000},
        {"Accept-Language": b"\xff\xfe, ;q=, *;q=x"},
        {"Accept-Language": "en;q=1e999999999, zh;q=NaN"},
        {"Accept": CANARY},
        {"Range": "bytes=0-1"},
        {"Cookie": f"x={CANARY * 5_000}"},
        {"Expect": "100-continue"},
        {"If-None-Match": CANARY},
        {"X-Forwarded-Host": CANARY},
        {"Host": CANARY},
        {"Origin": f"https://{CANARY}.test"},
        {CANARY * 1_000: CANARY * 1_000},
    ],
)
async def test_a_hostile_header_does_no_harm(service: Service, headers: dict[str, Any]) -> None:
    for path in ("/v1/customers", "/health/live"):
        answer = await service.send("GET", path, headers)
        check(answer)
        assert answer.status == 200, answer.body


async def test_a_plain_request_id_comes_back(service: Service) -> None:
    answer = await service.send("GET", "/health/live", {"X-Request-Id": "abc-1.2_3"})
    assert answer.headers["x-request-id"] == "abc-1.2_3"


ROUTES = (
    *LISTS,
    "/v1/events",
    "/v1/customers/x",
    "/v1/customers/x/value",
    "/v1/workspaces",
    "/v1/keys/x",
    "/v1/values/query",
    "/v1/runs/x",
    "/v1/settings",
    "/health/live",
    "/health/ready",
    "/openapi.json",
    f"/{CANARY}",
)


@pytest.mark.parametrize(
    "request_line",
    [
        f"{CANARY} /v1/customers HTTP/1.1",
        f"GET /v1/customers HTTP/9.9{CANARY}",
        f"GET /v1/customers/{CANARY}é HTTP/1.1",
        f"GET /v1/customers/{CANARY}\0 HTTP/1.1",
        f"GET  {CANARY}",
        f"\0\1\2{CANARY}",
        f"GET /v1/customers HTTP/1.1\r\nContent-Length: {CANARY}",
        f"GET /v1/customers HTTP/1.1\r\nContent-Length: -1\r\nX: {CANARY}",
        f"GET /v1/customers HTTP/1.1\r\n{CANARY}",
        f"POST /v1/events HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{CANARY}",
        f"POST /v1/events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{CANARY}",
    ],
)
async def test_what_is_no_http_is_answered_as_any_error(service: Service, request_line: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(request_line.encode() + b"\r\nHost: x\r\n\r\n")
    head, _, content = (await asyncio.wait_for(reader.read(), 30)).partition(b"\r\n\r\n")
    writer.close()
    status_line, *lines = head.decode().lower().split("\r\n")
    answer = Answer(int(status_line.split()[1]), dict(line.split(": ", 1) for line in lines), content)
    check(answer)
    assert answer.status in (400, 401)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "TRACE", "PROPFIND", "PURGE"])
async def test_another_method_is_refused(service: Service, path: str, method: str) -> None:
    answer = await service.send(method, path)
    check(answer)
    if method == "HEAD":
        assert answer.body == b""
    allowed = (404, 405) if path != "/openapi.json" or method != "HEAD" else (200, 405)
    assert answer.status in allowed
    if answer.status == 405:
        assert answer.headers["allow"]


async def test_hostile_input_stores_nothing(service: Service) -> None:
    """Runs last: of all that was sent above, no table holds the canary."""
    async with service.app.state.engine.connect() as connection:
        tables = (
            await connection.execute(
                text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
            )
        ).scalars()
        for table in list(tables):
            found = await connection.execute(
                text(f'SELECT count(*) FROM "{table}" AS t WHERE strpos(CAST(t AS text), :canary) > 0'),
                {"canary": CANARY},
            )
            assert found.scalar_one() == 0, table
