"""Long work beside the event loop, which has others to serve."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")


async def apart_if(is_long: bool, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """What ``work`` answers, which it does in a thread where it is long: else the way there takes longer."""
    return await asyncio.to_thread(work, *args, **kwargs) if is_long else work(*args, **kwargs)
