"""What a process remembers, within bounds."""

from typing import Any


def forget_oldest(remembered: dict[Any, Any], most: int) -> None:
    """Leave the ``most`` entries that came last."""
    while len(remembered) > most:
        del remembered[next(iter(remembered))]
