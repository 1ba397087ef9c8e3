"""Looks for a word in everything that the database keeps."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

_TABLES = (
    "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
    " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
)


async def hits_in_tables(engine: AsyncEngine, word: str) -> list[str]:
    """The tables with a row that has the word in it, in any column, as text or as bytes; the queue's tables too."""
    found = []
    async with engine.connect() as connection:
        for table in (await connection.execute(text(_TABLES))).scalars().all():
            hit = await connection.execute(
                text(
                    f"SELECT 1 FROM (SELECT CAST(t AS text) AS row FROM {table} AS t) AS told"
                    " WHERE strpos(row, :word) > 0 OR strpos(row, :bytes) > 0 LIMIT 1"
                ),
                {"word": word, "bytes": word.encode().hex()},
            )
            if hit.first() is not None:
                found.append(table)
    return found
