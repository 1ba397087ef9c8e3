"""How much of a web process one workspace may take: a rate of requests, and a share of those worked on at once.

Counted by each web process for itself: with four of them a workspace may reach four times the rate. No shared counter
would be worth a round trip a request.

Callers are told apart by the workspace of their key before the key is looked up, so a flood that is refused costs the
database nothing. Which workspace a key belongs to is remembered from the last time it was found valid; it decides
what a request counts for, and never what it may do. Keys not seen yet, and those that are not known, share one account.
"""

import asyncio
import hashlib
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from app.bounded import forget_oldest
from app.errors import RateLimited
from app.store.workspaces import Workspace

BURST_SECONDS = 2.0
LONGEST_WAIT_S = 0.6
"""How long a request waits for its turn before it is told to come back."""

HELD_BACK_S = (0.1, 0.3)
"""How long a refusal is held back: whoever asks again as soon as they are answered then costs next to nothing."""

READS_BESIDE_OTHERS = 4
"""How many plain reads of a workspace are worked on at once while others call too. Alone it may have any number: the
more come together, the less each costs. But the loop does them between any two steps of everybody else's request."""

COMPANY_S = 0.25
"""A workspace that called this lately is there."""

MOST_WAITING = 1_000
MOST_BATCHES_WAITING = 100
_MOST_KEYS = 20_000
_STRANGERS = 0


@dataclass(slots=True)
class _Bucket:
    tokens: float
    counted_at: float


class Rates:
    """A token bucket a workspace."""

    def __init__(self, requests_per_second: float) -> None:
        self._rate = requests_per_second
        self._burst = max(1.0, requests_per_second * BURST_SECONDS)
        self._buckets: dict[int, _Bucket] = {}

    def count(self, number: int, now: float) -> None:
        """Count a request. Raises ``RateLimited`` where the rate is used up."""
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = _Bucket(self._burst, now)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.counted_at) * self._rate)
        bucket.counted_at = now
        if bucket.tokens < 1:
            raise RateLimited(
                "This workspace sends more requests than it may.",
                retry_after_s=math.ceil((1 - bucket.tokens) / self._rate),
            )
        bucket.tokens -= 1


@dataclass(slots=True)
class _Work:
    at_work: int = 0
    waiting: "deque[asyncio.Future[None]]" = field(default_factory=deque)


class Turns:
    """How many requests of a workspace are worked on at once; the others wait, for some time and in some number."""

    def __init__(self, at_once: int, longest_wait_s: float | None, most_waiting: int) -> None:
        self._at_once = at_once
        self._longest_wait_s = longest_wait_s
        self._most_waiting = most_waiting
        self._work: dict[int, _Work] = {}

    async def begin(self, number: int) -> None:
        """Wait for a turn. Raises ``RateLimited``. Every ``begin`` that returned wants an ``end``."""
        work = self._work.get(number)
        if work is None:
            work = self._work[number] = _Work()
        if work.at_work < self._at_once:
            work.at_work += 1
            return
        if len(work.waiting) >= self._most_waiting:
            raise _too_many()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        work.waiting.append(turn)
        try:
            async with asyncio.timeout(self._longest_wait_s):
                await turn
        except BaseException as error:
            with suppress(ValueError):
                work.waiting.remove(turn)
            if turn.done() and not turn.cancelled():
                self.end(number)  # It was given in the very moment in which nobody waited for it any more.
            if isinstance(error, TimeoutError):
                raise _too_many() from None
            raise

    def end(self, number: int) -> None:
        """Give the turn to whichever request of the workspace waits longest."""
        work = self._work[number]
        while work.waiting:
            turn = work.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        work.at_work -= 1


class Limits:
    """Who calls, what they have used up, and whose turn it is, in one web process.

    ``turns`` are those of all requests but plain reads, which take one of ``read_turns`` while others call too.
    """

    def __init__(self, requests_per_second: float, at_once: int) -> None:
        self._rates = Rates(requests_per_second)
        self.turns = Turns(at_once, LONGEST_WAIT_S, MOST_WAITING)
        self.read_turns = Turns(READS_BESIDE_OTHERS, LONGEST_WAIT_S, MOST_WAITING)
        self._workspaces: dict[bytes, Workspace] = {}
        self._last = self._last_other = (_STRANGERS, -math.inf)

    def learn(self, authorization: str, workspace: Workspace | None) -> None:
        """Remember whose key this is; None where it is nobody's, or no longer."""
        name = _name(authorization)
        if workspace is None:
            self._workspaces.pop(name, None)
        elif name not in self._workspaces:
            self._workspaces[name] = workspace
            forget_oldest(self._workspaces, _MOST_KEYS)

    def workspace_of(self, authorization: str) -> Workspace | None:
        """The workspace that the key last belonged to."""
        return self._workspaces.get(_name(authorization))

    def count(self, workspace: Workspace | None) -> int:
        """Count a request; answers the account that it counts for. Raises ``RateLimited``."""
        number, now = workspace.id if workspace else _STRANGERS, time.monotonic()
        if workspace is not None:  # Whoever tries keys keeps nobody waiting.
            if number != self._last[0]:
                self._last_other = self._last
            self._last = number, now
        self._rates.count(number, now)
        return number

    def others_call(self, account: int) -> bool:
        """Whether another workspace than that of this account has called lately."""
        _, called_at = self._last_other if self._last[0] == account else self._last
        return time.monotonic() - called_at < COMPANY_S


class BatchTurns:
    """Turns for large batches of events, so many for each workspace that others find one too."""

    def __init__(self, at_once: int) -> None:
        # A batch that waits behind others of its own workspace does no harm but to its memory.
        self._turns = Turns(at_once, None, MOST_BATCHES_WAITING)

    @asynccontextmanager
    async def of(self, workspace: Workspace) -> AsyncIterator[None]:
        """A turn of this workspace. Raises ``RateLimited`` where too many of its batches wait."""
        await self._turns.begin(workspace.id)
        try:
            yield
        finally:
            self._turns.end(workspace.id)


def _too_many() -> RateLimited:
    return RateLimited("This workspace has too many requests at work; send fewer at the same time.", retry_after_s=1)


def _name(authorization: str) -> bytes:
    # Keys themselves are not kept in memory.
    return hashlib.sha256(authorization.encode("latin-1", "replace")).digest()
