"""A run is cut into parts, which several workers share: what each has come to, until the run ends."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "runs_at_work",
        sa.Column("run_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("snapshot", sa.Text(), nullable=False, comment="the exported snapshot that its parts are read in"),
        sa.Column(
            "erased_before", sa.Integer(), nullable=False, comment="how many customers were erased when it began"
        ),
        sa.Column("fitted", JSONB()),
        sa.Column("curve", JSONB()),
        sa.Column("partition", sa.Integer(), comment="of its scores, once it is fitted"),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs_at_work")),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "run_parts",
        sa.Column("run_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("part", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("after_id", sa.Text(collation="C"), nullable=False),
        sa.Column("until_id", sa.Text(collation="C"), nullable=False),
        sa.Column("customers", sa.Integer(), comment="once it is read"),
        sa.Column("ids", sa.Text(), comment="a line a customer, rising"),
        sa.Column("figures", sa.LargeBinary(), comment="arrays by name"),
        sa.Column("purchase_days", sa.LargeBinary(), comment="int32"),
        sa.Column("estimates", sa.LargeBinary(), comment="arrays by name, once the run is fitted"),
        sa.Column("scored", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "part", name=op.f("pk_run_parts")),
        prefixes=["UNLOGGED"],
    )
    # They live for seconds: compressing them would take longer than writing them.
    for column in ("ids", "figures", "purchase_days", "estimates"):
        op.execute(f"ALTER TABLE run_parts ALTER COLUMN {column} SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.drop_table("run_parts")
    op.drop_table("runs_at_work")
