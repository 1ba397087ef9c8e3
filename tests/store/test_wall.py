"""The second wall: statements that reach beyond the caller's workspace are refused before they are sent."""

from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.store import wall
from app.store.engine import DriverStatement
from app.store.wall import BeyondWorkspace

OWN, OTHER = 2_000_000_007, 2_000_000_008  # of which no test makes any
BOUND = "SELECT customer_id FROM events WHERE workspace_id = :workspace_id"
UNBOUND = (
    "SELECT customer_id FROM events",
    "SELECT customer_id FROM events WHERE customer_id = :customer_id",
    "DELETE FROM customer_summary WHERE customer_id = :customer_id",
    "UPDATE customer_profiles SET profile = :profile",
    "INSERT INTO churn_labels (customer_id, type) VALUES (:customer_id, :type)",
    "DELETE FROM scores_run_12 WHERE run_id = :run_id",
    # One of two.
    "SELECT 1 FROM events JOIN customer_summary AS s USING (customer_id) WHERE s.workspace_id = :workspace_id",
    "WITH told AS (SELECT * FROM events) SELECT * FROM told, workspaces WHERE workspaces.id = :workspace_id",
    # Bound to each other and to nobody.
    "SELECT 1 FROM events JOIN customer_summary AS s USING (workspace_id, customer_id) WHERE s.workspace_id = 5",
)


@pytest.fixture(autouse=True)
def caller() -> Iterator[None]:
    with wall.inside(OWN):
        yield


@pytest.mark.parametrize("statement", UNBOUND)
def test_a_statement_that_does_not_bind_the_workspace_is_refused(statement: str) -> None:
    with pytest.raises(BeyondWorkspace):
        wall.guard(statement, {"workspace_id": OWN})


def test_a_statement_is_bound_to_the_caller(caller: None) -> None:
    wall.guard(BOUND, {"workspace_id": OWN})
    for values in ({"workspace_id": OTHER}, {"workspace_id": None}, {}):
        with pytest.raises(BeyondWorkspace):
            wall.guard(BOUND, values)
    wall.guard("SELECT 1 FROM workspaces WHERE name = :name", {})
    wall.guard_rows([OWN, OWN])
    with pytest.raises(BeyondWorkspace):
        wall.guard_rows([OWN, OTHER])


def test_nobody_reaches_a_customer() -> None:
    entered = wall.enter_as_nobody()
    with pytest.raises(BeyondWorkspace):
        wall.guard(BOUND, {"workspace_id": OWN})
    wall.leave(entered)
    wall.guard(BOUND, {"workspace_id": OWN})


async def test_every_way_to_the_database_is_guarded(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert (await connection.execute(text(BOUND), {"workspace_id": OWN})).all() == []
        with pytest.raises(BeyondWorkspace):
            await connection.execute(text(BOUND), {"workspace_id": OTHER})
        assert await DriverStatement(BOUND).fetch(connection, {"workspace_id": OWN}) == []
        with pytest.raises(BeyondWorkspace):
            await DriverStatement(BOUND).fetch(connection, {"workspace_id": OTHER})
