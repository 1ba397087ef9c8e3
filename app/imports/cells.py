"""One cell of a file: the text that it holds becomes an id, a moment or a number, as a mapping spells them."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo

from app.imports.mapping import ImportMapping
from app.scalars import ID_PATTERN, MONEY_LIMIT
from app.store.workspaces import Workspace

_CACHED = 50_000

_ID = re.compile(ID_PATTERN)
_NO_ID_CHARACTER = re.compile(r"[\s\x00-\x1f\x7f-\x9f/?#%]")
_ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?: ?(?:Z|[+-]\d{2}(?::?\d{2})?))?)?", re.ASCII
)
_NUMBER = re.compile(r"[+-]?(?:\d{1,18}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,2})?", re.ASCII)
_MONEY_SIGN = re.compile(
    r"([+-]?) *(?:[$¢£¥€₩₪₫₱₴₹₺₽₿฿]|[A-Z]{1,3}\$|[A-Z]{3}) *([+-]?)|(?: *(?:[$¢£¥€₩₪₫₱₴₹₺₽₿฿]|[A-Z]{3}))$"
)


class BadCell(Exception):
    """A cell that can't be read; ``field`` is what the mapping calls its column."""

    def __init__(self, field: str, detail: str, code: str = "invalid_value") -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail
        self.code = code


class CellReader:
    """Reads cells that are not empty; each method raises ``BadCell``."""

    def __init__(self, mapping: ImportMapping, workspace: Workspace) -> None:
        self._mapping = mapping
        self._zone = ZoneInfo(mapping.time_zone) if mapping.time_zone else workspace.time_zone
        # The same times, prices and customers come again and again.
        self.id = lru_cache(_CACHED)(self._id)
        self.time = lru_cache(_CACHED)(self._time)
        self.number = lru_cache(_CACHED)(self._number)

    def _id(self, field: str, text: str) -> str:
        if self._mapping.id_replacement is not None:
            text = _NO_ID_CHARACTER.sub(self._mapping.id_replacement, text)
        if _ID.fullmatch(text) is None or not text.isprintable():
            raise BadCell(field, "must be 1 to 128 characters without control characters, white space or / ? # %.")
        return text

    def _time(self, text: str) -> datetime:
        pattern = self._mapping.occurred_at_format
        try:
            if pattern is not None:
                moment = datetime.strptime(text, pattern)  # noqa: DTZ007 - the zone is added below
            elif _ISO.fullmatch(text):
                moment = datetime.fromisoformat(text.replace(" ", "T", 1).replace(" ", ""))
            else:
                raise BadCell(
                    "occurred_at", "must be a date or a time by ISO 8601; name another format in the mapping."
                )
            return (moment if moment.tzinfo else moment.replace(tzinfo=self._zone)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise BadCell("occurred_at", "must be a date that exists, in the mapping's format.") from None

    def _number(self, field: str, text: str) -> Decimal:
        mapping = self._mapping
        plain: str | None = text
        if mapping.currency_signs:
            plain = _MONEY_SIGN.sub(r"\1\2", text, count=1)
        if mapping.thousands_separator is not None:
            plain = self._ungrouped(plain or "")
        if mapping.decimal_separator == "," and plain is not None:
            plain = None if "." in plain else plain.replace(",", ".")
        if plain is None or _NUMBER.fullmatch(plain) is None:
            raise BadCell(
                field, f"must be a number such as {'12,50' if mapping.decimal_separator == ',' else '12.50'}."
            )
        number = Decimal(plain)
        if abs(number) >= MONEY_LIMIT:
            raise BadCell(field, "must be below 100000000000.")
        return number

    def _ungrouped(self, text: str) -> str | None:
        """Without separators of thousands, where they stand as they should."""
        separator = self._mapping.thousands_separator
        if separator == " ":
            text = text.replace("\u00a0", " ").replace("\u202f", " ")
        elif separator == "'":
            text = text.replace("\u2019", "'")
        if separator is None or separator not in text:
            return text
        whole, mark, decimals = text.partition(self._mapping.decimal_separator)
        first, *groups = whole.split(separator)
        if separator in decimals or not 1 <= len(first.lstrip("+-")) <= 3 or any(len(group) != 3 for group in groups):
            return None
        return first + "".join(groups) + mark + decimals
