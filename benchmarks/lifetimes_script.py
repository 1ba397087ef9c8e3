"""What somebody would script with pandas and lifetimes: from the orders table to a table of scores.

    python benchmarks/lifetimes_script.py DATABASE_URL WORKSPACE_NUMBER AS_OF read_sql|copy [--choose]

``read_sql`` reads and writes as pandas' manual shows, by ``read_sql`` and ``to_sql``; ``copy`` by COPY of CSV, which
takes knowing better. ``--choose`` takes whichever purchase model of lifetimes forecasts the last quarter best; without
it that is BG/NBD. Either way: RFM and ABC by pandas, no calibration, no intervals, no churn types, no history, no
indexes but the primary key.
"""

import argparse
import asyncio
import io
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

warnings.filterwarnings("ignore")

_ORDERS = (
    "SELECT customer_id, occurred_at::date AS day, amount::double precision AS amount FROM events"
    " WHERE workspace_id = {workspace_id} AND type = 'order.placed'"
)
_TABLE = "scripted_scores"
_COLUMNS = (
    "customer_id text, frequency double precision, recency double precision, age double precision,"
    " days_since double precision, orders bigint, spend double precision, r int, f int, m int, abc text,"
    " p_alive double precision, expected double precision, value double precision"
)
_HOLDOUT_DAYS = 90


def choose(orders: Any, as_of: datetime, told: Callable[[str], None]) -> Any:
    """The class of the purchase model whose forecasts of the held out days err least."""
    import pandas as pd
    from lifetimes import BetaGeoFitter, ModifiedBetaGeoFitter, ParetoNBDFitter
    from lifetimes.utils import ConvergenceError, summary_data_from_transaction_data

    # As calibration_and_holdout_data has it, which fails with the pandas of today.
    end = pd.Timestamp(as_of.date()) - pd.Timedelta(days=_HOLDOUT_DAYS)
    before, after = orders[orders["day"] <= end], orders[orders["day"] > end]
    known = summary_data_from_transaction_data(before, "customer_id", "day", observation_period_end=end)
    happened = after.groupby("customer_id")["day"].nunique().reindex(known.index, fill_value=0)
    told("cut into before and after")
    figures = known["frequency"], known["recency"], known["T"]
    errors = {}
    for model in (BetaGeoFitter, ModifiedBetaGeoFitter, ParetoNBDFitter):
        fitted = model()
        try:
            fitted.fit(*figures)
        except ConvergenceError:
            continue
        forecast = fitted.conditional_expected_number_of_purchases_up_to_time(_HOLDOUT_DAYS, *figures)
        errors[model] = (forecast - happened).abs().mean()
        told(f"{model.__name__} tried")
    return min(errors, key=lambda model: errors[model])


def score(orders: Any, as_of: datetime, chooses: bool, told: Callable[[str], None]) -> Any:
    """A row a customer."""
    import pandas as pd
    from lifetimes import BetaGeoFitter, GammaGammaFitter
    from lifetimes.utils import summary_data_from_transaction_data

    today = pd.Timestamp(as_of.date())
    orders["day"] = pd.to_datetime(orders["day"])
    rfm = orders.groupby("customer_id").agg(last=("day", "max"), orders=("amount", "size"), spend=("amount", "sum"))
    rfm["days_since"] = (today - rfm["last"]).dt.days
    rfm["r"] = 5 - pd.qcut(rfm["days_since"].rank(method="first"), 5, labels=False)
    rfm["f"] = pd.qcut(rfm["orders"].rank(method="first"), 5, labels=False) + 1
    rfm["m"] = pd.qcut(rfm["spend"].rank(method="first"), 5, labels=False) + 1
    falling = rfm["spend"].sort_values(ascending=False)
    before = (falling.cumsum() - falling) / falling.sum()
    grades = pd.cut(before, [-1, 0.8, 0.95, 2], right=False, labels=["A", "B", "C"])
    rfm["abc"] = grades.astype(str).reindex(rfm.index)
    told("RFM and ABC")
    summary = summary_data_from_transaction_data(
        orders, "customer_id", "day", monetary_value_col="amount", observation_period_end=today
    )
    told("summary_data_from_transaction_data")
    figures = summary["frequency"], summary["recency"], summary["T"]
    purchases = choose(orders, as_of, told)() if chooses else BetaGeoFitter()
    purchases.fit(*figures)
    told(f"{type(purchases).__name__}.fit")
    again = summary[(summary["frequency"] > 0) & (summary["monetary_value"] > 0)]
    worth = GammaGammaFitter()
    worth.fit(again["frequency"], again["monetary_value"])
    told("GammaGammaFitter.fit")
    summary["p_alive"] = purchases.conditional_probability_alive(*figures)
    summary["expected"] = purchases.conditional_expected_number_of_purchases_up_to_time(365, *figures)
    summary["value"] = worth.customer_lifetime_value(
        purchases, *figures, summary["monetary_value"], time=12, freq="D", discount_rate=0.008
    )
    told("predicted")
    columns = ["frequency", "recency", "T", "days_since", "orders", "spend"]
    return summary.join(rfm)[[*columns, "r", "f", "m", "abc", "p_alive", "expected", "value"]]


async def by_sql(database_url: str, query: str, as_of: datetime, chooses: bool, told: Callable[[str], None]) -> None:
    import pandas as pd

    from app.store.engine import create_engine

    engine = create_engine(database_url, statement_timeout_ms=0)
    async with engine.begin() as connection:
        orders = await connection.run_sync(lambda bound: pd.read_sql(_text(query), bound))
    told("read")
    table = score(orders, as_of, chooses, told)
    async with engine.begin() as connection:
        await connection.run_sync(lambda bound: table.to_sql(_TABLE, bound, if_exists="replace", chunksize=10_000))
    told("written back")
    await engine.dispose()


def _text(query: str) -> Any:
    from sqlalchemy import text

    return text(query.replace(":", "\\:"))


async def by_copy(database_url: str, query: str, as_of: datetime, chooses: bool, told: Callable[[str], None]) -> None:
    import asyncpg
    import pandas as pd

    connection = await asyncpg.connect(database_url)
    buffer = io.BytesIO()
    await connection.copy_from_query(query, output=buffer, format="csv", header=True)
    buffer.seek(0)
    orders = pd.read_csv(buffer)
    told("read")
    table = score(orders, as_of, chooses, told)
    await connection.execute(f"DROP TABLE IF EXISTS {_TABLE}; CREATE TABLE {_TABLE} ({_COLUMNS})")
    written = io.BytesIO(table.to_csv(header=False).encode())
    await connection.copy_to_table(_TABLE, source=written, format="csv")
    await connection.execute(f"ALTER TABLE {_TABLE} ADD PRIMARY KEY (customer_id)")
    told("written back")
    await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database_url")
    parser.add_argument("workspace_number", type=int)
    parser.add_argument("as_of", type=datetime.fromisoformat)
    parser.add_argument("way", choices=("read_sql", "copy"))
    parser.add_argument("--choose", action="store_true")
    arguments = parser.parse_args()
    begun = time.perf_counter()

    def told(what: str) -> None:
        print(f"    {time.perf_counter() - begun:6.1f} s  {what}", flush=True)

    way = by_sql if arguments.way == "read_sql" else by_copy
    query = _ORDERS.format(workspace_id=arguments.workspace_number)
    asyncio.run(way(arguments.database_url, query, arguments.as_of.astimezone(UTC), arguments.choose, told))


if __name__ == "__main__":
    main()
