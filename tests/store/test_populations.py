"""How a run reads a population."""

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from app.store import populations
from tests.conftest import Client, order


async def test_a_population_is_read_as_it_was_at_first_while_events_come(client: Client, engine: AsyncEngine) -> None:
    as_of = datetime(2025, 6, 1, tzinfo=UTC)
    await client.record(*(order(f"o-{number}", customer_id=f"c-{number:03}") for number in range(0, 200, 2)))
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ")
    async with snapshot.connect() as connection:
        [last] = await populations.cut_population(connection, client.workspace.id, as_of, lambda _: 1)
        # New customers, and new orders of those who are counted already, on all shards that a cluster may have.
        await client.record(*(order(f"later-{number}", customer_id=f"c-{number:03}") for number in range(200)))
        (piece,) = [
            piece async for piece in populations.read_population(connection, client.workspace.id, as_of, "", last)
        ]
    assert (last, len(piece.customer_ids)) == ("c-198", 100)
    assert sorted(piece.bookings.customer.tolist()) == list(range(100))
