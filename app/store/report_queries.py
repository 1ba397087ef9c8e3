"""Reports on lifetime value, churn and satisfaction, summed up where the data are: a few rows come back."""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import distribution
from app.store.tables import INTERACTION

_OF_RUN = "workspace_id = :workspace_id AND partition = :partition AND run_id = :run_id"
_LEAVING = "churn_state IN ('at_risk', 'churned')"
_STAKE = (
    "count(*) AS customers, sum(net_spend) AS net_spend, sum(clv_current) AS clv_current,"
    " coalesce(sum(clv_predicted), 0) AS clv_predicted"
)


def _month(day: str) -> str:
    """SQL of the first day of a day's month."""
    return f"CAST(date_trunc('month', CAST({day} AS timestamp)) AS date)"


# Lifetime value ------------------------------------------------------------------------------------------------------

CLV_FIGURES = ("clv_total", "clv_predicted")


def _figure(name: str) -> str:
    if name not in CLV_FIGURES:
        raise ValueError("figure must be one of CLV_FIGURES")
    return name


async def summarise_figure(
    connection: AsyncConnection, workspace_id: int, run_id: int, partition: int, figure: str, shares: Sequence[float]
) -> Row[Any]:
    """How many customers of a run have the figure, its sum, least and greatest, and linear quantiles at ``shares``."""
    name = _figure(figure)
    return (
        await connection.execute(
            text(
                f"SELECT count({name}) AS customers, coalesce(sum({name}), 0) AS total, min({name}) AS least,"
                f" max({name}) AS most, percentile_cont(CAST(:shares AS double precision[]))"
                f" WITHIN GROUP (ORDER BY CAST({name} AS double precision)) AS quantiles"
                f" FROM scores WHERE {_OF_RUN} AND {name} IS NOT NULL"
            ),
            {"workspace_id": workspace_id, "run_id": run_id, "partition": partition, "shares": list(shares)},
        )
    ).one()


async def bin_figure(
    connection: AsyncConnection, workspace_id: int, run_id: int, partition: int, figure: str, edges: Sequence[Decimal]
) -> dict[int, Row[Any]]:
    """Customers and money in the bins that rising ``edges`` part: 0 is below the first, an edge begins its bin."""
    name = _figure(figure)
    rows = await connection.execute(
        text(
            f"SELECT width_bucket({name}, CAST(:edges AS numeric[])) AS bin, count(*) AS customers,"
            f" sum({name}) AS total FROM scores WHERE {_OF_RUN} AND {name} IS NOT NULL GROUP BY bin"
        ),
        {"workspace_id": workspace_id, "run_id": run_id, "partition": partition, "edges": list(edges)},
    )
    return {row.bin: row for row in rows}


# Churn ---------------------------------------------------------------------------------------------------------------


async def count_churn(
    connection: AsyncConnection, workspace_id: int, run_id: int, partition: int
) -> Sequence[Row[Any]]:
    """Customers of a run, and what is at stake with them, by state, type, subtype and segment."""
    return (
        await connection.execute(
            text(
                f"SELECT churn_state AS state, churn_type AS type, churn_subtype AS subtype, segment, {_STAKE}"
                f" FROM scores WHERE {_OF_RUN} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
            ),
            {"workspace_id": workspace_id, "run_id": run_id, "partition": partition},
        )
    ).all()


async def churn_deciles(
    connection: AsyncConnection, workspace_id: int, run_id: int, partition: int, groups: int
) -> Sequence[Row[Any]]:
    """Groups of rising probability of churn, parted at its linear quantiles: one that equals them is above."""
    of_run = {"workspace_id": workspace_id, "run_id": run_id, "partition": partition}
    edges = (
        await connection.execute(
            text(
                "SELECT percentile_cont(CAST(:shares AS double precision[])) WITHIN GROUP (ORDER BY churn_probability)"
                f" FROM scores WHERE {_OF_RUN} AND churn_probability IS NOT NULL"
            ),
            {**of_run, "shares": [number / groups for number in range(1, groups)]},
        )
    ).scalar_one()
    return (
        await connection.execute(
            text(
                "SELECT width_bucket(churn_probability, CAST(:edges AS double precision[])) AS part,"
                " count(*) AS customers, min(churn_probability) AS least, max(churn_probability) AS most,"
                " sum(churn_probability) AS expected_churned"
                f" FROM scores WHERE {_OF_RUN} AND churn_probability IS NOT NULL GROUP BY part ORDER BY part"
            ),
            {**of_run, "edges": edges or []},
        )
    ).all()


