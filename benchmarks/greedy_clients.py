"""What an abusive workspace costs another one: latency of plain reads in quiet and in flooded spells, in turns.

    python -m benchmarks.greedy_clients [--connections 64] [--rates 20000 200]

The service as the launcher starts it. The abuser asks for its values over many connections at once, as fast as answers
come; the reader asks for one after another, with a pause between. `--rates` are values of
PERENNIAL_REQUESTS_PER_SECOND, each tried in a service of its own: the first is the default, which nobody reaches here.
All of it shares the machine; the abuser's process has the lowest priority, for it would be on another one.
"""

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.load_client import LoadClient
from benchmarks.service import add_workspace, call, served

SPELLS = 6
SPELL_S = 4.0
PAUSE_S = 0.01
PATH = "/v1/customers/c-1/value"


def event() -> dict[str, Any]:
    return {
        "id": "e",
        "type": "order.placed",
        "customer_id": "c-1",
        "occurred_at": "2025-01-01T00:00:00Z",
        "data": {"order_id": "o", "amount": "1", "currency": "USD"},
    }


def measure(rate: float, connections: int) -> None:
    """Print the latencies of the reader in both kinds of spell, and what the abuser was told."""
    quiet: list[float] = []
    flooded: list[float] = []
    refused = flood = 0
    with (
        served(PERENNIAL_REQUESTS_PER_SECOND=str(rate)) as service,
        LoadClient() as reader,
        LoadClient(niceness=19) as abuser,
        ThreadPoolExecutor(1) as beside,
    ):
        keys = [add_workspace(service.url, name) for name in ("calm", "greedy")]
        for key in keys:
            call(service.url, key, "/v1/events", {"events": [event()]})

        def spell(seconds: float = SPELL_S) -> list[float]:
            load: list[float] = reader.run(
                service.url, [(PATH, None)], seconds=seconds, key=keys[0], connections=1, pause=PAUSE_S, every=True
            )["seconds"]
            return load

        spell(1)
        for _ in range(SPELLS):
            quiet += spell()
            abuse = beside.submit(
                abuser.run, service.url, [(PATH, None)], seconds=SPELL_S + 1, key=keys[1], connections=connections,
                may_fail=True,
            )  # fmt: skip
            time.sleep(0.5)
            flooded += spell()
            told = abuse.result()
            flood, refused = flood + told["requests"], refused + told["wrong"]
    p99s = []
    print(f"At most {rate:,.0f} requests a second:")
    for name, found in (("quiet", quiet), ("flooded", flooded)):
        found.sort()
        p50, p99 = found[len(found) // 2], found[int(len(found) * 0.99)]
        p99s.append(p99)
        print(f"  {name:8} {len(found):6,} reads, p50 {p50 * 1000:6.1f} ms, p99 {p99 * 1000:6.1f} ms")
    a_second = flood / (SPELLS * (SPELL_S + 1))
    print(f"  p99 {p99s[1] / p99s[0]:.2f} times; abuser: {a_second:,.0f} a second, {refused:,} of {flood:,} 429")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rates", type=float, nargs="+", default=[20_000, 200])
    arguments = parser.parse_args()
    for rate in arguments.rates:
        measure(rate, arguments.connections)


if __name__ == "__main__":
    main()
