"""Events in PostgreSQL's binary COPY format, a row at a time.

A batch is made of these bytes before its customers are locked: while the locks are held nothing is left to do but to
send them. Source: the PostgreSQL manual, COPY, "Binary Format", and the ``*_recv`` functions of the types.
"""

from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from struct import Struct

from app.scalars import MICROSECOND
from app.store.copy_format import EPOCH, HEADER, JSONB_VERSION, POSITIVE, TRAILER
from app.store.events import EncodedEvents, EventRow

_NULL = Struct(">i").pack(-1)
_length = Struct(">i").pack
_beginning = Struct(">hiii").pack
_moments = Struct(">iqiqi").pack
_day = Struct(">ii").pack
_small_money = Struct(">ihhHhhh").pack
_EPOCH_DAY = EPOCH.toordinal()
_DIGIT_PLACES = 4


def encode_events(rows: Sequence[EventRow]) -> EncodedEvents:
    """A whole stream of rows, from header to trailer; pure, and about 3 µs a row."""
    parts = [HEADER]
    add = parts.extend
    fields = len(EventRow._fields)
    for row in rows:
        (workspace_id, customer_id, event_id, kind, occurred_at, received_at, fingerprint, local_day, order_id,
         amount, currency, exchange_rate, cost, data) = row  # fmt: skip
        customer = customer_id.encode()
        event = event_id.encode()
        add(
            (
                _beginning(fields, 4, workspace_id, len(customer)),
                customer,
                _length(len(event)),
                event,
                _word(kind),
                _moments(
                    8,
                    (occurred_at - EPOCH) // MICROSECOND,
                    8,
                    (received_at - EPOCH) // MICROSECOND,
                    len(fingerprint),
                ),
                fingerprint,
                _day(4, local_day.toordinal() - _EPOCH_DAY),
                _NULL if order_id is None else _text(order_id),
                _NULL if amount is None else _numeric(amount),
                _NULL if currency is None else _word(currency),
                _NULL if exchange_rate is None else _numeric(exchange_rate),
                _NULL if cost is None else _numeric(cost),
                _NULL if data is None else _json(data),
            )
        )
    parts.append(TRAILER)
    return EncodedEvents(frozenset(row.workspace_id for row in rows), b"".join(parts))


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _length(len(encoded)) + encoded


_word = lru_cache(maxsize=1_024)(_text)
"""Of texts that come again and again: types of events, and currencies."""


def _json(value: str) -> bytes:
    encoded = value.encode()
    return _length(1 + len(encoded)) + JSONB_VERSION + encoded


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
