"""What a process remembers stays within bounds."""

import pytest

from app.bounded import forget_oldest


@pytest.mark.parametrize("most", [1, 7, 8, 1_000])
def test_the_oldest_are_forgotten_and_never_more_than_an_eighth_too_many(most: int) -> None:
    remembered: dict[int, None] = {}
    for number in range(5 * most):
        remembered[number] = None
        forget_oldest(remembered, most)
        kept = list(remembered)
        assert kept == list(range(number + 1))[-len(kept) :]
        assert min(number + 1, most - most // 8) <= len(kept) <= most


def test_many_at_once_leave_no_more_than_may_be_remembered() -> None:
    remembered = dict.fromkeys(range(10_000))
    forget_oldest(remembered, 100)
    assert list(remembered) == list(range(10_000 - 88, 10_000))
