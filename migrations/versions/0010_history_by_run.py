"""The history of scores by run first: a run adds its rows one after another, and one index serves instead of two."""

from collections.abc import Sequence

from alembic import op

revision: str = "0010"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.drop_constraint("pk_score_history", "score_history")
    op.create_primary_key("pk_score_history", "score_history", ["workspace_id", "run_id", "customer_id"])
    op.drop_index("ix_score_history_run_id", "score_history")


def downgrade() -> None:
    op.create_index("ix_score_history_run_id", "score_history", ["run_id"])
    op.drop_constraint("pk_score_history", "score_history")
    op.create_primary_key("pk_score_history", "score_history", ["workspace_id", "customer_id", "run_id"])
