"""Orders read many at a time: the same rows and the same rejections as read one by one."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app import candidates
from app.candidates import prepare
from app.plain_orders import is_plain, read_plain_orders
from app.store.workspaces import Workspace

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BERLIN = Workspace(1, "shop", "EUR", ZoneInfo("Europe/Berlin"), bytes(32))


def order(**changes: Any) -> dict[str, Any]:
    """An order of one euro, changed by name, in its data too."""
    event = {"id": "e-1", "type": "order.placed", "customer_id": "c-1", "occurred_at": "2026-01-31T23:30:00Z"}
    data = {"order_id": "o-1", "amount": "1.00", "currency": "EUR"}
    for name, value in changes.items():
        (event if name in event or name in ("sent_at", "data") else data)[name] = value
    return {"data": data, **event}


_IDS = st.sampled_from(["e-1", "o/1", "a b", "", "é", "x" * 128, "x" * 129, "a\nb", "\x00", "\u00a0", "#"]) | st.text(
    max_size=6
)
_AMOUNTS: st.SearchStrategy[Any] = (
    st.sampled_from(
        [
            *(
                "0",
                "12.5",
                "99999999999.9999",
                "100000000000",
                "1.00001",
                "-1",
                "+1",
                "1e2",
                " 1",
                "1\n",
                "1.",
                ".5",
                "١",
            ),
            *(0, 7, -1, 10**11, 10**11 - 1, 10**5_000, -(10**5_000), True, 1.5, None, [], {}),
            *map(Decimal, ("2.50", "1E+2", "-0", "NaN", "1E+999999")),
        ]
    )
    | st.decimals(0, 10**12, places=4).map(str)
    | st.decimals(0, 10**12, places=5)
)
_INSTANTS = (
    st.sampled_from(
        [
            *("2026-01-31T23:30:00Z", "2026-01-31t23:30:00z", "2026-01-31 23:30:00.5Z", "2026-01-31T23:30:00.123Z"),
            *("2026-01-31T23:30:00.000000Z", "2026-01-31T23:30:00.000000001Z", "2026-01-31T23:30:00.123456789Z"),
            *("2026-02-30T00:00:00Z", "1969-12-31T23:59:59Z", "2026-03-02T12:00:00Z", "2026-03-02T12:00:00.000001Z"),
            *("0001-01-01T00:00:00+14:00", "2026-01-31T23:30:00", "2026-01-31", "2026-01-31T24:00:00Z", "", 0, None),
            *(datetime(2026, 1, 31, 23, 30), NOW, NOW.astimezone(timezone(timedelta(hours=9)))),  # noqa: DTZ001
        ]
    )
    | st.datetimes(datetime(1969, 12, 31), datetime(2026, 3, 3)).map(lambda at: f"{at.isoformat()}Z")  # noqa: DTZ001
    | st.datetimes(datetime(1970, 1, 2), datetime(2026, 3, 3)).map(lambda at: f"{at.isoformat()}+05:30")  # noqa: DTZ001
)
_ORDERS = st.builds(
    lambda changes: order(**changes),
    st.fixed_dictionaries(
        {},
        optional={
            "id": _IDS | st.just(1),
            "customer_id": _IDS | st.none(),
            "order_id": _IDS | st.just([]),
            "occurred_at": _INSTANTS,
            "amount": _AMOUNTS,
            "cost": _AMOUNTS,
            "currency": st.sampled_from(["EUR", "EUR", "USD", "eur", None]),
            "channel": st.sampled_from(["web", 'a "b"', "\\", "é", "\x7f", "a\tb", "", "x" * 101, 5, None]) | st.text(),
            "campaign_id": st.just("spring"),
            "exchange_rate": st.sampled_from(["1", "1.1"]),
            "sent_at": st.just("2026-01-31T23:30:00Z"),
            "type": st.sampled_from(["order.refunded", "complaint.opened", [], None]),
            "data": st.sampled_from([None, [], {}]),
        },
    ),
)


@given(items=st.lists(_ORDERS | st.sampled_from([None, 3, [], {}, "order.placed"]), max_size=8))
@example(items=[order(cost="0.00"), order(id="e-2", order_id="o-2")])
@example(items=[order(channel="web"), order(id="e-2", order_id="o-2", amount=Decimal("3.5"))])
@example(items=[order(id="a\nb")])
def test_a_batch_is_read_as_one_by_one(items: list[Any]) -> None:
    with patch.object(candidates, "FEWEST_TOGETHER", len(items) + 1):
        one_by_one = prepare(BERLIN, items, NOW)
    with patch.object(candidates, "FEWEST_TOGETHER", 1):
        assert prepare(BERLIN, items, NOW) == one_by_one


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cost": "0.25", "channel": "web shop"},
        {"amount": 12},
        {"amount": Decimal("12.5")},
        {"occurred_at": "2026-01-31 23:30:00.123+01:00"},
        {"occurred_at": datetime(2026, 1, 31, tzinfo=UTC)},
    ],
)
def test_usual_orders_are_read_together(changes: dict[str, Any]) -> None:
    items = [order(id=f"e-{number}", order_id=f"o-{number}", **changes) for number in range(3)]
    assert all(is_plain(BERLIN, item) for item in items)
    rows = read_plain_orders(BERLIN, items, NOW)
    assert rows is not None
    assert [row.event_id for row in rows] == ["e-0", "e-1", "e-2"]


def test_one_bad_event_among_many_is_told_by_its_place() -> None:
    items = [order(id=f"e-{number}", order_id=f"o-{number}") for number in range(600)]
    items[301] = order(id="e-301", amount="much")
    found, rejections = prepare(BERLIN, items, NOW)
    assert [(one.index, one.id, one.pointer) for one in rejections] == [(301, "e-301", "/data/amount")]
    assert found.places == [place for place in range(600) if place != 301]
    assert [row.event_id for row in found.rows] == [f"e-{place}" for place in found.places]
