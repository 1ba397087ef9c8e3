"""Acknowledged means committed: what a client was told is stored survives kill -9 of any process."""

import sys
from pathlib import Path

import pytest

from tests.crash_ledger import survive
from tests.test_launcher import data_dir

__all__ = ["data_dir"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a killed launcher leaves its children")


async def test_nothing_acknowledged_is_lost_or_doubled_when_processes_are_killed(data_dir: Path) -> None:
    ledger = await survive(kills=2, data_dir=data_dir)
    assert ledger.is_exact
    assert ledger.acknowledged == ledger.sent.keys()
    assert len(ledger.sent) > 50
