# ruff: noqa: N806
"""Accuracy of the lifetime-value models on CDNOW, 39 weeks to learn and 39 to judge, beside its peers.

    python -m benchmarks.clv_accuracy [--data sample full] [--pymc-python /path/to/python] [--no-lifetimes]

The purchases are those in the `lifetimes` wheel, in whole days. `auto` sees the first 39 weeks only. The log score is
the mean log probability of a customer's number of purchase days in the holdout, nearer to zero is better; the other
packages answer with means alone. Then the coverage of 90 % intervals, on the holdout and on simulated customers.
"""

import argparse
import subprocess
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from app.analytics import contest, origins, predictive
from app.analytics.calibration import accuracy, calibration
from app.analytics.fit import FittedModel, FloatArray
from app.analytics.gamma_gamma import FittedSpend, fit_spend
from app.analytics.interval import interval, purchase_interval, value_probability

FILES = {"sample": "CDNOW_sample.txt", "full": "CDNOW_master.txt"}
CALIBRATION_END, HOLDOUT_END = 272, 545
HORIZON = float(HOLDOUT_END - CALIBRATION_END)
PUBLISHED = {
    "bg_nbd": ({"r": 0.243, "alpha": 4.414, "a": 0.793, "b": 2.426}, -9582.429),
    "mbg_nbd": ({"r": 0.525, "alpha": 6.183, "a": 0.891, "b": 1.614}, None),
    "pareto_nbd": ({"r": 0.553, "alpha": 10.578, "s": 0.606, "beta": 11.669}, -9594.976),
}


class Case(NamedTuple):
    x: FloatArray
    t_x: FloatArray
    T: FloatArray
    monetary: FloatArray
    purchases: FloatArray
    value: FloatArray


