import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from app import catalogue, labels
from app.analytics.actions import ACTIONS
from app.analytics.churn import STATES
from app.analytics.event_columns import DETAILS, EVENT_TYPES
from app.analytics.evidence import weigh_evidence
from app.analytics.lexicon import read_texts
from app.analytics.lifecycle import STAGES, STATUSES
from app.analytics.pareto import GRADES
from app.analytics.reading import read_events
from app.analytics.rfm import SEGMENTS, SEGMENTS_OF_THREE
from app.analytics.signals import SIGNAL_INDEX, SIGNALS, SUBTYPES, TYPES, default_weights
from app.catalogue import CATALOGUE, CATALOGUE_BY_NAME, DETAIL_FIELD, EventRow, days, days_late, encode_events

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")

# One event of each type with everything it may carry, and the signal that comes of it today.
EXAMPLES: dict[str, tuple[dict[str, object], str | None]] = {
    "customer.relocated": ({"service_area": "Outside"}, "relocated_outside"),
    "customer.deceased": ({}, "deceased"),
    "customer.closed_business": ({}, "closed_business"),
    "account.closed": ({"reason": "too expensive"}, "said_price"),
    "competitor.mentioned": ({"competitor": "Acme", "reason": "price"}, "competitor_mentioned"),
    "competitor.chosen": ({"competitor": "Acme", "reason": "service"}, "competitor_chosen_service"),
    "price.objected": ({"competitor": "Acme"}, "price_objected"),
    "complaint.opened": ({"complaint_id": "c", "severity": "high", "topic": "x", "text": "y"}, "complaint_open"),
    "complaint.resolved": ({"complaint_id": "c", "satisfied": False}, "complaint_unsatisfied"),
    "complaint.reopened": ({"complaint_id": "c"}, "complaint_reopened"),
    "delivery.failed": ({"order_id": "o"}, "delivery_failed"),
    "order.delivered": ({"order_id": "o", "promised_at": "2026-02-20T10:00:00Z"}, "delivery_late"),
    "support.unresolved": ({"topic": "x", "channel": "phone"}, "support_unresolved"),
    "payment.failed": ({"reason": "expired_card", "order_id": "o"}, "card_expired"),
    "payment.overdue": ({"order_id": "o"}, "payment_overdue"),
    "payment.withheld": ({"order_id": "o"}, "payment_withheld"),
    "payment.disputed": ({"order_id": "o"}, "payment_disputed"),
    "renewal.missed": ({}, "renewal_missed"),
    "fraud.flagged": ({}, "fraud_flagged"),
    "credit.downgraded": ({}, "credit_downgraded"),
    "survey.answered": (
        {"kind": "servqual", "score": 1, "scale": 7, "dimension": "Empathy", "text": "x"},
        "servqual_low_empathy",
    ),
    "exit.answered": ({"reason": "moved", "text": "x"}, "said_gone"),
    "visit.recorded": ({"duration_seconds": 5, "channel": "web"}, "visit"),
    "custom.recorded": ({"name": "shouted", "weight_for": "negligent", "weight": 2.0}, None),
}


def signals_of(*events: tuple[str, dict[str, object]], **options: object) -> list[str]:
    rows = [EventRow(0, name, NOW, data) for name, data in events]
    columns, texts = encode_events(rows, UTC, **options)  # type: ignore[arg-type]
    signals = read_events(columns, 1, days(NOW), read_texts(texts).themes)
    return [SIGNALS[code].code for code in signals.signal]


def test_the_catalogue_covers_every_type_that_is_read_and_no_other() -> None:
    assert set(CATALOGUE_BY_NAME) == set(EVENT_TYPES) - {"order.placed"}
    assert len(CATALOGUE) == len(CATALOGUE_BY_NAME)


@pytest.mark.parametrize("name", CATALOGUE_BY_NAME)
def test_each_event_gives_the_signal_that_the_catalogue_names(name: str) -> None:
    data, signal = EXAMPLES[name]
    assert {field.name for field in CATALOGUE_BY_NAME[name].fields} == set(data)
    given = signals_of((name, data))
    assert given[-1:] == ([] if signal is None else [signal])
    assert set(given) <= set(CATALOGUE_BY_NAME[name].signals)


def test_every_signal_comes_of_some_event_and_says_why() -> None:
    assert {code for kind in CATALOGUE for code in kind.signals} == set(SIGNAL_INDEX)
    assert all(signal.why.endswith(".") for signal in SIGNALS)


def test_only_ids_and_the_name_of_a_custom_event_are_required() -> None:
    required = {(kind.name, field.name) for kind in CATALOGUE for field in kind.fields if field.required}
    assert required == {
        ("complaint.opened", "complaint_id"),
        ("complaint.resolved", "complaint_id"),
        ("complaint.reopened", "complaint_id"),
        ("delivery.failed", "order_id"),
        ("order.delivered", "order_id"),
        ("custom.recorded", "name"),
    }


def test_an_event_without_its_optional_fields_is_read() -> None:
    for kind in CATALOGUE:
        signals_of((kind.name, {field.name: "x" for field in kind.fields if field.required}))


def test_choices_are_the_details_that_are_read() -> None:
    for name, field_name in DETAIL_FIELD.items():
        field = next(field for field in CATALOGUE_BY_NAME[name].fields if field.name == field_name)
        assert set(field.values) <= set(DETAILS[name])


