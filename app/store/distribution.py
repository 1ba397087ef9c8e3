"""Where each table is on a Citus cluster, and how it gets there. On a server without Citus nothing here does anything.

A distributed row goes to a shard by the hash of its ``customer_id``. Whatever is stored of one customer is in
shards that lie together on one worker: a transaction on a customer is local there, and a statement on all customers
runs on all shards at once.
"""

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

DISTRIBUTION_COLUMN = "customer_id"

DISTRIBUTED = ("customer_summary", "events", "customer_profiles", "churn_labels", "score_history", "scores")
"""By ``customer_id``, colocated with the first."""

REFERENCE = ("workspaces", "api_keys", "runs")
"""Small, and joined with distributed ones: a copy on every node."""

ON_COORDINATOR = (
    # Written once an act of an administrator or a POST, and read by key: no use in moving them.
    "admin_acts",
    "idempotent_answers",
    # Looked for by its hash in every transaction that meets a new customer: a copy on every node would make each
    # erasure a write on all of them, and shards would make that look-up a journey.
    "erased_customers",
    # Workers take parts by ``FOR UPDATE SKIP LOCKED``; a part is a few rows, of megabytes.
    "runs_at_work",
    "run_parts",
    # Few write imports, in sequence, and work empties them; staged rows become events, which are distributed.
    "imports",
    "import_chunks",
    "import_bad_rows",
    "import_lines",
    "import_orders",
)
"""Local to the coordinator, as are the tables of the queue: it hands out its jobs by ``FOR UPDATE SKIP LOCKED``."""

_HAS_CITUS = text("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')")
_PLACED = text("SELECT relname FROM pg_dist_partition JOIN pg_class ON pg_class.oid = logicalrelid")


def distribute(connection: Connection) -> list[str]:
    """Put every table where it belongs, if the database has Citus; answers the tables that were moved.

    Rows that are there already move along, while others wait for the table. Each table is a transaction of its own, so
    that what is cut short goes on from there. The number of shards is ``citus.shard_count`` of the database.
    """
    moved: list[str] = []
    if not connection.execute(_HAS_CITUS).scalar_one():
        connection.commit()
        return moved
    placed = set(connection.execute(_PLACED).scalars())
    connection.commit()
    for table in (*REFERENCE, *DISTRIBUTED):
        if table in placed:
            continue
        if table in REFERENCE:
            connection.execute(text("SELECT create_reference_table(:table)"), {"table": table})
        else:
            connection.execute(
                text("SELECT create_distributed_table(:table, :column, colocate_with => :with)"),
                {
                    "table": table,
                    "column": DISTRIBUTION_COLUMN,
                    "with": "none" if table == DISTRIBUTED[0] else DISTRIBUTED[0],
                },
            )
        if table == "scores":
            # Lists of a cluster are not merged from classes: see app/store/score_lists.py.
            connection.execute(text("UPDATE runs SET score_classes = NULL"))
        # The coordinator would keep what it had, unseen, for ever.
        connection.execute(text("SELECT truncate_local_data_after_distributing_table(:table)"), {"table": table})
        connection.commit()
        moved.append(table)
    return moved


async def on_cluster(connection: AsyncConnection) -> bool:
    return bool((await connection.execute(_HAS_CITUS)).scalar_one())


async def distribute_beside(connection: AsyncConnection, table: str, other: str) -> None:
    """Give a new table the shards of a distributed one, if the database has Citus."""
    if await on_cluster(connection):
        await connection.execute(
            text("SELECT create_distributed_table(:table, :column, colocate_with => :other)"),
            {"table": table, "column": DISTRIBUTION_COLUMN, "other": other},
        )
