"""A run in parts: whoever does them, and whoever dies over them, the scores are the same."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app import run_execution, run_fitting
from app.analytics import origins
from app.store import populations, queue, wall
from app.store import run_parts as part_store
from app.store import runs as run_store
from app.store import scores as score_store
from tests.conftest import Client, event, order
from tests.erasure_traces import hits_in_tables
from tests.test_runs import AS_OF, run

CUSTOMERS = 160
CUT = 6
SETTINGS: dict[str, dict[str, Any]] = {
    "contest": {"clv": {"model": "auto"}},
    "ranked ties in a window": {"rfm": {"ties": "first", "window_days": 200}, "clv": {"model": "bg_nbd"}},
    "margins, some below zero": {"clv": {"model": "auto", "basis": "margin"}, "abc": {"basis": "margin"}},
    "textbook": {"clv": {"model": "textbook"}},
}


class Killed(BaseException):
    """What no handler of errors sees, as none sees a kill."""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_into(monkeypatch, CUT)
    # So that the contest judges some of the customers, as it does of many.
    monkeypatch.setattr(origins, "CONTEST_CUSTOMERS", 80)


def cut_into(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    monkeypatch.setattr(run_execution, "_parts_of", lambda customers: min(parts, customers))
    monkeypatch.setattr(run_fitting, "LARGE_RUN_CUSTOMERS", 10)


@pytest_asyncio.fixture
async def shop(client: Client) -> AsyncIterator[Client]:
    """Customers who buy at rates of their own until they leave, refunds, interactions, and a label."""
    chance = Random(11)
    events: list[dict[str, Any]] = []
    for number in range(CUSTOMERS):
        who = f"c-{number * 37 % 211:03}"
        day, rate, leaves = datetime(2024, 1, 1, 12, tzinfo=UTC), chance.gammavariate(1.0, 1 / 60), chance.random() / 2
        day += timedelta(days=chance.randrange(650))
        for placed in range(20):
            if day > datetime.fromisoformat(AS_OF):
                break
            cost = f"{(7 if number % 9 else 30) + number}.00"
            amount = f"{10 + number}.{10 + placed}"
            events.append(order(f"o-{placed}", amount, day.isoformat(), customer_id=who, cost=cost))
            day += timedelta(days=1 + int(chance.expovariate(rate)))
            if chance.random() < leaves:
                break
        if number % 5 == 0:
            events.append(event("order.refunded", who, "2025-12-20T00:00:00Z", order_id="o-0", amount="3.00"))
        if number % 3 == 0:
            events.append(event("complaint.opened", who, "2025-12-21T00:00:00Z", complaint_id="k", text="broken"))
    receipt = await client.record(*events)
    assert receipt["rejected"] == 0, receipt
    yield client


async def answers(client: Client, run_record: dict[str, Any]) -> Any:
    """All that a run says, but for what names the run itself."""
    page = await client.get("/v1/values", limit=1000)
    assert page["run_id"] == run_record["id"]
    assert len(page["data"]) == run_record["customers"] == CUSTOMERS
    return [{**value, "run_id": None} for value in page["data"]], run_record["fitted"]


async def ask(client: Client, engine: AsyncEngine, **request: Any) -> tuple[str, bytes]:
    """Name and number of a run that waits for its worker."""
    name = (await client.http.post("/v1/runs", json={"as_of": AS_OF, **request})).json()["id"]
    async with engine.connect() as connection:
        number = await connection.execute(text("SELECT id FROM runs WHERE name = :name"), {"name": name})
        return name, str(number.scalar_one()).encode()


async def left_over(engine: AsyncEngine, number: bytes) -> dict[str, int]:
    """Rows that a run has in hand or has stored, by table."""
    tables = ["run_parts", "runs_at_work", "scores", "score_history"]
    async with engine.connect() as connection:
        table = f"scores_run_{int(number)}"
        if (await connection.execute(text("SELECT to_regclass(:name)"), {"name": table})).scalar_one():
            tables.append(table)
        found = {
            name: (
                await connection.execute(text(f"SELECT count(*) FROM {name} WHERE run_id = :id"), {"id": int(number)})
            ).scalar_one()
            for name in tables
        }
    return {name: rows for name, rows in found.items() if rows}


async def index_columns(engine: AsyncEngine) -> list[str]:
    """What the table of the latest large run is indexed by."""
    latest = (
        "SELECT substring(indexdef FROM '[(].*') AS columns FROM pg_indexes WHERE tablename ="
        " (SELECT format('scores_run_%s', max(partition)) FROM runs WHERE status = 'succeeded')"
    )
    async with engine.connect() as connection:
        return sorted((await connection.execute(text(latest))).scalars())


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """The arguments of each call of a function from now on."""
    calls: list[Any] = []
    step = getattr(module, name)

    async def noted(*arguments: Any, **named: Any) -> Any:
        calls.append(arguments)
        return await step(*arguments, **named)

    monkeypatch.setattr(module, name, noted)
    return calls


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, call: int, act: Callable[[], Awaitable[Any]]
) -> None:
    """Have something done just before one of the calls of a function, the first being 1."""
    step, calls = getattr(module, name), 0

    async def acting(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            await act()
        return await step(*arguments, **named)

    monkeypatch.setattr(module, name, acting)


async def be_killed(
    monkeypatch: pytest.MonkeyPatch, engine: AsyncEngine, number: bytes, module: Any, step: str, call: int
) -> None:
    """Do a run until its worker is killed, just before one of the calls of a step."""

    async def die() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        meanwhile(patch, module, step, call, die)
        with pytest.raises(Killed):
            await run_execution.execute_run(engine, number, asyncio.Event())


@pytest.mark.parametrize("parts", [1, 2, 5, 40])
@pytest.mark.parametrize("name", SETTINGS)
async def test_a_run_says_the_same_in_any_number_of_parts(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, parts: int, name: str
) -> None:
    await shop.http.post("/v1/customers/c-000/churn-label", json={"type": "negligent"})
    cut_into(monkeypatch, 3)
    said = await answers(shop, await run(shop, engine, settings=SETTINGS[name]))
    cut_into(monkeypatch, parts)
    read = counted(monkeypatch, part_store, "keep_read")
    done = await run(shop, engine, settings=SETTINGS[name])
    assert len(read) == parts
    assert await answers(shop, done) == said
    clv = done["fitted"]["clv"]
    assert (clv["model"] == "textbook") is (name == "textbook")
    assert (clv["spread"] is not None) is (name == "margins, some below zero")


async def test_a_part_whose_customers_are_gone_is_done_like_any(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a cluster, where parts are not cut and read as of one moment."""
    said = await answers(shop, await run(shop, engine))
    cut = populations.cut_population

    async def cut_with_an_empty_part(*arguments: Any) -> list[str]:
        return ["before all", *await cut(*arguments)]

    monkeypatch.setattr(populations, "cut_population", cut_with_an_empty_part)
    read = counted(monkeypatch, part_store, "keep_read")
    assert await answers(shop, await run(shop, engine)) == said
    assert len(read) == CUT + 1


