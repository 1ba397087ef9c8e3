"""The CDNOW orders (from the `lifetimes` package), as events and as figures recomputed by pandas."""

import importlib.util
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd

TIME_ZONE = ZoneInfo("Asia/Shanghai")
"""Far from UTC, and orders stand about its midnight, so that a day cut in any other zone would show."""

MOMENTS = (date(1997, 2, 14), date(1997, 12, 31), date(1998, 5, 20))
LAST_DAY = date(1998, 6, 30)
_TIMES = (time(0, 0, 0), time(23, 59, 59), time(12, 0, 0))


def read_orders(name: str) -> pd.DataFrame:
    """``CDNOW_sample.txt`` (a tenth of the customers) or ``CDNOW_master.txt``: a row an order, money in cents."""
    # Found, not imported: the package warns of itself.
    package = importlib.util.find_spec("lifetimes")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0]) / "datasets" / name
    columns = ["customer_id", "date", "number_of_cds", "dollar_value"]
    if "sample" in name:
        columns.insert(0, "master_id")
    frame = pd.read_csv(path, sep=r"\s+", names=columns, dtype=str, skiprows=0 if "sample" in name else 1)
    cents = [int(Decimal(value) * 100) for value in frame["dollar_value"]]
    return pd.DataFrame({"customer_id": frame["customer_id"], "day": pd.to_datetime(frame["date"]), "cents": cents})


def events(orders: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for number, (customer_id, day, cents) in enumerate(orders.itertuples(index=False)):
        moment = datetime.combine(day.date(), _TIMES[number % len(_TIMES)], TIME_ZONE)
        yield {
            "id": f"e-{number}",
            "type": "order.placed",
            "occurred_at": moment.isoformat(),
            "customer_id": customer_id,
            "data": {"order_id": f"o-{number}", "amount": money(cents), "currency": "USD"},
        }


def money(cents: int) -> str:
    sign, cents = ("-" if cents < 0 else ""), abs(cents)
    return f"{sign}{cents // 100}.{cents % 100:02}"


def end_of(day: date) -> datetime:
    return datetime.combine(day, time(23, 59, 59, 999_999), TIME_ZONE)


def figures(orders: pd.DataFrame, as_of_day: date) -> dict[str, Mapping[str, Any]]:
    """Every customer's figures at the end of a day, recomputed without any of the service's code."""
    as_of = pd.Timestamp(as_of_day)
    known = orders[orders["day"] <= as_of].assign(age=lambda rows: (as_of - rows["day"]).dt.days)
    groups = known.groupby("customer_id")
    found = pd.DataFrame(
        {
            "order_count": groups.size(),
            "purchase_days": groups["day"].nunique(),
            "first_purchase_day": groups["day"].min().dt.date,
            "last_purchase_day": groups["day"].max().dt.date,
            "net_spend": groups["cents"].sum(),
        }
    )
    first = known.merge(groups["day"].min().rename("first_day"), on="customer_id")
    found["first_day_spend"] = first[first["day"] == first["first_day"]].groupby("customer_id")["cents"].sum()
    for name, youngest, oldest in (
        ("year", 0, 365),
        ("prior_year", 365, 730),
        ("half", 0, 180),
        ("prior_half", 180, 360),
    ):
        period = known[(known["age"] >= youngest) & (known["age"] < oldest)].groupby("customer_id")
        found[f"{name}_order_count"] = period.size().reindex(found.index, fill_value=0)
        found[f"{name}_purchase_days"] = period["day"].nunique().reindex(found.index, fill_value=0)
        found[f"{name}_net_spend"] = period["cents"].sum().reindex(found.index, fill_value=0)
    return {customer_id: dict(row) for customer_id, row in found.iterrows()}


def check_value(value: dict[str, Any], row: Mapping[str, Any] | None, day: date) -> None:
    """What a live value tells of the past, against the recomputed row (None: nothing bought yet)."""
    rfm, clv = value["rfm"], value["clv"]
    if row is None:
        assert (rfm["order_count"], rfm["net_spend"], rfm["days_since_last_order"]) == (0, "0.00", None)
        assert (clv["historical"], clv["current"]) == ("0.00", "0.00")
        assert value["churn"]["state"] == "never_purchased"
        assert value["lifecycle"] == {"status": "prospect", "stage": None}
        return
    since = (day - row["last_purchase_day"]).days
    assert rfm["order_count"] == row["order_count"]
    assert rfm["net_spend"] == clv["historical"] == money(row["net_spend"])
    assert rfm["days_since_last_order"] == since
    assert clv["current"] == money(row["year_net_spend"])
    assert value["churn"]["state"] == ("active" if since <= 90 else "at_risk" if since <= 180 else "churned")
    assert value["lifecycle"] == {"status": _status(row, since, day), "stage": _stage(row, since, day)}
    assert value["run_id"] is rfm["r"] is clv["predicted"] is value["abc"]["grade"] is None


def _status(row: Mapping[str, Any], since: int, day: date) -> str:
    if since > 180:
        return "inactive"
    if (day - row["first_purchase_day"]).days <= 180:
        return "new"
    return "active" if row["year_purchase_days"] >= 2 else "occasional"


def _stage(row: Mapping[str, Any], since: int, day: date) -> str:
    if since > 90 or 2 * row["half_net_spend"] < row["prior_half_net_spend"]:
        return "decline"
    if row["purchase_days"] < 3:
        return "exploration"
    if (day - row["first_purchase_day"]).days < 365 or 10 * row["half_net_spend"] > 11 * row["prior_half_net_spend"]:
        return "formation"
    return "stable"
