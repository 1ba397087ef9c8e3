"""Rows of scores tell their class, and large runs have indexes of their own, without what all their rows share.

Runs that are there keep their indexes, which serve all lists but those that are filtered: they have no classes, and a
filtered page looks through the run until there is a newer one.

While versions are side by side, a process of the version before can't answer filtered pages of a large run that a
worker of this one did, and a large run that a worker of the version before did has no indexes for lists: replace the
processes that serve first, and ask for a run when all are replaced.

Each large run that is kept takes some fourteen locks here: beyond some hundreds of them ``max_locks_per_transaction``
has to allow it.
"""

from collections.abc import Sequence

from alembic import op

from migrations.score_tables import alter_scores

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

CHECK = "ck_scores_small_partition"
COMMENT = "what filtered lists find it by"
SORTS = ("net_spend", "days_since_last_order", "order_count", "clv_total", "churn_probability")
SCORE_CLASS = (
    "hashtext(coalesce(segment, '') || '/' || coalesce(abc_grade, '') || '/' || churn_state || '/' ||"
    " coalesce(churn_type, '') || '/' || lifecycle_status || '/' ||"
    " (CASE WHEN net_spend >= 1 THEN floor(2 * log(net_spend::double precision))::integer ELSE -1 END)::text)"
)
INDEXES = {
    **{f"ix_scores_{sort}": f"partition, run_id, {sort}, customer_id" for sort in SORTS},
    **{f"ix_scores_class_{sort}": f"partition, run_id, ({SCORE_CLASS}), {sort}, customer_id" for sort in SORTS},
    "ix_scores_class": f"partition, run_id, ({SCORE_CLASS}), customer_id",
}
# A cluster refuses some changes of tables and indexes in one transaction unless it goes from shard to shard.
SHARD_BY_SHARD = "SET LOCAL citus.multi_shard_modify_mode = 'sequential'"
ATTACHED = """
SELECT inhrelid::regclass::text AS name, pg_get_expr(relpartbound, inhrelid) AS bound
FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'scores'::regclass
"""
OF_CLASSES = """
SELECT indexrelid::regclass::text FROM pg_index
WHERE indrelid = 'scores_small'::regclass AND pg_get_indexdef(indexrelid) LIKE '%hashtext%'
"""
OF_LARGE_RUNS = "SELECT format('%I', indexname) FROM pg_indexes WHERE indexname LIKE 'ix\\_scores\\_run\\_%'"


def _told(query: str) -> list[str]:
    return list(op.get_bind().exec_driver_sql(query).scalars())


def upgrade() -> None:
    # With this check, attaching need not read the rows again while others wait.
    with op.get_context().autocommit_block():
        op.execute(f"ALTER TABLE scores_small DROP CONSTRAINT IF EXISTS {CHECK}")
        op.execute(f"ALTER TABLE scores_small ADD CONSTRAINT {CHECK} CHECK (partition = 0) NOT VALID")
        op.execute(f"ALTER TABLE scores_small VALIDATE CONSTRAINT {CHECK}")
    op.execute(SHARD_BY_SHARD)
    alter_scores("ADD COLUMN IF NOT EXISTS score_class integer")
    op.execute(f"COMMENT ON COLUMN scores.score_class IS '{COMMENT}'")
    # A partition that is detached keeps its indexes when those of the whole are dropped.
    attached = op.get_bind().exec_driver_sql(ATTACHED).all()
    for name, _ in attached:
        op.execute(f"ALTER TABLE scores DETACH PARTITION {name}")
    for index in INDEXES:
        op.execute(f"DROP INDEX {index}")
    for name, bound in attached:
        op.execute(f"ALTER TABLE scores ATTACH PARTITION {name} {bound}")
    # Small runs are looked through sooner than their classes are merged.
    for index in _told(OF_CLASSES):
        op.execute(f"DROP INDEX {index}")


def downgrade() -> None:
    op.execute(SHARD_BY_SHARD)
    alter_scores("DROP COLUMN IF EXISTS score_class")
    for index in _told(OF_LARGE_RUNS):
        op.execute(f"DROP INDEX {index}")
    op.execute(f"ALTER TABLE scores_small DROP CONSTRAINT {CHECK}")
    op.execute("UPDATE runs SET score_classes = NULL")
    for index, columns in INDEXES.items():
        op.execute(f"CREATE INDEX {index} ON scores ({columns})")
