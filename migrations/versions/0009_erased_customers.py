"""Erased customers: a keyed hash of each id, and what finds those whom a profile names as its referrer."""

import secrets
from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEX = "ix_events_referred_by"
MAKE_KEY = "sha256((uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())))"


def upgrade() -> None:
    # First, and beside running code: what is cut short here is begun anew.
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # What waits here makes nobody wait.
        op.drop_index(INDEX, "events", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            INDEX,
            "events",
            ["workspace_id", sa.text("(data ->> 'referred_by')")],
            postgresql_where=sa.text(
                "type IN ('customer.created', 'customer.updated') AND (data ->> 'referred_by') IS NOT NULL"
            ),
            postgresql_concurrently=True,
        )
        op.execute("SET lock_timeout = '5s'")
    op.create_table(
        "erased_customers",
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column(
            "customer_hash", sa.LargeBinary(), nullable=False, comment="HMAC-SHA256 of the id under the workspace's key"
        ),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "customer_hash", name=op.f("pk_erased_customers")),
    )
    op.add_column(
        "workspaces",
        sa.Column("erasure_key", sa.LargeBinary(), nullable=True, comment="of the hashes of erased customers"),
    )
    connection = op.get_bind()
    # One by one: a default would have to be evaluated alike wherever the table is kept.
    for workspace_id in connection.execute(sa.text("SELECT id FROM workspaces")).scalars().all():
        connection.execute(
            sa.text("UPDATE workspaces SET erasure_key = :key WHERE id = :id"),
            {"key": secrets.token_bytes(32), "id": workspace_id},
        )
    # The version before this one makes workspaces without naming the column.
    op.alter_column("workspaces", "erasure_key", server_default=sa.text(MAKE_KEY), nullable=False)


def downgrade() -> None:
    op.drop_column("workspaces", "erasure_key")
    op.drop_table("erased_customers")
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.drop_index(INDEX, "events", postgresql_concurrently=True, if_exists=True)
        op.execute("SET lock_timeout = '5s'")
