"""What migrations of the scores share: a change of all their tables, those of runs that go on among them.

Migrations that have been released depend on it: what it does stays as it is.
"""

from alembic import op

# Tables of runs that go on are not attached yet, and have to be like the others when they are.
_UNATTACHED = """
SELECT DISTINCT format('scores_run_%s', partition) AS name FROM runs_at_work
WHERE partition <> 0
  AND EXISTS (
      SELECT FROM pg_class WHERE oid = to_regclass(format('scores_run_%s', partition)) AND NOT relispartition
  )
"""


def alter_scores(change: str) -> None:
    """``ALTER TABLE`` on ``scores``, all its partitions, and the tables that are yet to be attached.

    A table may be made or attached meanwhile, so ``change`` has to say IF NOT EXISTS, or IF EXISTS.
    """
    # Their runs hold them for seconds, but nobody reads them: first these, so that no reader waits behind both.
    _alter_unattached(change)
    # From here on none is made or attached; what was made meanwhile is altered too.
    op.execute("LOCK TABLE scores IN ACCESS EXCLUSIVE MODE")
    op.execute(f"ALTER TABLE scores {change}")
    _alter_unattached(change)


def _alter_unattached(change: str) -> None:
    for table in _unattached():
        op.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        if table in _unattached():  # It may have been attached before it was locked.
            op.execute(f"ALTER TABLE {table} {change}")


def _unattached() -> list[str]:
    return list(op.get_bind().exec_driver_sql(_UNATTACHED).scalars())
