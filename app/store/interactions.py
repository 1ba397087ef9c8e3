"""Interactions: the events that speak of churn; and the verdicts that people gave on it."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.analytics.event_columns import DETAILS, EVENT_CODE
from app.analytics.lexicon import TEXT_LIMIT
from app.catalogue import BOOLEANS, DETAIL_FIELD, DIMENSIONS, REASON_FIELD, TEXT_FIELD
from app.churn_typing import StoredEvents
from app.store import copy_format
from app.store.engine import copy_from_query
from app.store.tables import INTERACTION


async def read_interactions(
    connection: AsyncConnection, workspace_id: int, customer_ids: Sequence[str], as_of: datetime
) -> Sequence[Row[Any]]:
    """The interactions of the customers up to ``as_of``, with their data as JSON text."""
    return (
        await connection.execute(
            text(
                "SELECT customer_id, event_id, type, occurred_at, CAST(data AS text) AS data FROM events"
                " WHERE workspace_id = :workspace_id AND customer_id = ANY(CAST(:customer_ids AS text[]))"
                f" AND {INTERACTION} AND occurred_at <= :as_of"
            ),
            {"workspace_id": workspace_id, "customer_ids": customer_ids, "as_of": as_of},
        )
    ).all()


def _words(fields: Mapping[str, str]) -> str:
    """SQL of what the lexicon is to read of an event: the field of its type, as long as it is read."""
    cases = " ".join(f"WHEN '{name}' THEN data ->> '{field}'" for name, field in fields.items())
    return f"left(nullif(CASE type {cases} END, ''), {TEXT_LIMIT})"


def _told(field: str) -> str:
    """SQL of a field as JSON text in lower case, so that "true" and true are told apart."""
    return f"lower((data -> '{field}')::text COLLATE \"C\")"


def _place(values: Iterable[str], of: str) -> str:
    return f"array_position(ARRAY[{', '.join(repr(value) for value in values)}], {of}) - 1"


def _detail(name: str, field: str) -> str:
    """SQL of the place of an event's detail among those of its type; null where it has none of them."""
    place = _place((f'"{value}"' for value in DETAILS[name]), _told(field))
    if name == "survey.answered":
        cases = " ".join(
            f"""WHEN '"{label}"' THEN {DETAILS[name].index(detail)}""" for label, detail in DIMENSIONS.items()
        )
        dimension = f"CASE {_told('dimension')} {cases} END"
        return f"""CASE data ->> 'kind' WHEN 'servqual' THEN coalesce({dimension}, {place}) ELSE {place} END"""
    if name == "custom.recorded":
        named = "array_position(CAST(:custom_names AS text[]), data ->> 'name')"
        return f"coalesce(-1 - {named}, CASE WHEN CAST(:trust_sender AS boolean) THEN {place} END)"
    if field in BOOLEANS.get(name, ()):
        return f"coalesce({place}, {_place(('false', 'true'), _told(field))})"
    return place


_HASH = "hashtextextended({}, CAST(:seed AS bigint))"
_KIND = " ".join(f"WHEN '{name}' THEN {code}" for name, code in EVENT_CODE.items())
_DETAIL = " ".join(f"WHEN '{name}' THEN {_detail(name, field)}" for name, field in DETAIL_FIELD.items())
_REASON, _TEXT = _words(REASON_FIELD), _words(TEXT_FIELD)
_COMPLAINT = _HASH.format("data ->> 'complaint_id'")
_COMPLAINTS = ", ".join(f"'{name}'" for name in EVENT_CODE if name.startswith("complaint."))
_OF_CUSTOMERS = f"""
FROM unnest(CAST(:customer_ids AS text[])) WITH ORDINALITY AS asked (customer_id, place)
JOIN events USING (customer_id)
WHERE workspace_id = :workspace_id AND customer_id BETWEEN :first AND :last AND {INTERACTION}
  AND occurred_at <= CAST(:as_of AS timestamptz)"""
