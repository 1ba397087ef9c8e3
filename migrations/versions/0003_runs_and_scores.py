"""Runs, the scores that they store, and the history of scores."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "churn_labels",
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("customer_id", sa.Text(collation="C"), nullable=False),
        sa.Column("type", sa.Text(collation="C"), nullable=False),
        sa.Column("subtype", sa.Text(collation="C"), nullable=True),
        sa.Column(
            "labelled_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="the moment that the verdict speaks of",
        ),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "customer_id", name=op.f("pk_churn_labels")),
    )
    op.create_table(
        "score_history",
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("customer_id", sa.Text(collation="C"), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("r", sa.SmallInteger(), nullable=True),
        sa.Column("f", sa.SmallInteger(), nullable=True),
        sa.Column("m", sa.SmallInteger(), nullable=True),
        sa.Column("segment", sa.Text(collation="C"), nullable=True),
        sa.Column("abc_grade", sa.Text(collation="C"), nullable=True),
        sa.Column("net_spend", sa.Numeric(), nullable=False),
        sa.Column("clv_total", sa.Numeric(), nullable=True),
        sa.Column("churn_state", sa.Text(collation="C"), nullable=False),
        sa.Column("churn_type", sa.Text(collation="C"), nullable=True),
        sa.PrimaryKeyConstraint("workspace_id", "customer_id", "run_id", name=op.f("pk_score_history")),
    )
    op.create_index("ix_score_history_run_id", "score_history", ["run_id"], unique=False)
    op.create_table(
        "scores",
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("customer_id", sa.Text(collation="C"), nullable=False),
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("days_since_last_order", sa.Integer(), nullable=True),
        sa.Column("order_count", sa.Integer(), nullable=False),
        sa.Column("net_spend", sa.Numeric(), nullable=False),
        sa.Column("r", sa.SmallInteger(), nullable=True),
        sa.Column("f", sa.SmallInteger(), nullable=True),
        sa.Column("m", sa.SmallInteger(), nullable=True),
        sa.Column("segment", sa.Text(collation="C"), nullable=True),
        sa.Column("abc_grade", sa.Text(collation="C"), nullable=True),
        sa.Column("abc_net_spend", sa.Numeric(), nullable=False),
        sa.Column("cumulative_share", sa.Double(), nullable=True),
        sa.Column("clv_historical", sa.Numeric(), nullable=False),
        sa.Column("clv_current", sa.Numeric(), nullable=False),
        sa.Column("clv_predicted", sa.Numeric(), nullable=True),
        sa.Column("clv_total", sa.Numeric(), nullable=True),
        sa.Column("expected_purchases", sa.Double(), nullable=True),
        sa.Column("expected_purchase_value", sa.Numeric(), nullable=True),
        sa.Column("p_alive", sa.Double(), nullable=True),
        sa.Column("interval_low", sa.Numeric(), nullable=True),
        sa.Column("interval_high", sa.Numeric(), nullable=True),
        sa.Column("churn_state", sa.Text(collation="C"), nullable=False),
        sa.Column("churn_probability", sa.Double(), nullable=True),
        sa.Column("churn_type", sa.Text(collation="C"), nullable=True),
        sa.Column("churn_subtype", sa.Text(collation="C"), nullable=True),
        sa.Column(
            "type_probabilities",
            sa.ARRAY(sa.Double()),
            nullable=True,
            comment="natural, competitive, passive, negligent, unknown",
        ),
        sa.Column("evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("action", sa.Text(collation="C"), nullable=True),
        sa.Column("lifecycle_status", sa.Text(collation="C"), nullable=False),
        sa.Column("lifecycle_stage", sa.Text(collation="C"), nullable=True),
        sa.PrimaryKeyConstraint("partition", "run_id", "customer_id", name=op.f("pk_scores")),
        postgresql_partition_by="LIST (partition)",
    )
    op.execute("CREATE TABLE scores_small PARTITION OF scores FOR VALUES IN (0)")
    op.create_index(
        "ix_scores_churn_probability",
        "scores",
        ["partition", "run_id", "churn_probability", "customer_id"],
        unique=False,
    )
    op.create_index("ix_scores_clv_total", "scores", ["partition", "run_id", "clv_total", "customer_id"], unique=False)
    op.create_index(
        "ix_scores_days_since_last_order",
        "scores",
        ["partition", "run_id", "days_since_last_order", "customer_id"],
        unique=False,
    )
    op.create_index("ix_scores_net_spend", "scores", ["partition", "run_id", "net_spend", "customer_id"], unique=False)
    op.create_index(
        "ix_scores_order_count", "scores", ["partition", "run_id", "order_count", "customer_id"], unique=False
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False, comment="the id that callers know"),
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False, comment="queued, running, succeeded or failed"),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("settings_version", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("customers", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("fitted", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "curve", postgresql.JSONB(astext_type=sa.Text()), nullable=True, comment="the Pareto curve, for the report"
        ),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column(
            "partition", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="where its scores are"
        ),
        sa.Column(
            "kept",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="whether its scores are still there",
        ),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_runs_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
        sa.UniqueConstraint("name", name=op.f("uq_runs_name")),
    )
    op.create_index("ix_runs_workspace", "runs", ["workspace_id", "id"], unique=False)
    op.add_column(
        "workspaces",
        sa.Column(
            "latest_run_id", sa.Integer(), nullable=True, comment="the succeeded run that lists and live scores read"
        ),
    )


def downgrade() -> None:
    op.drop_table("churn_labels")
    op.drop_column("workspaces", "latest_run_id")
    op.drop_index("ix_runs_workspace", table_name="runs")
    op.drop_table("runs")
    op.drop_index("ix_scores_order_count", table_name="scores")
    op.drop_index("ix_scores_net_spend", table_name="scores")
    op.drop_index("ix_scores_days_since_last_order", table_name="scores")
    op.drop_index("ix_scores_clv_total", table_name="scores")
    op.drop_index("ix_scores_churn_probability", table_name="scores")
    op.drop_table("scores")
    op.drop_index("ix_score_history_run_id", table_name="score_history")
    op.drop_table("score_history")
