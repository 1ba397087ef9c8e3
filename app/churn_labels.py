"""Use case: people's verdicts on why a customer left. Runs learn from them."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from app.customers import unknown_customer
from app.errors import InvalidRequest
from app.store import customers as customer_store
from app.store import interactions as interaction_store
from app.store.workspaces import Workspace


@dataclass(frozen=True, slots=True)
class ChurnLabel:
    """A verdict: the type, and for passive churn its subtype; ``labelled_at`` is the moment that it speaks of."""

    customer_id: str
    type: str
    subtype: str | None
    labelled_at: datetime


async def label_customer(engine: AsyncEngine, workspace: Workspace, label: ChurnLabel, now: datetime) -> None:
    """Record a verdict; the last one on a customer holds.

    Raises ``NotFound`` for a customer that there is not, ``InvalidRequest`` for a subtype of anything but passive.
    """
    if label.subtype is not None and label.type != "passive":
        raise InvalidRequest("subtype must be left out unless type is passive.", pointer="/subtype")
    async with engine.begin() as connection:
        if not await customer_store.hold_customer(connection, workspace.id, label.customer_id):
            raise unknown_customer()
        await interaction_store.write_label(
            connection, workspace.id, label.customer_id, label.type, label.subtype, label.labelled_at, now
        )
