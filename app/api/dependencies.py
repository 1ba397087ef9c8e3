"""What routes ask for: the database, the caller, and the parameters that several share.

All of them are coroutines, even those that wait for nothing: a plain function would be called in a thread.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any, TypeAlias, TypeVar

from fastapi import Depends, Header, Query, Request, Response
from fastapi.security import HTTPBearer
from sqlalchemy.ext.asyncio import AsyncEngine

from app import workspaces
from app.errors import Forbidden, InvalidRequest, Unauthenticated
from app.labels import LANGUAGES, Language
from app.scalars import Id
from app.store.wall import enter_workspace
from app.store.workspaces import KeyHolder
from app.workspaces import Scope

Answer = TypeVar("Answer")

_LONGEST_KEY = 256
LONGEST_LANGUAGES = 500


async def _engine(request: Request) -> AsyncEngine:
    engine: AsyncEngine = request.app.state.engine
    return engine


Engine = Annotated[AsyncEngine, Depends(_engine)]


def _key_of(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key if scheme.lower() == "bearer" else ""


async def read_for_holder(
    request: Request, scope: Scope, read: Callable[[KeyHolder], Coroutine[Any, Any, Answer]]
) -> Answer:
    """What ``read`` answers to whoever presents the key, read while the key is looked up.

    The read begins for the last known holder of the key, and is done again where that is not the holder any more or
    has changed: a new run, other settings. What it found is told only after the key held.
    """
    guess = workspaces.last_known_holder(_key_of(request))
    if guess is None:
        return await read(await holder_of(request, scope))

    async def read_ahead() -> Answer:
        enter_workspace(guess.workspace.id)
        return await read(guess)

    begun = asyncio.ensure_future(read_ahead())
    try:
        holder = await holder_of(request, scope)
        if holder == guess:
            return await begun
    finally:
        if begun.done():
            begun.cancelled() or begun.exception()  # Looked at, so that nobody is told of one that does not count.
        else:
            begun.cancel()
    return await read(holder)


async def holder_of(request: Request, scope: Scope) -> KeyHolder:
    """Whoever presents the request's key. Raises ``Unauthenticated`` or ``Forbidden``."""
    key = _key_of(request)
    if not key:
        raise Unauthenticated("Send a key: Authorization: Bearer <key>.", code="no_key")
    found = None
    if len(key) <= _LONGEST_KEY:
        found = await workspaces.authenticate(request.app.state.engine, key)
    # What the next request with this key counts for.
    request.app.state.limits.learn(request.headers["authorization"], found.workspace if found else None)
    if found is None:
        raise Unauthenticated("This key is not known.", code="unknown_key")
    if scope not in found.scopes:
        raise Forbidden(f"The key lacks the scope {scope}.", code="scope_missing")
    enter_workspace(found.workspace.id)
    return found


class _KeyWith(HTTPBearer):
    """A dependency and, for the document, a security scheme in one: a request costs less with fewer of them."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scheme_name="key", description="A key of a workspace.", auto_error=False)
        self._scope = scope

    async def __call__(self, request: Request) -> KeyHolder:  # type: ignore[override]
        return await holder_of(request, self._scope)


async def check_key(request: Request) -> None:
    """Refuse whoever may not call the operation. Raises ``Unauthenticated`` or ``Forbidden``."""
    for dependency in request.scope["route"].dependant.dependencies:
        if isinstance(dependency.call, _KeyWith):
            await dependency.call(request)


class _MetricsKey(_KeyWith):
    """The operator's key, unless metrics are open to all."""

    async def __call__(self, request: Request) -> KeyHolder | None:  # type: ignore[override]
        return None if request.app.state.settings.metrics_open else await super().__call__(request)


EventsWriter: TypeAlias = Annotated[KeyHolder, Depends(_KeyWith("events:write"))]
CustomersReader: TypeAlias = Annotated[KeyHolder, Depends(_KeyWith("customers:read"))]
ScoresReader: TypeAlias = Annotated[KeyHolder, Depends(_KeyWith("scores:read"))]
RunsWriter: TypeAlias = Annotated[KeyHolder, Depends(_KeyWith("runs:write"))]
Admin: TypeAlias = Annotated[KeyHolder, Depends(_KeyWith("admin"))]
Operator: TypeAlias = Annotated[KeyHolder, Depends(_KeyWith("operator"))]
MetricsReader: TypeAlias = Annotated[KeyHolder | None, Depends(_MetricsKey("operator"))]

Limit = Annotated[int, Query(ge=1, le=1_000, description="Rows a page, at most.")]
# Without a default of null in the schema: generators make a mess of nullable query parameters.
Cursor = Annotated[
    str,
    Query(max_length=2_000, description="`next_cursor` of the page before; empty for the first page."),
]
CustomerId = Id


def bounded(as_of: datetime | None, pointer: str = "as_of") -> datetime | None:
    """The moment asked for, if it is one that figures can speak of; raises ``InvalidRequest`` if not."""
    if as_of is not None and not 1970 <= as_of.year <= 2999:
        raise InvalidRequest("as_of must be from 1970 to 2999.", pointer=pointer)
    return as_of


async def _language(
    response: Response,
    accept_language: Annotated[
        str,
        Header(
            max_length=LONGEST_LANGUAGES, description="Language of labels: `en` (default) or `zh`.", examples=["zh"]
        ),
    ] = "",
) -> Language:
    """The language of labels; answers depend on it, and say so."""
    response.headers["Vary"] = "Accept-Language"
    return preferred_language(accept_language)


def preferred_language(accept_language: str) -> Language:
    """The first of the accepted languages that labels come in."""
    if not accept_language:
        return "en"
    ranked = []
    for place, part in enumerate(accept_language.split(",")[:50]):
        name, _, parameter = part.strip().partition(";")
        quality = parameter.strip().removeprefix("q=")
        ranked.append((-float(quality) if _QUALITY.fullmatch(quality) else -1.0, place, name.strip()[:2].lower()))
    wanted = (name for quality, _, name in sorted(ranked) if quality < 0)
    return next((language for name in wanted for language in LANGUAGES if name == language), "en")


_QUALITY = re.compile(r"[01](\.[0-9]{0,3})?")
AcceptedLanguage = Annotated[Language, Depends(_language)]
