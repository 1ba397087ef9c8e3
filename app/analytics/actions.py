"""What to do about a customer: an action from churn state, type and subtype, ABC grade and lifetime value.

The type says what kind of action helps; grade and lifetime value say how much of it is worth while. A customer worth
much gets a person's attention, one worth little what costs little. What must be done whatever the worth (closing
kindly, settling a dispute, ending a bad account) does not depend on it. An active customer whose evidence is clear
already gets what would keep them, before there is a loss to name.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.analytics.churn import ACTIVE, AT_RISK, CHURNED, NEVER_PURCHASED
from app.analytics.complaints import FloatArray, IntArray
from app.analytics.counted import Counted
from app.analytics.signals import COMPETITIVE, NATURAL, NEGLIGENT, PASSIVE, UNKNOWN

ACTIONS = (
    "close_kindly",
    "win_back_price",
    "win_back_service",
    "win_back_talk",
    "win_back_offer",
    "apologise_and_compensate",
    "mend_and_apologise",
    "remind_renewal",
    "remind_personally",
    "settle_dispute",
    "do_not_keep",
    "call_and_ask",
    "ask_why",
    "keep_warm",
    "reactivate_cheaply",
    "reward_loyalty",
    "nurture",
    "invite_first_order",
)
NO_ACTION = -1

HIGH, MIDDLE, LOW = range(3)
"""Tiers of lifetime value; −1 where it is not known."""

# A customer's worth, by grade (A, B, C, none) and tier (high, middle, low, none): either one can make it high,
# while low takes both, as far as both are known.
_WORTH = np.array(
    [
        [HIGH, HIGH, HIGH, HIGH],
        [HIGH, MIDDLE, MIDDLE, MIDDLE],
        [HIGH, MIDDLE, LOW, LOW],
        [HIGH, MIDDLE, LOW, MIDDLE],
    ]
)
_STATES, _TYPES, _SUBTYPES, _LEVERS = 4, 5, 3, 2


def _action_table() -> NDArray[np.int8]:
    """Actions by state, type, subtype + 1, lever + 1 and worth; index 0 of subtype and lever is "none"."""
    table = np.full((_STATES, _TYPES, _SUBTYPES + 1, _LEVERS + 1, 3), NO_ACTION, dtype=np.int8)

    def act(where: tuple[int | slice, ...], high: str, middle: str, low: str) -> None:
        table[where] = [ACTIONS.index(code) for code in (high, middle, low)]

    each = slice(None)
    for state in (AT_RISK, CHURNED):
        act((state, NATURAL), "close_kindly", "close_kindly", "close_kindly")
        act((state, COMPETITIVE, each, 0), "win_back_talk", "win_back_talk", "win_back_offer")
        act((state, COMPETITIVE, each, 1), "win_back_price", "win_back_price", "win_back_offer")
        act((state, COMPETITIVE, each, 2), "win_back_service", "win_back_service", "win_back_offer")
        act((state, NEGLIGENT), "apologise_and_compensate", "apologise_and_compensate", "mend_and_apologise")
        act((state, PASSIVE), "remind_personally", "remind_renewal", "remind_renewal")
        act((state, PASSIVE, 2), "settle_dispute", "settle_dispute", "settle_dispute")
        act((state, PASSIVE, 3), "do_not_keep", "do_not_keep", "do_not_keep")
    act((AT_RISK, UNKNOWN), "call_and_ask", "ask_why", "keep_warm")
    act((CHURNED, UNKNOWN), "call_and_ask", "ask_why", "reactivate_cheaply")
    for state in (ACTIVE, NEVER_PURCHASED):
        table[state] = table[AT_RISK]
    act((ACTIVE, UNKNOWN), "reward_loyalty", "nurture", "keep_warm")
    act((ACTIVE, COMPETITIVE), "call_and_ask", "ask_why", "keep_warm")
    for kind in (UNKNOWN, COMPETITIVE, NEGLIGENT):
        act((NEVER_PURCHASED, kind), "invite_first_order", "invite_first_order", "invite_first_order")
    return table


_TABLE = _action_table()


@dataclass(frozen=True, slots=True)
class ClvTiers:
    """Limits of lifetime value in a population.

    Parameters
    ----------
    high_from : float
        High from here on, in the workspace's currency.
    low_below : float
        Low below it.
    """

    high_from: float
    low_below: float


def fit_clv_tiers(total: Counted, *, high_share: float = 0.2, low_share: float = 0.5) -> ClvTiers | None:
    """Limits that make the top fifth high and the bottom half low.

    Parameters
    ----------
    total : Counted
        Lifetime value of those of whom it is known, in the workspace's currency.
    high_share, low_share : float
        Shares of customers, of sum at most 1.

    Returns
    -------
    ClvTiers or None
        None where nobody has a value.

    Raises
    ------
    ValueError
        If the shares are out of range.
    """
    if not (high_share >= 0 and low_share >= 0 and high_share + low_share <= 1):
        raise ValueError("shares must be at least 0 and sum to at most 1")
    if not total.size:
        return None
    low, high = total.quantiles((low_share, 1 - high_share)).tolist()
    return ClvTiers(high_from=high, low_below=low)


def clv_tier(total: FloatArray, tiers: ClvTiers | None) -> IntArray:
    """Tier of each customer, shape (n,): 0 high, 1 middle, 2 low; −1 where value or limits are not known."""
    if tiers is None:
        return np.full(total.shape, NO_ACTION, dtype=np.int64)
    known = np.where(total < tiers.low_below, LOW, np.where(total >= tiers.high_from, HIGH, MIDDLE))
    return np.where(np.isfinite(total), known, NO_ACTION)


def recommended_action(
    state: NDArray[np.integer],
    churn_type: NDArray[np.integer],
    subtype: NDArray[np.integer],
    lever: NDArray[np.integer],
    grade: NDArray[np.integer],
    tier: NDArray[np.integer],
) -> NDArray[np.int8]:
    """The action for each customer.

    Parameters
    ----------
    state : ndarray of int, shape (n,)
        Code into `app.analytics.churn.STATES`; −1 where it is not known.
    churn_type : ndarray of int, shape (n,)
        Of `app.analytics.evidence.Verdicts`, whatever the state.
    subtype, lever : ndarray of int, shape (n,)
        Of `app.analytics.evidence.Verdicts`; −1 for none.
    grade : ndarray of int, shape (n,)
        0 A, 1 B, 2 C; −1 for none.
    tier : ndarray of int, shape (n,)
        Of `clv_tier`.

    Returns
    -------
    ndarray of int8, shape (n,)
        Position in `ACTIONS`; −1 only where the state is not known.
    """
    worth = _WORTH[grade, tier]
    action: NDArray[np.int8] = _TABLE[state, churn_type, subtype + 1, lever + 1, worth]
    return np.where(state >= 0, action, np.int8(NO_ACTION))
