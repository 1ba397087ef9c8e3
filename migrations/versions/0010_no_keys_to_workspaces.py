"""No foreign keys to workspaces, which no row of them ever leaves.

On a Citus cluster workspaces and runs are reference tables, and with a key between them one may not be written once a
transaction has written to several shards: a run could not end.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TABLES = ("api_keys", "runs", "admin_acts", "imports")


def upgrade() -> None:
    for table in TABLES:
        op.drop_constraint(f"fk_{table}_workspace_id", table, type_="foreignkey")


def downgrade() -> None:
    for table in TABLES:
        op.create_foreign_key(f"fk_{table}_workspace_id", table, "workspaces", ["workspace_id"], ["id"])
