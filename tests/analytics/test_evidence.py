import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.analytics.event_columns import DETAILS, EVENT_CODE, EVENT_TYPES, event_columns
from app.analytics.evidence import Verdicts, decide, evidence_sums, weigh_evidence
from app.analytics.lexicon import THEMES
from app.analytics.reading import Signals, read_events
from app.analytics.signals import (
    LEVERS,
    PRIOR,
    SIGNAL_INDEX,
    SIGNALS,
    SUBTYPES,
    TYPES,
    EvidenceWeights,
    default_weights,
)
from tests.analytics.evidence_reference import Happened, signals_of, to_columns, verdict

NOW = 1_000.0
WEIGHTS = default_weights()
NO_THEMES = np.zeros((1, len(THEMES)))


def ago(days: float, kind: str, detail: str | None = None, **more: float) -> Happened:
    return Happened(kind, NOW - days, detail, **more)  # type: ignore[arg-type]


def judge(*stories: Sequence[Happened], last_order_at: Sequence[float] | None = None, top: int = 5) -> Verdicts:
    last = None if last_order_at is None else np.array(last_order_at, dtype=float)
    return weigh_evidence(
        read_events(to_columns(stories), len(stories), NOW, None, last), len(stories), WEIGHTS, top=top
    )


def named(*story: Happened) -> tuple[str, str | None]:
    told = judge(story)
    return TYPES[told.type[0]], SUBTYPES[told.subtype[0]] if told.subtype[0] >= 0 else None


def probability(of: str, *story: Happened, last_order: float = math.nan) -> float:
    return float(judge(story, last_order_at=[last_order]).probabilities[0, TYPES.index(of)])


STORIES = {
    "moved away": ([ago(120, "customer.relocated", "outside")], "natural", None),
    "moved, area not told": ([ago(120, "customer.relocated")], "natural", None),
    "died": ([ago(200, "customer.deceased")], "natural", None),
    "closed the business": ([ago(400, "customer.closed_business")], "natural", None),
    "won by a rival on price": ([ago(100, "competitor.chosen", "price")], "competitive", None),
    "won by a rival on service": ([ago(100, "competitor.chosen", "service")], "competitive", None),
    "objected to the price and named a rival": (
        [ago(100, "price.objected"), ago(90, "competitor.mentioned")],
        "competitive",
        None,
    ),
    "complaint never resolved": ([ago(120, "complaint.opened", "medium")], "negligent", None),
    "delivered a week late": ([ago(100, "order.delivered", number=8)], "negligent", None),
    "delivery failed": ([ago(150, "delivery.failed")], "negligent", None),
    "support did not help": ([ago(100, "support.unresolved")], "negligent", None),
    "bad products by survey": (
        [ago(100, "survey.answered", "csat", number=1), ago(90, "survey.answered", "nps", number=1)],
        "negligent",
        None,
    ),
    "forgot to renew": ([ago(120, "renewal.missed")], "passive", "non_malicious"),
    "card expired": ([ago(150, "payment.failed", "expired_card")], "passive", "non_malicious"),
    "withheld after a complaint": (
        [ago(140, "complaint.opened", "high"), ago(120, "payment.withheld")],
        "passive",
        "retaliatory",
    ),
    "overdue after a complaint": (
        [ago(140, "complaint.opened", "medium"), ago(120, "payment.overdue"), ago(100, "payment.overdue")],
        "passive",
        "retaliatory",
    ),
    "fraud": ([ago(300, "fraud.flagged")], "passive", "malicious"),
    "bad credit": (
        [ago(150, "payment.overdue"), ago(120, "payment.overdue"), ago(110, "credit.downgraded")],
        "passive",
        "malicious",
    ),
}


@pytest.mark.parametrize("story", STORIES, ids=lambda name: name)
def test_each_row_of_the_taxonomy_is_told_apart(story: str) -> None:
    events, kind, subtype = STORIES[story]
    assert named(*events) == (kind, subtype)


