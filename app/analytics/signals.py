"""What each kind of evidence says about why a customer left, and how strongly.

A *signal* is the meaning that the reading step gives to an event: a complaint that was never settled, a card that
expired, words that name a rival. Each has log-odds for the four churn types, hints for the kind of passive loss and
for what would win a customer back, a half-life, and the reason for these numbers in a sentence.

The numbers are expert judgement, on one scale: 2 lifts a type of ordinary prior to about even with "unknown", 3 makes
it clear, 5 near certain. They are the prior mean from which `app.analytics.churn_learning` starts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPES = ("natural", "competitive", "passive", "negligent", "unknown")
NATURAL, COMPETITIVE, PASSIVE, NEGLIGENT, UNKNOWN = range(5)
SUBTYPES = ("non_malicious", "retaliatory", "malicious")
LEVERS = ("price", "service")
HINTS = SUBTYPES + LEVERS


@dataclass(frozen=True)
class SignalKind:
    """One signal with its defaults.

    Parameters
    ----------
    code : str
    weights : tuple of float
        Log-odds for natural, competitive, passive, negligent at full strength and age zero.
    half_life_days : float or None
        Days after which the weight has halved; None where it never fades.
    why : str
        The reason for the numbers.
    hints : tuple of float
        Log-odds for non_malicious, retaliatory, malicious (kinds of passive loss), price, service (what wins back).
    after_order : float
        Share of the weight that remains once a later counted order shows that the customer was still buying.
    """

    code: str
    weights: tuple[float, float, float, float]
    half_life_days: float | None
    why: str
    hints: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    after_order: float = 1.0


_FORGOT = (2.5, 0.0, 0.0, 0.0, 0.0)
_PRICE = (0.0, 0.0, 0.0, 2.0, 0.0)
_SERVICE = (0.0, 0.0, 0.0, 0.0, 2.0)

SIGNALS = (
    SignalKind(
        "deceased", (7, 0, 0, 0), None, "A report of death leaves no other reading and does not age.", after_order=0.1
    ),
    SignalKind(
        "closed_business",
        (6.5, 0, 0, 0),
        None,
        "A business that closed cannot buy; it rarely reopens.",
        after_order=0.1,
    ),
    SignalKind(
        "relocated",
        (4.5, 0, 0, 0),
        1825,
        "Moving away usually ends the relation, but some stay in reach.",
        after_order=0.1,
    ),
    SignalKind(
        "relocated_outside", (6, 0, 0, 0), None, "Outside the area served nobody can go on buying.", after_order=0.1
    ),
    SignalKind(
        "relocated_inside",
        (0.5, 0, 0, 0),
        365,
        "A move within the area served interrupts, it seldom ends.",
        after_order=0.1,
    ),
    SignalKind(
        "account_closed", (0, 0, 0, 0), 365, "Closing an account says that they left, not why; its reason does."
    ),
    SignalKind("competitor_mentioned", (0, 1.4, 0, 0), 365, "Naming a rival is common among customers who stay too."),
    SignalKind("competitor_chosen", (0, 5, 0, 0), 1095, "The customer has told us that a rival won.", after_order=0.5),
    SignalKind("competitor_chosen_price", (0, 5, 0, 0), 1095, "A rival won, and by price.", (0, 0, 0, 3, 0), 0.5),
    SignalKind(
        "competitor_chosen_service",
        (0, 5, 0, 0.5),
        1095,
        "A rival won by service: in part our own failing.",
        (0, 0, 0, 0, 3),
        0.5,
    ),
    SignalKind(
        "competitor_chosen_product", (0, 5, 0, 0.3), 1095, "A rival won by what it offers.", (0, 0, 0, 0, 3), 0.5
    ),
    SignalKind(
        "price_objected", (0, 2.2, 0, 0), 365, "Price is the usual lever of a rival; many object and stay.", _PRICE
    ),
    SignalKind("complaint_open", (0, 0, 0, 2.6), 540, "A complaint left open is the plainest mark of indifference."),
    SignalKind(
        "complaint_reopened",
        (0, 0, 0, 1.6),
        540,
        "Reopened, it tells of a failing that we did not mend, on top of the complaint itself.",
    ),
    SignalKind("complaint_unsatisfied", (0, 0, 0, 1.2), 540, "An answer that did not satisfy adds to the failing."),
    SignalKind(
        "delivery_late", (0, 0, 0, 2), 540, "A broken promise, the graver the longer; one day alone says little."
    ),
    SignalKind("delivery_failed", (0, 0, 0, 2.5), 540, "Goods that never came are a failing without excuse."),
    SignalKind("support_unresolved", (0, 0, 0, 2.4), 540, "A question left without answer is indifference."),
    SignalKind("nps_low", (0, 0.2, 0, 1.8), 365, "Detractors are unhappy, mostly with us; some only compare."),
    SignalKind("csat_low", (0, 0, 0, 2), 365, "A low mark for a contact names a failing, though of one day."),
    SignalKind("effort_high", (0, 0, 0, 1.8), 365, "Hard work to be served drives customers off."),
    SignalKind("servqual_low", (0, 0, 0, 1.8), 365, "Service below what is expected, dimension not told."),
    SignalKind(
        "servqual_low_reliability", (0, 0, 0, 2.2), 365, "Reliability weighs most in studies of service quality."
    ),
    SignalKind(
        "servqual_low_responsiveness", (0, 0, 0, 2), 365, "Slow or no answer: indifference in the customer's eyes."
    ),
    SignalKind("servqual_low_assurance", (0, 0, 0, 1.8), 365, "Lack of skill or courtesy."),
    SignalKind("servqual_low_empathy", (0, 0, 0, 1.8), 365, "Lack of care for the single customer."),
    SignalKind("servqual_low_tangibles", (0, 0, 0, 1.2), 365, "Looks and premises matter least."),
    SignalKind("value_low", (0, 2, 0, 0), 365, "Unhappy with the price in a survey, as good as an objection.", _PRICE),
    SignalKind("survey_content", (0, -0.2, -0.2, -1), 365, "A content customer speaks against our own failing."),
    SignalKind(
        "payment_failed", (0, 0, 2.2, 0), 365, "A failed payment is mostly an accident.", (1, 0, 0.2, 0, 0), 0.7
    ),
    SignalKind(
        "card_expired",
        (0, 0, 3.2, 0),
        365,
        "An expired card is nobody's decision; an order after it shows that it was renewed.",
        _FORGOT,
        0.5,
    ),
    SignalKind("payment_forgotten", (0, 0, 3.2, 0), 365, "Forgotten: a reminder is all it needs.", _FORGOT, 0.5),
    SignalKind(
        "funds_insufficient",
        (0, 0, 2.4, 0),
        365,
        "No money is neither anger nor, by itself, fraud.",
        (1, 0, 0.6, 0, 0),
        0.7,
    ),
    SignalKind("payment_overdue", (0, 0, 2, 0), 365, "Once overdue is mostly oversight.", (0.8, 0.2, 0.3, 0, 0), 0.7),
    SignalKind(
        "overdue_pattern",
        (0, 0, 2.6, 0),
        730,
        "Repeatedly overdue around a credit downgrade is bad credit.",
        (0, 0, 2, 0, 0),
    ),
    SignalKind(
        "payment_withheld",
        (0, 0, 3, 0),
        540,
        "Withholding is a decision, and mostly an angry one.",
        (0, 1.8, 0.3, 0, 0),
    ),
    SignalKind(
        "payment_withheld_in_anger",
        (0, 0, 5, -1),
        540,
        "Withheld while a complaint stands unsettled: the "
        "complaint explains the payment, so part of its own weight is taken back.",
        (0, 3.5, 0, 0, 0),
    ),
    SignalKind(
        "payment_disputed",
        (0, 0, 2.2, 0.8),
        540,
        "A dispute is a grievance about money: ours or theirs.",
        (0, 1.2, 0.6, 0, 0),
    ),
    SignalKind(
        "payment_stopped_in_anger",
        (0, 0, 4, -0.6),
        540,
        "Overdue, failed without cause or disputed while a complaint stands unsettled.",
        (0, 2.5, 0, 0, 0),
    ),
    SignalKind("renewal_missed", (0, 0, 3, 0), 365, "A missed renewal without other sign is forgetting.", _FORGOT, 0.5),
    SignalKind("fraud_flagged", (0, 0, 5.5, 0), 1825, "Flagged by a check made to find fraud.", (0, 0, 5, 0, 0)),
    SignalKind("credit_downgraded", (0, 0, 2.4, 0), 730, "A worse credit grade foretells default.", (0, 0, 1.8, 0, 0)),
    SignalKind("visit", (0, 0, 0, 0), 90, "A visit shows interest and no cause; kept so that labels can teach it."),
    SignalKind(
        "said_gone", (5, 0, 0, 0), 1825, "Words that tell of a move, a death, a closure, no more need.", after_order=0.1
    ),
    SignalKind("said_price", (0, 4, 0, 0), 1095, "Words that name the price.", _PRICE),
    SignalKind("said_rival", (0, 4.2, 0, 0), 1095, "Words that name a rival or its better offer.", _SERVICE, 0.5),
    SignalKind("said_oversight", (0, 0, 4, 0), 730, "Words that tell of forgetting or an expired card.", _FORGOT, 0.5),
    SignalKind(
        "said_withholding",
        (0, 0, 4.2, 0),
        730,
        "Words that refuse payment until something is put right.",
        (0, 3, 0, 0, 0),
    ),
    SignalKind("said_bad_credit", (0, 0, 4.2, 0), 1095, "Words that tell of fraud or default.", (0, 0, 3, 0, 0)),
    SignalKind("said_failing", (0, 0, 0, 4.2), 1095, "Words that name a failing of ours."),
    SignalKind("custom_natural", (1, 0, 0, 0), 365, "The sender's own event; its strength is its log-odds."),
    SignalKind("custom_competitive", (0, 1, 0, 0), 365, "The sender's own event; its strength is its log-odds."),
    SignalKind("custom_passive", (0, 0, 1, 0), 365, "The sender's own event; its strength is its log-odds."),
    SignalKind("custom_negligent", (0, 0, 0, 1), 365, "The sender's own event; its strength is its log-odds."),
)
SIGNAL_INDEX: Mapping[str, int] = {signal.code: index for index, signal in enumerate(SIGNALS)}

PRIOR = (0.03, 0.15, 0.12, 0.15, 0.55)
PRIOR_WHY = (
    "Before anything is known, more than half of the losses stay unexplained; natural loss is rare; a rival and our "
    "own failing are equally likely, passive loss a little less."
)
HINT_PRIOR = (0.7, 0.15, 0.15)
CAP = 3.0
MARGIN = 0.10


@dataclass(frozen=True)
class EvidenceWeights:
    """The model's parameters, expert or learned: serving either is the same function.

    Parameters
    ----------
    prior : tuple of float
        Log-odds of the five `TYPES` against unknown, so that the last is 0.
    weights : tuple of tuples of float
        Signals × four types, log-odds at full strength and age zero.
    half_life_days : tuple of float or None
        One a signal; None never fades.
    hints : tuple of tuples of float
        Signals × five `HINTS`.
    hint_prior : tuple of float
        Log-odds of the three `SUBTYPES` within passive loss.
    cap : float
        Most that one signal can count for a customer, in full-strength events: the tenth repetition of the same
        thing is not ten times the evidence.
    margin : float
        A type is named if its probability exceeds every other by at least this; else the answer is unknown.
    signals : tuple of str
        Codes, in the order of the rows.

    Raises
    ------
    ValueError
        If shapes disagree or a number is out of range.
    """

    prior: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    half_life_days: tuple[float | None, ...]
    hints: tuple[tuple[float, ...], ...]
    hint_prior: tuple[float, ...]
    cap: float = CAP
    margin: float = MARGIN
    signals: tuple[str, ...] = tuple(SIGNAL_INDEX)

    def __post_init__(self) -> None:
        count = len(self.signals)
        shapes = (
            len(self.prior) == 5,
            len(self.hint_prior) == 3,
            len(self.weights) == count,
            len(self.half_life_days) == count,
            len(self.hints) == count,
            all(len(row) == 4 for row in self.weights),
            all(len(row) == 5 for row in self.hints),
        )
        if not all(shapes):
            raise ValueError("prior, weights, half-lives and hints must have one row a signal")
        numbers = [*self.prior, *self.hint_prior, *(x for row in self.weights + self.hints for x in row)]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError("prior, weights and hints must be finite")
        if any(days is not None and not days > 0 for days in self.half_life_days):
            raise ValueError("half-lives must be positive")
        if not self.cap > 0 or not 0 <= self.margin < 1:
            raise ValueError("cap must be positive and margin in [0, 1)")

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """Signals × four types."""
        return np.asarray(self.weights, dtype=np.float64).reshape(-1, 4)

    @cached_property
    def hint_matrix(self) -> NDArray[np.float64]:
        """Signals × five hints."""
        return np.asarray(self.hints, dtype=np.float64).reshape(-1, 5)

    @cached_property
    def fading(self) -> NDArray[np.float64]:
        """Halvings a day, one a signal; 0 never fades."""
        return np.array([0.0 if days is None else 1.0 / days for days in self.half_life_days])

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, fit for JSON."""
        return {
            "signals": list(self.signals),
            "prior": list(self.prior),
            "weights": [list(row) for row in self.weights],
            "half_life_days": list(self.half_life_days),
            "hints": [list(row) for row in self.hints],
            "hint_prior": list(self.hint_prior),
            "cap": self.cap,
            "margin": self.margin,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "EvidenceWeights":
        """The inverse of `to_dict`.

        Rows are found by signal code: a signal that came after the weights were stored takes its default, and one that
        no longer exists is left out, so that a stored run keeps serving after an upgrade.
        """
        rows = {code: index for index, code in enumerate(data["signals"])}
        default = default_weights()

        def pick(stored: Sequence[Any], own: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(stored[rows[code]] if code in rows else own[i] for i, code in enumerate(default.signals))

        return cls(
            prior=tuple(data["prior"]),
            weights=tuple(tuple(row) for row in pick(data["weights"], default.weights)),
            half_life_days=pick(data["half_life_days"], default.half_life_days),
            hints=tuple(tuple(row) for row in pick(data["hints"], default.hints)),
            hint_prior=tuple(data["hint_prior"]),
            cap=data["cap"],
            margin=data["margin"],
        )


def _log_odds(probabilities: Sequence[float], against: float) -> tuple[float, ...]:
    return tuple(math.log(p / against) for p in probabilities)


def default_weights(prior: Sequence[float] = PRIOR) -> EvidenceWeights:
    """The expert weights, over a prior.

    Parameters
    ----------
    prior : sequence of float, default PRIOR
        Probabilities of the five `TYPES` where nothing is known; positive, summing to 1.

    Raises
    ------
    ValueError
        If the prior is not five positive numbers that sum to 1.
    """
    if len(prior) != 5 or not all(p > 0 for p in prior) or not math.isclose(sum(prior), 1.0, abs_tol=1e-6):
        raise ValueError("the prior must be five positive probabilities that sum to 1")
    return EvidenceWeights(
        prior=_log_odds(prior, prior[UNKNOWN]),
        weights=tuple(tuple(float(x) for x in signal.weights) for signal in SIGNALS),
        half_life_days=tuple(signal.half_life_days for signal in SIGNALS),
        hints=tuple(tuple(float(x) for x in signal.hints) for signal in SIGNALS),
        hint_prior=_log_odds(HINT_PRIOR, 1.0),
    )
