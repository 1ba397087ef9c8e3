"""Workspaces, keys, customers and their events."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "customer_profiles",
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("customer_id", sa.Text(collation="C"), nullable=False),
        sa.Column("profile", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "customer_id", name=op.f("pk_customer_profiles")),
    )
    op.create_table(
        "customer_summary",
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("customer_id", sa.Text(collation="C"), nullable=False),
        sa.Column("event_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("adjustment_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("interaction_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("order_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("purchase_days", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("first_purchase_day", sa.Date(), nullable=True),
        sa.Column("last_purchase_day", sa.Date(), nullable=True),
        sa.Column("net_spend", sa.Numeric(), server_default=sa.text("0"), nullable=False),
        sa.Column("net_cost", sa.Numeric(), server_default=sa.text("0"), nullable=False),
        sa.Column("order_spend", sa.Numeric(), server_default=sa.text("0"), nullable=False),
        sa.Column("first_day_spend", sa.Numeric(), server_default=sa.text("0"), nullable=False),
        sa.Column("first_day_cost", sa.Numeric(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "latest_order_event_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the figures above hold from this moment on",
        ),
        sa.Column("first_event_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_event_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "customer_id", name=op.f("pk_customer_summary")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_table(
        "events",
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("customer_id", sa.Text(collation="C"), nullable=False),
        sa.Column("event_id", sa.Text(collation="C"), nullable=False),
        sa.Column("type", sa.Text(collation="C"), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False, comment="hash of the normalised content"),
        sa.Column("local_day", sa.Date(), nullable=False, comment="day of occurred_at in the workspace's time zone"),
        sa.Column("order_id", sa.Text(collation="C"), nullable=True),
        sa.Column("amount", sa.Numeric(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=True),
        sa.Column("exchange_rate", sa.Numeric(), nullable=True, comment="null in the workspace's own currency"),
        sa.Column("cost", sa.Numeric(), nullable=True),
        sa.Column(
            "data", postgresql.JSONB(astext_type=sa.Text()), nullable=True, comment="the fields that have no column"
        ),
        sa.PrimaryKeyConstraint("workspace_id", "customer_id", "event_id", name=op.f("pk_events")),
    )
    op.create_index(
        "ix_events_adjustment",
        "events",
        ["workspace_id", "customer_id", "order_id"],
        unique=False,
        postgresql_where=sa.text("type IN ('order.cancelled', 'order.refunded')"),
    )
    op.create_index(
        "ix_events_profile",
        "events",
        ["workspace_id", "customer_id"],
        unique=False,
        postgresql_where=sa.text("type IN ('customer.created', 'customer.updated')"),
    )
    op.create_index(
        "ix_events_interaction",
        "events",
        ["workspace_id", "customer_id"],
        unique=False,
        postgresql_where=sa.text(
            "type NOT IN ('customer.created', 'customer.updated', 'order.placed', 'order.cancelled', 'order.refunded')"
        ),
    )
    op.create_index(
        "ix_events_time", "events", ["workspace_id", "customer_id", "occurred_at", "event_id"], unique=False
    )
    op.create_index(
        "uq_events_order",
        "events",
        ["workspace_id", "customer_id", "order_id"],
        unique=True,
        postgresql_where=sa.text("type = 'order.placed'"),
    )
    op.create_table(
        "workspaces",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(collation="C"), nullable=False, comment="the id that callers know"),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("settings_version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspaces")),
        sa.UniqueConstraint("name", name=op.f("uq_workspaces_name")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(collation="C"), nullable=False),
        sa.Column("workspace_id", sa.Integer(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the key"),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_api_keys_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_hash", name=op.f("uq_api_keys_key_hash")),
    )
    op.create_index(op.f("ix_api_keys_workspace_id"), "api_keys", ["workspace_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_api_keys_workspace_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("workspaces")
    op.drop_index("uq_events_order", table_name="events", postgresql_where=sa.text("type = 'order.placed'"))
    op.drop_index("ix_events_time", table_name="events")
    op.drop_index(
        "ix_events_profile",
        table_name="events",
        postgresql_where=sa.text("type IN ('customer.created', 'customer.updated')"),
    )
    op.drop_index(
        "ix_events_adjustment",
        table_name="events",
        postgresql_where=sa.text("type IN ('order.cancelled', 'order.refunded')"),
    )
    op.drop_table("events")
    op.drop_table("customer_summary")
    op.drop_table("customer_profiles")
