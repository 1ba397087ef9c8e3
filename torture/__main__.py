"""Try the promises of docs/reliability.md, and print a row for each; status 1 where one is missed."""

import argparse
import asyncio
import functools
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from torture import (
    backup,
    durable,
    exactly_once,
    graceful_stop,
    memory,
    outage,
    shared_runs,
    suites,
    webs_of_change,
    whole_batches,
)
from torture.findings import HEAD, Finding, Scale

Attempt = Callable[[Scale, str | None], Awaitable[Any]]


def _of_suite(name: str) -> Attempt:
    async def attempt(scale: Scale, _mutant: str | None) -> Finding:
        return await suites.suite(name, scale)

    return functools.wraps(suites.suite)(attempt)


PROMISES: dict[str, Attempt] = {
    "kills": durable.killed,
    "stops": durable.stopped,
    "exactly-once": exactly_once.exactly_once,
    "batches": whole_batches.killed,
    "poison": whole_batches.poisoned,
    "memory": memory.bounded,
    "outage": outage.outage,
    "graceful-stop": graceful_stop.stopped,
    "shared-runs": shared_runs.killed,
    "change": webs_of_change.under_traffic,
    "backup": backup.restored,
    **{name: _of_suite(name) for name in suites.SUITES},
}

WITHOUT_MUTANTS = {"change", *suites.SUITES}
"""What these try is broken in their own tests, or not at all."""


async def attempt(name: str, scale: Scale, mutant: str | None = None) -> list[Finding]:
    """The findings of one promise; one that breaks off is missed."""
    try:
        found = await PROMISES[name](scale, mutant)
    except Exception as error:  # One that can't be tried must not hide the others.
        return [Finding(name, "broke off", f"{type(error).__name__}: {str(error)[:300]}", "", False)]
    return found if isinstance(found, list) else [found]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PROMISES, metavar="NAME", help=f"of {', '.join(PROMISES)}")
    parser.add_argument("--small", action="store_true", help="the short form")
    parser.add_argument("--minutes", type=float, default=30, help="longest that one promise is tried (default: 30)")
    parser.add_argument("--mutant", help="break the service on purpose (torture/mutants.py): it has to be found")
    arguments = parser.parse_args()
    if arguments.mutant and (not arguments.only or WITHOUT_MUTANTS & set(arguments.only)):
        parser.error(f"--mutant takes --only, and other promises than {', '.join(sorted(WITHOUT_MUTANTS))}")
    # What was started is ended, and its folders are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scale = Scale(arguments.small, arguments.minutes * 60)
    print(HEAD, flush=True)
    missed = False
    for name in arguments.only or PROMISES:
        begun = time.monotonic()
        for finding in asyncio.run(attempt(name, scale, arguments.mutant)):
            print(finding.row(), flush=True)
            missed |= finding.kept is False
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    sys.exit(missed)


if __name__ == "__main__":
    main()
