"""Promises that tests of the product keep in their long form: each is a row too."""

import asyncio
import os
import re
import sys
import time

from app.embedded.folder import PROJECT_DIR
from torture.findings import Finding, Scale

SUITES = {
    "settings": ("no promise that can't be kept", "`fsync`, `full_page_writes`, `synchronous_commit` off",
                 "readiness fails, saying so", ("test_readiness.py",)),
    "retries": ("retries are safe", "10,000 races of POSTs with an `Idempotency-Key`, 32 at a time",
                "one effect and one answer a key", ("test_idempotency.py",)),
    "bad-input": ("bad input hurts only its sender", "the hostile corpus; Schemathesis, all phases, 500 an operation",
                  "0 5xx, every error problem+json", ("test_hostile_input.py", "test_schema_fuzz.py")),
    "slow-clients": ("slow and greedy clients hurt only themselves",
                     "1,000 slow senders, 200 slow readers, the pool exhausted, one workspace beyond its rate",
                     "others are answered; 429 or 503 within 1 s", ("test_slow_clients.py", "test_limits.py")),
    "isolation": ("workspaces are apart", "every operation × scope × foreign id of the OpenAPI document",
                  "0 leaks, also with the filter removed", ("test_isolation.py",)),
    "keys": ("keys", "rotate, expire, revoke, audit; canary keys looked for in logs, traces, errors, metrics",
             "0 found", ("test_keys.py", "test_key_life.py")),
    "privacy": ("privacy", "erase in all states; canaries looked for in every table, queue and log", "0 found",
                ("test_erasure.py", "test_privacy.py")),
    "migrations": ("webs of change", "every migration up, down, up with data; a lock that does not come",
                   "0 lost, drift none", ("test_migrations.py",)),
    "observation": ("seen from outside", "logs, metrics, traces", "they tell of requests, and nobody's data",
                    ("test_observation.py",)),
}  # fmt: skip


async def suite(name: str, scale: Scale) -> Finding:
    promise, tried, bound, files = SUITES[name]
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "-n", "2", *(f"tests/{file}" for file in files)),
        cwd=PROJECT_DIR,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"} | ({} if scale.small else {"TORTURE": "1"}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said = (await asyncio.wait_for(process.communicate(), scale.seconds))[0].decode()
    except TimeoutError:
        process.terminate()
        await process.wait()
        said = "not ended in time"
    if process.returncode != 0:
        print(said, file=sys.stderr)
    counts = re.findall(r"(\d+) (passed|failed|error|skipped)", said)
    figure = ", ".join(f"{count} {what}" for count, what in counts) or said[-100:]
    return Finding(
        promise, f"{tried} ({', '.join(files)})", f"{figure}; {time.monotonic() - begun:.0f} s", bound,
        process.returncode == 0,
    )  # fmt: skip
