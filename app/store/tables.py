"""The tables, as alembic and the queries see them.

Customer-scoped tables carry ``customer_id`` in their primary key and in every unique constraint, and have no foreign
keys, so that Citus can distribute them by it: ``app.store.distribution`` says where each table is on a cluster.
No table has a foreign key to ``workspaces``: no workspace is ever deleted, and a cluster could not end a run.
"""

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
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
REFERS = "(data ->> 'referred_by') IS NOT NULL"
INTERACTION = (
    "type NOT IN ('customer.created', 'customer.updated', 'order.placed', 'order.cancelled', 'order.refunded')"
)

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("name", IdText, nullable=False, unique=True, comment="the id that callers know"),
    Column("currency", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("settings", JSONB, nullable=False, server_default=text("'{}'")),
    Column("settings_version", Integer, nullable=False, server_default=text("1")),
    Column("latest_run_id", Integer, comment="the succeeded run that lists and live scores read"),
    Column(
        "erasure_key",
        LargeBinary,
        nullable=False,
        server_default=text("sha256((uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())))"),
        comment="of the hashes of erased customers",
    ),
    Column("created_at", Instant, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", IdText, primary_key=True),
    Column("workspace_id", Integer, nullable=False, index=True),
    Column("key_hash", LargeBinary, nullable=False, unique=True, comment="SHA-256 of the key"),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("revoked_at", Instant),
    Column("expires_at", Instant),
    Column("replaced_by", IdText, comment="the key that it was rotated to"),
)

admin_acts = Table(
    "admin_acts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("workspace_id", Integer, nullable=False),
    Column("actor_key_id", IdText, comment="null: whoever runs the service, or an operator of another workspace"),
    Column("action", IdText, nullable=False),
    Column("target", IdText, nullable=False, comment="never personal data"),
    Column("at", Instant, nullable=False),
    Index("ix_admin_acts_workspace", "workspace_id", "id"),
)

idempotent_answers = Table(
    "idempotent_answers",
    metadata,
    Column("key_id", IdText, primary_key=True, comment="of the caller"),
    Column("digest", LargeBinary, primary_key=True, comment="SHA-256 of the Idempotency-Key"),
    Column("fingerprint", LargeBinary, nullable=False, comment="SHA-256 of the request"),
    Column("status", SmallInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False, comment="the answer, encrypted under the caller's key"),
    Column("at", Instant, nullable=False, index=True),
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
    Index("ix_events_occurred_at", "workspace_id", "customer_id", "occurred_at"),
    Index(
        "uq_events_order",
        "workspace_id",
        "customer_id",
        "order_id",
        unique=True,
        postgresql_where=text(PLACED),
    ),
    # Of everything that is not an order: adjustments, profiles and interactions.
    Index(
        "ix_events_type",
        "workspace_id",
        "customer_id",
        "type",
        postgresql_where=text("type <> 'order.placed'"),
    ),
    # Few enter it: profiles that name a referrer, for when that one is erased.
    Index(
        "ix_events_referred_by",
        "workspace_id",
        text("(data ->> 'referred_by')"),
        postgresql_where=text(f"{PROFILE} AND {REFERS}"),
    ),
)

customer_summary = Table(
    "customer_summary",
    metadata,
    Column("workspace_id", Integer, primary_key=True),
    Column("customer_id", IdText, primary_key=True),
    Column("event_count", BigInteger, nullable=False, server_default=text("0")),
    Column("adjustment_count", BigInteger, nullable=False, server_default=text("0")),
    Column("interaction_count", BigInteger, nullable=False, server_default=text("0")),
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

# Looked for by its hash alone.
erased_customers = Table(
    "erased_customers",
    metadata,
    Column("workspace_id", Integer, primary_key=True),
    Column("customer_hash", LargeBinary, primary_key=True, comment="HMAC-SHA256 of the id under the workspace's key"),
    Column("erased_at", Instant, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("name", IdText, nullable=False, unique=True, comment="the id that callers know"),
    Column("workspace_id", Integer, nullable=False),
    Column("status", Text, nullable=False, comment="queued, running, succeeded or failed"),
    Column("as_of", Instant, nullable=False),
    Column("settings", JSONB, nullable=False),
    Column("settings_version", Integer, nullable=False),
    Column("progress", Double, nullable=False, server_default=text("0")),
    Column("customers", Integer, nullable=False, server_default=text("0")),
    Column("fitted", JSONB),
    Column("curve", JSONB, comment="the Pareto curve, for the report"),
    Column("score_classes", JSONB, comment="what filtered lists know of its scores"),
    Column("error_code", Text),
    Column("error_detail", Text),
    Column("partition", Integer, nullable=False, server_default=text("0"), comment="where its scores are"),
    Column("kept", Boolean, nullable=False, server_default=text("false"), comment="whether its scores are still there"),
    Column("requested_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Index("ix_runs_workspace", "workspace_id", "id"),
)

SCORE_COLUMNS: tuple[Column[Any], ...] = (
    Column("days_since_last_order", Integer),
    Column("order_count", Integer, nullable=False),
    Column("net_spend", Numeric, nullable=False),
    Column("r", SmallInteger),
    Column("f", SmallInteger),
    Column("m", SmallInteger),
    Column("segment", IdText),
    Column("abc_grade", IdText),
    Column("abc_net_spend", Numeric, nullable=False),
    Column("cumulative_share", Double),
    Column("clv_historical", Numeric, nullable=False),
    Column("clv_current", Numeric, nullable=False),
    Column("clv_predicted", Numeric),
    Column("clv_total", Numeric),
    Column("expected_purchases", Double),
    Column("expected_purchase_value", Numeric),
    Column("p_alive", Double),
    Column("interval_low", Numeric),
    Column("interval_high", Numeric),
    Column("churn_state", IdText, nullable=False),
    Column("churn_probability", Double),
    Column("churn_type", IdText),
    Column("churn_subtype", IdText),
    Column("type_probabilities", ARRAY(Double), comment="natural, competitive, passive, negligent, unknown"),
    Column("evidence", JSONB),
    Column("action", IdText),
    Column("lifecycle_status", IdText, nullable=False),
    Column("lifecycle_stage", IdText),
)

# A large run has a partition of its own, with its id as number; small ones share the partition 0, `scores_small`. Each
# kind has its own indexes for lists: app/store/score_lists.py makes those of a large run, the migrations 0003 and 0014
# made those of the small ones.
scores = Table(
    "scores",
    metadata,
    Column("partition", Integer, primary_key=True),
    Column("run_id", Integer, primary_key=True),
    Column("customer_id", IdText, primary_key=True),
    Column("workspace_id", Integer, nullable=False),
    *SCORE_COLUMNS,
    Column("figures_digest", BigInteger, comment="of the day and the figures that gave the scores"),
    Column("score_class", Integer, comment="what filtered lists find it by"),
    postgresql_partition_by="LIST (partition)",
)

churn_labels = Table(
    "churn_labels",
    metadata,
    Column("workspace_id", Integer, primary_key=True),
    Column("customer_id", IdText, primary_key=True),
    Column("type", IdText, nullable=False),
    Column("subtype", IdText),
    Column("labelled_at", Instant, nullable=False, comment="the moment that the verdict speaks of"),
    Column("recorded_at", Instant, nullable=False),
)

score_history = Table(
    "score_history",
    metadata,
    Column("workspace_id", Integer, primary_key=True),
    Column("run_id", Integer, primary_key=True),
    Column("customer_id", IdText, primary_key=True),
    Column("as_of", Instant, nullable=False),
    Column("r", SmallInteger),
    Column("f", SmallInteger),
    Column("m", SmallInteger),
    Column("segment", IdText),
    Column("abc_grade", IdText),
    Column("net_spend", Numeric, nullable=False),
    Column("clv_total", Numeric),
    Column("churn_state", IdText, nullable=False),
    Column("churn_type", IdText),
)

# What a run has in hand until it ends. Not logged: whatever is lost in a crash is done again.
runs_at_work = Table(
    "runs_at_work",
    metadata,
    Column("run_id", Integer, primary_key=True, autoincrement=False),
    Column("workspace_id", Integer, nullable=False),
    Column("snapshot", Text, nullable=False, comment="the exported snapshot that its parts are read in"),
    Column("erased_before", Integer, nullable=False, comment="how many customers were erased when it began"),
    Column("grades", JSONB, comment="where grades end, once it is read"),
    Column("models", JSONB, comment="once it is added up by grades"),
    Column("fitted", JSONB),
    Column("curve", JSONB),
    Column("partition", Integer, comment="of its scores, once it is fitted"),
    prefixes=["UNLOGGED"],
)

run_parts = Table(
    "run_parts",
    metadata,
    Column("run_id", Integer, primary_key=True, autoincrement=False),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("workspace_id", Integer, nullable=False),
    Column("after_id", IdText, nullable=False),
    Column("until_id", IdText, nullable=False),
    Column("customers", Integer, comment="once it is read"),
    Column("ids", Text, comment="a line a customer, rising"),
    Column("figures", LargeBinary, comment="arrays by name"),
    Column("purchase_days", LargeBinary, comment="int32"),
    Column("tally", LargeBinary, comment="its counts: arrays by name"),
    Column("before", LargeBinary, comment="what stands before it: arrays by name, once grades are known"),
    Column("sums", LargeBinary, comment="arrays by name, once it is added up by grades"),
    Column("estimates", LargeBinary, comment="arrays by name, once the models are fitted"),
    Column("worth", LargeBinary, comment="what its customers are worth, counted: arrays by name"),
    Column("scored", Boolean, nullable=False, server_default=text("false")),
    prefixes=["UNLOGGED"],
)

imports = Table(
    "imports",
    metadata,
    Column("id", IdText, primary_key=True),
    Column("workspace_id", Integer, nullable=False),
    Column("status", Text, nullable=False, comment="receiving, queued, running, succeeded or failed"),
    Column("format", Text, nullable=False, comment="ndjson or csv"),
    Column("mapping", JSONB),
    Column("header", ARRAY(Text), comment="the column names of a CSV file"),
    Column("created_at", Instant, nullable=False),
    Column("touched_at", Instant, nullable=False, comment="last sign of progress"),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("received_bytes", BigInteger, nullable=False, server_default=text("0")),
    Column("received_lines", BigInteger, nullable=False, server_default=text("0")),
    Column("chunk_count", Integer, nullable=False, server_default=text("0")),
    Column("chunks_done", Integer, nullable=False, server_default=text("0")),
    Column("batches_done", Integer, nullable=False, server_default=text("0"), comment="of the chunk in work"),
    Column("order_count", BigInteger, comment="null until lines are summed to orders"),
    Column("orders_done", BigInteger, nullable=False, server_default=text("0")),
    Column("lines", BigInteger, nullable=False, server_default=text("0")),
    Column("accepted", BigInteger, nullable=False, server_default=text("0")),
    Column("duplicates", BigInteger, nullable=False, server_default=text("0")),
    Column("rejected", BigInteger, nullable=False, server_default=text("0")),
    Column("skipped_without_customer", BigInteger, nullable=False, server_default=text("0")),
    Column("dropped_cancellations", BigInteger, nullable=False, server_default=text("0")),
    Column("dropped_duplicate_lines", BigInteger, nullable=False, server_default=text("0")),
    Column("rounded_amounts", BigInteger, nullable=False, server_default=text("0")),
    Column("fruitless_starts", Integer, nullable=False, server_default=text("0"), comment="since the last progress"),
    Column("error_code", Text),
    Column("error_detail", Text),
    Index("ix_imports_created", "workspace_id", "created_at", "id"),
)

import_chunks = Table(
    "import_chunks",
    metadata,
    Column("import_id", IdText, ForeignKey("imports.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("first_line", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False, comment="whole records, compressed by zlib"),
)

import_bad_rows = Table(
    "import_bad_rows",
    metadata,
    Column("import_id", IdText, ForeignKey("imports.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("line", BigInteger, nullable=False),
    Column("code", Text, nullable=False),
    Column("detail", Text, nullable=False),
)

import_lines = Table(
    "import_lines",
    metadata,
    Column("import_id", IdText, primary_key=True),
    Column("line", BigInteger, primary_key=True),
    Column("customer_id", IdText, nullable=False),
    Column("order_id", IdText, nullable=False),
    Column("cancels", Boolean, nullable=False),
    Column("occurred_at", Instant, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("cost", Numeric),
    Column("currency", Text, nullable=False),
    Column("exchange_rate", Numeric),
    Column("channel", Text),
    Column("campaign_id", Text),
    Column("item", Text, comment="JSON"),
    Column("fingerprint", LargeBinary, comment="hash of the whole row, where equal rows matter"),
    comment="Lines of imports in work, until they are summed to orders.",
)

import_orders = Table(
    "import_orders",
    metadata,
    Column("import_id", IdText, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("first_line", BigInteger, nullable=False),
    Column("line_count", BigInteger, nullable=False),
    Column("customer_id", IdText, nullable=False),
    Column("order_id", IdText, nullable=False),
    Column("cancels", Boolean, nullable=False),
    Column("occurred_at", Instant, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("cost", Numeric),
    Column("currency", Text),
    Column("exchange_rate", Numeric),
    Column("is_mixed", Boolean, nullable=False, comment="lines in several currencies or rates"),
    Column("channel", Text),
    Column("campaign_id", Text),
    Column("items", Text, comment="JSON"),
    comment="Orders of imports in work, until they are events.",
)