def test_without_evidence_the_answer_is_unknown_with_the_prior() -> None:
    told = judge([], [ago(5, "visit.recorded", number=30), ago(4, "account.closed"), ago(3, "order.placed")])
    assert told.type.tolist() == [4, 4]
    assert told.subtype.tolist() == [-1, -1]
    np.testing.assert_allclose(told.probabilities, [PRIOR, PRIOR])
    assert told.offsets.tolist() == [0, 0, 0]


def test_a_single_slight_sign_leaves_the_type_unknown() -> None:
    assert named(ago(10, "competitor.mentioned"))[0] == "unknown"
    assert named(ago(10, "order.delivered", number=1))[0] == "unknown"
    assert named(ago(10, "complaint.opened", "low"))[0] == "unknown"


def test_a_delivery_on_the_promised_day_or_before_says_nothing() -> None:
    told = judge(
        [ago(3, "order.delivered", number=0)], [ago(3, "order.delivered", number=-2)], [ago(3, "order.delivered")]
    )
    np.testing.assert_allclose(told.probabilities, [PRIOR] * 3)


def test_graver_complaints_and_later_deliveries_speak_louder() -> None:
    by_severity = [probability("negligent", ago(9, "complaint.opened", name)) for name in ("low", "medium", "high")]
    by_days = [probability("negligent", ago(9, "order.delivered", number=days)) for days in (1, 4, 9)]
    assert by_severity == sorted(set(by_severity))
    assert by_days == sorted(set(by_days))


def test_a_complaint_resolved_to_satisfaction_stops_speaking() -> None:
    told = judge([ago(50, "complaint.opened", "high"), ago(40, "complaint.resolved", "satisfied")])
    np.testing.assert_allclose(told.probabilities[0], PRIOR)
    assert told.event.size == 0


def test_a_resolution_counts_only_from_its_moment_on() -> None:
    story = [ago(50, "complaint.opened"), ago(40, "complaint.resolved", "satisfied")]
    before = weigh_evidence(read_events(to_columns([story]), 1, NOW - 45), 1, WEIGHTS)
    assert TYPES[before.type[0]] == "negligent"


def test_how_a_complaint_ended_orders_how_much_it_says() -> None:
    opened = ago(50, "complaint.opened")
    ends = {
        "settled": [ago(40, "complaint.resolved", "satisfied")],
        "closed": [ago(40, "complaint.resolved")],
        "open": [],
        "unsatisfied": [ago(40, "complaint.resolved", "unsatisfied")],
        "reopened": [ago(40, "complaint.resolved", "satisfied"), ago(30, "complaint.reopened")],
    }
    says = [probability("negligent", opened, *end) for end in ends.values()]
    assert says == sorted(set(says))


def test_another_complaint_of_the_customer_keeps_speaking() -> None:
    story = [
        ago(50, "complaint.opened", subject=1),
        ago(45, "complaint.opened", subject=2),
        ago(40, "complaint.resolved", "satisfied", subject=1),
    ]
    alone = probability("negligent", ago(45, "complaint.opened", subject=2))
    assert probability("negligent", *story) == pytest.approx(alone)


def test_complaints_of_two_customers_under_one_id_are_two() -> None:
    told = judge([ago(50, "complaint.opened", subject=7)], [ago(40, "complaint.resolved", "satisfied", subject=7)])
    assert [TYPES[code] for code in told.type] == ["negligent", "unknown"]


