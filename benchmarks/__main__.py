"""All measurements of speed, one after another, and the page that tells them: docs/performance.md.

    python -m benchmarks [--small] [--only NAME …] [--page]

Every part is a program of its own and can be run alone. `--small` takes some minutes, for everyday use, and like
`--only` leaves the page as it is unless `--page` asks for it.
"""

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "performance.md"


@dataclass(frozen=True, slots=True)
class Part:
    """A program of this folder; ``small`` are its arguments for everyday use, None where it has no small form."""

    name: str
    title: str
    about: str
    small: tuple[str, ...] | None = ("--small",)
    full: tuple[str, ...] = ()


PARTS = (
    Part(
        "ingest",
        "Ingest",
        "Ratios to what the same server and driver do at best: a bare COPY of the same rows into a table with the same "
        "keys, and one-row inserts by pgbench.",
    ),
    Part(
        "read_speed",
        "One customer's value",
        "Beside a bare FastAPI + asyncpg point read of a 900-byte row by key, and, where `FEAST_PYTHON` names an "
        "interpreter that has it, beside Feast's online store on the same PostgreSQL.",
    ),
    Part(
        "fresh_speed",
        "From an event to its value",
        "An order sent and its customer's live value read, in small and large workspaces.",
    ),
    Part(
        "lists_speed",
        "Lists",
        "Pages of `GET /v1/values`: every sort at page 1 and far behind, filters with every sort. To reach: flat, and "
        "150 ms.",
    ),
    Part(
        "run_speed",
        "Scoring runs",
        "Beside the bare movement of the same rows, and beside a script of pandas and lifetimes.",
    ),
    Part("beside_run", "Ingest beside a run", "Latency of batches while the worker does a run."),
    Part(
        "observation",
        "Being watched",
        "What logs and metrics cost a read.",
    ),
)

INTRODUCTION = """# Performance

Made by `make bench` from what its programs print; every one can be run alone, as the command above its figures says.
All figures are ratios of things measured side by side in one run: machines differ, and are noisy. Absolute numbers are
for orientation. `make bench SMALL=1` measures small forms of the same.

Measured on {day}: {machine}.
"""


def run(part: Part, arguments: Sequence[str]) -> tuple[str, bool]:
    """What the program prints, which is shown as it comes, and whether it succeeded."""
    command = [sys.executable, "-m", f"benchmarks.{part.name}", *arguments]
    lines = []
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return "".join(lines), process.returncode == 0


def section(part: Part, arguments: Sequence[str], printed: str) -> str:
    command = " ".join(["python", "-m", f"benchmarks.{part.name}", *arguments])
    tables, rest = [], []
    for line in printed.splitlines():
        (tables if line.startswith("|") else rest).append(line)
    told = "\n".join(rest).strip("\n")
    parts = [f"## {part.title}\n\n{part.about}\n\n`{command}`\n"]
    if tables:
        parts.append("\n".join(tables) + "\n")
    if told:
        parts.append(f"```\n{told}\n```\n")
    return "\n".join(parts)


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GB, {platform.system()},"
        f" Python {platform.python_version()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small forms only, and no page")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], metavar="NAME")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md in any case")
    arguments = parser.parse_args()
    sections, failed = [], []
    for part in PARTS:
        if arguments.only and part.name not in arguments.only:
            continue
        options = part.small if arguments.small else part.full
        if options is None:
            continue
        print(f"\n==== {part.title} ====", flush=True)
        printed, succeeded = run(part, options)
        sections.append(section(part, options, printed))
        if not succeeded:
            failed.append(part.name)
    if arguments.page or not (arguments.small or arguments.only):
        introduction = INTRODUCTION.format(day=datetime.now(UTC).date(), machine=machine())
        PAGE.write_text("\n".join([introduction, *sections]))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
