"""alembic's entry: runs on the connection that app.migrate opened and locked."""

from alembic import context

from app.store.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("Run `make migrate`, or `python -m app.migrate`: it opens the connection and takes the lock.")


def owned(_object: object, name: str | None, type_: str, _reflected: bool, _compare_to: object) -> bool:
    """Whether the drift check looks at it: the queue's tables are the queue library's, partitions are made by runs."""
    return name is None or type_ != "table" or not name.startswith(("pgqueuer", "scores_"))


context.configure(
    connection=connection,
    target_metadata=metadata,
    include_object=owned,
    transaction_per_migration=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
