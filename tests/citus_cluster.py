"""A database of the tests' own on a Citus cluster: made on all its nodes, and dropped from them."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

SHARDS = 8
"""Enough for several on each worker; more would only take longer to make."""


def _at(cluster_url: str, database: str | None = None, node: tuple[str, int] | None = None) -> str:
    """The same URL for another database or another node."""
    parts = urlsplit(cluster_url)
    if node is not None:
        credentials, at, _ = parts.netloc.rpartition("@")
        parts = parts._replace(netloc=f"{credentials}{at}{node[0]}:{node[1]}")
    return urlunsplit(parts if database is None else parts._replace(path=f"/{database}"))


async def create_database(cluster_url: str, name: str) -> str:
    """The URL of a new, empty database of the cluster that ``cluster_url`` names a coordinator's database of."""
    nodes = await _nodes(cluster_url)
    for node in nodes:
        async with connected(_at(cluster_url, node=node)) as connection:
            await connection.execute("SET citus.enable_create_database_propagation = off")
            await connection.execute(f"CREATE DATABASE {name}")
            await connection.execute(f"ALTER DATABASE {name} SET citus.shard_count = {SHARDS}")
        async with connected(_at(cluster_url, name, node)) as connection:
            await connection.execute("CREATE EXTENSION citus")
    coordinator, *workers = nodes
    async with connected(_at(cluster_url, name)) as connection:
        await connection.execute("SELECT citus_set_coordinator_host($1, $2)", *coordinator)
        for worker in workers:
            await connection.execute("SELECT citus_add_node($1, $2)", *worker)
    return _at(cluster_url, name)


async def drop_database(cluster_url: str, name: str) -> None:
    for node in await _nodes(cluster_url):
        async with connected(_at(cluster_url, node=node)) as connection:
            await connection.execute("SET citus.enable_create_database_propagation = off")
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def _nodes(cluster_url: str) -> list[tuple[str, int]]:
    """Host and port of the cluster's nodes, the coordinator first."""
    async with connected(cluster_url) as connection:
        rows = await connection.fetch("SELECT nodename, nodeport FROM pg_dist_node ORDER BY groupid")
    return [(row["nodename"], row["nodeport"]) for row in rows]


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()