async def test_other_workers_do_parts_of_a_run_in_every_round(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = await answers(shop, await run(shop, engine))
    helped: list[str] = []
    name, number = await ask(shop, engine)

    def shared_with_another(step: str) -> None:
        do_next = getattr(run_execution, step)

        async def helped_first(*arguments: Any) -> bool:
            # The leader waits until a helper, for whom the run is another's, has done all that is left.
            if run_execution._led:
                run_execution._led.clear()
                await run_execution.lend_a_hand(engine, asyncio.Event())
                run_execution._led.add(int(number))
            elif await do_next(*arguments):
                helped.append(step)
                return True
            else:
                return False
            return bool(await do_next(*arguments))

        monkeypatch.setattr(run_execution, step, helped_first)

    rounds = ("read_next", "sum_next", "value_next", "score_next")
    for step in rounds:
        shared_with_another(step)
    await run_execution.execute_run(engine, number, asyncio.Event())
    done = await shop.get(f"/v1/runs/{name}")
    assert done["status"] == "succeeded"
    assert await answers(shop, done) == said
    assert [helped.count(step) for step in rounds] == [CUT] * 4


@pytest.mark.parametrize(
    ("module", "step", "call", "done_again"),
    [
        (part_store, "keep_read", 3, [CUT, CUT, CUT, CUT]),
        (part_store, "keep_grades", 1, [0, CUT, CUT, CUT]),
        (part_store, "keep_sums", 3, [0, CUT - 2, CUT, CUT]),
        (part_store, "keep_models", 1, [0, 0, CUT, CUT]),
        (part_store, "keep_values", 4, [0, 0, CUT - 3, CUT]),
        (part_store, "keep_fit", 1, [0, 0, 0, CUT]),
        (part_store, "mark_scored", 4, [0, 0, 0, CUT - 3]),
        (score_store, "make_index", 3, [0, 0, 0, 0]),
        (part_store, "end_run", 1, [0, 0, 0, 0]),
    ],
)
async def test_a_run_whose_worker_is_killed_goes_on_where_it_was(
    shop: Client,
    engine: AsyncEngine,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    step: str,
    call: int,
    done_again: list[int],
) -> None:
    said = await answers(shop, await run(shop, engine))
    undisturbed = await index_columns(engine)
    monkeypatch.setattr(run_execution, "SIDE_BY_SIDE", 1)
    name, number = await ask(shop, engine)
    await be_killed(monkeypatch, engine, number, module, step, call)
    assert (await shop.get(f"/v1/runs/{name}"))["status"] == "running"
    rounds = [
        counted(monkeypatch, part_store, kept) for kept in ("keep_read", "keep_sums", "keep_values", "mark_scored")
    ]
    await run_execution.execute_run(engine, number, asyncio.Event())
    done = await shop.get(f"/v1/runs/{name}")
    assert done["status"] == "succeeded"
    assert await answers(shop, done) == said
    assert [len(calls) for calls in rounds] == done_again
    assert await left_over(engine, number) == {"scores": CUSTOMERS, "score_history": CUSTOMERS} | {
        f"scores_run_{int(number)}": CUSTOMERS
    }
    assert await index_columns(engine) == undisturbed


@pytest.mark.one_server
async def test_the_server_vacuums_the_table_of_a_run_once_that_is_done(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vacuum in the midst of it holds up indexes and attaching for a second, until the server ends it."""
    options: list[list[str] | None] = []

    async def look() -> None:
        async with engine.connect() as connection:
            tables = "SELECT reloptions FROM pg_class WHERE relname LIKE 'scores_run_%' AND relkind = 'r'"
            options.append((await connection.execute(text(f"{tables} ORDER BY oid DESC LIMIT 1"))).scalar_one())

    for step in ("make_index", "attach_partition"):
        meanwhile(monkeypatch, score_store, step, 1, look)
    await run(shop, engine)
    await look()
    assert options == [["autovacuum_enabled=false"], ["autovacuum_enabled=false"], None]


async def test_a_part_whose_worker_dies_is_done_by_the_leader(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, number = await ask(shop, engine)
    holder = await engine.connect()
    taken: list[int] = []

    async def take_one_and_die() -> None:
        with wall.inside(shop.workspace.id):
            part = await part_store.take_unscored(holder, shop.workspace.id, int(number))
        assert part is not None
        taken.append(part.part)

    meanwhile(monkeypatch, run_execution, "score_next", 1, take_one_and_die)
    meanwhile(monkeypatch, part_store, "mark_scored", CUT - 1, holder.close)
    scored = counted(monkeypatch, part_store, "mark_scored")
    await run_execution.execute_run(engine, number, asyncio.Event())
    assert (await shop.get(f"/v1/runs/{name}"))["customers"] == CUSTOMERS
    assert sorted(call[3] for call in scored) == list(range(1, CUT + 1))
    assert scored[-1][3] == taken[0]


async def test_nothing_of_a_run_is_seen_before_it_ends(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await answers(shop, await run(shop, engine))
    exported = (await shop.http.get("/v1/customers/c-000/export")).text
    await shop.record(order("late", "9000.00", "2025-12-30T00:00:00Z", customer_id="c-000"))
    seen: list[Any] = []

    async def look() -> None:
        page = await shop.get("/v1/values", limit=1000)
        seen.append([{**value, "run_id": None} for value in page["data"]])
        told = (await shop.http.get("/v1/customers/c-000/export")).text
        seen.append([line for line in told.splitlines() if '"kind":"history"' in line])

    monkeypatch.setattr(run_execution, "SIDE_BY_SIDE", 1)
    meanwhile(monkeypatch, part_store, "mark_scored", CUT, look)
    await run(shop, engine)
    assert seen == [before[0], [line for line in exported.splitlines() if '"kind":"history"' in line]]
    assert len(seen[1]) == 1


@pytest.mark.parametrize("step", ["keep_read", "keep_sums", "keep_values", "mark_scored"])
async def test_a_run_that_fails_in_a_part_leaves_nothing(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async def fail() -> None:
        raise ValueError("a fault of ours")

    name, number = await ask(shop, engine)
    meanwhile(monkeypatch, part_store, step, 4, fail)
    with pytest.raises(ValueError, match="a fault of ours"):
        await run_execution.execute_run(engine, number, asyncio.Event())
    assert (await shop.get(f"/v1/runs/{name}"))["status"] == "failed"
    assert await left_over(engine, number) == {}


@pytest.mark.one_server
async def test_all_parts_are_read_as_of_one_moment(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = await answers(shop, await run(shop, engine))
    monkeypatch.setattr(run_execution, "SIDE_BY_SIDE", 1)

    async def sell() -> None:
        ids = [value["customer_id"] for value in said[0]]
        await shop.record(*(order("more", "77.00", "2025-11-11T00:00:00Z", customer_id=one) for one in (*ids, "new")))

    meanwhile(monkeypatch, part_store, "take_unread", 3, sell)
    assert await answers(shop, await run(shop, engine)) == said


async def test_a_run_that_lost_its_snapshot_is_read_anew(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = await answers(shop, await run(shop, engine))
    name, number = await ask(shop, engine)
    enter = populations.enter_snapshot

    async def enter_another(connection: Any, _: str) -> None:
        await enter(connection, "00000000-00000000-1")

    with monkeypatch.context() as patch:
        patch.setattr(populations, "enter_snapshot", enter_another)
        with pytest.raises(queue.Interrupted):
            await run_execution.execute_run(engine, number, asyncio.Event())
        # A helper can't do more than wait for the leader.
        await run_execution.lend_a_hand(engine, asyncio.Event())
    await run_execution.execute_run(engine, number, asyncio.Event())
    assert await answers(shop, await shop.get(f"/v1/runs/{name}")) == said


async def test_a_run_that_the_version_before_has_read_is_read_again(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = await answers(shop, await run(shop, engine))
    name, number = await ask(shop, engine)
    await be_killed(monkeypatch, engine, number, part_store, "keep_grades", 1)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE run_parts SET tally = NULL WHERE run_id = :id"), {"id": int(number)})
    await run_execution.execute_run(engine, number, asyncio.Event())
    assert await answers(shop, await shop.get(f"/v1/runs/{name}")) == said


async def test_what_the_version_before_fits_by_is_there_until_the_run_is_fitted(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, number = await ask(shop, engine)
    await be_killed(monkeypatch, engine, number, part_store, "keep_fit", 1)
    async with engine.connect() as connection:
        parts = text("SELECT count(*), count(figures), count(purchase_days) FROM run_parts WHERE run_id = :id")
        assert tuple((await connection.execute(parts, {"id": int(number)})).one()) == (CUT, CUT, CUT)


async def test_the_leader_asks_for_the_customers_of_no_part_but_those_that_hold_boundaries(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_into(monkeypatch, CUSTOMERS)
    asked = counted(monkeypatch, part_store, "read_part")
    await run(shop, engine)
    read = [column for *_, columns in asked for column in columns]
    # Each part has one customer here, and the last of A and the last of B are two.
    assert (read.count("ids"), read.count("figures")) == (2, 2)
    assert {*read} == {"ids", "figures", "tally", "sums", "worth"}


async def test_after_a_crash_of_the_server_which_empties_what_was_staged_a_run_begins_again(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = await answers(shop, await run(shop, engine))
    name, number = await ask(shop, engine)
    await be_killed(monkeypatch, engine, number, part_store, "mark_scored", 4)
    async with engine.begin() as connection:
        await part_store.end_run(connection, shop.workspace.id, int(number))
    assert await left_over(engine, number) != {}
    await run_execution.execute_run(engine, number, asyncio.Event())
    assert await answers(shop, await shop.get(f"/v1/runs/{name}")) == said


async def test_a_run_has_one_leader_at_a_time(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, number = await ask(shop, engine)
    second: list[asyncio.Task[None]] = []
    started = counted(monkeypatch, run_store, "start_run")

    async def another() -> None:
        second.append(asyncio.create_task(run_execution.execute_run(engine, number, asyncio.Event())))
        await asyncio.sleep(0.3)
        assert len(started) == 1

    meanwhile(monkeypatch, part_store, "keep_fit", 1, another)
    await run_execution.execute_run(engine, number, asyncio.Event())
    done = await shop.get(f"/v1/runs/{name}")
    await second[0]
    assert done["status"] == "succeeded"
    assert await shop.get(f"/v1/runs/{name}") == done


@pytest.mark.parametrize("step", ["keep_read", "mark_scored"])
async def test_an_erasure_deletes_what_a_run_without_a_worker_has_in_hand(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    canary = f"canary-left-{shop.workspace.id}"
    await shop.record(order("o-1", customer_id=canary))
    name, number = await ask(shop, engine)
    await be_killed(monkeypatch, engine, number, part_store, step, CUT)
    assert "public.run_parts" in await hits_in_tables(engine, canary)
    assert (await shop.http.delete(f"/v1/customers/{canary}")).status_code == 204
    assert await hits_in_tables(engine, canary) == []
    await run_execution.execute_run(engine, number, asyncio.Event())
    await answers(shop, await shop.get(f"/v1/runs/{name}"))


@pytest.mark.one_server
async def test_an_erasure_forgets_the_classes_of_a_run_without_a_worker(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They tell the money of whoever is alone in a class."""

    async def kept() -> bool:
        async with engine.connect() as connection:
            told = text("SELECT score_classes IS NOT NULL FROM runs WHERE id = :id")
            return bool((await connection.execute(told, {"id": int(number)})).scalar_one())

    _, number = await ask(shop, engine)
    await be_killed(monkeypatch, engine, number, part_store, "end_run", 1)
    assert await kept()
    assert (await shop.http.delete("/v1/customers/c-000")).status_code == 204
    assert not await kept()


@pytest.mark.parametrize("step", ["keep_read", "keep_grades", "keep_models", "keep_fit", "mark_scored"])
async def test_a_run_in_parts_leaves_out_who_is_erased_while_it_is_at_work(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    canary = f"canary-parts-{shop.workspace.id}"
    await shop.record(order("o-1", customer_id=canary))

    async def erase() -> None:
        assert (await shop.http.delete(f"/v1/customers/{canary}")).status_code == 204

    meanwhile(monkeypatch, part_store, step, 1, erase)
    await run(shop, engine)
    assert await hits_in_tables(engine, canary) == []
    assert len((await shop.get("/v1/values", limit=1000))["data"]) == CUSTOMERS


async def test_an_interrupted_run_keeps_the_parts_that_are_done(
    shop: Client, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, number = await ask(shop, engine)
    monkeypatch.setattr(run_execution, "SIDE_BY_SIDE", 1)
    ending = asyncio.Event()

    async def end() -> None:
        ending.set()

    with monkeypatch.context() as patch:
        meanwhile(patch, part_store, "mark_scored", 2, end)
        with pytest.raises(queue.Interrupted):
            await run_execution.execute_run(engine, number, ending)
    scored = counted(monkeypatch, part_store, "mark_scored")
    await run_execution.execute_run(engine, number, asyncio.Event())
    assert len(scored) == 4
    assert (await shop.get(f"/v1/runs/{name}"))["status"] == "succeeded"


async def test_a_population_is_cut_into_parts_of_about_one_size(client: Client, engine: AsyncEngine) -> None:
    await client.record(*(order("o-1", customer_id=f"c-{number * number % 9973:05}") for number in range(900)))
    async with engine.connect() as connection:

        async def cut(parts: int) -> list[str]:
            as_of = datetime.fromisoformat(AS_OF)
            return await populations.cut_population(connection, client.workspace.id, as_of, lambda _: parts)

        ids = sorted({f"c-{number * number % 9973:05}" for number in range(900)})
        assert await cut(1) == [ids[-1]]
        for parts in (2, 3, 8):
            ends = await cut(parts)
            assert (len(ends), ends[-1], ends == sorted(ends)) == (parts, ids[-1], True)
            sizes = [sum(after < one <= end for one in ids) for after, end in zip(["", *ends], ends, strict=False)]
            assert sum(sizes) == len(ids)
            assert max(sizes) - min(sizes) < len(ids) / parts
        assert len(await cut(10_000)) == len(ids)
