"""Indexes for filtered lists of values."""

from collections.abc import Sequence

from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

SCORE_CLASS = (
    "hashtext(coalesce(segment, '') || '/' || coalesce(abc_grade, '') || '/' || churn_state || '/' ||"
    " coalesce(churn_type, '') || '/' || lifecycle_status || '/' ||"
    " (CASE WHEN net_spend >= 1 THEN floor(2 * log(net_spend::double precision))::integer ELSE -1 END)::text)"
)
SORTS = ("net_spend", "days_since_last_order", "order_count", "clv_total", "churn_probability")


def upgrade() -> None:
    # Only runs write scores; those that go on meanwhile wait.
    key = f"partition, run_id, ({SCORE_CLASS})"
    for column in SORTS:
        op.execute(f"CREATE INDEX ix_scores_class_{column} ON scores ({key}, {column}, customer_id)")
    op.execute(f"CREATE INDEX ix_scores_class ON scores ({key}, customer_id)")


def downgrade() -> None:
    for column in SORTS:
        op.execute(f"DROP INDEX ix_scores_class_{column}")
    op.execute("DROP INDEX ix_scores_class")
