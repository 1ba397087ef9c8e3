"""The figures of customers at a moment, by SQL: what ``app.analytics.summary.summarise`` defines, set-based.

One text serves live scores, runs and the upkeep of ``customer_summary``, so that there is one definition in SQL.
Money stays ``numeric`` and exact throughout.
"""

from sqlalchemy import TextClause, text

from app.analytics.summary import HALF_YEAR_DAYS, YEAR_DAYS
from app.store.scores import selected_scores
from app.store.tables import ADJUSTING, PLACED

LIFETIME_COLUMNS = (
    "order_count",
    "purchase_days",
    "first_purchase_day",
    "last_purchase_day",
    "net_spend",
    "net_cost",
    "order_spend",
    "first_day_spend",
    "first_day_cost",
)
PERIOD_COLUMNS = (
    "window_order_count",
    "window_net_spend",
    "year_order_count",
    "year_purchase_days",
    "year_net_spend",
    "year_cost",
    "prior_year_order_count",
    "half_net_spend",
    "prior_half_net_spend",
)
FIGURE_COLUMNS = LIFETIME_COLUMNS + PERIOD_COLUMNS


def half_even(value: str) -> str:
    """SQL that rounds an exact numeric to four decimals, ties to even (PostgreSQL's own round() takes them up).

    It shows four decimals too: what adds up by another way is stored in the same form.
    """
    scaled = f"(({value}) * 10000)"
    return (
        f"(CASE WHEN abs({scaled} - trunc({scaled})) = 0.5 THEN round(2 * round({scaled} / 2) / 10000, 4)"
        f" ELSE round({value}, 4) END)"
    )


def half_even_ratio(numerator: str, denominator: str) -> str:
    """SQL that rounds an exact ratio of positive numerics to four decimals, ties to even."""
    scaled = f"(({numerator}) * 10000)"
    quotient = f"div({scaled}, {denominator})"
    twice_rest = f"2 * ({scaled} - {quotient} * ({denominator}))"
    return (
        f"round(({quotient} + CASE WHEN {twice_rest} > ({denominator}) OR ({twice_rest} = ({denominator})"
        f" AND mod({quotient}, 2) = 1) THEN 1 ELSE 0 END) / 10000, 4)"
    )


_RATE = "coalesce(exchange_rate, 1)"
_NET = f"""CASE
    WHEN refunded IS NULL AND exchange_rate IS NULL THEN amount
    ELSE {half_even(f"(amount - coalesce(refunded, 0)) * {_RATE}")} END"""
_COST = f"""CASE
    WHEN cost IS NULL THEN 0
    WHEN refunded IS NULL AND exchange_rate IS NULL THEN cost
    WHEN refunded IS NULL THEN {half_even(f"cost * {_RATE}")}
    ELSE {half_even_ratio(f"cost * (amount - refunded) * {_RATE}", "amount")} END"""


