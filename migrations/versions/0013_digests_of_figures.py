"""Scores tell of which figures they are, so that a live value of the same figures need not be computed again."""

from collections.abc import Sequence

from alembic import op

from migrations.score_tables import alter_scores

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

COMMENT = "of the day and the figures that gave the scores"


def upgrade() -> None:
    alter_scores("ADD COLUMN IF NOT EXISTS figures_digest bigint")
    op.execute(f"COMMENT ON COLUMN scores.figures_digest IS '{COMMENT}'")


def downgrade() -> None:
    alter_scores("DROP COLUMN IF EXISTS figures_digest")
