"""Personal data: given in full to whom it belongs, gone without a trace once erased, and never in a log."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app import erasure, export
from app.catalogue import CATALOGUE
from app.store import erasure as erasure_store
from app.store import imports as import_store
from app.store.engine import DriverStatement, driver_connection, translated_errors
from tests.conftest import Client, event, make_client, ndjson, order
from tests.erasure_traces import hits_in_tables
from tests.test_erasure import do_run, erase
from tests.test_imports import LINES, LINES_HEADER, ORDERS, counts, left, run, send, work

TEXT_KINDS = {"id", "label", "text"}


@pytest.fixture
async def other(app: FastAPI) -> AsyncIterator[Client]:
    made = await make_client(app)
    async with made.http:
        yield made


def every_event(canary: str) -> list[dict[str, Any]]:
    """An event of each type, with the canary wherever it can be."""
    person: dict[str, Any] = {
        "name": f"{canary} Lovelace", "email": f"{canary}@example.com", "phone": canary, "gender": canary,
        "country": canary, "region": canary, "city": canary, "occupation": canary, "acquired_via": canary,
        "referred_by": canary, "attributes": {canary: canary},
    }  # fmt: skip
    events = [event(kind, canary, id=f"{canary}-{kind}", **person) for kind in ("customer.created", "customer.updated")]
    items = [{"sku": canary, "category": canary, "quantity": "1", "unit_price": "5"}]
    for number in range(3):
        events.append(
            order(
                f"{canary}-{number}", "5000.00", f"2025-0{number + 1}-03T10:00:00Z", customer_id=canary,
                id=f"{canary}-order-{number}", channel=canary, campaign_id=canary, items=items,
            )
        )  # fmt: skip
    events.append(event("order.cancelled", canary, order_id=f"{canary}-2", id=f"{canary}-cancelled"))
    events.append(event("order.refunded", canary, order_id=f"{canary}-1", amount="1", id=f"{canary}-refunded"))
    for kind in CATALOGUE:
        data: dict[str, Any] = {"order_id": canary} if kind.name == "order.delivered" else {}
        for field in kind.fields:
            if field.kind in TEXT_KINDS:
                data[field.name] = canary
        events.append(event(kind.name, canary, "2025-02-01T00:00:00Z", id=f"{canary}-{kind.name}", **data))
    return events


def hostile(canary: str) -> list[Any]:
    """Events that are refused for what they hold."""
    good = order(canary, customer_id=canary, id=canary)
    return [
        # Names of fields are told; they are the sender's, and no data.
        {**good, "unknown": canary},
        {**good, "type": canary},
        {**good, "occurred_at": canary},
        {**good, "customer_id": f"{canary}/"},
        {**good, "data": {**good["data"], "amount": canary}},
        {**good, "data": {**good["data"], "currency": "EUR"}},
        {**good, "occurred_at": "2999-01-01T00:00:00Z"},
        canary,
        [canary],
    ]


async def use_everywhere(client: Client, engine: AsyncEngine, canary: str) -> None:
    """Put the canary into every place that takes it."""
    receipt = await client.record(*every_event(canary))
    assert receipt["errors"] == []
    # Others who name it, and who keep grades with it.
    others = [f"c-{number:02}" for number in range(12)]
    await client.record(
        *(order("o-1", "50.00", customer_id=one) for one in others),
        event("customer.created", others[0], referred_by=canary),
        event("customer.created", others[1], "2024-01-01T00:00:00Z", referred_by=canary),
        event("customer.updated", others[1], referred_by=others[0]),
    )
    assert (await client.record(*hostile(canary)))["accepted"] == 0
    # A conflict, and one within a batch of new ones: what the database says of it quotes the row.
    await client.record(order("other", "1.00", customer_id=canary, id=f"{canary}-order-0"), order("o-9"))
    answer = await client.http.post(f"/v1/customers/{canary}/churn-label", json={"type": "natural"})
    assert answer.status_code == 201
    for body in ({"type": canary}, {"type": "natural", "subtype": canary}, {canary: canary}):
        await client.http.post(f"/v1/customers/{canary}/churn-label", json=body)
    # Imports of every kind, with good rows and bad ones.
    line = {**order(f"{canary}-8", customer_id=canary), "id": f"{canary}-8"}
    await run(client, engine, ndjson(line, *(one for one in hostile(canary) if isinstance(one, dict))))
    await run(client, engine, f"order,customer,date,total,{canary}\n{canary}-9,{canary},2025-01-01,5,{canary}\n"
              f"{canary},{canary},{canary},{canary},{canary}\n{canary},{canary}\n", ORDERS)  # fmt: skip
    await run(client, engine, f"{LINES_HEADER}{canary}-7,{canary},2025-01-01,2,5,{canary}\n"
              f"{canary}-7,{canary},{canary},2,5,{canary}\n", LINES)  # fmt: skip
    await send(client, f"{canary}\n", ORDERS)
    await do_run(client, engine, rfm={"ties": "first"})
    await do_run(client, engine)
    for path in (
        f"customers/{canary}",
        f"customers/{canary}/value?explain=true&source=cached",
        f"customers?q={canary}",
        f"customers?{canary}={canary}",
        f"customers?limit={canary}",
        f"customers?cursor={canary}",
        canary,
    ):
        path = f"/v1/{path}"
        assert (await client.http.get(path)).status_code < 500
    await client.http.post("/v1/values/query", json={"customer_ids": [canary], "as_of": canary})


class Logged(logging.Handler):
    """Keeps all that is logged, as it would be written."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    handler = Logged()
    logging.getLogger().addHandler(handler)
    yield handler.lines
    logging.getLogger().removeHandler(handler)


