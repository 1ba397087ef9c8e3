"""Workspaces and keys."""

from typing import Annotated

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from app import workspaces
from app.api.cursors import decode_cursor, encode_cursor
from app.api.dependencies import Admin, Cursor, Engine, Limit, Operator
from app.api.idempotency import Once
from app.api.problems import responses
from app.api.routes import make_router
from app.scalars import Currency, Id, Instant
from app.workspaces import LONGEST_GRACE_SECONDS, SCOPES, Scope

router = make_router()


class WorkspaceRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: Annotated[Id, Field(examples=["acme"])]
    currency: Annotated[Currency, Field(description="ISO 4217. It never changes.", examples=["EUR"])]
    time_zone: Annotated[
        str,
        Field(max_length=64, description="IANA name. It cuts the days, and never changes.", examples=["Europe/Berlin"]),
    ]


class WorkspaceCreated(BaseModel):
    """The new workspace's first key, with all scopes but `operator`. It is shown this once."""

    id: Annotated[str, Field(examples=["acme"])]
    key: Annotated[str, Field(examples=["prn_…"])]


class KeyRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES), examples=[["events:write"]])]
    expires_at: Annotated[Instant | None, Field(description="When the key ends by itself; never, if left out.")] = None


class KeyRotation(BaseModel):
    """All fields may be left out: the old key ends at once."""

    model_config = ConfigDict(extra="forbid")

    grace_seconds: Annotated[
        int,
        Field(ge=0, le=LONGEST_GRACE_SECONDS, description="How long the old key works on beside the new one."),
    ] = 0
    expires_at: Annotated[
        Instant | None, Field(description="When the new key ends; when the old one would have, if left out.")
    ] = None


class KeyRotated(BaseModel):
    """The new key, shown this once."""

    id: Annotated[str, Field(examples=["key_5f0c2a9b4e1d7c36"])]
    key: Annotated[str, Field(examples=["prn_…"])]
    scopes: Annotated[list[str], Field(examples=[["events:write"]])]
    expires_at: Instant | None
    old_key_ends_at: Annotated[Instant | None, Field(description="Null: it has ended.")]


class KeyCreated(BaseModel):
    """A key, shown this once."""

    id: Annotated[str, Field(examples=["key_5f0c2a9b4e1d7c36"])]
    key: Annotated[str, Field(examples=["prn_…"])]
    scopes: Annotated[list[str], Field(examples=[["events:write"]])]


class Key(BaseModel):
    id: Annotated[str, Field(examples=["key_5f0c2a9b4e1d7c36"])]
    scopes: Annotated[list[str], Field(examples=[["events:write"]])]
    created_at: Instant
    expires_at: Annotated[Instant | None, Field(description="Null: it never ends by itself.")]


class KeyPage(BaseModel):
    data: list[Key]
    next_cursor: Annotated[str | None, Field(description="Null on the last page.")]


@router.post(
    "/v1/workspaces",
    status_code=201,
    tags=["workspaces"],
    summary="Make a workspace",
    response_model=WorkspaceCreated,
    responses=responses(400, 409, 413),
)
async def create_workspace(holder: Operator, once: Once, body: WorkspaceRequest) -> Response:
    """A tenant of its own: customers, keys and settings. For operators only."""
    scopes = [scope for scope in SCOPES if scope != "operator"]

    async def told(connection: AsyncConnection) -> WorkspaceCreated:
        new = await workspaces.add_workspace(connection, body.id, body.currency, body.time_zone, scopes, maker=holder)
        return WorkspaceCreated(id=body.id, key=new.key)

    return await once.answer(holder, 201, told)


@router.post(
    "/v1/keys",
    status_code=201,
    tags=["keys"],
    summary="Make a key",
    response_model=KeyCreated,
    responses=responses(400, 409, 413),
)
async def create_key(holder: Admin, once: Once, body: KeyRequest) -> Response:
    """A key of the caller's workspace, never wider than the caller's own, and never longer-lived."""

    async def told(connection: AsyncConnection) -> KeyCreated:
        new = await workspaces.add_key(connection, holder, body.scopes, body.expires_at)
        return KeyCreated(id=new.id, key=new.key, scopes=list(new.scopes))

    return await once.answer(holder, 201, told)


@router.get("/v1/keys", tags=["keys"], summary="List keys", response_model=KeyPage, responses=responses())
async def list_keys(holder: Admin, engine: Engine, limit: Limit = 100, cursor: Cursor = "") -> KeyPage:
    """The workspace's keys that work, without the keys themselves."""
    after = None
    if cursor:
        (after,) = decode_cursor("keys", {}, cursor, str)
    records = await workspaces.list_keys(engine, holder.workspace, after, limit + 1)
    page = records[:limit]
    return KeyPage.model_construct(
        data=[
            Key.model_construct(
                id=record.id,
                scopes=list(record.scopes),
                created_at=record.created_at,
                expires_at=record.expires_at,
            )
            for record in page
        ],
        next_cursor=encode_cursor("keys", {}, [page[-1].id]) if len(records) > limit else None,
    )


@router.post(
    "/v1/keys/{key_id}/rotate",
    status_code=201,
    tags=["keys"],
    summary="Rotate a key",
    response_model=KeyRotated,
    responses=responses(400, 404, 409, 413),
)
async def rotate_key(holder: Admin, once: Once, key_id: Id, body: KeyRotation | None = None) -> Response:
    """A new key with the same scopes takes the place of this one, which ends at once or after a grace.

    The calling key may rotate itself; with a grace, so that the answer can be asked for again if it got lost.
    """
    wanted = body or KeyRotation()

    async def told(connection: AsyncConnection) -> KeyRotated:
        rotated = await workspaces.rotate_key(connection, holder, key_id, wanted.grace_seconds, wanted.expires_at)
        return KeyRotated(
            id=rotated.new.id,
            key=rotated.new.key,
            scopes=list(rotated.new.scopes),
            expires_at=rotated.new.expires_at,
            old_key_ends_at=rotated.old_ends_at,
        )

    return await once.answer(holder, 201, told)


@router.delete(
    "/v1/keys/{key_id}",
    status_code=204,
    tags=["keys"],
    summary="Revoke a key",
    response_class=Response,
    responses=responses(404),
)
async def revoke_key(holder: Admin, engine: Engine, key_id: Id) -> Response:
    """The key stops working at once."""
    await workspaces.revoke_key(engine, holder, key_id)
    return Response(status_code=204)
