"""RFM segments and ABC counts of the UCI Online Retail file, by pandas alone: a second opinion on the service.

    python benchmarks/uci_reference.py FILE [--as-of 2011-06-01T00:00:00Z] [--cancellations drop|refund]
        [--duplicates keep|drop] [--ties equal|first] [--json] [--per-customer OUT.csv]

FILE is the CSV of invoice lines, plain or gzip, with the columns InvoiceNo, Quantity, InvoiceDate, UnitPrice and
CustomerID. Nothing of the service is imported; it reads the same file and must answer the same figures.

Rules
-----
- Lines that equal an earlier line of the file in every column are kept, or dropped with ``--duplicates drop``.
  Lines without a CustomerID are skipped.
- A line's amount is Quantity × UnitPrice, exact in ten-thousandths. Zero prices count as zero. A price with more
  than four decimals is refused.
- An order is the lines of one InvoiceNo and one CustomerID: an invoice that names several customers is several
  orders. Its amount is the sum of its lines, its moment that of its earliest line, in UTC.
- An invoice whose number starts with "C" is a cancellation. ``drop`` leaves it out. ``refund`` makes it a refund
  without order, dated at the cancellation, of what its lines sum to below zero; it lowers net spend on that day
  and takes no order away. A cancellation that sums to zero or more refunds nothing.
- Negative quantities in other invoices are netted within the invoice. An order of zero counts, as an order of no
  money. An order below zero can't be placed: it is treated as a cancellation is.
- Only what is dated at or before ``--as-of`` is looked at. Customers without an order then (who only cancelled)
  are not scored. Days are calendar days in UTC.
- R is 5 − #{cut < days since the last order}, F is 1 + #{cut < orders}, M is 1 + #{cut < net spend}; cuts are
  NumPy's linear quantiles at 1/5 … 4/5. ``--ties first`` ranks F by (orders, customer id) before cutting.
- ABC: net spend falling, ties by customer id; A while the share of positive spend before the customer is below
  0.80, B while below 0.95, else C.
"""

import argparse
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

UNITS = 10_000
SEGMENTS = [
    "champions",
    "loyal_customers",
    "potential_loyalists",
    "new_customers",
    "promising",
    "need_attention",
    "about_to_sleep",
    "cant_lose",
    "at_risk",
    "hibernating",
]


def to_units(price: str) -> int:
    """A price in ten-thousandths of the currency unit."""
    units = Decimal(price) * UNITS
    if units != int(units):
        raise SystemExit("a UnitPrice has more than four decimals")
    return int(units)


def show(units: int) -> str:
    """Ten-thousandths as a decimal text with at least two decimals."""
    whole, _, fraction = f"{Decimal(units) / UNITS:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def read_lines(path: str, duplicates: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """The lines that count, with their amount in ten-thousandths, and what was seen."""
    lines = pd.read_csv(path, dtype=str, keep_default_na=False, compression="gzip" if path.endswith(".gz") else None)
    seen = {"lines": len(lines)}
    repeated = lines.duplicated()
    seen["duplicate_lines"] = int(repeated.sum())
    if duplicates == "drop":
        lines = lines[~repeated]
    lines = lines.assign(CustomerID=lines["CustomerID"].str.strip())
    without = lines["CustomerID"] == ""
    seen["lines_without_customer"] = int(without.sum())
    lines = lines[~without].copy()
    prices = {price: to_units(price) for price in lines["UnitPrice"].unique()}
    lines["units"] = lines["Quantity"].astype("int64") * lines["UnitPrice"].map(prices).astype("int64")
    lines["moment"] = pd.to_datetime(lines["InvoiceDate"], utc=True)
    return lines, seen


def read_invoices(lines: pd.DataFrame, cancellations: str, seen: dict[str, int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Orders and refunds without order: a row each, with customer, moment and units (above zero for refunds)."""
    invoices = (
        lines.groupby(["InvoiceNo", "CustomerID"])
        .agg(units=("units", "sum"), moment=("moment", "min"))
        .reset_index()
        .rename(columns={"CustomerID": "customer"})
    )
    cancelled = invoices["InvoiceNo"].str.startswith("C")
    negative = ~cancelled & (invoices["units"] < 0)
    orders = invoices[~cancelled & ~negative]
    refunds = invoices[(cancelled | negative) & (invoices["units"] < 0)]
    refunds = refunds.assign(units=-refunds["units"])
    seen["orders"] = len(orders)
    seen["orders_of_zero"] = int((orders["units"] == 0).sum())
    seen["orders_below_zero"] = int(negative.sum())
    seen["cancellations"] = int(cancelled.sum())
    seen["invoices_of_several_customers"] = int(invoices["InvoiceNo"].duplicated().sum())
    return orders, refunds if cancellations == "refund" else refunds.iloc[:0]


def summarise(orders: pd.DataFrame, refunds: pd.DataFrame, as_of: pd.Timestamp) -> pd.DataFrame:
    """A row a customer with an order, by customer id: last order's age in days, orders and net spend in units."""
    orders = orders[orders["moment"] <= as_of]
    refunds = refunds[refunds["moment"] <= as_of]
    by_customer = orders.groupby("customer")
    table = pd.DataFrame(
        {
            "days": (as_of.normalize() - by_customer["moment"].max().dt.normalize()).dt.days,
            "orders": by_customer.size(),
            "units": by_customer["units"].sum(),
        }
    )
    refunded = refunds.groupby("customer")["units"].sum()
    table["units"] -= refunded.reindex(table.index, fill_value=0).astype("int64")
    # Code-point order of ids, whatever order pandas groups in.
    return table.loc[sorted(table.index)]


