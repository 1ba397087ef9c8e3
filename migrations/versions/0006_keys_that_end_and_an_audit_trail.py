"""Keys that end, and an audit trail of what administrators do."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "api_keys",
        sa.Column("replaced_by", sa.Text(collation="C"), nullable=True, comment="the key that it was rotated to"),
    )
    op.create_table(
        "admin_acts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column(
            "actor_key_id",
            sa.Text(collation="C"),
            nullable=True,
            comment="null: whoever runs the service, or an operator of another workspace",
        ),
        sa.Column("action", sa.Text(collation="C"), nullable=False),
        sa.Column("target", sa.Text(collation="C"), nullable=False, comment="never personal data"),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_admin_acts_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admin_acts")),
    )
    op.create_index("ix_admin_acts_workspace", "admin_acts", ["workspace_id", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_admin_acts_workspace", table_name="admin_acts")
    op.drop_table("admin_acts")
    op.drop_column("api_keys", "replaced_by")
    op.drop_column("api_keys", "expires_at")
