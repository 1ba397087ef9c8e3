"""The service is ready only where what it acknowledges stays: on a database that keeps its commits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.api.routes import health
from app.main import create_app
from app.settings import Settings
from app.store.engine import create_engine, server_state


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(**settings))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://perennial.test") as http,
    ):
        yield http


async def test_a_server_that_may_lose_commits_is_not_ready_and_says_why(database_url: str) -> None:
    async with served(database_url=database_url) as http:
        answer = await http.get("/health/ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_durable")
    assert "fsync, full_page_writes must be on" in answer.json()["detail"]
    assert "synchronous_commit" not in answer.json()["detail"]
    assert answer.headers["retry-after"]


async def test_a_database_that_is_thrown_away_may_be_lossy(database_url: str) -> None:
    async with served(database_url=database_url, throwaway_database=True) as http:
        assert (await http.get("/health/ready")).status_code == 200


@pytest.mark.parametrize("lossy", [(), ("fsync",), ("full_page_writes",), ("synchronous_commit",)])
async def test_each_lossy_setting_alone_makes_it_unready(
    database_url: str, monkeypatch: pytest.MonkeyPatch, lossy: tuple[str, ...]
) -> None:
    async def told(engine: Any) -> Any:
        state = await server_state(engine)
        assert state is not None
        return replace(state, lossy_settings=lossy)

    monkeypatch.setattr(health, "server_state", told)
    async with served(database_url=database_url) as http:
        answer = await http.get("/health/ready")
    assert answer.status_code == (503 if lossy else 200)
    assert all(name in answer.json()["detail"] for name in lossy)


async def test_commits_are_waited_for_whatever_the_server_says(database_url: str) -> None:
    engine = create_engine(f"{database_url}&synchronous_commit=off")
    try:
        async with engine.connect() as connection:
            assert (await connection.execute(text("SHOW synchronous_commit"))).scalar_one() == "on"
        state = await server_state(engine)
        assert state is not None
        assert "synchronous_commit" in state.lossy_settings
    finally:
        await engine.dispose()


async def test_a_promise_beyond_ours_is_kept(database_url: str) -> None:
    engine = create_engine(f"{database_url}&synchronous_commit=remote_apply")
    try:
        async with engine.connect() as connection:
            assert (await connection.execute(text("SHOW synchronous_commit"))).scalar_one() == "remote_apply"
    finally:
        await engine.dispose()
