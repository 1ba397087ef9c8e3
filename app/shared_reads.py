"""Requests that come together are answered by one read.

While a read is under way, what is asked for meanwhile waits for the next one. A request never joins a read that was
begun before it: an answer is never older than its question, so what was committed before a request (an event that was
acknowledged, a key that was revoked) holds for it. A lone request waits for nobody.

Those who were answered together tend to ask again together, a little apart. Where a read takes long whatever their
number, the next waits for them, for a part of what the last one took.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Group = TypeVar("Group", bound=Hashable)
Answer = TypeVar("Answer")

MOST_ITEMS = 256
PATIENCE = 0.25
"""The part of a shared read's time for which the next read waits for company. Event loops count milliseconds: after a
read of less than two nothing waits."""

MOST_PATIENCE_S = 0.003
KEPT_S = 0.05
"""How long it is remembered of a group that nobody asks for what its last read took."""

READS_AT_ONCE = 2
"""Of a group: one that waits for the database beside one whose answers are made. More would make each smaller."""


@dataclass(slots=True)
class _Asked(Generic[Answer]):
    """What is asked of one group: who waits for which item, how many reads are under way, and how long the next waits
    for company."""

    waiting: dict[str | bytes, list[asyncio.Future[Answer | None]]] = field(default_factory=dict)
    under_way: int = 0
    is_due: bool = False
    patience_s: float = 0.0

    @property
    def is_idle(self) -> bool:
        return not (self.waiting or self.under_way or self.is_due)


class SharedReads(Generic[Group, Answer]):
    """Reads of items by ``read``, which is given a group and some of its items, and answers those that it finds."""

    def __init__(self, read: Callable[[Group, Sequence[Any]], Awaitable[Mapping[Any, Answer]]]) -> None:
        self._read = read
        self._groups: dict[Group, _Asked[Answer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, group: Group, item: str | bytes) -> Answer | None:
        """The answer, None where ``read`` found none; raises what ``read`` raises."""
        asked = self._groups.get(group)
        if asked is None:
            asked = self._groups[group] = _Asked()
        # Each has a future of its own, so that one who gives up takes nothing from the others.
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        asked.waiting.setdefault(item, []).append(answer)
        self._plan(group, asked)
        return await answer

    def _plan(self, group: Group, asked: _Asked[Answer]) -> None:
        """Have the next read begun, if there is one to begin."""
        if asked.waiting and not asked.is_due and asked.under_way < READS_AT_ONCE:
            # Not at once: requests that arrived together are still on their way here.
            asked.is_due = True
            asyncio.get_running_loop().call_later(asked.patience_s, self._begin, group, asked)

    def _begin(self, group: Group, asked: _Asked[Answer]) -> None:
        asked.is_due = False
        items = dict(list(asked.waiting.items())[:MOST_ITEMS])
        for item in items:
            del asked.waiting[item]
        asked.under_way += 1
        task = asyncio.get_running_loop().create_task(self._answer(group, asked, items))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._plan(group, asked)

    def _forget(self, group: Group, asked: _Asked[Answer]) -> None:
        if asked.is_idle and self._groups.get(group) is asked:
            del self._groups[group]

    async def _answer(
        self, group: Group, asked: _Asked[Answer], items: dict[str | bytes, list[asyncio.Future[Answer | None]]]
    ) -> None:
        found: Mapping[Any, Answer] = {}
        failure: BaseException | None = None
        loop = asyncio.get_running_loop()
        begun = loop.time()
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
            is_shared = len(items) > 1 or bool(asked.waiting)
            asked.patience_s = min((loop.time() - begun) * PATIENCE, MOST_PATIENCE_S) if is_shared else 0.0
            self._plan(group, asked)
            if asked.is_idle:
                loop.call_later(KEPT_S, self._forget, group, asked)
