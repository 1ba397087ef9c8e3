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
WHERE partition <> 0
  AND EXISTS (
      SELECT FROM pg_class WHERE oid = to_regclass(format('scores_run_%s', partition)) AND NOT relispartition
  )
"""


def _unattached() -> list[str]:
    return list(op.get_bind().exec_driver_sql(UNATTACHED).scalars())


def _alter_unattached(change: str) -> None:
    for table in _unattached():
        op.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        if table in _unattached():  # It may have been attached before it was locked.
            op.execute(f"ALTER TABLE {table} {change}")


def _alter(change: str) -> None:
    # Their runs hold them for seconds, but nobody reads them: first these, so that no reader waits behind both.
    _alter_unattached(change)
    # From here on none is made or attached; what was made meanwhile is altered too.
    op.execute("LOCK TABLE scores IN ACCESS EXCLUSIVE MODE")
    op.execute(f"ALTER TABLE scores {change}")
    _alter_unattached(change)


def upgrade() -> None:
    _alter("ADD COLUMN IF NOT EXISTS figures_digest bigint")
    op.execute(f"COMMENT ON COLUMN scores.figures_digest IS '{COMMENT}'")


def downgrade() -> None:
    _alter("DROP COLUMN IF EXISTS figures_digest")