# An array a column: all in the order in which the rows come. Nothing in an array is null.
_COLUMNS: Mapping[str, tuple[str, str]] = {
    "event_ids": ("text", "string_agg(event_id, E'\\n')"),
    "customer": (">i8", "array_agg(place - 1)"),
    "kind": (">i8", f"array_agg((CASE type {_KIND} ELSE -1 END)::bigint)"),
    "moment": (">i8", "array_agg(occurred_at)"),
    "detail": (">i8", f"array_agg(coalesce(CASE type {_DETAIL} END, -1)::bigint)"),
    "number": (
        ">f8",
        """array_agg(coalesce(CASE type
            WHEN 'survey.answered' THEN (data ->> 'score')::double precision
            WHEN 'order.delivered' THEN extract(epoch FROM (data ->> 'promised_at')::timestamptz) * 1000000
            WHEN 'custom.recorded' THEN CASE WHEN CAST(:trust_sender AS boolean)
                THEN (data ->> 'weight')::double precision END
        END, 'NaN'))""",
    ),
    "scale": (
        ">f8",
        "array_agg(coalesce(CASE type WHEN 'survey.answered' THEN (data ->> 'scale')::double precision END, 'NaN'))",
    ),
    "subject": (
        ">i8",
        f"array_agg(coalesce(CASE WHEN type IN ({_COMPLAINTS}) THEN {_COMPLAINT} END, -1))",
    ),
    "reason": (">i8", f"array_agg(coalesce({_HASH.format(_REASON)}, 0))"),
    "text": (">i8", f"array_agg(coalesce({_HASH.format(_TEXT)}, 0))"),
}
_ENCODED = text(f"SELECT {', '.join(sql for _, sql in _COLUMNS.values())} {_OF_CUSTOMERS}")
_ALL_WORDS = text(f"""
SELECT words, {_HASH.format("words")} AS hash
FROM (
    SELECT {_REASON} AS words {_OF_CUSTOMERS} AND type IN ({", ".join(f"'{name}'" for name in REASON_FIELD)})
    UNION
    SELECT {_TEXT} {_OF_CUSTOMERS} AND type IN ({", ".join(f"'{name}'" for name in TEXT_FIELD)})
) AS told
WHERE words IS NOT NULL
""")
_SINCE_1970_US = 946_684_800 * 1_000_000
"""Moments of the server's own count from 2000-01-01."""


async def read_encoded_interactions(
    connection: AsyncConnection,
    workspace_id: int,
    customer_ids: Sequence[str],
    as_of: datetime,
    custom_names: Sequence[str],
    *,
    trust_sender: bool,
) -> StoredEvents:
    """The interactions up to ``as_of`` of customers in the order of their ids, encoded by the server.

    ``custom_names`` are the custom events that the settings name; of others the sender is asked if ``trust_sender``.
    """
    asked: dict[str, Any] = {
        "workspace_id": workspace_id,
        "customer_ids": customer_ids,
        "first": customer_ids[0],
        "last": customer_ids[-1],
        "as_of": as_of,
    }
    for seed in itertools.count():
        rows = (await connection.execute(_ALL_WORDS, {**asked, "seed": seed})).all()
        words = {row.hash: row.words for row in rows}
        if len(words) == len(rows) and 0 not in words:
            break  # Else two texts have one hash, and with another seed they differ.
    encoded = {**asked, "seed": seed, "custom_names": custom_names, "trust_sender": trust_sender}
    stream = await copy_from_query(connection, _ENCODED, encoded)
    found = copy_format.read_aggregates(stream, [kind for kind, _ in _COLUMNS.values()])
    columns = dict(zip(_COLUMNS, found, strict=True))
    event_ids = columns.pop("event_ids")
    columns["event_ids"] = np.array(event_ids.split("\n") if event_ids else [], dtype=np.object_)
    columns["moment"] = columns["moment"] + _SINCE_1970_US
    return StoredEvents(words=words, **columns)


async def write_label(
    connection: AsyncConnection,
    workspace_id: int,
    customer_id: str,
    churn_type: str,
    subtype: str | None,
    labelled_at: datetime,
    recorded_at: datetime,
) -> None:
    """Record a person's verdict on a customer; the last one holds."""
    await connection.execute(
        text(
            "INSERT INTO churn_labels (workspace_id, customer_id, type, subtype, labelled_at, recorded_at)"
            " VALUES (:workspace_id, :customer_id, :type, :subtype, :labelled_at, :recorded_at)"
            " ON CONFLICT (workspace_id, customer_id) DO UPDATE SET type = excluded.type, subtype = excluded.subtype,"
            " labelled_at = excluded.labelled_at, recorded_at = excluded.recorded_at"
        ),
        {
            "workspace_id": workspace_id,
            "customer_id": customer_id,
            "type": churn_type,
            "subtype": subtype,
            "labelled_at": labelled_at,
            "recorded_at": recorded_at,
        },
    )


async def find_label(connection: AsyncConnection, workspace_id: int, customer_id: str) -> Row[Any] | None:
    return (
        await connection.execute(
            text(
                "SELECT type, subtype, labelled_at, recorded_at FROM churn_labels"
                " WHERE workspace_id = :workspace_id AND customer_id = :customer_id"
            ),
            {"workspace_id": workspace_id, "customer_id": customer_id},
        )
    ).one_or_none()


async def read_labels(
    connection: AsyncConnection, workspace_id: int, as_of: datetime, limit: int
) -> Sequence[Row[Any]]:
    """Verdicts up to ``as_of``, the newest ones where there are more than ``limit``."""
    return (
        await connection.execute(
            text(
                "SELECT customer_id, type, subtype, labelled_at FROM churn_labels"
                " WHERE workspace_id = :workspace_id AND labelled_at <= :as_of"
                " ORDER BY labelled_at DESC, customer_id LIMIT :limit"
            ),
            {"workspace_id": workspace_id, "as_of": as_of, "limit": limit},
        )
    ).all()
