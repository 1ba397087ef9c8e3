"""The terms that several reports share: shares, means, and money of what adds up."""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Annotated

from pydantic import Field

ZERO = Decimal("0.0000")
_PLACES = Decimal("0.0001")

Share = Annotated[float | None, Field(description="0 to 1; null of nothing.", examples=[0.25])]
RunId = Annotated[str, Field(examples=["run_5f0c2a9b4e1d7c36"])]
CurrencyCode = Annotated[str, Field(examples=["USD"])]
Segment = Annotated[str | None, Field(description="Null: without a segment.", examples=["champions"])]


def share_of(part: int | Decimal, whole: int | Decimal) -> float | None:
    return float(part / whole) if whole > 0 else None


def mean(total: int | Decimal, count: int) -> float | None:
    return float(total / count) if count else None


def mean_money(total: Decimal, count: int) -> Decimal | None:
    return (total / count).quantize(_PLACES, ROUND_HALF_EVEN) if count else None
