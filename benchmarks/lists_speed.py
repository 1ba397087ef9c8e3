"""Pages of `GET /v1/values` over a million customers: each sort, page 1 and page 1,000; filters with each sort.

The service as the launcher starts it, with simulated customers and a run of them (textbook). A page has 100 values;
what is told is the median of a few. Lists of customers and of a customer's events stand below.

    python -m benchmarks.lists_speed [--small] [--customers 1000000] [--repeats 3]
"""

import argparse
import asyncio
import json
import statistics
import time
import urllib.parse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from app.store.score_classes import SORTS
from benchmarks.customer_ids import customer_id
from benchmarks.figures import Figure, table, within
from benchmarks.service import KEY, call, score, served
from benchmarks.simulated_shop import fill, settle

DIRECTIONS = ("", "-")
LIMIT_SECONDS = 0.150
FLAT = 1.5
"""How much longer a page far behind may take and still count as flat."""


def filters_of(url: str, key: str) -> list[dict[str, str]]:
    """Each filter alone, with a rare and a common value of each, and combinations that somebody would ask for."""
    page = call(url, key, "/v1/values?sort=-clv_total&limit=1")["data"][0]
    high = page["clv"]["total"]
    alone = [
        *({"segment": segment} for segment in ("champions", "hibernating", "cant_lose", "promising")),
        *({"abc": grade} for grade in "ABC"),
        *({"churn_state": state} for state in ("active", "at_risk", "churned", "never_purchased")),
        *({"churn_type": kind} for kind in ("unknown", "negligent")),
        *({"lifecycle_status": status} for status in ("prospect", "new", "active", "occasional", "inactive")),
        {"clv_total_min": f"{float(high) / 3:.2f}"},
        {"clv_total_min": "500"},
        {"clv_total_max": "20"},
        {"net_spend_min": "2000"},
        {"net_spend_min": "100"},
        {"net_spend_max": "10"},
        {"net_spend_min": "100", "net_spend_max": "101"},
        {"net_spend_min": "99999999"},
    ]
    together = [
        {"segment": "champions", "abc": "A"},
        {"segment": "champions", "abc": "C"},
        {"abc": "A", "churn_state": "churned"},
        {"abc": "A", "churn_state": "at_risk", "churn_type": "unknown"},
        {"abc": "C", "lifecycle_status": "active"},
        {"segment": "at_risk", "net_spend_min": "500"},
        {"churn_state": "active", "clv_total_min": "500"},
        {"churn_state": "churned", "net_spend_max": "20"},
        {"lifecycle_status": "new", "net_spend_min": "200", "clv_total_max": "400"},
    ]
    return alone + together


PAGES_IN_TURNS = 15
"""Ten milliseconds a page are told from one another by many of them only."""


def timed(url: str, key: str, paths: Sequence[str], repeats: int) -> tuple[list[float], Any]:
    """Median seconds of each path, asked for in turns; and the last answer."""
    seconds: list[list[float]] = [[] for _ in paths]
    for _ in range(repeats):
        for place, path in enumerate(paths):
            begun = time.perf_counter()
            answer = call(url, key, path)
            seconds[place].append(time.perf_counter() - begun)
    return [statistics.median(found) for found in seconds], answer


def unfiltered(url: str, key: str, pages: int) -> list[Figure]:
    told = []
    for sort, direction in product(SORTS, DIRECTIONS):
        path = f"/v1/values?sort={direction}{sort}"
        cursor = call(url, key, path)["next_cursor"]
        # Pages of 1,000 lead to the same place sooner.
        for _ in range(pages * 100 // 1_000):
            cursor = call(url, key, f"{path}&limit=1000&cursor={cursor}")["next_cursor"] or cursor
        (first, last), _ = timed(url, key, (path, f"{path}&cursor={cursor}"), PAGES_IN_TURNS)
        print(f"{direction + sort:24} page 1 {1e3 * first:7.1f} ms, page {pages} {1e3 * last:7.1f} ms", flush=True)
        told.append((first, last))
    first, last = max(told, key=lambda pair: pair[1] / pair[0])
    return [
        Figure(f"page {pages:,}, the least flat sort", "its page 1", 1e3 * last, 1e3 * first, "ms", FLAT, at_most=True),
        within("slowest page, unfiltered", 1e3 * max(map(max, told)), 1e3 * LIMIT_SECONDS, "ms"),
    ]


def filtered(url: str, key: str, repeats: int, step: int) -> list[Figure]:
    slow, slowest = 0, 0.0
    for condition in filters_of(url, key)[::step]:
        seconds = {}
        for sort, direction in product(SORTS, DIRECTIONS):
            query = urllib.parse.urlencode({**condition, "sort": direction + sort})
            [seconds[direction + sort]], answer = timed(url, key, (f"/v1/values?{query}",), repeats)
        worst = max(seconds, key=lambda sort: seconds[sort])
        slowest = max(slowest, seconds[worst])
        slow += sum(one > LIMIT_SECONDS for one in seconds.values())
        told = ", ".join(f"{name}={value}" for name, value in condition.items())
        print(
            f"{told:60} median {1e3 * statistics.median(seconds.values()):7.1f} ms,"
            f" worst {1e3 * seconds[worst]:7.1f} ms ({worst}); rows on the page {len(answer['data'])}",
            flush=True,
        )
    print(f"{slow} pages took longer than {1e3 * LIMIT_SECONDS:.0f} ms")
    return [within("slowest page, filtered", 1e3 * slowest, 1e3 * LIMIT_SECONDS, "ms")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--filters", type=int, default=1, metavar="N", help="only every Nth filter")
    parser.add_argument("--small", action="store_true", help="3,000 customers, every fourth filter, once")
    parser.add_argument("--service", help="a JSON file with the url and the key of a service that is filled already")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.customers, arguments.repeats, arguments.filters = 3_000, 1, 4
    if arguments.service:
        told = json.loads(Path(arguments.service).read_text())
        measure(told["url"], told["key"], arguments)
        return
    with served() as service:
        asyncio.run(fill(service.database_url, "default", arguments.customers))
        score(service.url, KEY, "textbook")
        asyncio.run(settle(service.database_url))
        measure(service.url, KEY, arguments)


def measure(url: str, key: str, arguments: Any) -> None:
    figures = unfiltered(url, key, min(1_000, arguments.customers // 100 - 1))
    figures += filtered(url, key, arguments.repeats, arguments.filters)
    for path in ("/v1/customers?limit=100", f"/v1/customers/{customer_id(1)}/events"):
        [seconds], _ = timed(url, key, (path,), arguments.repeats)
        print(f"{path:40} {1e3 * seconds:7.1f} ms")
    print(table(figures))


if __name__ == "__main__":
    main()