@pytest.mark.parametrize(
    ("before", "subtype"),
    [
        ([ago(140, "complaint.opened")], "retaliatory"),
        ([ago(140, "complaint.opened"), ago(130, "complaint.resolved", "unsatisfied")], "retaliatory"),
        ([ago(140, "complaint.opened"), ago(130, "complaint.resolved", "satisfied")], None),
        ([ago(140, "complaint.opened"), ago(100, "complaint.resolved", "satisfied")], None),
        ([ago(100, "complaint.opened")], None),
        ([ago(600, "complaint.opened", "low")], None),
    ],
    ids=["open", "badly answered", "settled before", "settled since", "opened after", "long ago"],
)
def test_a_payment_stops_in_anger_only_while_a_complaint_stands(before: list[Happened], subtype: str | None) -> None:
    signals = read_events(to_columns([[*before, ago(120, "payment.overdue")]]), 1, NOW)
    angry = SIGNAL_INDEX["payment_stopped_in_anger"] in signals.signal
    assert angry == (subtype is not None)


def test_another_customers_open_complaint_is_no_cause_of_anger() -> None:
    closed = [ago(150, "complaint.opened"), ago(140, "complaint.resolved"), ago(120, "payment.overdue")]
    signals = read_events(to_columns([[ago(140, "complaint.opened")], closed]), 2, NOW)
    assert SIGNAL_INDEX["payment_overdue"] in signals.signal


def test_an_expired_card_after_a_complaint_is_no_revenge() -> None:
    signals = read_events(
        to_columns([[ago(140, "complaint.opened"), ago(120, "payment.failed", "expired_card")]]), 1, NOW
    )
    assert SIGNAL_INDEX["card_expired"] in signals.signal


def test_anger_takes_back_part_of_what_the_complaint_says_of_negligence() -> None:
    story = [ago(140, "complaint.opened", "high"), ago(120, "payment.withheld")]
    told = judge(story)
    assert told.probabilities[0, 2] > 3 * told.probabilities[0, 3]


@pytest.mark.parametrize(
    "story",
    [
        [ago(150, "payment.overdue"), ago(110, "credit.downgraded")],
        [ago(150, "payment.overdue"), ago(120, "payment.overdue")],
        [ago(900, "payment.overdue"), ago(880, "payment.overdue"), ago(110, "credit.downgraded")],
    ],
    ids=["overdue once", "no downgrade", "years apart"],
)
def test_bad_credit_takes_repeated_overdue_payments_near_a_downgrade(story: list[Happened]) -> None:
    assert SIGNAL_INDEX["overdue_pattern"] not in read_events(to_columns([story]), 1, NOW).signal


def test_bad_credit_stays_malicious_beside_a_complaint() -> None:
    events = STORIES["bad credit"][0]
    assert named(ago(160, "complaint.opened", "medium"), *events) == ("passive", "malicious")


@pytest.mark.parametrize("kind", ["customer.deceased", "customer.closed_business", "customer.relocated"])
def test_an_order_after_a_natural_end_takes_its_certainty_back_and_the_evidence_says_so(kind: str) -> None:
    before = judge([ago(100, "order.placed"), ago(90, kind)])
    after = judge([ago(90, kind), ago(80, "order.placed")])
    assert TYPES[before.type[0]] == "natural"
    assert TYPES[after.type[0]] == "unknown"
    assert before.contradicted_by.tolist() == [-1]
    assert after.contradicted_by.tolist() == [1]
    assert after.weight[0] == pytest.approx(0.1 * before.weight[0])


def test_a_later_order_known_by_its_moment_contradicts_too() -> None:
    story = [ago(90, "customer.deceased")]
    told = judge(story, story, story, last_order_at=[NOW - 80, NOW - 95, NOW + 5])
    assert [TYPES[code] for code in told.type] == ["unknown", "natural", "natural"]
    assert told.contradicted_by.tolist() == [-2, -1, -1]


def test_contradicted_evidence_is_named_before_weaker_standing_evidence() -> None:
    told = judge([ago(90, "customer.deceased"), ago(80, "order.placed"), ago(70, "competitor.mentioned")], top=1)
    assert told.event.tolist() == [0]


