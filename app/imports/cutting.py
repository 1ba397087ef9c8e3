"""Cut a stream of bytes into chunks of whole records, without reading what the records say."""

import csv
from dataclasses import dataclass

from app.errors import MalformedBody

CHUNK_BYTES = 1_750_000
CHUNK_LINES = 8_500
"""A chunk is cut at either: with what else is in the last piece, it is one batch of plain orders. One chunk is read
while the one before is stored, so the first should not take long."""

PIECE_BYTES = 65_536
"""Most that should be fed at a time."""

MAX_RECORD_BYTES = 1_000_000

csv.field_size_limit(MAX_RECORD_BYTES)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole records; ``first_line`` is the line of the file that the first of them begins on, from 1."""

    first_line: int
    content: bytes


class RecordCutter:
    """Takes pieces of a file in, gives chunks of whole records out.

    A record ends at a line feed, in CSV one outside of quotes. A quote opens only where a field begins, as Python's
    csv module has it, so that a stray quote within a field spoils nothing.
    """

    def __init__(self, csv_delimiter: str | None = None) -> None:
        self._delimiter = csv_delimiter.encode() if csv_delimiter else None
        self._rest = bytearray()
        self._untried_lines = 0
        self._line = 1
        self.received_bytes = 0

    @property
    def line(self) -> int:
        """The line reached: the last one of which anything has come."""
        return self._line + self._rest.count(b"\n") - (1 if self._rest.endswith(b"\n") or not self._rest else 0)

    def feed(self, piece: bytes) -> Chunk | None:
        """Take a piece in; a chunk, once there is enough for one."""
        self._rest += piece
        self._untried_lines += piece.count(b"\n")
        self.received_bytes += len(piece)
        if len(self._rest) < CHUNK_BYTES and self._untried_lines < CHUNK_LINES:
            return None
        # Also where no record ends yet: to look for its end looks through all of it, which not every piece may cost.
        self._untried_lines = 0
        return self._cut()

    def finish(self) -> Chunk | None:
        """What remains at the end of the file, whose last line may lack its line feed."""
        if not self._rest:
            return None
        if not self._rest.endswith(b"\n"):
            self._rest += b"\n"
        end = self._last_end()
        if end < len(self._rest):
            self._refuse_open_quote(end)
        return self._cut()

    def _cut(self) -> Chunk | None:
        end = self._last_end()
        if len(self._rest) - end > MAX_RECORD_BYTES:
            self._refuse_open_quote(end)
        if end == 0:
            return None
        chunk = Chunk(self._line, bytes(self._rest[:end]))
        del self._rest[:end]
        self._line += chunk.content.count(b"\n")
        return chunk

    def _refuse_open_quote(self, end: int) -> None:
        line = self._line + self._rest.count(b"\n", 0, end)
        if self._delimiter is None:
            raise MalformedBody(f"Line {line} is longer than {MAX_RECORD_BYTES} bytes.", code="line_too_long")
        raise MalformedBody(
            f"Line {line}: the record that begins here has a quote that is never closed, or is longer than"
            f" {MAX_RECORD_BYTES} bytes.",
            code="malformed_csv",
        )

    def _last_end(self) -> int:
        """Where the last whole record ends."""
        data = self._rest
        if self._delimiter is None:
            return data.rfind(b"\n") + 1
        opens_after = self._delimiter + b"\n\r"
        end = place = 0
        while True:
            quote = data.find(b'"', place)
            line_feed = data.rfind(b"\n", place, len(data) if quote < 0 else quote)
            end = max(end, line_feed + 1)
            if quote < 0:
                return end
            place = quote + 1
            if quote and data[quote - 1] not in opens_after:
                continue
            # Within quotes: two of them stand for one.
            while (closing := data.find(b'"', place)) >= 0 and data[closing + 1 : closing + 2] == b'"':
                place = closing + 2
            if closing < 0:
                return end
            place = closing + 1
