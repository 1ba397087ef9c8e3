"""The header ``Idempotency-Key``: a POST that its sender may repeat."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeAlias, TypeVar

from fastapi import Depends, Header, Request, Response
from fastapi.security.utils import get_authorization_scheme_param
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.api.dependencies import Engine
from app.idempotency import Answer, Attempt, once
from app.store.workspaces import KeyHolder

Told = TypeVar("Told", bound=BaseModel)

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="Any text of your own. Repeating the request with it, within 24 hours and with the same API key, "
        "has no second effect and gets the first answer again (`Idempotency-Replayed: true`). With another body: 422 "
        "`idempotency_key_reused`; while the first is in flight: 409 `idempotency_in_flight`.",
        examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
    ),
]


class Repeatable:
    """One request that may be repeated."""

    def __init__(self, engine: AsyncEngine, request: Request, idempotency_key: str | None) -> None:
        self._engine = engine
        self._request = request
        self._key = idempotency_key

    async def answer(
        self,
        holder: KeyHolder,
        status: int,
        step: Callable[[AsyncConnection], Awaitable[Told]],
        *,
        content_digest: bytes | None = None,
        location: Callable[[Told], str] | None = None,
    ) -> Response:
        """Do ``step`` in a transaction, and answer what it tells once that is committed; or what was told before.

        ``content_digest`` stands for a body that was streamed.
        """

        async def told(connection: AsyncConnection) -> Answer:
            model = await step(connection)
            headers = {"Location": location(model)} if location else {}
            return Answer(status, model.model_dump_json(by_alias=True).encode(), headers)

        answer = await once(self._engine, await self._attempt(holder, content_digest), told)
        headers = answer.headers | ({"Idempotency-Replayed": "true"} if answer.replayed else {})
        return Response(answer.body, answer.status, headers, "application/json")

    async def _attempt(self, holder: KeyHolder, content_digest: bytes | None) -> Attempt | None:
        if self._key is None:
            return None
        if content_digest is None:
            content_digest = hashlib.sha256(await self._request.body()).digest()
        request = self._request
        place = [request.method, request.url.path, request.url.query, content_digest.hex()]
        return Attempt(
            holder.key_id,
            hashlib.sha256(self._key.encode()).digest(),
            hashlib.sha256(json.dumps(place).encode()).digest(),
            get_authorization_scheme_param(request.headers["authorization"])[1],
        )


async def _repeatable(engine: Engine, request: Request, idempotency_key: IdempotencyKey = None) -> Repeatable:
    return Repeatable(engine, request, idempotency_key)


Once: TypeAlias = Annotated[Repeatable, Depends(_repeatable)]