def purchase_days(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Customer from 0 up, day from 1 January 1997, and value of each purchase day."""
    folder = find_spec("lifetimes").submodule_search_locations[0]
    rows = [line.split() for line in (Path(folder) / "datasets" / FILES[name]).read_text().splitlines()]
    rows = [row for row in rows if row and row[0].isdigit()]
    customer = np.unique([row[0] for row in rows], return_inverse=True)[1]
    dates = np.array([f"{row[-3][:4]}-{row[-3][4:6]}-{row[-3][6:]}" for row in rows], dtype="datetime64[D]")
    day = (dates - np.datetime64("1997-01-01")).astype(np.int64)
    keys, index = np.unique(customer * 1000 + day, return_inverse=True)
    return keys // 1000, keys % 1000, np.bincount(index, [float(row[-1]) for row in rows])


def split(customer: np.ndarray, day: np.ndarray, value: np.ndarray) -> Case:
    n = int(customer.max()) + 1
    first, last = np.full(n, 10**6), np.zeros(n, dtype=np.int64)
    np.minimum.at(first, customer, day)
    known = day <= CALIBRATION_END
    later = ~known & (day <= HOLDOUT_END)
    np.maximum.at(last, customer[known], day[known])
    x = np.bincount(customer[known], minlength=n) - 1.0
    repeat = known & (day > first[customer])
    return Case(
        x,
        (last - first) * 1.0,
        (CALIBRATION_END - first) * 1.0,
        np.bincount(customer[repeat], value[repeat], n) / np.maximum(x, 1),
        np.bincount(customer[later], minlength=n) * 1.0,
        np.bincount(customer[later], value[later], n),
    )


def lifetimes_forecast(name: str, case: Case) -> FloatArray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lifetimes

        kinds = {
            "bg_nbd": lifetimes.BetaGeoFitter,
            "mbg_nbd": lifetimes.ModifiedBetaGeoFitter,
            "pareto_nbd": lifetimes.ParetoNBDFitter,
        }
        model = kinds[name]()
        model.fit(case.x, case.t_x / 7, case.T / 7)
        return np.asarray(
            model.conditional_expected_number_of_purchases_up_to_time(HORIZON / 7, case.x, case.t_x / 7, case.T / 7)
        )


def pymc_forecast(python: str, name: str, case: Case) -> FloatArray:
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/in.npz", f"{folder}/out.npz"
        np.savez(source, frequency=case.x, recency=case.t_x / 7, T=case.T / 7)
        script = str(Path(__file__).with_name("clv_pymc.py"))
        subprocess.run([python, script, name, source, target, str(HORIZON / 7)], check=True, capture_output=True)
        return np.load(target)["expected"]


def show(label: str, forecast: FloatArray, case: Case, log_score: float | None = None) -> None:
    found = accuracy(forecast, case.purchases)
    score = "      —" if log_score is None else f"{log_score:7.4f}"
    print(
        f"  {label:28s} RMSE {found.rmse:.5f}  MAE {found.mae:.4f}  corr {found.correlation:.4f}  "
        f"log score {score}  aggregate {100 * (found.aggregate_error or 0):+6.2f} %"
    )


def published(case: Case) -> None:
    print("Published fits of CDNOW (sample), in weeks")
    for name, (params, log_likelihood) in PUBLISHED.items():
        fitted = predictive.fit_model(name, case.x, case.t_x, case.T)
        weeks = {key: value / 7 if key in ("alpha", "beta") else value for key, value in fitted.params.items()}
        ours = fitted.log_likelihood + case.x.sum() * np.log(7)
        print(f"  {name:10s} ours      {' '.join(f'{k} {v:.5f}' for k, v in weeks.items())}  LL {ours:.4f}")
        print(f"  {'':10s} published {' '.join(f'{k} {v}' for k, v in params.items())}  LL {log_likelihood}")
    spend = fit_spend(case.x, case.monetary)
    print(f"  gamma_gamma ours {spend.gamma_gamma.params}  published p 6.25 q 3.74 v 15.44")


def covered(below: FloatArray, upto: FloatArray) -> float:
    random = np.random.default_rng(0)
    draws = [below + random.random(below.size) * (upto - below) for _ in range(50)]
    return float(np.mean([(draw >= 0.05) & (draw <= 0.95) for draw in draws]))


def coverage(label: str, fitted: FittedModel, spend: FittedSpend, case: Case, horizon: float) -> None:
    history, row = (case.x, case.t_x, case.T), np.arange(case.x.size)
    counts = np.arange(case.purchases.max() + 1)
    mass = np.exp([predictive.log_predictive(fitted, *history, horizon, count) for count in counts])
    upto = np.cumsum(mass, axis=0)[case.purchases.astype(int), row]
    bounds = purchase_interval(fitted, *history, horizon)
    plain = np.mean((case.purchases >= bounds.low) & (case.purchases <= bounds.high))
    width = np.mean(bounds.high - bounds.low)
    pit = covered(upto - mass[case.purchases.astype(int), row], upto)
    print(f"  {label:24s} purchases: PIT {pit:.4f}  plain {plain:.4f}  mean width {width:.2f}")
    pit = covered(*value_probability(fitted, spend, *history, case.monetary, horizon, case.value))
    bounds = interval(fitted, spend, *history, case.monetary, horizon, 0.0)
    plain = np.mean((case.value >= bounds.low) & (case.value <= bounds.high))
    widths = bounds.high - bounds.low
    print(
        f"  {'':24s} value:     PIT {pit:.4f}  plain {plain:.4f}  mean width {widths.mean():.2f}  "
        f"median {np.median(widths):.2f}"
    )


def simulated(customers: int, seed: int) -> Case:
    """BG/NBD with Gamma-Gamma spend; 365 days of holdout."""
    random = np.random.default_rng(seed)
    T = random.integers(100, 730, customers) * 1.0
    rate, leaves = random.gamma(0.5, 1 / 50, customers), random.beta(0.8, 2.5, customers)
    x, t_x, later, now = (np.zeros(customers) for _ in range(4))
    active = np.arange(customers)
    while active.size:
        now[active] += random.exponential(1 / rate[active])
        active = active[now[active] <= T[active] + 365]
        early = active[now[active] <= T[active]]
        x[early] += 1
        t_x[early] = now[early]
        later[active[now[active] > T[active]]] += 1
        active = active[random.random(active.size) > leaves[active]]
    nu = random.gamma(4.0, 1 / 16, customers)
    monetary = np.where(x > 0, random.gamma(np.maximum(6 * x, 1e-9)) / nu / np.maximum(x, 1), 0)
    return Case(x, t_x, T, monetary, later, np.where(later > 0, random.gamma(np.maximum(6 * later, 1e-9)) / nu, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=tuple(FILES), default=list(FILES))
    parser.add_argument("--pymc-python", help="a Python with pymc-marketing")
    parser.add_argument("--no-lifetimes", action="store_true")
    arguments = parser.parse_args()
    published(split(*purchase_days("sample")))
    for data in arguments.data:
        days = purchase_days(data)
        case = split(*days)
        history = (case.x, case.t_x, case.T)
        print(f"CDNOW {data}: {case.x.size} customers, {case.purchases.sum():.0f} purchase days in the holdout")
        for name in ("bg_nbd", "mbg_nbd", "pareto_nbd"):
            fitted = predictive.fit_model(name, *history)
            score = predictive.log_predictive(fitted, *history, HORIZON, case.purchases).mean()
            show(f"perennial {name}", predictive.expected_purchases(fitted, *history, HORIZON), case, score)
        fitted, record = contest.choose(origins.cut(days[0], days[1], CALIBRATION_END), *history)
        score = predictive.log_predictive(fitted, *history, HORIZON, case.purchases).mean()
        forecast = predictive.expected_purchases(fitted, *history, HORIZON)
        show(f"perennial auto: {fitted.model}", forecast, case, score)
        for name in ("bg_nbd", "mbg_nbd", "pareto_nbd"):
            if not arguments.no_lifetimes:
                show(f"lifetimes {name}", lifetimes_forecast(name, case), case)
            if arguments.pymc_python:
                try:
                    show(f"pymc-marketing {name}", pymc_forecast(arguments.pymc_python, name, case), case)
                except subprocess.CalledProcessError as error:
                    print(f"  pymc-marketing {name}: {error.stderr.decode().splitlines()[-1]}")
        print("  contest within the first 39 weeks:")
        for entry in record.entries:
            score_text = entry.reason if entry.log_score is None else f"log score {entry.log_score:.4f}"
            print(f"    {entry.model:12s} {score_text}")
        for name, weights in record.weights.items():
            print(f"    weight of {name:12s} by frequency 0, 1, 2+: {' '.join(f'{w:.2f}' for w in weights)}")
        print("  auto by decile of forecast: forecast / actual")
        print("    " + "  ".join(f"{g.forecast:.2f}/{g.actual:.2f}" for g in calibration(forecast, case.purchases)))
        coverage("90 % intervals, auto", fitted, fit_spend(case.x, case.monetary), case, HORIZON)
    case = simulated(20_000, 5)
    fitted = predictive.fit_model("bg_nbd", case.x, case.t_x, case.T)
    print("Simulated BG/NBD with Gamma-Gamma spend, 20,000 customers, 365 days")
    coverage("90 % intervals, bg_nbd", fitted, fit_spend(case.x, case.monetary), case, 365.0)


if __name__ == "__main__":
    main()
