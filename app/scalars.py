"""The scalar types that bodies, paths and queries are made of: ids, money, instants, days and texts.

Each reads one spelling strictly and answers one normal form, so that equal content compares equal:
money as a ``Decimal`` of four places, an instant as an aware ``datetime`` in UTC.
"""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MONEY_PLACES = Decimal("0.0001")
RATE_PLACES = Decimal("0.0000000001")
MONEY_LIMIT = Decimal(10) ** 11
"""Amounts are below a hundred billion, so that sums of thousands stay exact in 64 bits of ten-thousandths."""

_DECIMAL = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,10})?", re.ASCII)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

ID_PATTERN = r"^[^\s\x00-\x1f\x7f-\x9f/?#%]{1,128}$"
MONEY_PATTERN = r"^[0-9]{1,11}(\.[0-9]{1,4})?$"
INSTANT_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])$"
)

_MONEY = re.compile(MONEY_PATTERN)
_INSTANT = re.compile(INSTANT_PATTERN)


def _decimal(value: Any, places: Decimal, what: str) -> Decimal:
    """Read a decimal string, or a JSON number, with no more places than ``places`` has."""
    if isinstance(value, str):
        if _DECIMAL.fullmatch(value) is None:
            raise PydanticCustomError("decimal", f'must be {what}: a decimal string such as "12.50"')
        number = Decimal(value)
    elif isinstance(value, Decimal):
        number = value
    elif isinstance(value, int) and not isinstance(value, bool):
        # A longer integer would be out of range anyway, and turning it into a Decimal could take seconds.
        if value.bit_length() > 64:
            raise PydanticCustomError("decimal_too_large", f"must be {what}: the number is too large")
        number = Decimal(value)
    else:
        raise PydanticCustomError("decimal", f'must be {what}: a decimal string such as "12.50"')
    if not number.is_finite():
        raise PydanticCustomError("decimal", f"must be {what}: a finite number")
    # Looked at first, because rounding 1e999999999 to four places would need a gigabyte of digits.
    if number and number.adjusted() >= 15:
        raise PydanticCustomError("decimal_too_large", f"must be {what}: the number is too large")
    # Zero has no sign here: -0 and 0 are the same content.
    rounded = number.quantize(places) + 0 if number else places * 0
    if rounded != number:
        raise PydanticCustomError(
            "decimal_too_precise", f"must be {what}: at most {-int(places.as_tuple().exponent)} decimals"
        )
    return rounded


def read_money(value: Any) -> Decimal:
    """An amount of at least zero, at most four decimals, below ``MONEY_LIMIT``."""
    if isinstance(value, str) and _MONEY.fullmatch(value):
        # What nearly all amounts look like needs none of the questions below.
        return Decimal(value).quantize(MONEY_PLACES)
    amount = _decimal(value, MONEY_PLACES, "an amount")
    if amount < 0:
        raise PydanticCustomError("amount_negative", "must be at least 0")
    if amount >= MONEY_LIMIT:
        raise PydanticCustomError("decimal_too_large", "must be below 100000000000")
    return abs(amount)


def read_positive_money(value: Any) -> Decimal:
    amount = read_money(value)
    if amount == 0:
        raise PydanticCustomError("amount_not_positive", "must be greater than 0")
    return amount


def read_signed_money(value: Any) -> Decimal:
    amount = _decimal(value, MONEY_PLACES, "an amount")
    if abs(amount) >= MONEY_LIMIT:
        raise PydanticCustomError("decimal_too_large", "must be between -100000000000 and 100000000000")
    return amount


def read_rate(value: Any) -> Decimal:
    rate = _decimal(value, RATE_PLACES, "an exchange rate")
    if not 0 < rate < 1_000_000_000:
        raise PydanticCustomError("rate_out_of_range", "must be greater than 0 and below 1000000000")
    return rate


def read_quantity(value: Any) -> Decimal:
    quantity = _decimal(value, MONEY_PLACES, "a quantity")
    if abs(quantity) >= 1_000_000_000:
        raise PydanticCustomError("decimal_too_large", "must be between -1000000000 and 1000000000")
    return quantity


def read_instant(value: Any) -> datetime:
    """An RFC 3339 instant with a zone, answered in UTC; digits beyond the microsecond are cut."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if not isinstance(value, str) or _INSTANT.fullmatch(value) is None:
        raise PydanticCustomError("instant", 'must be an RFC 3339 instant with a zone, such as "2026-01-31T09:30:00Z"')
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise PydanticCustomError("instant", "must be an instant that exists in the calendar") from None


def read_day(value: Any) -> date:
    if not isinstance(value, str) or _DAY.fullmatch(value) is None:
        raise PydanticCustomError("day", 'must be a day such as "1990-12-31"')
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise PydanticCustomError("day", "must be a day that exists in the calendar") from None


def storable(text: str) -> bool:
    """Whether PostgreSQL can hold the text: no NUL and no lone surrogate."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def microseconds_of(moment: datetime) -> int:
    """A moment as whole microseconds since 1970."""
    return (moment - EPOCH) // MICROSECOND


def money_of(units: int) -> Decimal:
    """Money of a number of ten-thousandths, in which exact money is counted outside of the database."""
    return Decimal(units).scaleb(-4)


def show_decimal(value: Decimal) -> str:
    """A decimal as the API shows it: at least two decimals, no exponent, no needless zeros."""
    text = f"{value:f}"
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


@lru_cache(maxsize=256)  # Those who are answered together share the moment.
def show_instant(value: datetime) -> str:
    """An instant in UTC with Z, with a fraction only where there is one."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


_shown = PlainSerializer(show_decimal, return_type=str, when_used="json")
_DECIMAL_PATTERN = r"^-?[0-9]{1,15}(\.[0-9]{1,4})?$"


def _decimal_schema(pattern: str, example: str) -> WithJsonSchema:
    # A plain string with a pattern and no format: the one form that all client generators read as text.
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


Money = Annotated[Decimal, PlainValidator(read_money), _shown, _decimal_schema(MONEY_PATTERN, "12.50")]
PositiveMoney = Annotated[Decimal, PlainValidator(read_positive_money), _shown, _decimal_schema(MONEY_PATTERN, "12.50")]
SignedMoney = Annotated[Decimal, PlainValidator(read_signed_money), _shown, _decimal_schema(_DECIMAL_PATTERN, "12.50")]
Rate = Annotated[Decimal, PlainValidator(read_rate), _shown, _decimal_schema(r"^[0-9]{1,9}(\.[0-9]{1,10})?$", "1.0825")]
Quantity = Annotated[Decimal, PlainValidator(read_quantity), _shown, _decimal_schema(_DECIMAL_PATTERN, "2")]
Instant = Annotated[
    datetime,
    PlainValidator(read_instant),
    PlainSerializer(show_instant, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-01-31T09:30:00Z"]}),
]
Day = Annotated[
    date,
    PlainValidator(read_day),
    PlainSerializer(date.isoformat, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["1990-12-31"]}),
]
Id = Annotated[str, StringConstraints(strict=True, pattern=ID_PATTERN)]
Currency = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Z]{3}$")]


def _text(max_length: int) -> StringConstraints:
    # PostgreSQL can't hold NUL, so it is refused.
    return StringConstraints(strict=True, min_length=1, max_length=max_length, pattern=r"^[^\x00]*$")


Text50 = Annotated[str, _text(50)]
Text100 = Annotated[str, _text(100)]
Text200 = Annotated[str, _text(200)]
LongText = Annotated[str, _text(2_000)]
