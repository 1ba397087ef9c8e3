"""All CDNOW orders through the real service, compared with a recomputation by pandas, to the last digit.

python -m benchmarks.cdnow_http [--sample]
"""

import argparse
import asyncio
import time
from datetime import date, datetime
from typing import Any

import httpx

from benchmarks.service import add_workspace, served
from tests import cdnow

CONNECTIONS = 4
MOST_SHOWN = 5


async def run(url: str, key: str, sample: bool) -> None:
    orders = cdnow.read_orders("CDNOW_sample.txt" if sample else "CDNOW_master.txt")
    customer_ids = sorted(set(orders["customer_id"]))
    print(f"{len(customer_ids)} customers, {len(orders)} orders, days cut in {cdnow.TIME_ZONE.key}")
    async with httpx.AsyncClient(base_url=url, timeout=60, headers={"Authorization": f"Bearer {key}"}) as http:
        events = list(cdnow.events(orders))
        batches = iter([events[start : start + 1_000] for start in range(0, len(events), 1_000)])
        begun = time.monotonic()
        accepted = sum(await asyncio.gather(*(send(http, batches) for _ in range(CONNECTIONS))))
        print(f"{accepted} accepted in {time.monotonic() - begun:.1f} s")
        days = [(day, cdnow.end_of(day).isoformat()) for day in (*cdnow.MOMENTS, cdnow.LAST_DAY)]
        for day, as_of in [*days, (datetime.now(cdnow.TIME_ZONE).date(), None)]:
            expected = cdnow.figures(orders, day)
            agreed = await compare(http, customer_ids, expected, day, as_of)
            print(f"{as_of or 'now (live)'}: {agreed} of {len(customer_ids)} customers agree in every figure")


async def send(http: httpx.AsyncClient, batches: Any) -> int:
    accepted = 0
    for batch in batches:
        accepted += (await http.post("/v1/events", json={"events": batch})).json()["accepted"]
    return accepted


async def compare(http: httpx.AsyncClient, customer_ids: list[str], expected: Any, day: date, as_of: str | None) -> int:
    agreed = differing = 0
    for start in range(0, len(customer_ids), 1_000):
        asked: dict[str, Any] = {"customer_ids": customer_ids[start : start + 1_000]}
        answer = (await http.post("/v1/values/query", json=asked | ({"as_of": as_of} if as_of else {}))).json()
        for value in answer["data"]:
            try:
                cdnow.check_value(value, expected.get(value["customer_id"]), day)
                agreed += 1
            except AssertionError as difference:
                differing += 1
                if differing <= MOST_SHOWN:
                    print(f"{value['customer_id']} differs: {value} {difference}")
    return agreed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", action="store_true", help="the sample alone")
    arguments = parser.parse_args()
    with served() as service:
        key = add_workspace(service.url, "cdnow", cdnow.TIME_ZONE.key)
        asyncio.run(run(service.url, key, arguments.sample))


if __name__ == "__main__":
    main()
