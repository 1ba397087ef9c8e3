"""Whatever the document allows, and whatever it forbids, is answered as it says: never a 5xx, errors as problems.

Schemathesis makes the requests from the OpenAPI document: a few an operation in `make test`, 500 in `make torture`.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from app import customers
from tests.test_hostile_input import Service, service

__all__ = ["service"]

EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "500" if os.environ.get("TORTURE") else "2"))
PHASES = "examples,coverage,fuzzing,stateful" if EXAMPLES > 10 else "examples,fuzzing"
CHECKS = (
    "not_a_server_error",
    # Errors are documented as problem+json with the schema Problem, so these three hold every error to it.
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "ignored_auth",
)
# The keys that requests are made with must live on.
ENDING_KEYS = ("revokeKey", "rotateKey")


async def fuzz(service: Service, tmp_path: Path, *more: str) -> tuple[int, str]:
    """What Schemathesis exits with, and what it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{service.port}/openapi.json"),
        *("--header", f"Authorization: Bearer {service.key}", "--phases", PHASES, "--checks", ",".join(CHECKS)),
        *("--max-examples", str(EXAMPLES), "--seed", "1", "--generation-database", "none", "--no-color"),
        *("--suppress-health-check", "all", "--request-timeout", "60"),
        *(part for name in ENDING_KEYS for part in ("--exclude-operation-id", name)),
        *more,
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_every_answer_is_one_that_the_document_tells_of(service: Service, tmp_path: Path) -> None:
    status, said = await fuzz(service, tmp_path)
    if "SCHEMA_EXAMPLES" in os.environ:
        print(said)
    assert status == 0, said[-20_000:]
    assert (await service.send("GET", "/v1/keys")).status == 200, "the key did not live on"


async def test_the_fuzzing_catches_an_answer_that_is_none_of_ours(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(customers, "get_customer", fail)
    status, said = await fuzz(service, tmp_path, "--include-operation-id", "getCustomer")
    assert status == 1
    assert "Server error" in said, said
