"""All measurements of speed, one after another, and the page that tells them: docs/performance.md.

    python -m benchmarks [--small] [--only NAME …] [--page]

Every part is a program of its own and can be run alone. `--small` takes less than two minutes on a quiet
machine, for everyday use, and like `--only` leaves the page as it is unless `--page` asks for it; with `--only` the
page then keeps its other sections.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "performance.md"
NOTES = Path(__file__).resolve().parent / "notes"


@dataclass(frozen=True, slots=True)
class Part:
    """A program of this folder. What its section says beside the figures stands in ``notes/``, by its name."""

    name: str
    title: str


PARTS = (
    Part("ingest", "Ingest"),
    Part("read_speed", "One customer's value"),
    Part("fresh_speed", "From an event to its value"),
    Part("lists_speed", "Lists"),
    Part("run_speed", "Scoring runs"),
    Part("beside_run", "Ingest beside a run"),
    Part("observation", "Being watched"),
)


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


def note(name: str) -> str:
    return (NOTES / f"{name}.md").read_text()


def section(part: Part, arguments: Sequence[str], printed: str) -> str:
    command = " ".join(["python", "-m", f"benchmarks.{part.name}", *arguments])
    tables: list[str] = []
    rest: list[str] = []
    for line in printed.splitlines():
        (tables if line.startswith("|") else rest).append(line)
    told = "\n".join(rest).strip("\n")
    parts = [f"## {part.title}\n\n{note(part.name)}\n`{command}`, {datetime.now(UTC).date()}:\n"]
    if tables:
        parts.append("\n".join(tables) + "\n")
    if told:
        parts.append(f"```\n{told}\n```\n")
    return "\n".join(parts)


def sections_of(page: str) -> dict[str, str]:
    """The sections of a page by their titles."""
    _, *found = re.split(r"^## ", page, flags=re.MULTILINE)
    return {text.partition("\n")[0]: f"## {text.rstrip()}\n" for text in found}


def in_order(sections: Mapping[str, str]) -> list[str]:
    return [sections[part.title] for part in PARTS if part.title in sections]


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
    options = ["--small"] if arguments.small else []
    sections: dict[str, str] = {}
    failed = []
    for part in PARTS:
        if arguments.only and part.name not in arguments.only:
            continue
        print(f"\n==== {part.title} ====", flush=True)
        begun = time.perf_counter()
        printed, succeeded = run(part, options)
        print(f"({time.perf_counter() - begun:.0f} s)", flush=True)
        sections[part.title] = section(part, options, printed)
        if not succeeded:
            failed.append(part.name)
    if arguments.page or not (arguments.small or arguments.only):
        introduction = note("introduction").format(machine=machine())
        kept = sections_of(PAGE.read_text()) if arguments.only else {}
        PAGE.write_text("\n".join([introduction, *in_order(kept | sections)]))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
