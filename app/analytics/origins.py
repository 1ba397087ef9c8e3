"""Where a contest of models cuts the observed time, and what it knows of the customers it judges there.

A population may come in parts: the cuts follow from all customers' histories, and each part tells of its own customers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from app.analytics.counted import Counted
from app.analytics.fit import FloatArray

ORIGINS = (1 / 2, 2 / 3, 3 / 4)
"""Where the observed time is cut: half for learning at least, a quarter for judging at least."""

MINIMUM_HOLDOUT_DAYS = 7
"""A shorter holdout would judge the day of the week."""

CONTEST_CUSTOMERS = 30_000
"""Customers an origin is judged on: of more, every n-th is taken. Scores of this many differ by about 0.005."""


@dataclass(frozen=True)
class Cut:
    """One cut of the observed time.

    What was known at the end of `day` has to forecast the `holdout_days` after it. Of the customers known by then, in
    the order of their rows, every `every`-th is judged.
    """

    day: int
    holdout_days: int
    every: int


@dataclass(frozen=True)
class Split:
    """What was known of each judged customer at an origin, and their purchase days after it; arrays of shape (n,)."""

    frequency: FloatArray
    recency_days: FloatArray
    T_days: FloatArray
    purchases: FloatArray
    holdout_days: float

    @classmethod
    def joined(cls, parts: Sequence[Split]) -> Split:
        """The customers of all parts, of which there is at least one, at the same origin."""
        columns = ("frequency", "recency_days", "T_days", "purchases")
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
        return cls(**joined, holdout_days=parts[0].holdout_days)


def plan_cuts(T_days: Counted, as_of_day: int, origins: Sequence[float] = ORIGINS) -> list[Cut]:
    """Choose where to cut.

    Parameters
    ----------
    T_days : Counted
        Days since the first purchase, of all customers.
    as_of_day : int
        The last day that is known.
    origins : sequence of float
        Shares of the time from the first purchase of all to `as_of_day`.

    Returns
    -------
    list of Cut
        One for each origin that leaves a holdout of `MINIMUM_HOLDOUT_DAYS`.
    """
    if not T_days.size:
        return []
    observed = int(T_days.values[-1])
    cuts = []
    for share in origins:
        holdout_days = observed - int(share * observed)
        if holdout_days >= MINIMUM_HOLDOUT_DAYS:
            every = -(-count_known(T_days, holdout_days) // CONTEST_CUSTOMERS)
            cuts.append(Cut(as_of_day - holdout_days, holdout_days, every))
    return cuts


def count_known(T_days: Counted, holdout_days: int) -> int:
    """How many customers had bought before the holdout."""
    return int(T_days.customers[T_days.values >= holdout_days].sum())


def split_at(at: Cut, customer: ArrayLike, day: ArrayLike, known_before: int = 0) -> Split:
    """Return what was known at a cut of the customers of a part, and what came after.

    Parameters
    ----------
    at : Cut
    customer, day : array-like of int, shape (m,)
        One row a purchase day, in any order: the customer's number from 0 up, and the day. Days beyond the holdout are
        ignored.
    known_before : int
        Customers of earlier parts who are known at the cut.
    """
    # Small integers stay small: there are several days a customer.
    customer, day = np.asarray(customer), np.asarray(day)
    known = day <= at.day + at.holdout_days
    if not known.all():
        customer, day = customer[known], day[known]
    size = int(customer.max(initial=-1)) + 1
    first = np.full(size, np.iinfo(day.dtype).max, dtype=day.dtype)
    np.minimum.at(first, customer, day)
    before = day <= at.day
    count = np.bincount(customer[before], minlength=size)
    last = np.zeros_like(first)
    np.maximum.at(last, customer[before], day[before] - first[customer[before]])
    after = np.bincount(customer[~before], minlength=size)
    there = np.flatnonzero(count)[-known_before % at.every :: at.every]
    return Split(
        frequency=count[there].astype(np.float64) - 1,
        recency_days=last[there].astype(np.float64),
        T_days=(at.day - first[there]).astype(np.float64),
        purchases=after[there].astype(np.float64),
        holdout_days=float(at.holdout_days),
    )


def cut(customer: ArrayLike, day: ArrayLike, as_of_day: int, origins: Sequence[float] = ORIGINS) -> list[Split]:
    """Cut the purchase days of a whole population at the origins of a contest.

    Parameters
    ----------
    customer, day, as_of_day, origins
        As in `split_at` and `plan_cuts`; days after `as_of_day` are ignored.
    """
    customer, day = np.asarray(customer), np.asarray(day)
    known = day <= as_of_day
    _, place = np.unique(customer[known], return_inverse=True)
    first = np.full(int(place.max(initial=-1)) + 1, as_of_day, dtype=np.int64)
    np.minimum.at(first, place, day[known])
    planned = plan_cuts(Counted.of(as_of_day - first), as_of_day, origins)
    return [split_at(one, customer, day) for one in planned]
