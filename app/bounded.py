"""What a process remembers, within bounds."""

from itertools import islice
from typing import Any


def forget_oldest(remembered: dict[Any, Any], most: int) -> None:
    """Leave at most ``most`` entries, those that came last.

    Beyond them an eighth goes at once: a dictionary walks over all that was deleted at its front to find what is first,
    so to forget one entry at a time would take longer with each.
    """
    if len(remembered) > most:
        for key in list(islice(remembered, len(remembered) - most + most // 8)):
            del remembered[key]
