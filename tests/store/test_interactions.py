"""Interactions that the server encodes say what those say that are read one by one, whatever their fields hold."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from app.catalogue import CATALOGUE, EventField, days_late, local_days
from app.churn_typing import encoded_interactions, expert_weights, interactions_of, type_customers
from app.ingest import EventRecorder
from app.scalars import show_instant
from app.store.interactions import read_encoded_interactions, read_interactions
from app.workspace_settings import ChurnPart
from tests.conftest import make_workspace

AS_OF = datetime(2025, 11, 5, tzinfo=UTC)
# Clocks are changed within these days, and some events come at one moment.
_MOMENTS = st.sampled_from([AS_OF - timedelta(days=day, minutes=30 * day) for day in (0, 1, 2, 3, 3, 9, 200, 240, 700)])
_LABELS = ["outside", "Inside", "INSIDE", "Leipzig", "price", "value", "Reliability", "true", "ſervice", "城市"]
_TEXTS = ["too expensive", "moved away", "rude staff, and\nlate", "价格太贵了", 'the "other" shop\\', "fine"]
# Custom events lead to most branches.
_OFTEN = [*CATALOGUE, *[kind for kind in CATALOGUE if kind.name == "custom.recorded"] * 8]
_KINDS: dict[str, st.SearchStrategy[Any]] = {
    "id": st.sampled_from(["k-1", "k-2"]),
    "label": st.sampled_from(_LABELS),
    "text": st.sampled_from(_TEXTS),
    "boolean": st.booleans(),
    "moment": _MOMENTS.map(show_instant),
}


def _values(field: EventField) -> st.SearchStrategy[Any]:
    if field.kind == "choice":
        return st.sampled_from(field.values)
    if field.kind == "number":
        return st.integers(int(field.low or 0), min(int(field.high or 9), 10)) | st.just(2.5)
    return _KINDS[field.kind]


@st.composite
def _events(draw: st.DrawFn) -> list[dict[str, Any]]:
    events = []
    for number in range(draw(st.integers(0, 14))):
        kind = draw(st.sampled_from(_OFTEN))
        told = {field.name: draw(_values(field)) for field in kind.fields if field.required or draw(st.booleans())}
        if kind.name == "custom.recorded":
            told["name"] = draw(st.sampled_from(["app.removed", "app.opened", "other"]))
        events.append(
            {
                "id": f"e{draw(st.integers(0, 99))}-{number}'\"",
                "type": kind.name,
                "customer_id": draw(st.sampled_from(["a", "b", "c"])),
                "occurred_at": show_instant(draw(_MOMENTS)),
                "data": told,
            }
        )
    return events


_SETTINGS = st.builds(
    ChurnPart.model_validate,
    st.fixed_dictionaries(
        {
            "trust_custom_events": st.booleans(),
            "custom_events": st.sampled_from(
                [
                    {},
                    {
                        "app.opened": {"speaks_for": "passive"},
                        "app.removed": {"speaks_for": "competitive", "weight": 2},
                    },
                ]
            ),
        }
    ),
)


@given(events=_events(), settings=_SETTINGS, zone=st.sampled_from(["UTC", "America/New_York", "Asia/Shanghai"]))
async def test_encoded_interactions_say_the_same(
    engine: AsyncEngine, events: list[dict[str, Any]], settings: ChurnPart, zone: str
) -> None:
    workspace, _ = await make_workspace(engine, time_zone=zone)
    if events:
        receipt = await EventRecorder(engine, turns=4).record(workspace, events, AS_OF)
        assert receipt.rejected == 0, receipt.errors
    ids = ["a", "b"]
    async with engine.connect() as connection:
        rows = await read_interactions(connection, workspace.id, ids, AS_OF - timedelta(days=1))
        stored = await read_encoded_interactions(
            connection,
            workspace.id,
            ids,
            AS_OF - timedelta(days=1),
            list(settings.custom_events),
            trust_sender=settings.trust_custom_events,
        )
    plain = interactions_of(rows, ids, AS_OF, workspace.time_zone, settings)
    encoded = encoded_interactions(stored, 2, AS_OF, workspace.time_zone, settings)
    assert list(encoded.event_ids) == list(plain.event_ids)
    for name in ("customer", "kind", "occurred_at", "detail", "number", "scale"):
        np.testing.assert_array_equal(getattr(encoded.columns, name), getattr(plain.columns, name), err_msg=name)
    last_purchase, has_order = np.array([20_000, 0]), np.array([True, False])
    for one, other in zip(
        *(type_customers(some, last_purchase, has_order, expert_weights()).evidence for some in (encoded, plain)),
        strict=True,
    ):
        assert one == other
        assert one is None or all(told["event_id"] in list(plain.event_ids) for told in json.loads(one))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu", "Africa/Monrovia", "Pacific/Apia"])
def test_local_days_are_those_of_the_calendar(zone: str) -> None:
    chance = np.random.default_rng(1)
    moments = chance.integers(0, 60 * 365 * 86_400, 3_000) * 1_000_000 + chance.integers(0, 2, 3_000)
    begin = datetime(1970, 1, 1, tzinfo=ZoneInfo(zone))
    expected = [
        days_late(datetime.fromtimestamp(0, UTC) + timedelta(microseconds=moment), begin, ZoneInfo(zone))
        for moment in moments.tolist()
    ]
    assert local_days(moments, ZoneInfo(zone)).tolist() == expected