def cuts_below(figures: pd.Series) -> pd.Series:
    """How many quintiles are below each figure."""
    cuts = np.quantile(figures.to_numpy(), [1 / 5, 2 / 5, 3 / 5, 4 / 5])
    return pd.Series(sum((figures.to_numpy() > cut).astype(int) for cut in cuts), index=figures.index)


def segment_of(r: int, f: int) -> str:
    if r <= 2:
        return "hibernating" if f <= 2 else "at_risk" if f <= 4 else "cant_lose"
    if r == 3:
        return "about_to_sleep" if f <= 2 else "need_attention" if f == 3 else "loyal_customers"
    if f == 1:
        return "new_customers" if r == 5 else "promising"
    if f <= 3:
        return "potential_loyalists"
    return "champions" if r == 5 else "loyal_customers"


def score(table: pd.DataFrame, ties: str) -> None:
    """Add r, f, m and segment."""
    orders = table["orders"]
    if ties == "first":
        orders = orders.rank(method="first")
    table["r"] = 5 - cuts_below(table["days"])
    table["f"] = 1 + cuts_below(orders)
    table["m"] = 1 + cuts_below(table["units"] / UNITS)
    table["segment"] = [segment_of(r, f) for r, f in zip(table["r"], table["f"], strict=True)]


def grade(table: pd.DataFrame) -> None:
    """Add abc, compared in whole numbers: share < 0.80 is 100 × before < 80 × total."""
    falling = sorted(zip(table.index, table["units"].tolist(), strict=True), key=lambda row: (-row[1], row[0]))
    total = sum(units for _, units in falling if units > 0)
    before, grades = 0, {}
    for customer, units in falling:
        share = 100 * before
        grades[customer] = "A" if share < 80 * total else "B" if share < 95 * total else "C"
        before += max(units, 0)
    table["abc"] = table.index.map(grades)


def report(table: pd.DataFrame) -> dict[str, Any]:
    def row(part: pd.DataFrame) -> dict[str, Any]:
        return {
            "customers": len(part),
            "mean_days_since_last_order": float(part["days"].mean()) if len(part) else None,
            "mean_order_count": float(part["orders"].mean()) if len(part) else None,
            "order_count": int(part["orders"].sum()),
            "net_spend": show(sum(part["units"].tolist())),
        }

    return {
        "all": row(table),
        "segments": {name: row(table[table["segment"] == name]) for name in SEGMENTS},
        "abc": {
            letter: {
                "customers": int((table["abc"] == letter).sum()),
                "net_spend": show(sum(table.loc[table["abc"] == letter, "units"].tolist())),
            }
            for letter in "ABC"
        },
    }


def print_text(answer: dict[str, Any]) -> None:
    print(
        "as of {as_of}, cancellations {cancellations}, duplicates {duplicates}, ties {ties}".format(**answer["rules"])
    )
    print(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in answer["seen"].items()))
    print(f"\n{'segment':<20} {'customers':>9} {'mean days':>10} {'mean orders':>12} {'net spend':>16}")
    for name, row in {**answer["segments"], "all": answer["all"]}.items():
        days, orders = (row[key] for key in ("mean_days_since_last_order", "mean_order_count"))
        shown = ("-", "-") if days is None else (f"{days:.2f}", f"{orders:.2f}")
        print(f"{name:<20} {row['customers']:>9,} {shown[0]:>10} {shown[1]:>12} {row['net_spend']:>16}")
    print(f"\n{'grade':<20} {'customers':>9} {'net spend':>39}")
    for letter, row in answer["abc"].items():
        print(f"{letter:<20} {row['customers']:>9,} {row['net_spend']:>39}")


def main() -> None:
    parser = argparse.ArgumentParser(description="RFM segments and ABC counts of the UCI Online Retail file.")
    parser.add_argument("file")
    parser.add_argument("--as-of", default="2011-06-01T00:00:00Z")
    parser.add_argument("--cancellations", choices=("drop", "refund"), default="drop")
    parser.add_argument("--duplicates", choices=("keep", "drop"), default="keep")
    parser.add_argument("--ties", choices=("equal", "first"), default="equal")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--per-customer", metavar="OUT.csv", help="also write a row a customer")
    args = parser.parse_args()
    as_of = pd.Timestamp(args.as_of)
    if as_of.tzinfo is None:
        parser.error("--as-of needs a zone, such as Z")

    lines, seen = read_lines(args.file, args.duplicates)
    orders, refunds = read_invoices(lines, args.cancellations, seen)
    table = summarise(orders, refunds, as_of.tz_convert("UTC"))
    if table.empty:
        parser.error("no customer has an order at that moment")
    score(table, args.ties)
    grade(table)
    rules = {name: getattr(args, name) for name in ("as_of", "cancellations", "duplicates", "ties")}
    answer = {"rules": rules, "seen": seen, **report(table)}
    if args.per_customer:
        rows = table.assign(net_spend=[show(units) for units in table["units"].tolist()]).drop(columns="units")
        Path(args.per_customer).write_text(rows.to_csv(index_label="customer_id", lineterminator="\n"))
    if args.json:
        print(json.dumps(answer, indent=2))
    else:
        print_text(answer)


if __name__ == "__main__":
    main()
