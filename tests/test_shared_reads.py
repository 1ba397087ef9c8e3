"""Reads that are shared: one for all who ask together, none older than its question."""

import asyncio
from collections.abc import Sequence

import pytest

from app import shared_reads
from app.shared_reads import SharedReads


class Counted:
    """A read that tells what it was asked for, and answers when it is let go."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self.state = "old"
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def __call__(self, group: str, items: Sequence[str]) -> dict[str, str]:
        self.asked.append((group, list(items)))
        seen = self.state
        self.begun.set()
        await self.go.wait()
        if "broken" in items:
            raise ValueError("broken")
        return {item: f"{seen} {item}" for item in items if item != "nobody"}


async def test_requests_that_come_together_are_answered_by_one_read_a_group() -> None:
    read = Counted()
    reads: SharedReads[str, str] = SharedReads(read)
    asked = [("a", "1"), ("a", "2"), ("b", "1"), ("a", "1"), ("a", "nobody")]
    answers = await asyncio.gather(*(reads.get(*one) for one in asked))
    assert answers == ["old 1", "old 2", "old 1", "old 1", None]
    assert read.asked == [("a", ["1", "2", "nobody"]), ("b", ["1"])]


async def test_a_request_never_joins_a_read_that_was_begun_before_it() -> None:
    read = Counted()
    reads: SharedReads[str, str] = SharedReads(read)
    read.go.clear()
    first = asyncio.create_task(reads.get("a", "1"))
    await read.begun.wait()
    read.state = "new"
    second = asyncio.create_task(reads.get("a", "1"))
    await asyncio.sleep(0.01)
    read.go.set()
    assert (await first, await second) == ("old 1", "new 1")


async def test_a_failure_is_of_those_who_asked_and_not_of_the_next() -> None:
    reads: SharedReads[str, str] = SharedReads(Counted())
    answers = await asyncio.gather(reads.get("a", "1"), reads.get("a", "broken"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ValueError, ValueError]
    assert await reads.get("a", "1") == "old 1"


async def test_one_who_gives_up_takes_nothing_from_the_others() -> None:
    read = Counted()
    reads: SharedReads[str, str] = SharedReads(read)
    read.go.clear()
    gives_up, waits = (asyncio.create_task(reads.get("a", "1")) for _ in range(2))
    await read.begun.wait()
    gives_up.cancel()
    read.go.set()
    assert await waits == "old 1"
    with pytest.raises(asyncio.CancelledError):
        await gives_up


async def test_a_read_is_bounded_and_the_rest_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_reads, "MOST_ITEMS", 3)
    read = Counted()
    reads: SharedReads[str, str] = SharedReads(read)
    answers = await asyncio.gather(*(reads.get("a", str(number)) for number in range(7)))
    assert answers == [f"old {number}" for number in range(7)]
    assert [len(items) for _, items in read.asked] == [3, 3, 1]


async def test_a_group_that_nobody_asks_for_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_reads, "KEPT_S", 0.01)
    reads: SharedReads[str, str] = SharedReads(Counted())
    await asyncio.gather(reads.get("a", "1"), reads.get("a", "2"))
    await asyncio.sleep(0.02)
    assert not reads._groups


async def _those_who_ask_again(apart: int) -> list[int]:
    """Numbers of those answered together, where two ask again a little apart after a long read of so many."""
    read = Counted()
    reads: SharedReads[str, str] = SharedReads(read)
    read.go.clear()
    first = [asyncio.create_task(reads.get("a", str(number))) for number in range(apart)]
    await asyncio.sleep(0.02)
    read.go.set()
    await asyncio.gather(*first)
    again = [asyncio.create_task(reads.get("a", "1"))]
    for _ in range(4):
        await asyncio.sleep(0)
    again.append(asyncio.create_task(reads.get("a", "2")))
    await asyncio.gather(*again)
    return [len(items) for _, items in read.asked]


async def test_after_a_long_read_the_next_waits_for_company() -> None:
    assert await _those_who_ask_again(2) == [2, 2]


async def test_who_reads_alone_waits_for_nobody() -> None:
    assert await _those_who_ask_again(1) == [1, 1, 1]
