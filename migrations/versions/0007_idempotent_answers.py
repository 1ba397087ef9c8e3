"""Answers to requests that carried an Idempotency-Key."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "idempotent_answers",
        sa.Column("key_id", sa.Text(collation="C"), nullable=False, comment="of the caller"),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the Idempotency-Key"),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False, comment="SHA-256 of the request"),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False, comment="the answer, encrypted under the caller's key"),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "digest", name=op.f("pk_idempotent_answers")),
    )
    op.create_index("ix_idempotent_answers_at", "idempotent_answers", ["at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_idempotent_answers_at", table_name="idempotent_answers")
    op.drop_table("idempotent_answers")
