"""The audit trail."""

from typing import Annotated

from pydantic import BaseModel, Field

from app import audit
from app.api.cursors import decode_cursor, encode_cursor
from app.api.dependencies import Admin, Cursor, Engine, Limit
from app.api.problems import responses
from app.api.routes import make_router
from app.scalars import Instant

router = make_router("audit")


class AuditEntry(BaseModel):
    """One act of an administrator."""

    id: Annotated[int, Field(examples=[42])]
    at: Instant
    actor_key_id: Annotated[
        str | None,
        Field(
            description="The key that did it. Null: whoever runs the service, or an operator of another workspace.",
            examples=["key_5f0c2a9b4e1d7c36"],
        ),
    ]
    action: Annotated[
        str,
        Field(
            description="`workspace.created`, `key.created`, `key.rotated`, `key.revoked`, `settings.changed` or "
            "`customer.erased`; more may come.",
            examples=["key.created"],
        ),
    ]
    target: Annotated[
        str,
        Field(
            description="What it was done to; of an erased customer, the keyed hash of the id.",
            examples=["key_0b1d7c365f0c2a9b"],
        ),
    ]


class AuditPage(BaseModel):
    data: list[AuditEntry]
    next_cursor: Annotated[str | None, Field(description="Null on the last page.")]


@router.get("/v1/audit", summary="List acts of administrators", response_model=AuditPage, responses=responses())
async def list_audit(holder: Admin, engine: Engine, limit: Limit = 100, cursor: Cursor = "") -> AuditPage:
    """Newest first. Each was written in the transaction of the act itself."""
    before = None
    if cursor:
        (before,) = decode_cursor("audit", {}, cursor, int)
    acts = await audit.list_acts(engine, holder.workspace, before, limit + 1)
    page = acts[:limit]
    return AuditPage.model_construct(
        data=[
            AuditEntry.model_construct(
                id=act.number, at=act.at, actor_key_id=act.actor_key_id, action=act.action, target=act.target
            )
            for act in page
        ],
        next_cursor=encode_cursor("audit", {}, [page[-1].number]) if len(acts) > limit else None,
    )
