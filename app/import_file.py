"""Import a file into a running service, as ``make import`` does: ``python -m app.import_file FILE --map MAP.json``.

It sends the file over HTTP as any client would, so it works against any instance, and shows how far the import is.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.errors import InvalidRequest
from app.imports.mapping import read_mapping

_PIECE_BYTES = 1 << 18
_POLL_S = 0.3
_PATIENCE_S = 60.0
"""For a service that does not answer while the import runs."""

_SHOWN_BAD_ROWS = 20
_GZIP = b"\x1f\x8b"
_COUNTS = {
    "lines": "Lines",
    "accepted": "Events stored",
    "duplicates": "Stored before",
    "rejected": "Rejected",
    "skipped_without_customer": "Skipped, without a customer",
    "dropped_cancellations": "Dropped cancellations",
    "dropped_duplicate_lines": "Dropped duplicate lines",
    "rounded_amounts": "Rounded to four decimals",
}


class Failure(Exception):
    """What keeps the import from going on; the message is for the person at the terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app.import_file", description="Import a file into Perennial.")
    parser.add_argument("file", type=Path, help="CSV or NDJSON, plain or gzip")
    parser.add_argument("--map", type=Path, help="mapping document (docs/imports.md); without it the file is NDJSON")
    parser.add_argument(
        "--url",
        default=f"http://127.0.0.1:{os.environ.get('PORT') or 8000}",
        help="of the service (default: %(default)s)",
    )
    parser.epilog = "The key, with the scope events:write, is read from PERENNIAL_KEY."
    given = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        key = os.environ.get("PERENNIAL_KEY", "")
        if not key:
            raise Failure("Set PERENNIAL_KEY (or KEY=… with make) to a key with the scope events:write.")
        with httpx.Client(
            base_url=given.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(30, read=600, write=600),
        ) as client:
            finished = _import(client, given.file, given.map, console)
    except Failure as failure:
        console.print(f"[red]{failure}[/red]", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted. An import that was sent completely goes on; send the file again otherwise.")
        return 130
    _show(finished, Console())
    return 0 if finished["status"] == "succeeded" else 1


def _import(client: httpx.Client, file: Path, map_file: Path | None, console: Console) -> dict[str, Any]:
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as bars:
        sending = bars.add_task("Sending", total=None)
        created = _send(client, file, map_file, lambda sent, size: bars.update(sending, completed=sent, total=size))
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), console=console
    ) as bars:
        storing = bars.add_task("Storing", total=1.0)
        return _follow(client, created["id"], lambda progress: bars.update(storing, completed=progress))


def _send(client: httpx.Client, file: Path, map_file: Path | None, report: Any) -> dict[str, Any]:
    headers = {"Content-Type": "text/csv" if map_file else "application/x-ndjson"}
    query = {"mapping": _mapping(map_file)} if map_file else {}
    try:
        with file.open("rb") as opened:
            size = file.stat().st_size
            if opened.read(2) == _GZIP:
                headers["Content-Encoding"] = "gzip"
            opened.seek(0)

            def pieces() -> Iterator[bytes]:
                while piece := opened.read(_PIECE_BYTES):
                    yield piece
                    report(opened.tell(), size)

            response = client.post("/v1/imports", params=query, headers=headers, content=pieces())
    except OSError as error:
        raise Failure(f"{file} can't be read: {error.strerror}.") from None
    except httpx.HTTPError as error:
        raise Failure(f"{client.base_url} can't be reached: {error or type(error).__name__}.") from None
    return _answer(response, 202)


def _mapping(map_file: Path) -> str:
    """The mapping document; what is wrong with it is told before anything is sent."""
    try:
        return read_mapping(map_file.read_bytes()).model_dump_json(exclude_unset=True)
    except OSError as error:
        raise Failure(f"{map_file} can't be read: {error.strerror}.") from None
    except InvalidRequest as error:
        raise Failure(f"{map_file}: {error.detail}") from None


def _follow(client: httpx.Client, import_id: str, report: Any) -> dict[str, Any]:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            response = client.get(f"/v1/imports/{import_id}")
            if response.status_code < 500:
                found = _answer(response, 200)
                report(found["progress"])
                if found["status"] in ("succeeded", "failed"):
                    return found
                deadline = time.monotonic() + _PATIENCE_S
        except httpx.HTTPError:
            pass  # It may be starting again.
        if time.monotonic() > deadline:
            raise Failure(f"The service does not answer any more. The import's id is {import_id}.")
        time.sleep(_POLL_S)


def _answer(response: httpx.Response, expected: int) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.status_code == expected and isinstance(answer, dict):
        return answer
    if isinstance(answer, dict) and "detail" in answer:
        raise Failure(f"{response.status_code} {answer.get('code')}: {answer['detail']}")
    raise Failure(f"The service answered with status {response.status_code}; is this the URL of Perennial?")


def _show(found: dict[str, Any], console: Console) -> None:
    table = Table(title=f"Import {found['id']} {found['status']}")
    table.add_column("What")
    table.add_column("Count", justify="right")
    for name, title in _COUNTS.items():
        if found["counts"][name] or name in ("lines", "accepted", "duplicates", "rejected"):
            table.add_row(title, f"{found['counts'][name]:,}")
    console.print(table)
    if found["error"]:
        console.print(f"{found['error']['code']}: {found['error']['detail']}", style="red", markup=False)
    if found["bad_rows"]:
        rejected = found["counts"]["rejected"]
        bad = Table(title=f"Bad rows (the first {min(_SHOWN_BAD_ROWS, rejected)} of {rejected:,})")
        bad.add_column("Line", justify="right")
        bad.add_column("Why")
        for row in found["bad_rows"][:_SHOWN_BAD_ROWS]:
            bad.add_row(str(row["line"]), row["detail"].replace("[", r"\["))
        console.print(bad)


if __name__ == "__main__":
    sys.exit(main())
