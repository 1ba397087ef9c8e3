"""The torture programme in its short form: what it tries is kept, and the mutants are found. `make torture` is long."""

import sys

import pytest

from torture.__main__ import attempt
from torture.findings import Scale

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")

SMALL = Scale(small=True, seconds=60)


@pytest.mark.parametrize("name", ["poison", "outage", "exactly-once", "backup"])
async def test_a_promise_is_kept(name: str) -> None:
    for finding in await attempt(name, SMALL):
        assert finding.kept, finding.row()


@pytest.mark.parametrize(
    ("name", "mutant"),
    [("exactly-once", "doubled_retry"), ("backup", "without_the_log")],
)
async def test_a_mutant_is_found(name: str, mutant: str) -> None:
    assert False in [finding.kept for finding in await attempt(name, SMALL, mutant)]
