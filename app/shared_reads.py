"""Requests that come together are answered by one read.

While a read is under way, what is asked for meanwhile waits for the next one. A request never joins a read that was
begun before it: an answer is never older than its question, so what was committed before a request (an event that was
acknowledged, a key that was revoked) holds for it. A lone request waits for nobody.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Group = TypeVar("Group", bound=Hashable)
Answer = TypeVar("Answer")

MOST_ITEMS = 256
READS_AT_ONCE = 2
"""Of a group: one that waits for the database beside one whose answers are made. More would make each smaller."""


@dataclass(slots=True)
class _Asked(Generic[Answer]):
    """What is asked of one group: who waits for which item, and how many reads are under way."""

    waiting: dict[str | bytes, list[asyncio.Future[Answer | None]]] = field(default_factory=dict)
    under_way: int = 0
    is_due: bool = False


class SharedReads(Generic[Group, Answer]):
    """Reads of items by ``read``, which is given a group and some of its items, and answers those that it finds."""

    def __init__(self, read: Callable[[Group, Sequence[Any]], Awaitable[Mapping[Any, Answer]]]) -> None:
        self._read = read
        self._groups: dict[Group, _Asked[Answer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, group: Group, item: str | bytes) -> Answer | None:
        """The answer, None where ``read`` found none; raises what ``read`` raises."""
        loop = asyncio.get_running_loop()
        asked = self._groups.get(group)
        if asked is None:
            asked = self._groups[group] = _Asked()
        # Each has a future of its own, so that one who gives up takes nothing from the others.
        answer: asyncio.Future[Answer | None] = loop.create_future()
        asked.waiting.setdefault(item, []).append(answer)
        if not asked.is_due and asked.under_way < READS_AT_ONCE:
            # Not at once: requests that arrived together are still on their way here.
            asked.is_due = True
            loop.call_soon(self._begin, group, asked)
        return await answer

    def _begin(self, group: Group, asked: _Asked[Answer]) -> None:
        asked.is_due = False
        while asked.waiting and asked.under_way < READS_AT_ONCE:
            items = dict(list(asked.waiting.items())[:MOST_ITEMS])
            for item in items:
                del asked.waiting[item]
            asked.under_way += 1
            task = asyncio.get_running_loop().create_task(self._answer(group, asked, items))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, group: Group, asked: _Asked[Answer], items: dict[str | bytes, list[asyncio.Future[Answer | None]]]
    ) -> None:
        found: Mapping[Any, Answer] = {}
        failure: BaseException | None = None
        try:
            found = await self._read(group, list(items))
        except BaseException as error:
            failure = error
            if not isinstance(error, Exception):
                raise
        finally:
            for item, futures in items.items():
                for future in futures:
                    if future.done():
                        continue
                    if failure is None:
                        future.set_result(found.get(item))
                    elif isinstance(failure, Exception):
                        future.set_exception(failure)
                    else:
                        future.cancel()
            asked.under_way -= 1
            if asked.waiting:
                self._begin(group, asked)
            elif not asked.under_way and not asked.is_due:
                del self._groups[group]