@pytest.fixture
async def server_log(engine: AsyncEngine) -> Path:
    """The log of the embedded server."""
    async with engine.connect() as connection:
        folder = (await connection.execute(text("SHOW data_directory"))).scalar_one()
    log = Path(folder).parent / "postgres.log"
    assert log.exists()
    return log


TABLES_OF_A_CUSTOMER = {
    "public.churn_labels", "public.customer_profiles", "public.customer_summary", "public.events", "public.runs",
    "public.score_history", "public.scores", "public.scores_small",
}  # fmt: skip


async def test_no_trace_of_an_erased_customer_is_left(
    client: Client, engine: AsyncEngine, logged: list[str], server_log: Path
) -> None:
    canary = f"cAnArY-{client.workspace.id}"
    await use_everywhere(client, engine, canary)
    # It was everywhere, so that the test can tell.
    assert set(await hits_in_tables(engine, canary)) == TABLES_OF_A_CUSTOMER
    await erase(client, canary)
    # What comes late, by every way in.
    receipt = await client.record(*every_event(canary), *hostile(canary))
    assert {error["code"] for error in receipt["errors"][: len(every_event(canary))]} == {"customer_erased"}
    late = await run(client, engine, ndjson(*every_event(canary)))
    assert {row["code"] for row in late["bad_rows"]} == {"customer_erased"}
    for mapping, content in (
        (ORDERS, f"order,customer,date,total,{canary}\n{canary}-9,{canary},2025-01-01,5,{canary}\n"),
        (LINES, f"{LINES_HEADER}{canary}-7,{canary},2025-01-01,2,5,{canary}\n"),
    ):
        late = await run(client, engine, content, mapping)
        assert [row["code"] for row in late["bad_rows"]] == ["customer_erased"]
        assert canary not in json.dumps(late["bad_rows"])
    await do_run(client, engine, rfm={"ties": "first"})
    assert await hits_in_tables(engine, canary) == []
    assert await left(engine, client) == {"import_chunks": 0, "import_lines": 0, "import_orders": 0}
    assert [line for line in logged if canary in line] == []
    assert canary not in await asyncio.to_thread(server_log.read_text, errors="replace")


