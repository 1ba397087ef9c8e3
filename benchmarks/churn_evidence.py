"""Cost of reading and weighing the evidence of many customers, in chunks.

    python -m benchmarks.churn_evidence [--customers 1000000] [--events 10] [--chunk 100000]

Random events of every type, a reason in one of ten; the encoding of stored rows is timed on one chunk apart.
"""

import argparse
import resource
import time
from datetime import UTC, datetime, timedelta

import numpy as np

from app.analytics.event_columns import EVENT_CODE, EVENT_TYPES, EventColumns, event_columns
from app.analytics.evidence import weigh_evidence
from app.analytics.lexicon import read_texts
from app.analytics.reading import read_events
from app.analytics.signals import default_weights
from app.catalogue import EventRow, encode_events

AS_OF = 600.0
REASONS = ("too expensive", "rude staff", "moved abroad", "forgot to renew", "价格太贵", "客服态度差", "a competitor")


def events_of(customers: int, each: int, rng: np.random.Generator) -> EventColumns:
    count = customers * each
    kind = rng.integers(0, len(EVENT_TYPES), count)
    return event_columns(
        np.repeat(np.arange(customers), each),
        kind,
        rng.uniform(0, 700, count),
        detail=rng.integers(-1, 5, count),
        number=rng.integers(0, 10, count),
        subject=rng.integers(0, 2, count),
        reason=np.where(rng.random(count) < 0.1, rng.integers(0, len(REASONS), count), -1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=10)
    parser.add_argument("--chunk", type=int, default=100_000)
    options = parser.parse_args()
    rng, weights = np.random.default_rng(0), default_weights()
    themes = read_texts(REASONS).themes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reading = weighing = processor = 0.0
    for start in range(0, options.customers, options.chunk):
        count = min(options.chunk, options.customers - start)
        events = events_of(count, options.events, rng)
        cpu, first = time.process_time(), time.perf_counter()
        signals = read_events(events, count, AS_OF, themes)
        second = time.perf_counter()
        weigh_evidence(signals, count, weights)
        reading, weighing = reading + second - first, weighing + time.perf_counter() - second
        processor += time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{options.customers:,} customers × {options.events} events: reading {reading:.2f} s, weighing {weighing:.2f} s"
    )
    print(f"of it processor {processor:.2f} s; peak memory {(peak - before) / 1024:.0f} MB more")

    moment = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        EventRow(i // 10, "complaint.opened", moment + timedelta(seconds=i), {"complaint_id": str(i)})
        for i in range(100_000)
    ]
    first = time.process_time()
    encode_events(rows, UTC)
    print(f"encoding 100,000 stored rows: {time.process_time() - first:.2f} s of processor")
    texts = [f"{reason} because of case {i}" for i in range(3_000) for reason in REASONS]
    first = time.process_time()
    read_texts(texts)
    print(f"reading {len(texts):,} distinct short texts: {time.process_time() - first:.2f} s of processor")

    single = event_columns([0] * 4, [EVENT_CODE["complaint.opened"], EVENT_CODE["payment.withheld"]] * 2, [1, 2, 3, 4])
    first = time.process_time()
    for _ in range(1_000):
        weigh_evidence(read_events(single, 1, AS_OF), 1, weights)
    print(f"one customer, live: {(time.process_time() - first) * 1_000:.0f} µs of processor")


if __name__ == "__main__":
    main()
