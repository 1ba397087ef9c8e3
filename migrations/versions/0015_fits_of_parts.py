"""A run is fitted to what its parts tell of themselves, and they are valued in parts: what each has come to.

The version before leaves the new columns empty, and does no part of a run between reading and scoring; what it has read
of a run that this version leads is read again, and the other way round too. A worker of the version before that takes
over from a killed leader fits by itself, from figures and purchase days.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

STAGED = {
    "tally": "its counts: arrays by name",
    "before": "what stands before it: arrays by name, once grades are known",
    "sums": "arrays by name, once it is added up by grades",
    "worth": "what its customers are worth, counted: arrays by name",
}
ESTIMATES = "arrays by name, once the {} fitted"


def upgrade() -> None:
    op.add_column("runs_at_work", sa.Column("grades", JSONB, comment="where grades end, once it is read"))
    op.add_column("runs_at_work", sa.Column("models", JSONB, comment="once it is added up by grades"))
    for name, comment in STAGED.items():
        op.add_column("run_parts", sa.Column(name, sa.LargeBinary(), comment=comment))
        # They live for seconds: compressing them would take longer than writing them.
        op.execute(f"ALTER TABLE run_parts ALTER COLUMN {name} SET STORAGE EXTERNAL")
    op.execute(f"COMMENT ON COLUMN run_parts.estimates IS '{ESTIMATES.format('models are')}'")


def downgrade() -> None:
    op.execute(f"COMMENT ON COLUMN run_parts.estimates IS '{ESTIMATES.format('run is')}'")
    for name in STAGED:
        op.drop_column("run_parts", name)
    op.drop_column("runs_at_work", "models")
    op.drop_column("runs_at_work", "grades")
