"""Orders of the plainest shape, which most events are, read many at a time.

Reading events one by one asks the same questions of each in Python. Here a question is asked of a whole column, by one
call into C, and answered yes or no. Where it is no the events are read one by one (``app.candidates``, and
``app.imports.reading`` for rows of files), which tells what is wrong with which; what is read here is read alike there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import repeat
from operator import itemgetter
from typing import Any

from app.events import EARLIEST, FUTURE_TOLERANCE, fingerprint
from app.scalars import ID_PATTERN, INSTANT_PATTERN, MONEY_LIMIT, MONEY_PATTERN, MONEY_PLACES
from app.store.events import EventRow
from app.store.workspaces import Workspace

_ENVELOPE = ("id", "customer_id", "occurred_at", "data")
_envelope = itemgetter(*_ENVELOPE)
_REQUIRED = ("order_id", "amount", "currency")
_required = itemgetter(*_REQUIRED)
_FIELDS = frozenset((*_REQUIRED, "cost", "channel"))
_WITHOUT_FRACTION = len("2026-01-31T09:30:00Z")
# What follows the digits, where an instant in UTC tells no fraction, milliseconds or microseconds.
_ENDINGS = {_WITHOUT_FRACTION: "+00:00", _WITHOUT_FRACTION + 4: "000+00:00", _WITHOUT_FRACTION + 7: "+00:00"}
_MONEY_TYPES = {str, int, Decimal}


def _lines_of(pattern: str) -> re.Pattern[str]:
    """Any number of lines, each of which is a text that matches the pattern; no line break does."""
    return re.compile(f"(?:{pattern.removeprefix('^').removesuffix('$')}\n)*+", re.ASCII)


_IDS = _lines_of(ID_PATTERN)
_MONIES = _lines_of(MONEY_PATTERN)
_INSTANTS = _lines_of(INSTANT_PATTERN)
# Texts that JSON shows as they are.
_CHANNELS = _lines_of(r"[ !#-\[\]-~]{1,100}")


def is_plain(workspace: Workspace, item: Any) -> bool:
    """Whether a JSON value looks like an order in the workspace's currency that tells of no more than a cost and a
    channel besides. What it tells may be wrong nevertheless."""
    return (
        type(item) is dict
        and item.get("type") == "order.placed"
        and len(item) == len(_ENVELOPE) + 1
        and type(data := item.get("data")) is dict
        and data.get("currency") == workspace.currency
        and data.keys() <= _FIELDS
    )


def read_plain_orders(workspace: Workspace, items: Sequence[Any], received_at: datetime) -> list[EventRow] | None:
    """The rows of plain items, in their order; None where any is not valid, or is but with texts beyond ASCII.

    About 3 µs an order.
    """
    try:
        event_ids, customer_ids, instants, data = zip(*map(_envelope, items), strict=True)
        order_ids, amounts, _ = zip(*map(_required, data), strict=True)
    except KeyError:
        return None
    costs, channels = [each.get("cost") for each in data], [each.get("channel") for each in data]
    columns = PlainColumns(event_ids, customer_ids, instants, order_ids, amounts, costs, channels)
    return read_plain_columns(workspace, columns, received_at)


@dataclass(frozen=True, slots=True)
class PlainColumns:
    """What plain orders tell, a value an order, as JSON has it or in Python's own types; of costs and channels some, or
    all, may be None. All are in the workspace's currency."""

    event_ids: Sequence[Any]
    customer_ids: Sequence[Any]
    instants: Sequence[Any]
    order_ids: Sequence[Any]
    amounts: Sequence[Any]
    costs: Sequence[Any]
    channels: Sequence[Any]


def read_plain_columns(workspace: Workspace, told: PlainColumns, received_at: datetime) -> list[EventRow] | None:
    """The rows of the orders, in their order; None as ``read_plain_orders`` has it."""
    if not all(_all_match(_IDS, ids) for ids in (told.event_ids, told.customer_ids, told.order_ids)):
        return None
    if not _all_match(_CHANNELS, [channel for channel in told.channels if channel is not None]):
        return None
    moments = _read_instants(told.instants)
    money = _read_monies(told.amounts)
    costs = _read_monies(told.costs)
    if moments is None or money is None or costs is None or None in money:
        return None
    if min(moments) < EARLIEST or max(moments) > received_at + FUTURE_TOLERANCE:
        return None
    rests = [None if channel is None else f'{{"channel":"{channel}"}}' for channel in told.channels]
    fingerprints = [
        fingerprint("order.placed", shown, order_id, amount, workspace.currency, None, cost, rest)
        for shown, order_id, amount, cost, rest in zip(
            map(_isoformat, told.instants, moments), told.order_ids, money, costs, rests, strict=True
        )
    ]
    columns = (
        repeat(workspace.id), told.customer_ids, told.event_ids, repeat("order.placed"), moments, repeat(received_at),
        fingerprints, workspace.local_days(moments), told.order_ids, money, repeat(workspace.currency), repeat(None),
        costs, rests,
    )  # fmt: skip
    return list(map(EventRow._make, zip(*columns)))  # noqa: B905 - some repeat for ever


def _all_match(lines: re.Pattern[str], texts: Sequence[Any]) -> bool:
    if set(map(type, texts)) - {str}:
        return False
    joined = "".join([text + "\n" for text in texts])
    return joined.isascii() and joined.count("\n") == len(texts) and lines.fullmatch(joined) is not None


def _read_instants(instants: Sequence[Any]) -> list[datetime] | None:
    if set(map(type, instants)) == {datetime}:
        return None if any(moment.tzinfo is None for moment in instants) else [at.astimezone(UTC) for at in instants]
    if not _all_match(_INSTANTS, instants):
        return None
    try:
        return [datetime.fromisoformat(instant.upper()).astimezone(UTC) for instant in instants]
    except (ValueError, OverflowError):
        return None


def _isoformat(instant: str | datetime, moment: datetime) -> str:
    """``moment.isoformat()``, which takes longer than to read it; ``instant`` is what it was read from."""
    if isinstance(instant, str) and instant[10] == "T" and instant[-1] == "Z":
        ending = _ENDINGS.get(len(instant))
        if ending is not None and bool(moment.microsecond) == (len(instant) > _WITHOUT_FRACTION):
            return instant[:-1] + ending
    return moment.isoformat()


def _read_monies(amounts: Sequence[Any]) -> list[Decimal | None] | None:
    told = [amount for amount in amounts if amount is not None]
    kinds = set(map(type, told))
    if kinds - _MONEY_TYPES:
        return None
    # To write out an integer of thousands of digits would take long, or is refused.
    if int in kinds and not all(0 <= amount < MONEY_LIMIT for amount in told if type(amount) is int):
        return None
    texts = list(map(str, told))
    if not _all_match(_MONIES, texts):
        return None
    read = (Decimal(text).quantize(MONEY_PLACES) for text in texts)
    if len(told) == len(amounts):
        return list(read)
    return [None if amount is None else next(read) for amount in amounts]