def test_evidence_is_ranked_signed_and_cut_at_the_top() -> None:
    told = judge(
        [
            ago(10, "competitor.mentioned"),
            ago(10, "complaint.opened", "high"),
            ago(10, "survey.answered", "nps", number=10),
            ago(10, "price.objected"),
        ],
        [ago(1, "fraud.flagged")],
        top=3,
    )
    assert told.offsets.tolist() == [0, 3, 4]
    assert told.event.tolist() == [1, 3, 0, 4]
    assert [TYPES[code] for code in told.speaks_for] == ["negligent", "competitive", "competitive", "passive"]
    expected = 1.5 * 2.6 * 0.5 ** (10 / 540)
    assert told.weight[0] == pytest.approx(expected)


def test_a_promoter_speaks_against_negligence() -> None:
    told = judge([ago(10, "survey.answered", "nps", number=10)])
    assert told.weight[0] < 0
    assert TYPES[told.speaks_for[0]] == "negligent"
    assert told.probabilities[0, 3] < PRIOR[3]


@pytest.mark.parametrize(
    ("detail", "good", "middling", "bad", "scale"),
    [
        ("nps", 9, 8, 6, math.nan),
        ("csat", 4, 3, 2, math.nan),
        ("csat", 9, 5.5, 3, 10),
        ("effort", 6, 4, 2, math.nan),
        ("reliability", 6, 4, 2, math.nan),
    ],
)
def test_survey_scales_have_a_good_end_a_middle_and_a_bad_end(
    detail: str, good: float, middling: float, bad: float, scale: float
) -> None:
    said = [
        probability("negligent", ago(3, "survey.answered", detail, number=mark, scale=scale))
        for mark in (good, middling, bad)
    ]
    assert said[1] == pytest.approx(PRIOR[3])
    assert said[0] < PRIOR[3] < said[2]


def test_reliability_weighs_more_than_looks() -> None:
    reliability, looks = (
        probability("negligent", ago(3, "survey.answered", name, number=1)) for name in ("reliability", "tangibles")
    )
    assert reliability > looks


def test_what_would_win_back_is_price_or_service() -> None:
    told = judge(
        [ago(9, "competitor.chosen", "price")], [ago(9, "competitor.chosen", "service")], [ago(9, "competitor.chosen")]
    )
    assert [LEVERS[code] if code >= 0 else None for code in told.lever] == ["price", "service", None]


def test_repeating_one_thing_counts_no_more_than_the_cap() -> None:
    few, many = ([ago(1, "competitor.mentioned")] * times for times in (3, 50))
    told = judge(few, many, top=50)
    assert told.probabilities[0] == pytest.approx(told.probabilities[1], rel=0.02)
    assert told.weight[3:].sum() == pytest.approx(WEIGHTS.cap * 1.4)


@pytest.mark.parametrize("kind", [name for name, details in DETAILS.items() if name != "order.placed" and not details])
def test_every_sign_fades_with_age_and_never_grows(kind: str) -> None:
    said = [judge([ago(age, kind, number=5)]).probabilities[0, 4] for age in (0, 30, 200, 800, 3_000)]
    assert said == sorted(said)
    signal = next(s for s in SIGNALS if s.code == {"customer.deceased": "deceased"}.get(kind, s.code))
    if kind not in ("customer.deceased", "customer.closed_business", "account.closed", "visit.recorded",
                    "exit.answered", "complaint.resolved"):  # fmt: skip
        assert said[0] < said[-1], signal


def test_half_of_a_weight_is_left_after_its_half_life() -> None:
    told = judge([ago(0, "fraud.flagged")], [ago(1825, "fraud.flagged")])
    assert told.weight[1] == pytest.approx(told.weight[0] / 2)


def test_the_future_is_not_seen() -> None:
    told = judge([ago(-1, "fraud.flagged"), ago(-2, "complaint.opened")])
    np.testing.assert_allclose(told.probabilities[0], PRIOR)