async def count_losses_by_month(
    connection: AsyncConnection, workspace_id: int, run_id: int, partition: int, as_of_day: date, since: date
) -> Sequence[Row[Any]]:
    """Customers at risk or churned who bought last since a day, by the month of that purchase, state and type."""
    last_purchase = "(CAST(:as_of_day AS date) - days_since_last_order)"
    return (
        await connection.execute(
            text(
                f"SELECT {_month(last_purchase)} AS month, churn_state AS state, churn_type AS type, {_STAKE}"
                f" FROM scores WHERE {_OF_RUN} AND {_LEAVING} AND {last_purchase} >= :since"
                " GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
            ),
            {
                "workspace_id": workspace_id,
                "run_id": run_id,
                "partition": partition,
                "as_of_day": as_of_day,
                "since": since,
            },
        )
    ).all()


_PIECE = """told ->> 'speaks_for' AS type, told ->> 'event_type' AS event_type,
       width_bucket(CAST(told ->> 'occurred_at' AS timestamptz), CAST(:month_starts AS timestamptz[])) AS month,
       count(DISTINCT told ->> 'event_id') AS events"""
_SPEAKS_FOR = "CAST(told ->> 'weight' AS double precision) > 0"

# Each customer is one row: counted within it, customers need no sorting.
_PIECES = f"""
SELECT piece.* FROM scores, LATERAL (
    SELECT {_PIECE} FROM jsonb_array_elements(evidence) AS told WHERE {_SPEAKS_FOR} GROUP BY 1, 2, 3
) AS piece
WHERE {_OF_RUN} AND {_LEAVING}
"""
# Citus 14 loses the column of a row that a function within such a subquery reads ("invalid attnum").
_PIECES_ON_CLUSTER = f"""
SELECT {_PIECE}, customer_id FROM scores, jsonb_array_elements(evidence) AS one (told)
WHERE {_OF_RUN} AND {_LEAVING} AND {_SPEAKS_FOR} GROUP BY 1, 2, 3, customer_id
"""


async def count_evidence_by_month(
    connection: AsyncConnection,
    workspace_id: int,
    run_id: int,
    partition: int,
    month_starts: Sequence[datetime],
) -> Sequence[Row[Any]]:
    """Evidence that a run names for customers at risk or churned, by month of the event, type it speaks for and event.

    ``month`` counts from 1 through ``month_starts``; what is older, or speaks against a type, is left out.
    """
    pieces = _PIECES_ON_CLUSTER if await distribution.on_cluster(connection) else _PIECES
    return (
        await connection.execute(
            text(
                "SELECT month, type, event_type, CAST(sum(events) AS bigint) AS events, count(*) AS customers"
                f" FROM ({pieces}) AS of_customer WHERE month > 0 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
            ),
            {
                "workspace_id": workspace_id,
                "run_id": run_id,
                "partition": partition,
                "month_starts": list(month_starts),
            },
        )
    ).all()


async def count_events_by_month(
    connection: AsyncConnection,
    workspace_id: int,
    as_of: datetime,
    since: date,
    types: Sequence[str],
    types_with_choice: Sequence[str],
) -> Sequence[Row[Any]]:
    """Events of the types since a day, by month, type and, where it is one of a few words, their reason."""
    return (
        await connection.execute(
            text(
                f"SELECT {_month('local_day')} AS month, type,"
                " CASE WHEN type = ANY(CAST(:types_with_choice AS text[])) THEN data ->> 'reason' END AS reason,"
                " count(*) AS events, count(DISTINCT customer_id) AS customers FROM events"
                f" WHERE workspace_id = :workspace_id AND {INTERACTION} AND type = ANY(CAST(:types AS text[]))"
                " AND occurred_at <= :as_of AND local_day >= :since GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
            ),
            {
                "workspace_id": workspace_id,
                "as_of": as_of,
                "since": since,
                "types": list(types),
                "types_with_choice": list(types_with_choice),
            },
        )
    ).all()


# Satisfaction --------------------------------------------------------------------------------------------------------

_SHOWN_MONTH = f"CASE WHEN local_day >= :since THEN {_month('local_day')} END"

