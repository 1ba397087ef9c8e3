"""The classes of a run's scores are kept with the run, so that the first filtered page need not look for them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("score_classes", JSONB, comment="what filtered lists know of its scores"))


def downgrade() -> None:
    op.drop_column("runs", "score_classes")