def test_what_the_sender_weighs_counts_as_log_odds() -> None:
    told = judge([ago(0, "custom.recorded", "passive", number=2.5)], [ago(0, "custom.recorded", number=2.5)])
    assert math.log(told.probabilities[0, 2] / told.probabilities[0, 4]) == pytest.approx(
        math.log(PRIOR[2] / PRIOR[4]) + 2.5
    )
    np.testing.assert_allclose(told.probabilities[1], PRIOR)


def test_words_add_to_events_and_agreement_counts_once() -> None:
    themes = np.zeros((3, len(THEMES)))
    themes[1, THEMES.index("price")] = 0.9
    themes[2, THEMES.index("price")] = 0.8
    stories = [
        [ago(0, "exit.answered", reason=1)],
        [ago(0, "exit.answered", reason=1, text=2)],
        [ago(0, "exit.answered")],
    ]
    told = weigh_evidence(read_events(to_columns(stories), 3, NOW, themes), 3, WEIGHTS)
    assert TYPES[told.type[0]] == "competitive"
    np.testing.assert_array_equal(told.probabilities[0], told.probabilities[1])
    np.testing.assert_allclose(told.probabilities[2], PRIOR)


def test_a_type_must_lead_by_the_margin() -> None:
    close = np.array([[0.05, 0.40, 0.05, 0.31, 0.19], [0.05, 0.41, 0.05, 0.30, 0.19], [0.1, 0.1, 0.1, 0.1, 0.6]])
    assert decide(close, 0.10).tolist() == [4, 1, 4]


happenings = st.builds(
    lambda kind, at, detail, number, subject, reason, text, scale: Happened(
        kind, at, DETAILS[kind][detail % len(DETAILS[kind])] if DETAILS[kind] and detail >= 0 else None,
        number, scale, subject, reason, text,
    ),
    st.sampled_from([*EVENT_TYPES, *(["complaint.opened", "complaint.resolved", "complaint.reopened"] * 3),
                     *(["payment.overdue", "payment.withheld", "credit.downgraded", "order.placed"] * 2)]),
    st.integers(0, 1_100).map(float), st.integers(-3, 20),
    st.sampled_from([math.nan, 0.0, 1.0, 2.0, 3.0, 5.0, 9.0, 10.0]), st.integers(0, 2),
    st.integers(-1, 2), st.integers(-1, 2), st.sampled_from([math.nan, 5.0, 10.0]),
)  # fmt: skip
worlds = st.lists(st.lists(happenings, max_size=9), min_size=1, max_size=5)
some_themes = np.array([[0, 0, 0, 0, 0, 0, 0], [0.5, 0, 0.3, 0, 0, 0, 0], [0, 0.2, 0, 0.1, 0.2, 0, 0.4]], dtype=float)


@settings(max_examples=150, deadline=None)
@given(worlds)
def test_the_arrays_say_what_the_plain_reference_says(stories: list[list[Happened]]) -> None:
    told = weigh_evidence(read_events(to_columns(stories), len(stories), NOW, some_themes), len(stories), WEIGHTS)
    for who, story in enumerate(stories):
        probabilities, kind, subtype = verdict(signals_of(story, NOW, some_themes))
        np.testing.assert_allclose(told.probabilities[who], probabilities, rtol=1e-9)
        lead = np.diff(np.sort(told.probabilities[who])[-2:])[0]
        if abs(lead - WEIGHTS.margin) > 1e-9:
            assert TYPES[told.type[who]] == kind
            assert (SUBTYPES[told.subtype[who]] if told.subtype[who] >= 0 else None) == subtype


