"""Logs: one JSON object a line, each with the id of the request that it belongs to.

What customers sent stays out of them. Requests are told by the template of their route, never by path, query or body;
of an error its type and where it happened, never its words, which may quote values.
"""

import json
import logging
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic_core import to_json

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being worked on."""

_encode = json.JSONEncoder(ensure_ascii=False).encode


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


class JsonLines(logging.Formatter):
    """Formats a record as a line of JSON. A record's ``fields`` become fields of the line."""

    def format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        line: dict[str, Any] = {
            "time": f"{_second(second)}.{int(1000 * (record.created - second)):03}+00:00",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request = request_id.get()
        if request is not None:
            line["request_id"] = request
        fields = getattr(record, "fields", None)
        if fields is not None:
            # Our own texts are Unicode, as this encoder asks; it takes a quarter of the time.
            return to_json(line | fields).decode()
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = told(record.exc_info[1])
        return _encode(line)


def told(error: BaseException) -> list[dict[str, Any]]:
    """An error and what caused it: types, SQLSTATE and places in the code, without words."""
    found: list[dict[str, Any]] = []
    current: BaseException | None = error
    while current is not None and len(found) < 5:
        places = traceback.extract_tb(current.__traceback__)[-20:]
        one: dict[str, Any] = {
            "type": f"{type(current).__module__}.{type(current).__qualname__}",
            "at": [f"{place.filename}:{place.lineno} {place.name}" for place in places],
        }
        sqlstate = getattr(current, "sqlstate", None)
        if isinstance(sqlstate, str):
            one["sqlstate"] = sqlstate
        found.append(one)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return found


def configure(level: str) -> None:
    """Write the logs of this process to its standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    # To look these up takes longer than to write the line, and no line tells them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[handler])