def counted_sql(customers: str, until: str = "CAST(:as_of AS timestamptz)", since: str = "") -> str:
    """What counts: a row an order in ``counted``, and a row a refund without order in ``credited``.

    ``customers`` and ``since`` are conditions on an events row; adjustments of an order are looked for at all times
    up to ``until``. Orders meet their adjustments by grouping, not by a join: without statistics, as in a new
    workspace, a planner would choose to join by nested loops, which take minutes.

    A refund that tells a currency or rate counts if they are its order's, for which it is looked up by index: one that
    came before its order may tell others, and would have been refused had the order been there.
    """
    known = f"workspace_id = :workspace_id AND {customers} AND occurred_at <= {until}"
    return f"""
    told AS (
        SELECT customer_id, order_id, local_day, amount, cost, exchange_rate,
               NULL::numeric AS refund, false AS cancels
        FROM events
        WHERE {known} AND {PLACED}{since}
        UNION ALL
        SELECT customer_id, order_id, NULL, NULL, NULL, NULL,
               CASE WHEN type = 'order.refunded' THEN amount END, type = 'order.cancelled'
        FROM events
        WHERE {known} AND {ADJUSTING} AND order_id IS NOT NULL
            AND (num_nonnulls(currency, exchange_rate) = 0 OR (
                SELECT coalesce(events.currency = placed.currency, true)
                    AND coalesce(events.exchange_rate = coalesce(placed.exchange_rate, 1), true)
                FROM events AS placed
                WHERE placed.workspace_id = events.workspace_id AND placed.customer_id = events.customer_id
                    AND placed.order_id = events.order_id AND placed.type = 'order.placed'
            ))
    ),
    adjusted AS (
        SELECT customer_id, order_id, max(local_day) AS local_day, max(amount) AS amount, max(cost) AS cost,
               max(exchange_rate) AS exchange_rate, sum(refund) AS refunded
        FROM told
        GROUP BY customer_id, order_id
        -- An order that never came, or came before ``since``, has no day.
        HAVING max(local_day) IS NOT NULL AND NOT bool_or(cancels)
    ),
    counted AS (
        SELECT customer_id, local_day, {_NET} AS net, {_COST} AS cost
        FROM adjusted
        WHERE NOT coalesce(refunded >= amount, false)
    ),
    credited AS (
        SELECT customer_id, local_day, {half_even("amount * coalesce(exchange_rate, 1)")} AS amount
        FROM events
        WHERE {known} AND {ADJUSTING} AND type = 'order.refunded' AND order_id IS NULL{since}
    )"""


def unadjusted_sql(customers: str, until: str = "CAST(:as_of AS timestamptz)") -> str:
    """``counted`` of customers whose orders nothing adjusts: a row an order, without looking for adjustments."""
    return f"""
    SELECT customer_id, local_day, {_NET} AS net, {_COST} AS cost
    FROM (
        SELECT customer_id, local_day, amount, cost, exchange_rate, NULL::numeric AS refunded
        FROM events
        WHERE workspace_id = :workspace_id AND {customers} AND occurred_at <= {until} AND {PLACED}
    ) AS placed"""


def days_sql(customers: str, until: str = "CAST(:as_of AS timestamptz)", since: str = "") -> str:
    """The same added up: a row a customer and day on which something is ``booked``."""
    return f"""{counted_sql(customers, until, since)},
    booked AS (
        SELECT customer_id, local_day, count(*) AS orders, sum(net) AS net, sum(cost) AS cost, 0::numeric AS credit
        FROM counted
        GROUP BY customer_id, local_day
        UNION ALL
        SELECT customer_id, local_day, 0, 0, 0, sum(amount)
        FROM credited
        GROUP BY customer_id, local_day
    )"""


_LIFETIME = """
    sum(orders)::bigint AS order_count,
    count(*) FILTER (WHERE orders > 0) AS purchase_days,
    min(local_day) FILTER (WHERE orders > 0) AS first_purchase_day,
    max(local_day) FILTER (WHERE orders > 0) AS last_purchase_day,
    sum(net - credit) AS net_spend,
    sum(cost) AS net_cost,
    sum(net) AS order_spend,
    coalesce(sum(net) FILTER (WHERE local_day = first_order_day), 0) AS first_day_spend,
    coalesce(sum(cost) FILTER (WHERE local_day = first_order_day), 0) AS first_day_cost"""


_DAY = "CAST(:as_of_day AS date)"


def _within(days: str, before: str = "0") -> str:
    return f"local_day > {_DAY} - ({days} + {before}) AND local_day <= {_DAY} - {before}"