@pytest.mark.parametrize("forgotten", [*erasure_store.OWN_TABLES[1:], "scores", "referrers", "fits"])
async def test_a_table_that_were_forgotten_would_be_seen(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    canary = f"cAnArY-{client.workspace.id}"
    await use_everywhere(client, engine, canary)

    async def nothing(*_: Any) -> list[Any]:
        return []

    steps = {"scores": "delete_scores", "referrers": "blank_referrer", "fits": "find_fits_naming"}
    if forgotten in steps:
        monkeypatch.setattr(erasure_store, steps[forgotten], nothing)
    else:
        tables = [table for table in erasure_store.OWN_TABLES if table != forgotten]
        monkeypatch.setattr(erasure_store, "OWN_TABLES", tables)
    await erase(client, canary)
    hits = {"scores": {"scores", "scores_small"}, "referrers": {"events", "customer_profiles"}, "fits": {"runs"}}
    expected = {f"public.{table}" for table in hits.get(forgotten, {forgotten})}
    assert set(await hits_in_tables(engine, canary)) == expected


async def test_the_planner_forgets_values_of_an_erased_customer(client: Client, engine: AsyncEngine) -> None:
    canary = f"cAnArY-{client.workspace.id}"
    await use_everywhere(client, engine, canary)
    async with engine.begin() as connection:
        # Of every value there is, whatever other tests have stored.
        await connection.execute(text("SET LOCAL default_statistics_target = 10000"))
        await connection.execute(text("ANALYZE"))

    async def sampled() -> set[str]:
        async with engine.connect() as connection:
            rows = await connection.execute(
                text("SELECT DISTINCT tablename FROM pg_stats AS t WHERE strpos(CAST(t AS text), :word) > 0"),
                {"word": canary},
            )
            return set(rows.scalars())

    assert "events" in await sampled()
    await erase(client, canary)
    await erasure.forget_statistics(engine)
    assert await sampled() == set()


# ---- Imports --------------------------------------------------------------------------------------------------------


async def test_staged_rows_of_an_erased_customer_go_at_once(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = f"cAnArY-{client.workspace.id}"
    await client.record(order("o-1", customer_id=canary))
    content = LINES_HEADER + "".join(f"i-{one},{one},2025-01-01,2,5,\n" for one in (canary, "c-2", "c-3"))
    for step in ("sum_lines", "list_orders"):
        # Cut short after its lines, then after its orders, are staged.
        with pytest.MonkeyPatch.context() as patch:

            async def cut(*_: Any, **__: Any) -> None:
                raise ConnectionError("an outage")

            patch.setattr(import_store, step, cut)
            import_id = (await send(client, content, LINES)).json()["id"]
            with pytest.raises(ConnectionError):
                await work(client, engine, import_id)
        staged = "public.import_lines" if step == "sum_lines" else "public.import_orders"
        if step == "sum_lines":
            assert staged in await hits_in_tables(engine, canary)
            await erase(client, canary)
            assert await hits_in_tables(engine, canary) == []
            done = await work(client, engine, import_id)
            assert counts(done) == {"lines": 3, "accepted": 2}
        else:
            # The file came after the erasure: its rows wait until they are refused.
            assert staged in await hits_in_tables(engine, canary)
            await erase(client, canary)
            done = await work(client, engine, import_id)
            assert counts(done) == {"lines": 3, "duplicates": 2, "rejected": 1}
        assert done["status"] == "succeeded"
    assert await hits_in_tables(engine, canary) == []


async def test_a_failed_import_keeps_nothing_of_its_file(
    client: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = f"cAnArY-{client.workspace.id}"

    async def broken(*_: Any, **__: Any) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(import_store, "sum_lines", broken)
    content = f"{LINES_HEADER.strip()},{canary}\n{canary},{canary},2025-01-01,2,5,,\n"
    done = await work(client, engine, (await send(client, content, LINES)).json()["id"])
    assert done["status"] == "failed"
    assert await left(engine, client) == {"import_chunks": 0, "import_lines": 0, "import_orders": 0}
    assert await hits_in_tables(engine, canary) == []


# ---- Export ---------------------------------------------------------------------------------------------------------


async def exported(client: Client, customer_id: str) -> list[dict[str, Any]]:
    response = await client.http.get(f"/v1/customers/{customer_id}/export")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


async def test_an_export_has_everything(client: Client, engine: AsyncEngine) -> None:
    canary = f"cAnArY-{client.workspace.id}"
    await use_everywhere(client, engine, canary)
    records = await exported(client, canary)
    kinds = [record["kind"] for record in records]
    assert list(dict.fromkeys(kinds)) == ["profile", "summary", "event", "label", "score", "history"]
    of_kind = {kind: [record for record in records if record["kind"] == kind] for kind in kinds}
    customer = await client.get(f"/v1/customers/{canary}")
    assert of_kind["profile"] == [{"kind": "profile", "customer_id": canary, "profile": customer["profile"]}]
    assert of_kind["summary"] == [{"kind": "summary", "customer_id": canary, "summary": customer["summary"]}]
    events = (await client.get(f"/v1/customers/{canary}/events", limit=1000))["data"]
    assert of_kind["event"] == [{"kind": "event", **one} for one in events]
    assert len(events) == customer["summary"]["event_count"]
    [label] = of_kind["label"]
    assert (label["label"]["type"], label["label"]["subtype"]) == ("natural", None)
    cached = await client.get(f"/v1/customers/{canary}/value", source="cached")
    assert [one["value"]["run_id"] for one in of_kind["score"]] == [
        run["id"] for run in (await client.get("/v1/runs"))["data"]
    ]
    assert of_kind["score"][0]["value"] == cached
    latest = of_kind["history"][-1]["history"]
    assert (latest["run_id"], latest["net_spend"]) == (cached["run_id"], cached["rfm"]["net_spend"])
    assert latest["as_of"] == cached["as_of"]
    assert len(of_kind["history"]) == 2


async def test_an_export_holds_no_connection_while_a_page_is_read(
    client: Client, engine: AsyncEngine, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "EVENTS_A_PAGE", 3)
    monkeypatch.setattr(export, "HISTORY_A_PAGE", 1)
    await client.record(*(order(f"o-{number}") for number in range(8)))
    for _ in range(3):
        await do_run(client, engine)
    pages = await export.export_customer(engine, app.state.fits, client.workspace, "c-1")
    sizes = []
    async for page in pages:
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        sizes.append((page[0].kind, len(page)))
    assert sizes == [
        ("profile", 2), ("event", 3), ("event", 3), ("event", 2), ("score", 1), ("score", 1),
        ("history", 1), ("history", 1), ("history", 1),
    ]  # fmt: skip


async def test_an_export_is_of_ones_own_workspace(client: Client, other: Client) -> None:
    await client.record(order("o-1"))
    answer = await other.http.get("/v1/customers/c-1/export")
    assert (answer.status_code, answer.json()["code"]) == (404, "customer_not_found")


async def test_a_customer_who_is_erased_during_an_export_has_no_further_records(
    client: Client, engine: AsyncEngine, app: FastAPI
) -> None:
    await client.record(order("o-1"))
    pages = await export.export_customer(engine, app.state.fits, client.workspace, "c-1")
    assert [record.kind for record in await anext(pages)] == ["profile", "summary"]
    await erase(client)
    assert [page async for page in pages] == []


# ---- Logs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["statement", "driver", "copy"])
async def test_an_error_of_the_database_does_not_quote_the_row(
    client: Client, engine: AsyncEngine, logged: list[str], way: str
) -> None:
    insert = "INSERT INTO churn_labels VALUES (:workspace_id, 'cAnArY', 'natural', NULL, now(), now())"
    values = {"workspace_id": client.workspace.id}
    async with engine.begin() as connection:
        await connection.execute(text(insert), values)

    async def insert_again() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("SELECT 1"))
            if way == "statement":
                await connection.execute(text(insert), values)
            elif way == "driver":
                await DriverStatement(insert).fetch(connection, values)
            else:
                driver = await driver_connection(connection)
                row = await driver.fetchrow("SELECT * FROM churn_labels WHERE workspace_id = $1", *values.values())
                with translated_errors():
                    await driver.copy_records_to_table("churn_labels", records=[tuple(row)])

    with pytest.raises(DBAPIError) as caught:
        await insert_again()
    logging.getLogger("test").error("what came of it", exc_info=caught.value)
    [line] = [line for line in logged if "what came of it" in line]
    assert "duplicate key" in line
    assert "(workspace_id, customer_id)=" not in line
