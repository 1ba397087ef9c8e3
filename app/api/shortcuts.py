"""Straight to the operations that are asked most: the framework's own way to them takes longer than what they do.

A shortcut stands beside the route of its operation, which describes it, checks what there is to check, and answers
where the shortcut leaves a request to it. Both answer the same.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from fastapi import Request, Response
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.types import Scope

from app.api.problems import problem_of
from app.errors import PerennialError, RateLimited

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response | None]]
"""Answers a request; None leaves it to the route."""

_CUSTOMER = 3
"""The place of the id among the parts of ``/v1/customers/{customer_id}/value``."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """``path`` is that of the route, with no parameter but a customer's id."""

    method: str
    path: str
    endpoint: Endpoint


class Shortcuts:
    def __init__(self, shortcuts: Iterable[Shortcut]) -> None:
        self._shortcuts = {(shortcut.method, shortcut.path): shortcut for shortcut in shortcuts}

    def find(self, scope: Scope) -> tuple[Shortcut, dict[str, str]] | None:
        """The shortcut for a request, if there is one, and the parameters in its path."""
        path: str = scope["path"]
        found = self._shortcuts.get((scope["method"], path))
        if found is not None:
            return found, {}
        parts = path.split("/")
        if len(parts) != _CUSTOMER + 2:
            return None
        customer_id, parts[_CUSTOMER] = parts[_CUSTOMER], "{customer_id}"
        found = self._shortcuts.get((scope["method"], "/".join(parts)))
        return None if found is None else (found, {"customer_id": customer_id})


async def answer(shortcut: Shortcut, request: Request) -> Response | None:
    """The answer to a request, or the problem that there is with it; None where it is left to the route."""
    try:
        return await shortcut.endpoint(request)
    except RateLimited:
        raise  # The middleware holds refusals back.
    except (PerennialError, DBAPIError, PoolTimeout, OSError) as error:
        return problem_of(error)
