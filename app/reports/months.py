"""Calendar months in a workspace's time zone."""

from datetime import date, datetime, time
from zoneinfo import ZoneInfo

MOST_MONTHS = 120


def last_months(day: date, months: int) -> list[date]:
    """The first days of the last calendar months up to that of ``day``, the oldest first."""
    last = day.year * 12 + day.month - 1
    return [date(number // 12, number % 12 + 1, 1) for number in range(last - months + 1, last + 1)]


def month_text(month: date) -> str:
    return f"{month.year:04}-{month.month:02}"


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of a day in a time zone."""
    return datetime.combine(day, time.min, zone)
