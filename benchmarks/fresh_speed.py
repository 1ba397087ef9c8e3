"""From one event to a fresh live value, among few customers and among many; and live values of long histories.

An order is sent for a customer and its value asked for, over one connection: in a workspace of ten thousand customers
and in one of a million, in turns, on one service as the launcher starts it. Below: the live value of a customer with
10 orders and of one with 10,000, all of the last two years.

    python -m benchmarks.fresh_speed [--small] [--few 10000] [--many 1000000] [--turns 200]
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx

from app.scalars import show_instant
from benchmarks.customer_ids import customer_id
from benchmarks.figures import Figure, table
from benchmarks.service import add_workspace, score, served
from benchmarks.simulated_shop import fill, settle


def order(name: str, customer: str, moment: datetime) -> dict[str, object]:
    data = {"order_id": f"o-{name}", "amount": "12.50", "currency": "USD"}
    placed = {"id": f"fresh-{name}", "type": "order.placed", "customer_id": customer, "data": data}
    return placed | {"occurred_at": show_instant(moment)}


def in_turns(turns: int, **steps: Callable[[int], None]) -> dict[str, float]:
    """Median seconds of each step, one after another in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns):
        for name, step in steps.items():
            begun = time.perf_counter()
            step(turn)
            seconds[name].append(time.perf_counter() - begun)
    # The first turns make plans and open connections.
    return {name: statistics.median(taken[turns // 10 :]) for name, taken in seconds.items()}


def measure(url: str, keys: dict[str, str], sizes: dict[str, int], turns: int) -> Figure:
    chance = random.Random(2)
    with httpx.Client(base_url=url, timeout=60) as http:

        def fresh(name: str) -> Callable[[int], None]:
            headers = {"Authorization": f"Bearer {keys[name]}"}

            def step(turn: int) -> None:
                customer = customer_id(chance.randrange(sizes[name]))
                sent = order(f"{name}-{turn}", customer, datetime.now(UTC))
                assert http.post("/v1/events", json={"events": [sent]}, headers=headers).json()["accepted"] == 1
                value = http.get(f"/v1/customers/{customer}/value", headers=headers).json()
                assert value["rfm"]["days_since_last_order"] == 0

            return step

        taken = in_turns(turns, few=fresh("few"), many=fresh("many"))
        figure = Figure(
            f"one event to a fresh value, {sizes['many']:,} customers",
            f"{sizes['few']:,} customers",
            1e3 * taken["many"],
            1e3 * taken["few"],
            "ms",
            1.2,
            at_most=True,
        )
        headers = {"Authorization": f"Bearer {keys['few']}"}
        now = datetime.now(UTC)
        for customer, count in (("short", 10), ("long", 10_000)):
            moments = (now - timedelta(minutes=1) - timedelta(days=720) * place / count for place in range(count))
            sent = [order(f"{customer}-{place}", customer, moment) for place, moment in enumerate(moments)]
            assert http.post("/v1/events", json={"events": sent}, headers=headers).json()["accepted"] == count

        def live(customer: str) -> Callable[[int], None]:
            return lambda _: http.get(f"/v1/customers/{customer}/value", headers=headers).raise_for_status() and None

        taken = in_turns(turns, short=live("short"), long=live("long"))
        print(
            f"a live value: {1e3 * taken['short']:.2f} ms with 10 orders, {1e3 * taken['long']:.2f} ms with 10,000:"
            f" {taken['long'] / taken['short']:.2f} times"
        )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--small", action="store_true", help="1,000 and 20,000 customers")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.few, arguments.many, arguments.turns = 1_000, 20_000, 40
    sizes = {"few": arguments.few, "many": arguments.many}
    with served() as service:
        keys = {name: add_workspace(service.url, name) for name in sizes}
        for name, size in sizes.items():
            asyncio.run(fill(service.database_url, name, size))
            score(service.url, keys[name], "textbook")
        asyncio.run(settle(service.database_url))
        print(table([measure(service.url, keys, sizes, arguments.turns)]))


if __name__ == "__main__":
    main()
