# ruff: noqa: N806
"""Seconds of the lifetime-value models on synthetic customers, beside lifetimes and pymc-marketing, in one run.

    python -m benchmarks.clv_speed [--customers 1000000] [--pymc-python /path/to/python] [--no-lifetimes]
                                   [--lifetimes-pareto] [--repeats 5]

BG/NBD customers with Gamma-Gamma spend, in whole days over two years. Own figures are the best and the median of the
repeats, after one warm-up; the others run once. lifetimes' Pareto/NBD takes about ten minutes for a million customers,
so it has to be asked for. CLV is twelve months of discounted value for every customer.
"""

import argparse
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from app.analytics import contest, origins, predictive
from app.analytics.fit import FloatArray
from app.analytics.gamma_gamma import fit_gamma_gamma, fit_spend, purchase_value
from app.analytics.interval import interval

Columns = tuple[FloatArray, FloatArray, FloatArray, FloatArray]
Days = tuple[np.ndarray, np.ndarray]


def synthetic(customers: int, seed: int = 1) -> tuple[Columns, Days]:
    """Return x, t_x, T and mean repeat spend of each customer, and customer and day (of 731) of each purchase."""
    random = np.random.default_rng(seed)
    T = random.integers(1, 731, customers) * 1.0
    rate, leaves = random.gamma(0.4, 1 / 60, customers), random.beta(0.8, 2.5, customers)
    x, t_x, now = (np.zeros(customers) for _ in range(3))
    active = np.arange(customers)
    who, when = [active], [730 - T]
    while active.size:
        now[active] += random.exponential(1 / rate[active])
        day = np.ceil(now[active])
        active, day = active[day <= T[active]], day[day <= T[active]]
        x[active] += day > t_x[active]
        t_x[active] = day
        who.append(active)
        when.append(730 - T[active] + day)
        active = active[random.random(active.size) > leaves[active]]
    nu = random.gamma(4.0, 1 / 16, customers)
    monetary = np.where(x > 0, random.gamma(np.maximum(6 * x, 1e-9)) / nu / np.maximum(x, 1), 0)
    keys = np.unique(np.concatenate(who) * 1000 + np.concatenate(when).astype(np.int64))
    return (x, t_x, T, monetary), (keys // 1000, keys % 1000)


def timed(label: str, run: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    kept = seconds[1:] or seconds
    print(f"  {label:44s} {min(kept):10.4f} s   median {np.median(kept):.4f} s")
    return min(kept)


def ours(columns: Columns, repeats: int) -> None:
    x, t_x, T, monetary = columns
    print("perennial")
    for name in ("bg_nbd", "mbg_nbd", "pareto_nbd", "mbg_cnbd_k"):
        try:
            timed(f"{name} fit", lambda name=name: predictive.fit_model(name, x, t_x, T), repeats)
        except predictive.FitError as error:
            print(f"  {name} fit: {error}")
    timed("gamma_gamma fit", lambda: fit_gamma_gamma(x, monetary), repeats)
    spend = fit_spend(x, monetary)
    for name in ("bg_nbd", "pareto_nbd"):
        fitted = predictive.fit_model(name, x, t_x, T)

        def lifetime(fitted: predictive.FittedModel = fitted) -> FloatArray:
            return predictive.discounted_purchases(fitted, x, t_x, T, 365) * purchase_value(spend, x, monetary)

        timed(f"{name} CLV of all, 12 months", lifetime, repeats)
        timed(f"{name} all scores", lambda fitted=fitted: predictive.score(fitted, x, t_x, T, 365), repeats)
        interval_of = lambda rows, fitted=fitted: interval(  # noqa: E731
            fitted, spend, x[rows], t_x[rows], T[rows], monetary[rows], 365
        )
        timed(f"{name} intervals of all", lambda run=interval_of: run(slice(None)), 1)
        timed(f"{name} intervals of 1,000", lambda run=interval_of: run(slice(1000)), repeats)
        one = [column[:1] for column in (x, t_x, T)]
        timed(
            f"{name} all scores of one customer, x 1,000",
            lambda fitted=fitted, one=one: [predictive.score(fitted, *one, 365) for _ in range(1000)],
            repeats,
        )


def contest_of(columns: Columns, days: Days, repeats: int) -> None:
    x, t_x, T, _ = columns
    timed(
        "contest on all, with cutting and refitting",
        lambda: contest.choose(origins.cut(*days, 730), x, t_x, T),
        min(repeats, 1),
    )


def lifetimes_peers(columns: Columns, pareto: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lifetimes
        import pandas as pd

        x, t_x, T, monetary = (pd.Series(column) for column in columns)
        print("lifetimes, once each")
        model = lifetimes.BetaGeoFitter()
        timed("bg_nbd fit", lambda: model.fit(x, t_x / 7, T / 7), 0)
        timed("mbg_nbd fit", lambda: lifetimes.ModifiedBetaGeoFitter().fit(x, t_x / 7, T / 7), 0)
        again = x > 0
        timed("gamma_gamma fit", lambda: lifetimes.GammaGammaFitter().fit(x[again], monetary[again]), 0)
        value = monetary.clip(lower=1.0)
        timed(
            "bg_nbd CLV of all, 12 months",
            lambda: lifetimes.utils._customer_lifetime_value(model, x, t_x / 7, T / 7, value, 12, 0.008, "W"),
            0,
        )
        if pareto:
            timed("pareto_nbd fit", lambda: lifetimes.ParetoNBDFitter().fit(x, t_x / 7, T / 7), 0)


def pymc_peer(python: str, columns: Columns) -> None:
    x, t_x, T, monetary = columns
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/in.npz", f"{folder}/out.npz"
        np.savez(source, frequency=x, recency=t_x / 7, T=T / 7, monetary=monetary)
        script = str(Path(__file__).with_name("clv_pymc.py"))
        run = subprocess.run([python, script, "bg_nbd", source, target, "52"], capture_output=True, check=False)
        print("pymc-marketing, once each")
        if run.returncode:
            print("  " + run.stderr.decode().splitlines()[-1])
            return
        found = np.load(target)
        for label, key in (("bg_nbd fit (MAP)", "fit"), ("bg_nbd CLV of all, 12 months", "lifetime")):
            print(f"  {label:44s} {float(found[key]):10.4f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pymc-python", help="a Python with pymc-marketing")
    parser.add_argument("--no-lifetimes", action="store_true")
    parser.add_argument("--lifetimes-pareto", action="store_true", help="about ten minutes for a million customers")
    arguments = parser.parse_args()
    columns, days = synthetic(arguments.customers)
    print(f"{arguments.customers} customers, {np.mean(columns[0] > 0):.1%} with a repeat purchase")
    ours(columns, arguments.repeats)
    contest_of(columns, days, arguments.repeats)
    if arguments.pymc_python:
        pymc_peer(arguments.pymc_python, columns)
    if not arguments.no_lifetimes:
        lifetimes_peers(columns, arguments.lifetimes_pareto)


if __name__ == "__main__":
    main()