_WINDOW = f"(CAST(:window_days AS int) IS NULL OR local_day > {_DAY} - CAST(:window_days AS int))"
_YEAR = _within(str(YEAR_DAYS))
_PERIODS = f"""
    coalesce(sum(orders) FILTER (WHERE {_WINDOW}), 0)::bigint AS window_order_count,
    coalesce(sum(net - credit) FILTER (WHERE {_WINDOW}), 0) AS window_net_spend,
    coalesce(sum(orders) FILTER (WHERE {_YEAR}), 0)::bigint AS year_order_count,
    count(*) FILTER (WHERE orders > 0 AND {_YEAR}) AS year_purchase_days,
    coalesce(sum(net - credit) FILTER (WHERE {_YEAR}), 0) AS year_net_spend,
    coalesce(sum(cost) FILTER (WHERE {_YEAR}), 0) AS year_cost,
    coalesce(sum(orders) FILTER (WHERE {_within(str(YEAR_DAYS), str(YEAR_DAYS))}), 0)::bigint
        AS prior_year_order_count,
    coalesce(sum(net - credit) FILTER (WHERE {_within(str(HALF_YEAR_DAYS))}), 0) AS half_net_spend,
    coalesce(sum(net - credit) FILTER (WHERE {_within(str(HALF_YEAR_DAYS), str(HALF_YEAR_DAYS))}), 0)
        AS prior_half_net_spend"""

_ONE_OF = "customer_id = ANY(CAST(:customer_ids AS text[]))"
_FIRST_DAY = "SELECT *, min(local_day) FILTER (WHERE orders > 0) OVER (PARTITION BY customer_id) AS first_order_day"

FIGURES_OF_CUSTOMERS = text(f"""
WITH {days_sql(_ONE_OF)}
SELECT customer_id, {_LIFETIME}, {_PERIODS}
FROM ({_FIRST_DAY} FROM booked) AS days
GROUP BY customer_id
""")
"""Every figure of the given customers from their events. Customers with nothing booked have no row."""

_SCORED = f""", scores.figures_digest, {selected_scores("scored_")}"""
_SCORES = """
LEFT JOIN scores ON scores.partition = CAST(:partition AS int) AND scores.run_id = CAST(:run_id AS int)
    AND scores.workspace_id = :workspace_id AND scores.customer_id = summary.customer_id
    -- Said again: a planner without statistics would else read the whole run.
    AND scores.customer_id = ANY(CAST(:customer_ids AS text[]))"""


def _live_figures(told: str = "", joined: str = "") -> TextClause:
    return text(f"""
WITH {days_sql(_ONE_OF, since=" AND occurred_at > CAST(:since AS timestamptz)")},
periods AS (SELECT customer_id, {_PERIODS} FROM booked GROUP BY customer_id)
SELECT summary.customer_id, summary.latest_order_event_at, summary.interaction_count,
       {", ".join(f"summary.{column}" for column in LIFETIME_COLUMNS)},
       {", ".join(f"periods.{column}" for column in PERIOD_COLUMNS)}{told}
FROM customer_summary AS summary
LEFT JOIN periods USING (customer_id){joined}
WHERE summary.workspace_id = :workspace_id AND summary.customer_id = ANY(CAST(:customer_ids AS text[]))
""")


LIVE_FIGURES = _live_figures()
"""The summary's lifetime figures beside the periods' figures from the orders since ``since`` alone.

True where ``as_of`` is not before the summary's ``latest_order_event_at``. With ``window_days`` null, the window's
figures are the lifetime's and the caller puts them there.
"""

LIVE_FIGURES_AND_SCORES = _live_figures(_SCORED, _SCORES)
"""The same, and behind it what the run ``run_id`` stored: the digest of its figures, and its scores."""

RECOMPUTE_SUMMARIES = text(f"""
WITH {days_sql(_ONE_OF, until="'infinity'")},
-- Every customer has a row, so that one with nothing left comes out with nothing.
every AS (
    SELECT * FROM booked
    UNION ALL
    SELECT customer_id, NULL, 0, 0, 0, 0 FROM unnest(CAST(:customer_ids AS text[])) AS asked (customer_id)
),
figures AS (
    SELECT customer_id, {_LIFETIME}
    FROM ({_FIRST_DAY} FROM every) AS days
    GROUP BY customer_id
)
UPDATE customer_summary AS summary
SET ({", ".join(LIFETIME_COLUMNS)}) = ({", ".join(f"figures.{column}" for column in LIFETIME_COLUMNS)})
FROM figures
WHERE summary.workspace_id = :workspace_id AND summary.customer_id = figures.customer_id
""")
"""Bring the lifetime figures of the given customers up to date from all their orders."""
