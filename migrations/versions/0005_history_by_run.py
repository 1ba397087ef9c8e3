"""The history of scores by run first: a run adds its rows one after another, and one index serves instead of two."""

from collections.abc import Sequence

from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    _key_by("workspace_id", "run_id", "customer_id")
    with op.get_context().autocommit_block():
        op.drop_index("ix_score_history_run_id", "score_history", postgresql_concurrently=True, if_exists=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_score_history_run_id", "score_history", postgresql_concurrently=True, if_exists=True)
        op.create_index("ix_score_history_run_id", "score_history", ["run_id"], postgresql_concurrently=True)
    _key_by("workspace_id", "customer_id", "run_id")


def _key_by(*columns: str) -> None:
    """The index is built beside running code; to make it the primary key takes a moment."""
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")  # What waits here makes nobody wait.
        op.drop_index("new_pk_score_history", "score_history", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            "new_pk_score_history", "score_history", list(columns), unique=True, postgresql_concurrently=True
        )
        op.execute("SET lock_timeout = '5s'")
    op.execute(
        "ALTER TABLE score_history DROP CONSTRAINT pk_score_history,"
        " ADD CONSTRAINT pk_score_history PRIMARY KEY USING INDEX new_pk_score_history"
    )