# The course of a complaint, as app.analytics.complaints follows it: it is resolved if nothing opened it after the last
# resolution (an opening at the same moment comes before), and lasted from the first opening to the last resolution.
_COMPLAINTS = f"""
WITH course AS (
    SELECT customer_id, data ->> 'complaint_id' AS complaint_id, min(local_day) AS local_day,
           min(occurred_at) FILTER (WHERE type = 'complaint.opened') AS opened_at,
           max(occurred_at) FILTER (WHERE type = 'complaint.resolved') AS resolved_at,
           max(occurred_at) FILTER (WHERE type <> 'complaint.resolved') AS unresolved_at
    FROM events
    WHERE workspace_id = :workspace_id AND {INTERACTION} AND occurred_at <= :as_of
      AND type IN ('complaint.opened', 'complaint.reopened', 'complaint.resolved')
    GROUP BY 1, 2
),
complaint AS (
    SELECT {_SHOWN_MONTH} AS month, resolved,
           CASE WHEN resolved THEN CAST(extract(epoch FROM resolved_at - opened_at) AS double precision) / 86400 END
           AS days
    FROM (SELECT *, coalesce(resolved_at >= unresolved_at, resolved_at IS NOT NULL) AS resolved FROM course) AS course
)
SELECT false AS overall, month, count(*) AS complaints, count(*) FILTER (WHERE NOT resolved) AS open,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY days) AS resolution_days
FROM complaint WHERE month IS NOT NULL GROUP BY month
UNION ALL
SELECT true, NULL, count(*), count(*) FILTER (WHERE NOT resolved), percentile_cont(0.5) WITHIN GROUP (ORDER BY days)
FROM complaint
"""


async def count_complaints(
    connection: AsyncConnection, workspace_id: int, as_of: datetime, since: date
) -> Sequence[Row[Any]]:
    """Complaints by the month of their first event, those of them still open, and median days to their resolution.

    One row is of all complaints, ``overall``; the others are of months that begin at ``since`` or later.
    """
    return (
        await connection.execute(text(_COMPLAINTS), {"workspace_id": workspace_id, "as_of": as_of, "since": since})
    ).all()


async def count_answers(
    connection: AsyncConnection, workspace_id: int, as_of: datetime, since: date
) -> Sequence[Row[Any]]:
    """How often each mark was given in NPS and CSAT surveys, by month; the month is null before ``since``."""
    return (
        await connection.execute(
            text(
                f"SELECT {_SHOWN_MONTH} AS month, data ->> 'kind' AS kind,"
                " CAST(data ->> 'score' AS double precision) AS score,"
                " CAST(data ->> 'scale' AS double precision) AS scale, count(*) AS answers FROM events"
                f" WHERE workspace_id = :workspace_id AND {INTERACTION} AND occurred_at <= :as_of"
                " AND type = 'survey.answered' AND data ->> 'kind' IN ('nps', 'csat') AND data ->> 'score' IS NOT NULL"
                " GROUP BY 1, 2, 3, 4"
            ),
            {"workspace_id": workspace_id, "as_of": as_of, "since": since},
        )
    ).all()


async def count_deliveries(
    connection: AsyncConnection,
    workspace_id: int,
    as_of: datetime,
    since: date,
    days: Sequence[date],
    day_starts: Sequence[datetime],
) -> Sequence[Row[Any]]:
    """Deliveries with a promise, and those that came on a later day, by month; the month is null before ``since``.

    ``days`` are all that may occur, and ``day_starts`` when they began: a delivery is late if it was promised before
    its day began.
    """
    return (
        await connection.execute(
            text(
                f"SELECT {_SHOWN_MONTH} AS month, count(*) AS deliveries,"
                " count(*) FILTER (WHERE promised_at < starts_at) AS late FROM ("
                " SELECT local_day, CAST(data ->> 'promised_at' AS timestamptz) AS promised_at FROM events"
                f" WHERE workspace_id = :workspace_id AND {INTERACTION} AND occurred_at <= :as_of"
                " AND type = 'order.delivered' AND data ->> 'promised_at' IS NOT NULL) AS delivered"
                " JOIN unnest(CAST(:days AS date[]), CAST(:day_starts AS timestamptz[])) AS day (local_day, starts_at)"
                " USING (local_day) GROUP BY 1"
            ),
            {
                "workspace_id": workspace_id,
                "as_of": as_of,
                "since": since,
                "days": list(days),
                "day_starts": list(day_starts),
            },
        )
    ).all()


async def event_span(connection: AsyncConnection, workspace_id: int) -> Row[Any]:
    """When the first and the last event of the workspace happened; nulls without any."""
    return (
        await connection.execute(
            text(
                "SELECT min(first_event_at) AS first, max(last_event_at) AS last FROM customer_summary"
                " WHERE workspace_id = :workspace_id"
            ),
            {"workspace_id": workspace_id},
        )
    ).one()
