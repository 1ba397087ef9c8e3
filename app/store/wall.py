"""The second wall between workspaces: no statement reads or changes customers of a workspace but the caller's.

The first wall is the condition on ``workspace_id`` that every statement carries. Should one be forgotten, or given
another workspace, this one refuses the statement before it is sent. Whoever begins a request or a job says for whom;
what begins as neither (a migration, a terminal) is not asked. See docs/decisions/second-wall.md.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from functools import lru_cache
from typing import Any

_TABLES = (
    r"(?:events|customer_summary|customer_profiles|erased_customers|churn_labels|run_parts|score_history"
    r"|scores(?:_run_\d+)?)\b"
)
# Both cases written out: with IGNORECASE a long statement takes a millisecond more, the first time.
_MENTION = re.compile(rf"(?:FROM|JOIN|UPDATE|INTO|from|join|update|into)\s+(?:ONLY\s+|only\s+)?{_TABLES}")
_BINDING = re.compile(
    r"workspace_id\s*=\s*(?::workspace_id\b|\w+\.workspace_id\b)"
    r"|USING\s*\(\s*workspace_id\b"
    rf"|INTO\s+{_TABLES}(?:\s+AS\s+\w+)?\s*\(\s*workspace_id\b"
)
_NOBODY = 0
_caller: ContextVar[int | None] = ContextVar("workspace_of_the_caller", default=None)


class BeyondWorkspace(Exception):
    """A statement would have reached beyond the workspace of the caller. A fault of ours; nothing was sent."""


def enter_as_nobody() -> Token[int | None]:
    """From here on, in this task and those that it begins, no customer is reached; until ``leave``."""
    return _caller.set(_NOBODY)


def leave(entered: Token[int | None]) -> None:
    _caller.reset(entered)


@contextmanager
def inside(workspace_id: int) -> Iterator[None]:
    """Within, customers of this workspace alone are reached."""
    entered = _caller.set(workspace_id)
    try:
        yield
    finally:
        _caller.reset(entered)


def enter_workspace(workspace_id: int) -> None:
    """From here on, in this task and those that it begins, customers of this workspace alone are reached."""
    _caller.set(workspace_id)


def guard(statement: str, values: Mapping[str, Any]) -> None:
    """Raise ``BeyondWorkspace`` where a statement, with parameters named as ``sqlalchemy.text`` does, would reach
    beyond the caller's workspace."""
    caller = _caller.get()
    if caller is None or not _reaches_customers(statement):
        return
    if values.get("workspace_id") != caller:
        raise BeyondWorkspace("The statement is bound to another workspace than the caller's.")


def guard_rows(workspace_ids: Iterable[int]) -> None:
    """The same for rows that are copied into a table."""
    caller = _caller.get()
    if caller is not None and any(workspace_id != caller for workspace_id in workspace_ids):
        raise BeyondWorkspace("A row is of another workspace than the caller's.")


@lru_cache(maxsize=4_096)
def _reaches_customers(statement: str) -> bool:
    """Whether the statement names a table of customers; raises where it does so without binding the workspace.

    Every mention of such a table needs a condition, or a column list, of its own.
    """
    mentions = len(_MENTION.findall(statement))
    if len(_BINDING.findall(statement)) < mentions or (mentions and ":workspace_id" not in statement):
        raise BeyondWorkspace("The statement names a table of customers and not the workspace.")
    return mentions > 0
