import itertools

import numpy as np
import pytest

from app.analytics.actions import (
    ACTIONS,
    HIGH,
    LOW,
    MIDDLE,
    NO_ACTION,
    ClvTiers,
    clv_tier,
    fit_clv_tiers,
    recommended_action,
)
from app.analytics.churn import STATES
from app.analytics.counted import Counted
from app.analytics.signals import LEVERS, SUBTYPES, TYPES


def action(
    state: str,
    kind: str = "unknown",
    subtype: str | None = None,
    lever: str | None = None,
    grade: str | None = "B",
    tier: int = MIDDLE,
) -> str:
    codes = recommended_action(
        np.array([STATES.index(state)]),
        np.array([TYPES.index(kind)]),
        np.array([SUBTYPES.index(subtype) if subtype else -1]),
        np.array([LEVERS.index(lever) if lever else -1]),
        np.array(["ABC".index(grade) if grade else -1]),
        np.array([tier]),
    )
    return ACTIONS[codes[0]]


@pytest.mark.parametrize("state", ["at_risk", "churned"])
@pytest.mark.parametrize(
    ("kind", "subtype", "lever", "expected"),
    [
        ("natural", None, None, "close_kindly"),
        ("competitive", None, "price", "win_back_price"),
        ("competitive", None, "service", "win_back_service"),
        ("competitive", None, None, "win_back_talk"),
        ("negligent", None, None, "apologise_and_compensate"),
        ("passive", "non_malicious", None, "remind_renewal"),
        ("passive", "retaliatory", None, "settle_dispute"),
        ("passive", "malicious", None, "do_not_keep"),
        ("unknown", None, None, "ask_why"),
    ],
)
def test_each_type_of_loss_has_its_answer(
    state: str, kind: str, subtype: str | None, lever: str | None, expected: str
) -> None:
    assert action(state, kind, subtype, lever) == expected


def test_who_is_worth_much_gets_more_than_who_is_worth_little() -> None:
    assert action("churned", "competitive", lever="price", grade="C", tier=LOW) == "win_back_offer"
    assert action("churned", "negligent", grade="C", tier=LOW) == "mend_and_apologise"
    assert action("churned", "passive", "non_malicious", grade="A") == "remind_personally"
    assert action("churned", "unknown", grade="A") == "call_and_ask"
    assert action("at_risk", "unknown", grade="C", tier=LOW) == "keep_warm"
    assert action("churned", "unknown", grade="C", tier=LOW) == "reactivate_cheaply"


def test_a_high_lifetime_value_outweighs_a_low_grade_and_the_other_way_round() -> None:
    assert action("active", grade="C", tier=HIGH) == "reward_loyalty"
    assert action("active", grade="A", tier=LOW) == "reward_loyalty"


def test_active_customers_and_prospects_have_actions_of_their_own() -> None:
    assert [action("active", grade=grade, tier=LOW) for grade in "ABC"] == ["reward_loyalty", "nurture", "keep_warm"]
    assert action("never_purchased", grade=None, tier=-1) == "invite_first_order"


def test_clear_evidence_comes_before_reward_for_an_active_customer() -> None:
    assert action("active", "passive", "malicious", grade="A") == "do_not_keep"
    assert action("active", "negligent", grade="A") == "apologise_and_compensate"
    assert action("never_purchased", "passive", "malicious") == "do_not_keep"


def test_every_known_state_has_an_action_and_an_unknown_one_has_none() -> None:
    every = np.array(
        list(itertools.product(range(-1, 4), range(5), range(-1, 3), range(-1, 2), range(-1, 3), range(-1, 3)))
    ).T
    given = recommended_action(*every)
    assert ((given == NO_ACTION) == (every[0] == -1)).all()
    assert set(given[given >= 0].tolist()) == set(range(len(ACTIONS)))


def test_tiers_are_the_top_fifth_and_the_bottom_half() -> None:
    total = np.arange(100.0)
    tiers = clv_tier(total, fit_clv_tiers(Counted.of(total)))
    assert np.bincount(tiers).tolist() == [20, 30, 50]
    assert tiers[[0, 60, 99]].tolist() == [LOW, MIDDLE, HIGH]


def test_what_is_not_known_has_no_tier() -> None:
    assert fit_clv_tiers(Counted.of(np.zeros(0))) is None
    assert clv_tier(np.array([1.0, np.nan]), None).tolist() == [-1, -1]
    assert clv_tier(np.array([5.0, np.nan, -1.0]), ClvTiers(4.0, 0.0)).tolist() == [HIGH, -1, LOW]


def test_shares_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="shares"):
        fit_clv_tiers(Counted.of(np.array([1.0])), high_share=0.6, low_share=0.5)
