"""Straight to the operations that are asked most: the framework's own way to them takes longer than what they do.

A shortcut stands beside the route of its operation, which describes it, checks what there is to check, and answers
where the shortcut leaves a request to it. Both answer the same.
"""

from collections.abc import Awaitable, Callable, Iterable, Set
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

_CUSTOMER_ID = "{customer_id}"
_CUSTOMER = 3
"""The place of the id among the parts of ``/v1/customers/{customer_id}/value``."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """``path`` is that of the route, with no parameter but a customer's id."""

    method: str
    path: str
    endpoint: Endpoint

    queries: Set[bytes] | None = None
    """The queries that it may answer, as they are sent; None: any."""

    shares_reads: bool = False
    """Whether few statements answer all that come, however many these are."""


class Shortcuts:
    def __init__(self, shortcuts: Iterable[Shortcut]) -> None:
        of_path = {(shortcut.method, shortcut.path): shortcut for shortcut in shortcuts}
        self._of_customers = {named: one for named, one in of_path.items() if _CUSTOMER_ID in one.path}
        self._others = {named: one for named, one in of_path.items() if _CUSTOMER_ID not in one.path}

    def find(self, scope: Scope) -> tuple[Shortcut, dict[str, str]] | None:
        """The shortcut for a request, if there is one, and the parameters in its path."""
        path: str = scope["path"]
        parameters: dict[str, str] = {}
        found = self._others.get((scope["method"], path))
        if found is None:
            parts = path.split("/")
            if len(parts) != _CUSTOMER + 2:
                return None
            parameters["customer_id"], parts[_CUSTOMER] = parts[_CUSTOMER], _CUSTOMER_ID
            found = self._of_customers.get((scope["method"], "/".join(parts)))
        if found is None or (found.queries is not None and scope["query_string"] not in found.queries):
            return None
        return found, parameters


async def answer(shortcut: Shortcut, request: Request) -> Response | None:
    """The answer to a request, or the problem that there is with it; None where it is left to the route."""
    try:
        return await shortcut.endpoint(request)
    except RateLimited:
        raise  # The middleware holds refusals back.
    except (PerennialError, DBAPIError, PoolTimeout, OSError) as error:
        return problem_of(error)
