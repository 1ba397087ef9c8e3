"""Scores tell of which figures they are, so that a live value of the same figures need not be computed again."""

from collections.abc import Sequence

from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

COMMENT = "of the day and the figures that gave the scores"
# Tables of runs that go on are not attached yet, and have to be like the others when they are.
UNATTACHED = """
SELECT DISTINCT format('scores_run_%s', partition) AS name FROM runs_at_work
WHERE partition <> 0 AND to_regclass(format('scores_run_%s', partition)) IS NOT NULL
"""


def _alter(change: str) -> None:
    for table in ("scores", *op.get_bind().exec_driver_sql(UNATTACHED).scalars()):
        op.execute(f"ALTER TABLE {table} {change}")


def upgrade() -> None:
    _alter("ADD COLUMN figures_digest bigint")
    op.execute(f"COMMENT ON COLUMN scores.figures_digest IS '{COMMENT}'")


def downgrade() -> None:
    _alter("DROP COLUMN figures_digest")
