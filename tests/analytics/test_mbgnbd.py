# ruff: noqa: N806
"""MBG/NBD against the published fit of CDNOW."""

from __future__ import annotations

import numpy as np
import pytest

from app.analytics import bgnbd, mbgnbd
from tests.analytics.clv_references import cdnow, in_weeks


def test_reproduces_published_cdnow_parameters() -> None:
    x, t_x, T, _ = cdnow()
    weeks = in_weeks(mbgnbd.fit(x, t_x, T).params)
    for name, value in {"r": 0.525, "alpha": 6.183, "a": 0.891, "b": 1.614}.items():
        assert weeks[name] == pytest.approx(value, abs=5.1e-4)


def test_the_chance_that_a_first_purchase_is_the_last_is_the_mean_of_the_beta() -> None:
    new = np.zeros(1)
    assert mbgnbd.p_alive({"r": 1.0, "alpha": 9.0, "a": 1.5, "b": 4.5}, new, new, new)[0] == pytest.approx(0.75)


def test_long_silence_makes_a_one_time_buyer_likelier_lost() -> None:
    params = {"r": 0.5, "alpha": 43.0, "a": 0.9, "b": 1.6}
    none, T = np.zeros(4), np.array([1.0, 30.0, 300.0, 3000.0])
    assert (np.diff(mbgnbd.p_alive(params, none, none, T)) < 0).all()
    assert (bgnbd.p_alive(params, none, none, T) == 1).all()
