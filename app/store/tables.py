"""The tables, as alembic and the queries see them.

Customer-scoped tables carry ``customer_id`` in their primary key and in every unique constraint, and have no foreign
keys, so that Citus can distribute them by it; workspaces, keys and runs are small and would be reference tables.
"""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Ids compare by their bytes: the order that the definitions name, and the cheapest one.
IdText = Text(collation="C")
Instant = DateTime(timezone=True)

PLACED = "type = 'order.placed'"
ADJUSTING = "type IN ('order.cancelled', 'order.refunded')"
PROFILE = "type IN ('customer.created', 'customer.updated')"

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("name", IdText, nullable=False, unique=True, comment="the id that callers know"),
    Column("currency", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("settings", JSONB, nullable=False, server_default=text("'{}'")),
    Column("settings_version", Integer, nullable=False, server_default=text("1")),
    Column("created_at", Instant, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", IdText, primary_key=True),
    Column("workspace_id", Integer, ForeignKey("workspaces.id"), nullable=False, index=True),
    Column("key_hash", LargeBinary, nullable=False, unique=True, comment="SHA-256 of the key"),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("revoked_at", Instant),
)

events = Table(
    "events",
    metadata,
    Column("workspace_id", Integer, primary_key=True),
    Column("customer_id", IdText, primary_key=True),
    Column("event_id", IdText, primary_key=True),
    Column("type", IdText, nullable=False),
    Column("occurred_at", Instant, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False, comment="hash of the normalised content"),
    Column("local_day", Date, nullable=False, comment="day of occurred_at in the workspace's time zone"),
    Column("order_id", IdText),
    Column("amount", Numeric),
    Column("currency", Text),
    Column("exchange_rate", Numeric, comment="null in the workspace's own currency"),
    Column("cost", Numeric),
    Column("data", JSONB, comment="the fields that have no column"),
    Index("ix_events_time", "workspace_id", "customer_id", "occurred_at", "event_id"),
    Index(
        "uq_events_order",
        "workspace_id",
        "customer_id",
        "order_id",
        unique=True,
        postgresql_where=text(PLACED),
    ),
    Index(
        "ix_events_adjustment",
        "workspace_id",
        "customer_id",
        "order_id",
        postgresql_where=text(ADJUSTING),
    ),
    Index("ix_events_profile", "workspace_id", "customer_id", postgresql_where=text(PROFILE)),
)

customer_summary = Table(
    "customer_summary",
    metadata,
    Column("workspace_id", Integer, primary_key=True),
    Column("customer_id", IdText, primary_key=True),
    Column("event_count", BigInteger, nullable=False, server_default=text("0")),
    Column("adjustment_count", BigInteger, nullable=False, server_default=text("0")),
    Column("order_count", BigInteger, nullable=False, server_default=text("0")),
    Column("purchase_days", BigInteger, nullable=False, server_default=text("0")),
    Column("first_purchase_day", Date),
    Column("last_purchase_day", Date),
    Column("net_spend", Numeric, nullable=False, server_default=text("0")),
    Column("net_cost", Numeric, nullable=False, server_default=text("0")),
    Column("order_spend", Numeric, nullable=False, server_default=text("0")),
    Column("first_day_spend", Numeric, nullable=False, server_default=text("0")),
    Column("first_day_cost", Numeric, nullable=False, server_default=text("0")),
    Column("latest_order_event_at", Instant, comment="the figures above hold from this moment on"),
    Column("first_event_at", Instant),
    Column("last_event_at", Instant),
    Column("updated_at", Instant, nullable=False),
    postgresql_with={"fillfactor": "80"},
)

customer_profiles = Table(
    "customer_profiles",
    metadata,
    Column("workspace_id", Integer, primary_key=True),
    Column("customer_id", IdText, primary_key=True),
    Column("profile", JSONB, nullable=False),
)