@settings(max_examples=60, deadline=None)
@given(worlds, st.randoms(use_true_random=False))
def test_the_order_of_customers_and_events_does_not_matter(stories: list[list[Happened]], chance: object) -> None:
    rng = np.random.default_rng(chance.getrandbits(32))  # type: ignore[attr-defined]
    order = rng.permutation(len(stories))
    shuffled = [[stories[who][i] for i in rng.permutation(len(stories[who]))] for who in order]
    one, other = (
        weigh_evidence(read_events(to_columns(world), len(world), NOW, some_themes), len(world), WEIGHTS)
        for world in (stories, shuffled)
    )
    np.testing.assert_allclose(other.probabilities, one.probabilities[order], rtol=1e-12)
    for position, who in enumerate(order):
        np.testing.assert_allclose(
            other.weight[other.offsets[position] : other.offsets[position + 1]],
            one.weight[one.offsets[who] : one.offsets[who + 1]],
            rtol=1e-6,
        )


@settings(max_examples=30, deadline=None)
@given(worlds)
def test_a_batch_of_one_is_told_the_same(stories: list[list[Happened]]) -> None:
    together = weigh_evidence(read_events(to_columns(stories), len(stories), NOW, some_themes), len(stories), WEIGHTS)
    for who, story in enumerate(stories):
        alone = weigh_evidence(read_events(to_columns([story]), 1, NOW, some_themes), 1, WEIGHTS)
        np.testing.assert_array_equal(alone.probabilities[0], together.probabilities[who])
        np.testing.assert_array_equal(alone.weight, together.weight[together.offsets[who] : together.offsets[who + 1]])


def test_weights_survive_json() -> None:
    stored = json.loads(json.dumps(WEIGHTS.to_dict()))
    assert EvidenceWeights.from_dict(stored) == WEIGHTS


def test_stored_weights_serve_after_a_signal_was_added_or_dropped() -> None:
    stored = WEIGHTS.to_dict()
    for name in ("signals", "weights", "half_life_days", "hints"):
        stored[name] = ["gone" if name == "signals" else stored[name][0], *stored[name][1:]]
    stored["weights"][1] = [9.0, 0.0, 0.0, 0.0]
    loaded = EvidenceWeights.from_dict(stored)
    assert loaded.weights[0] == WEIGHTS.weights[0]
    assert loaded.weights[1] == (9.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "change", [{"margin": 1.0}, {"cap": 0.0}, {"prior": (0.0,) * 4}, {"half_life_days": (0.0,) * len(SIGNALS)}]
)
def test_senseless_weights_are_refused(change: dict[str, object]) -> None:
    fields = {name: getattr(WEIGHTS, name) for name in EvidenceWeights.__dataclass_fields__}
    with pytest.raises(ValueError, match="must"):
        EvidenceWeights(**{**fields, **change})


def test_a_prior_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="prior"):
        default_weights((0.5, 0.5, 0.5, 0.0, 0.0))


def test_columns_of_unequal_length_and_strange_customers_are_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        event_columns([0, 0], [1], [0.0, 0.0])
    with pytest.raises(ValueError, match="customer"):
        read_events(event_columns([3], [1], [0.0]), 3, NOW)


def test_nobody_and_nothing_are_a_case() -> None:
    nothing = event_columns([], [], [])
    told = weigh_evidence(read_events(nothing, 0, NOW), 0, WEIGHTS)
    assert told.probabilities.shape == (0, 5)
    assert told.offsets.tolist() == [0]


def test_an_event_type_that_is_not_known_says_nothing() -> None:
    signals = read_events(event_columns([0, 0], [-1, len(EVENT_TYPES)], [0.0, 0.0]), 1, NOW)
    assert signals.signal.size == 0


def test_sums_are_what_the_weights_multiply() -> None:
    signals = read_events(to_columns([[ago(0, "complaint.opened", "high")], []]), 2, NOW)
    sums = evidence_sums(signals, 2, WEIGHTS)
    assert sums.shape == (2, len(SIGNALS))
    assert sums[0, SIGNAL_INDEX["complaint_open"]] == 1.5
    assert sums.sum() == 1.5
    assert isinstance(signals, Signals)
    assert EVENT_CODE["complaint.opened"] >= 0
