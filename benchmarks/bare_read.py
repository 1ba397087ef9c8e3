"""What a point read costs at least with this stack: FastAPI, an asyncpg pool, one SELECT by key, a row of 900 bytes.

Nothing is checked and nothing computed. `benchmarks.read_speed` starts it with uvicorn's own protocol, which writes the
head and the body of an answer one after the other.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI


def create_app() -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.pool = await asyncpg.create_pool(os.environ["BARE_DATABASE_URL"], min_size=10, max_size=10)
        yield
        await app.state.pool.close()

    app = FastAPI(lifespan=lifespan)

    @app.get("/bare/{key}")
    async def read(key: str) -> dict[str, Any]:
        row = await app.state.pool.fetchrow("SELECT key, content FROM bare_reads WHERE key = $1", key)
        return dict(row)

    return app
