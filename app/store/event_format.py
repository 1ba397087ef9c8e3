"""Events in PostgreSQL's binary COPY format, a column at a time.

A batch is made of these bytes before its customers are locked: while the locks are held nothing is left to do but to
send them. Source: the PostgreSQL manual, COPY, "Binary Format", and the ``*_recv`` functions of the types.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import chain, repeat
from struct import Struct
from typing import TypeVar

import numpy as np

from app.scalars import MICROSECOND
from app.store.copy_format import EPOCH, HEADER, JSONB_VERSION, POSITIVE, TRAILER, numeric
from app.store.events import EncodedEvents, EventRow

_length = Struct(">i").pack
_NULL = _length(-1)
# Of ids, which have at most 128 characters.
_LENGTHS = tuple(map(_length, range(4 * 128 + 1)))
_beginning = Struct(">hii").pack
_moments_fingerprint_and_day = Struct(">iqiqi16sii").pack
_small_money = Struct(">ihhHhhh").pack
_DIGIT_PLACES = 4
_EPOCH_DAY = EPOCH.toordinal()
_FEW = 20
"""Up to about so many numbers are encoded faster one by one."""

Value = TypeVar("Value")


def encode_events(rows: Sequence[EventRow]) -> EncodedEvents:
    """A whole stream of rows, from header to trailer; pure, and about 2 µs a row.

    Ids have at most 128 characters, fingerprints 16 bytes.
    """
    if not rows:
        return EncodedEvents(frozenset(), HEADER + TRAILER)
    (workspace_ids, customer_ids, event_ids, types, occurred_at, received_at, fingerprints, local_days, order_ids,
     amounts, currencies, exchange_rates, costs, data) = zip(*rows, strict=True)  # fmt: skip
    cells = (
        [_beginning(len(EventRow._fields), 4, workspace_id) for workspace_id in workspace_ids],
        _ids(customer_ids),
        _ids(event_ids),
        map(_word, types),
        _moments_fingerprints_and_days(occurred_at, received_at, fingerprints, local_days),
        _known(_ids, order_ids),
        _known(_monies, amounts),
        _known(lambda told: map(_word, told), currencies),
        _known(lambda told: map(_numeric, told), exchange_rates),
        _known(_monies, costs),
        _known(lambda told: map(_json, told), data),
    )
    stream = b"".join((HEADER, *chain.from_iterable(zip(*cells, strict=False)), TRAILER))  # Nulls may go on for ever.
    return EncodedEvents(frozenset(workspace_ids), stream)


def _known(encode: Callable[[Sequence[Value]], Iterable[bytes]], column: Sequence[Value | None]) -> Iterable[bytes]:
    """The cells of a column, of which ``encode`` makes those that are not null."""
    told = [value for value in column if value is not None]
    if not told:
        return repeat(_NULL)
    cells = iter(encode(told))
    return cells if len(told) == len(column) else [_NULL if value is None else next(cells) for value in column]


def _ids(ids: Sequence[str]) -> list[bytes]:
    return [_LENGTHS[len(encoded)] + encoded for encoded in map(str.encode, ids)]


@lru_cache(maxsize=1_024)
def _word(value: str) -> bytes:
    """A text that comes again and again: a type of events, or a currency."""
    encoded = value.encode()
    return _length(len(encoded)) + encoded


def _json(value: str) -> bytes:
    encoded = value.encode()
    return _length(1 + len(encoded)) + JSONB_VERSION + encoded


def _moments_fingerprints_and_days(
    occurred_at: Sequence[datetime],
    received_at: Sequence[datetime],
    fingerprints: Sequence[bytes],
    local_days: Sequence[date],
) -> list[bytes]:
    return [
        _moments_fingerprint_and_day(
            8, (occurred - EPOCH) // MICROSECOND, 8, received, 16, fingerprint, 4, day.toordinal() - _EPOCH_DAY
        )
        for occurred, received, fingerprint, day in zip(
            occurred_at, map(_received, received_at), fingerprints, local_days, strict=True
        )
    ]


@lru_cache(maxsize=128)
def _received(moment: datetime) -> int:
    """Of moments that are the same of all that came together."""
    return (moment - EPOCH) // MICROSECOND


def _monies(monies: Sequence[Decimal]) -> Iterable[bytes]:
    if len(monies) < _FEW:
        return map(_numeric, monies)
    shown = list(map(str, monies))
    if any(text[-1 - _DIGIT_PLACES : -_DIGIT_PLACES] != "." for text in shown):
        return map(_numeric, monies)
    # A text is read as an integer faster than a Decimal is asked for its digits.
    cells = numeric(np.array(list(map(int, " ".join(shown).replace(".", "").split())))).cells
    each: list[bytes] = cells.view(f"V{cells.shape[1]}")[:, 0].tolist()
    return each


def _numeric(value: Decimal) -> bytes:
    """A finite number of at least zero, with as many decimals as it tells."""
    whole, _, decimals = format(value, "f").partition(".")
    if len(decimals) == _DIGIT_PLACES and len(whole) <= _DIGIT_PLACES:
        # Nearly all money: a digit of base 10,000 before the decimal point and one after it.
        return _small_money(12, 2, 0, POSITIVE, _DIGIT_PLACES, int(whole), int(decimals))
    # The server drops the zeros before and after.
    digits = whole.zfill(-(-len(whole) // _DIGIT_PLACES) * _DIGIT_PLACES)
    weight = len(digits) // _DIGIT_PLACES - 1
    digits += decimals.ljust(-(-len(decimals) // _DIGIT_PLACES) * _DIGIT_PLACES, "0")
    numbers = [int(digits[start : start + _DIGIT_PLACES]) for start in range(0, len(digits), _DIGIT_PLACES)]
    return Struct(f">ihhHh{len(numbers)}h").pack(
        8 + 2 * len(numbers), len(numbers), weight, POSITIVE, len(decimals), *numbers
    )