def test_what_an_event_speaks_for_follows_from_its_signals() -> None:
    assert CATALOGUE_BY_NAME["customer.deceased"].speaks_for == ("natural",)
    assert CATALOGUE_BY_NAME["payment.disputed"].speaks_for == ("passive", "negligent")
    assert CATALOGUE_BY_NAME["visit.recorded"].speaks_for == ()


def test_the_page_is_made_from_the_catalogue() -> None:
    assert catalogue.PAGE.read_text(encoding="utf-8") == catalogue.page()
    assert catalogue.main(["--check"]) == 0


def test_the_page_tells_of_every_event_field_and_signal() -> None:
    page = catalogue.page()
    for kind in CATALOGUE:
        assert f"### `{kind.name}`" in page
        assert all(f"- `{field.name}`" in page for field in kind.fields)
    assert all(f"| `{signal.code}` |" in page for signal in SIGNALS)


@pytest.mark.parametrize(
    ("delivered", "promised", "late"),
    [
        (datetime(2026, 1, 5, 22, 59, tzinfo=UTC), datetime(2026, 1, 5, 9, tzinfo=UTC), 0),
        (datetime(2026, 1, 5, 23, 1, tzinfo=UTC), datetime(2026, 1, 5, 9, tzinfo=UTC), 1),
        (datetime(2026, 1, 5, 9, tzinfo=UTC), datetime(2026, 1, 6, 9, tzinfo=UTC), -1),
        (datetime(2026, 1, 6, 0, 30, tzinfo=UTC), datetime(2026, 1, 5, 23, 30, tzinfo=UTC), 0),
    ],
)
def test_lateness_is_counted_in_days_of_the_zone(delivered: datetime, promised: datetime, late: int) -> None:
    assert days_late(delivered, promised, BERLIN) == late


def test_a_complaint_is_followed_by_its_id() -> None:
    opened: tuple[str, dict[str, object]] = ("complaint.opened", {"complaint_id": "a"})
    assert signals_of(opened, ("complaint.resolved", {"complaint_id": "a", "satisfied": True})) == []
    assert signals_of(opened, ("complaint.resolved", {"complaint_id": "b", "satisfied": True})) == ["complaint_open"]


def test_settings_decide_what_a_custom_event_counts_for() -> None:
    event = ("custom.recorded", {"name": "shouted", "weight_for": "competitive", "weight": 2})
    assert signals_of(event, custom={"shouted": ("negligent", 1.5)}) == ["custom_negligent"]
    assert signals_of(event, custom={"other": ("negligent", 1.5)}) == []
    assert signals_of(event, trust_sender=True) == ["custom_competitive"]


def test_service_area_may_be_yes_or_no_or_a_place() -> None:
    areas = [True, False, "Leipzig", None]
    assert [signals_of(("customer.relocated", {"service_area": area}))[0] for area in areas] == [
        "relocated_inside",
        "relocated_outside",
        "relocated",
        "relocated",
    ]


def test_types_that_are_not_in_the_catalogue_say_nothing() -> None:
    assert signals_of(("customer.created", {"name": "Ann"}), ("order.refunded", {"amount": "1.00"})) == []
    assert encode_events([], UTC)[0].customer.size == 0


def test_equal_texts_are_held_once() -> None:
    rows = [EventRow(0, "exit.answered", NOW, {"reason": "moved", "text": text}) for text in ("moved", "price", None)]
    columns, texts = encode_events(rows, UTC)
    assert texts == ["moved", "price"]
    assert columns.reason.tolist() == [0, 0, 0]
    assert columns.text.tolist() == [0, 1, -1]


def test_a_story_told_in_stored_events_is_weighed() -> None:
    def row(ago: int, name: str, **data: object) -> EventRow:
        return EventRow(0, name, NOW - timedelta(days=ago), data)

    rows = [row(140, "complaint.opened", complaint_id="c", severity="high"), row(120, "payment.withheld")]
    columns, texts = encode_events(rows, BERLIN)
    told = weigh_evidence(read_events(columns, 1, days(NOW), read_texts(texts).themes), 1, default_weights())
    assert (TYPES[told.type[0]], SUBTYPES[told.subtype[0]]) == ("passive", "retaliatory")
    assert math.isclose(np.sum(told.probabilities), 1.0)


@pytest.mark.parametrize(
    ("of", "codes"),
    [
        ("segment", (*SEGMENTS, *SEGMENTS_OF_THREE)),
        ("grade", GRADES),
        ("churn_state", STATES),
        ("churn_type", TYPES),
        ("churn_subtype", SUBTYPES),
        ("lifecycle_status", STATUSES),
        ("lifecycle_stage", STAGES),
        ("action", ACTIONS),
    ],
)
def test_every_code_has_a_label_in_both_languages(of: str, codes: tuple[str, ...]) -> None:
    assert set(labels.LABELS[of]) == set(codes)
    for code in codes:
        english, chinese = labels.label(of, code, "en"), labels.label(of, code, "zh")
        assert english.isascii()
        assert any("\u4e00" <= character <= "\u9fff" for character in chinese)
    assert len({labels.label(of, code) for code in codes}) == len(codes)


def test_a_code_of_the_workspaces_own_is_its_label() -> None:
    assert labels.label("segment", "my_stars", "zh") == "my_stars"
