"""Why an event was not taken: one reason an event, naming its index, field and what was expected.

Details never repeat what the caller sent. A pointer is a JSON pointer within the event; the name of an unknown field
is part of it only where it is a plain word.
"""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import ValidationError

from app.scalars import ID_PATTERN

_ID = re.compile(ID_PATTERN)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

# The sentences of pydantic that repeat nothing of the input but its own limits; others are written here.
_DETAILS = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "string_type": "must be a text",
    "string_unicode": "must be valid Unicode",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "union_tag_invalid": "must be one of the event types",
    "union_tag_not_found": "is required",
}
_MOST_ERRORS = 1_000
_CODES = {
    "missing": "missing_field",
    "extra_forbidden": "unknown_field",
    "union_tag_invalid": "unknown_type",
    "union_tag_not_found": "missing_field",
}


class Reason(NamedTuple):
    code: str
    detail: str
    pointer: str


@dataclass(frozen=True, slots=True)
class Rejection:
    index: int
    id: str | None
    code: str
    detail: str
    pointer: str


def valid_id(value: Any) -> str | None:
    """The value where it is an id that can be repeated safely, else None."""
    return value if isinstance(value, str) and _ID.fullmatch(value) and value.isprintable() else None


def explain(error: Any, whole: str = "the event") -> tuple[str, str, str]:
    """Code, detail and JSON pointer of one of pydantic's errors, whose ``loc`` starts at the object itself: the
    ``whole``."""
    kind, context = error["type"], error.get("ctx", {})
    names = [str(part) for part in error["loc"]]
    if kind.startswith("union_tag"):
        names.append("type")
    if names and kind == "extra_forbidden" and _PLAIN_NAME.fullmatch(names[-1]) is None:
        names.pop()
        detail = "has an unknown field"
    elif kind in _DETAILS:
        detail = _DETAILS[kind]
    elif kind == "literal_error":
        detail = f"must be {context['expected']}"
    elif kind == "string_pattern_mismatch" and "128" in context.get("pattern", ""):
        detail = "must be 1 to 128 characters without control characters, white space or / ? # %"
    elif kind == "string_pattern_mismatch" and context.get("pattern") == r"^[A-Z]{3}$":
        detail = "must be three capital letters (ISO 4217)"
    elif kind == "string_pattern_mismatch" and context.get("pattern") == r"^[^\x00]*$":
        detail = "must be a text without NUL characters"
    elif kind == "string_pattern_mismatch":
        detail = f"must match {context['pattern']}"
    elif kind == "value_error":
        detail = f"does not hold together: {context['error']}"
    elif kind in ("string_too_long", "string_too_short", "too_long", "too_short"):
        what = "characters" if kind.startswith("string") else "items"
        bound = f"most {context['max_length']}" if kind.endswith("long") else f"least {context['min_length']}"
        detail = f"must have at {bound} {what}"
    else:
        detail = error["msg"].replace("Input should be", "must be")
    # The place within a list is told with the list's name.
    start = next((place for place in reversed(range(len(names))) if not names[place].isdecimal()), 0)
    subject = "/".join(names[start:]) or whole
    pointer = "".join(f"/{name.replace('~', '~0').replace('/', '~1')}" for name in names)
    return _CODES.get(kind, "invalid_value"), f"{subject} {detail}.", pointer


def reject_invalid(index: int, item: Any, error: ValidationError) -> Rejection:
    """The rejection of an item that failed, by the first of its errors."""
    unreadable = getattr(item, "detail", None)
    if unreadable is not None:
        return Rejection(index, None, "malformed_event", unreadable, "")
    event_id = valid_id(item.get("id")) if isinstance(item, dict) else None
    if error.error_count() > _MOST_ERRORS:
        # To make hundreds of thousands of errors readable would take seconds.
        return Rejection(index, event_id, "invalid_value", "the event has too many fields that are not known.", "")
    problem = error.errors(include_url=False, include_input=False)[0]
    # Above all stands the event's type, by which its class was chosen.
    return Rejection(index, event_id, *explain({**problem, "loc": problem["loc"][1:]}))
