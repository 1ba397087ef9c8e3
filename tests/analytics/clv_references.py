# ruff: noqa: N806
"""Published figures, figures computed in 50-digit arithmetic, and the CDNOW data, for the tests of the models."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import mpmath as mp
import numpy as np
from numpy.typing import NDArray

from app.analytics.fit import FloatArray

DAYS = 7.0
"""The papers count in weeks."""

PARAMS = {
    "bg_nbd": {"r": 0.243, "alpha": 4.414, "a": 0.793, "b": 2.426},
    "mbg_nbd": {"r": 0.525, "alpha": 6.183, "a": 0.891, "b": 1.614},
    "pareto_nbd": {"r": 0.553, "alpha": 10.578, "s": 0.606, "beta": 11.669},
}
"""Parameters in weeks for which the exact figures below hold. The models do not care for the unit."""

# name: (x, t_x, T) in weeks, then per model: log-likelihood, P(alive), E(39 weeks), E(52 weeks).
EXACT: dict[str, tuple[tuple[float, str, str], dict[str, tuple[str, str, str, str]]]] = {
    "cdnow_1": (
        (2, "30.4285714285714", "38.8571428571429"),
        {
            "bg_nbd": ("-9.4584735574885", "0.726589721835495", "1.22611580614932", "1.55882897181284"),
            "mbg_nbd": ("-9.48540925632097", "0.706215055462196", "1.26305026334191", "1.59732645566063"),
            "pareto_nbd": ("-9.55412282414903", "0.869186154651162", "1.45522613094935", "1.85095458707882"),
        },
    ),
    "cdnow_2": (
        (1, "1.71428571428571", "38.8571428571429"),
        {
            "bg_nbd": ("-4.46976092957486", "0.212260062554613", "0.203351041086806", "0.26003275875343"),
            "mbg_nbd": ("-4.46103041964287", "0.170967488040519", "0.18899155059455", "0.240328571700563"),
            "pareto_nbd": ("-4.45081302819036", "0.16812715101767", "0.171228550186888", "0.217791766974742"),
        },
    ),
    "cdnow_3": (
        (0, "0.0", "38.8571428571429"),
        {
            "bg_nbd": ("-0.554697231962602", "1.0", "0.195109664993088", "0.2520876568721"),
            "mbg_nbd": ("-0.539824484220045", "0.389743001685518", "0.154024485148436", "0.197720553484469"),
            "pareto_nbd": ("-0.521036856410157", "0.295303374265796", "0.107092833820643", "0.136215236785415"),
        },
    ),
    "cdnow_6": (
        (7, "29.4285714285714", "38.8571428571429"),
        {
            "bg_nbd": ("-21.8628598319339", "0.641796002248667", "3.33743935162074", "4.19933139281329"),
            "mbg_nbd": ("-21.7761111108995", "0.62276503910614", "3.16794282209144", "3.96518811812982"),
            "pareto_nbd": ("-21.5942275490051", "0.749542718957021", "3.71263918817726", "4.72223965016506"),
        },
    ),
    "cdnow_1516": (
        (26, "30.8571428571429", "31.0"),
        {
            "bg_nbd": ("-37.726513328333", "0.968851562851896", "20.7483536943379", "25.7564922153781"),
            "mbg_nbd": ("-38.3220564277751", "0.965498054767583", "19.449351034495", "24.002230123934"),
            "pareto_nbd": ("-39.1316269761166", "0.997874260609941", "20.1161295984507", "25.4573384405799"),
        },
    ),
    "hardie_sheet": (
        (2, "30.43", "38.86"),
        {
            "bg_nbd": ("-9.45860630706627", "0.726578570080673", "1.22602817476714", "1.55872080643209"),
            "mbg_nbd": ("-9.48555131453393", "0.706202265118487", "1.26296062326737", "1.59721663081809"),
            "pareto_nbd": ("-9.55428324515041", "0.869167559153011", "1.4551231932576", "1.85082672070195"),
        },
    ),
    "paradox_x10": (
        (10, "20.0", "39.0"),
        {
            "bg_nbd": ("-24.2833153776333", "0.0381143132120363", "0.276653661812924", "0.347399762708559"),
            "mbg_nbd": ("-24.3178157414094", "0.0401201632324807", "0.281687101910312", "0.351841393386473"),
            "pareto_nbd": ("-24.6712735541896", "0.0804345531607043", "0.555284192101691", "0.706344342641165"),
        },
    ),
    "paradox_x15": (
        (15, "20.0", "39.0"),
        {
            "bg_nbd": ("-28.4367444954579", "0.00319344038999852", "0.0341699096824813", "0.0428271759676762"),
            "mbg_nbd": ("-28.7306060673109", "0.00389194211604554", "0.0399094425647489", "0.0497502175555294"),
            "pareto_nbd": ("-29.5949336790738", "0.0111460828990717", "0.113405249719355", "0.144256144339159"),
        },
    ),
    "paradox_x20": (
        (20, "20.0", "39.0"),
        {
            "bg_nbd": ("-30.6621936970628", "0.000234963739169976", "0.00332123424320393", "0.00415843309875465"),
            "mbg_nbd": ("-31.2442896616593", "0.000332046068849281", "0.00447645851560081", "0.00557416951988217"),
            "pareto_nbd": ("-32.666366025628", "0.00131599172212444", "0.0176939623229852", "0.0225074481923262"),
        },
    ),
    "paradox_x25": (
        (25, "20.0", "39.0"),
        {
            "bg_nbd": ("-31.5082128826308", "1.6301660423713e-5", "0.000286375550020125", "0.000358332461911217"),
            "mbg_nbd": ("-32.3933669612129", "2.67256135061674e-5", "0.00044646929980253", "0.000555568548217165"),
            "pareto_nbd": ("-34.4120202324583", "0.000145436762408456", "0.00243115591252423", "0.0030925303642997"),
        },
    ),
    "clvtools100_221": (
        (221, "103.42857", "103.57143"),
        {
            "bg_nbd": ("-68.9044487541837", "0.995244269663663", "70.175691233971", "90.2837030301709"),
            "mbg_nbd": ("-71.7152311933423", "0.994687246356194", "68.1939862526892", "87.408985555669"),
            "pareto_nbd": ("-76.9677415856245", "0.999134071588201", "69.0298102820144", "89.6411870038498"),
        },
    ),
    "x1000_tx10_T100": (
        (1000, "10.0", "100.0"),
        {
            "bg_nbd": ("3225.14298368282", "8.28239958302138e-858", "2.71814086515235e-855", "3.49309897931043e-855"),
            "mbg_nbd": ("3111.07273337109", "4.22612740052258e-815", "1.34590457074967e-812", "1.72305253248919e-812"),
            "pareto_nbd": (
                "2876.13846061163",
                "1.37878839573108e-728",
                "4.4294060290825e-726",
                "5.74821455054308e-726",
            ),
        },
    ),
    "x200_tx38_T40": (
        (200, "38.0", "40.0"),
        {
            "bg_nbd": ("98.804174928869", "0.0243852313579879", "3.29402731812961", "4.11521464085975"),
            "mbg_nbd": ("91.7655593606266", "0.0305960686927882", "3.89271838417781", "4.83555207339218"),
            "pareto_nbd": ("76.3026092142996", "0.0921118448780194", "11.8802786078818", "15.1208211525115"),
        },
    ),
    "x0_T2000": (
        (0, "0.0", "2000.0"),
        {
            "bg_nbd": ("-1.48675314992609", "1.0", "0.0047140666039321", "0.00627925116123038"),
            "mbg_nbd": ("-0.950251870660699", "0.0800608159223487", "0.000814038596933824", "0.00108403797878255"),
            "pareto_nbd": ("-0.67164575511098", "0.00474370721021627", "5.05887935043245e-5", "6.73220237621968e-5"),
        },
    ),
    "x500_T730": (
        (500, "729.0", "730.0"),
        {
            "bg_nbd": ("-699.729748237098", "0.996883048928315", "25.9434181177789", "34.3614733403194"),
            "mbg_nbd": ("-700.534516716068", "0.996504883988505", "25.821865277077", "34.1731587850254"),
            "pareto_nbd": ("-700.502471276315", "0.998832223259844", "25.9210418983624", "34.3864929320348"),
        },
    ),
}

NEW_CUSTOMER: dict[str, dict[float, float]] = {
    "bg_nbd": {
        0.1429: 0.00782834751607216,
        1: 0.0532678911716583,
        3: 0.150865230893047,
        31.8571: 1.04199606085221,
        32: 1.04524332837444,
        52: 1.4460505953964,
        78: 1.86051905794277,
    },
    "mbg_nbd": {1: 0.0530847952637018, 39: 1.18295366559717, 52: 1.41972375771275, 78: 1.80475757755314},
    "pareto_nbd": {1: 0.050979843245991, 39: 1.21300284428102, 52: 1.47299680337511, 78: 1.90939812931369},
}


def datasets() -> Path:
    """The folder of the data files that come with the lifetimes package, which itself is not imported."""
    package = find_spec("lifetimes")
    assert package is not None
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0]) / "datasets"


class Customers(NamedTuple):
    x: FloatArray
    t_x: FloatArray
    T: FloatArray
    monetary: FloatArray


@lru_cache
def cdnow() -> Customers:
    """The 2,357 customers of the papers after 39 weeks, in days, with the mean value of a repeat purchase."""
    columns = np.loadtxt(datasets() / "cdnow_customers_summary_with_transactions.csv", delimiter=",", skiprows=1).T
    # The file rounds weeks to two digits; the purchases were on whole days.
    return Customers(columns[1], np.round(columns[2] * DAYS), np.round(columns[3] * DAYS), columns[4])


def in_weeks(params: dict[str, float]) -> dict[str, float]:
    """Parameters fitted in days, in the unit of the papers."""
    return {name: value / DAYS if name in ("alpha", "beta") else value for name, value in params.items()}


def log_likelihood_in_weeks(log_likelihood: float, x: FloatArray) -> float:
    return float(log_likelihood + x.sum() * np.log(DAYS))


def exact_growth(c: float, a: float, b: float, w: float) -> mp.mpf:
    """E[(1 - (1 + p w)^-c) / p], p ~ Beta(a, b), by its closed form with Gauss' function, away from a = 1."""
    with mp.workdps(60):
        exact = [mp.mpf(value) for value in (c, a, b, w)]
        if a == 1:
            # The singularity is removable: the mean of both sides is off by the square of the distance.
            near = mp.mpf(10) ** -20
            return (_closed(exact[0], 1 - near, *exact[2:]) + _closed(exact[0], 1 + near, *exact[2:])) / 2
        return _closed(*exact)


def _closed(c: mp.mpf, a: mp.mpf, b: mp.mpf, w: mp.mpf) -> mp.mpf:
    return (a + b - 1) / (a - 1) * (1 - mp.hyp2f1(c, a - 1, a + b - 1, -w))


class Purchases(NamedTuple):
    """One row a purchase day of the CDNOW sample: the customer from 0 up, the day from 1 January 1997, the value."""

    customer: NDArray[np.int64]
    day: NDArray[np.int64]
    value: FloatArray


CALIBRATION_END, HOLDOUT_END = 272, 545
"""30 September 1997 and 30 June 1998: 39 weeks, and 39 weeks more."""


@lru_cache
def cdnow_purchases() -> Purchases:
    lines = np.loadtxt(datasets() / "CDNOW_sample.txt", usecols=(1, 2, 4), dtype=str)
    customer = np.unique(lines[:, 0], return_inverse=True)[1]
    dates = [f"{date[:4]}-{date[4:6]}-{date[6:]}" for date in lines[:, 1]]
    day = (np.array(dates, dtype="datetime64[D]") - np.datetime64("1997-01-01")).astype(np.int64)
    keys, index = np.unique(customer * 1000 + day, return_inverse=True)
    return Purchases(keys // 1000, keys % 1000, np.bincount(index, lines[:, 2].astype(float)).astype(np.float64))


class Outcome(NamedTuple):
    """What was known of each customer at the end of the calibration, and what they bought until that of the holdout."""

    x: FloatArray
    t_x: FloatArray
    T: FloatArray
    monetary: FloatArray
    purchases: FloatArray
    value: FloatArray


def outcome(purchases: Purchases, until: int = CALIBRATION_END, end: int = HOLDOUT_END) -> Outcome:
    customer, day, value = purchases
    customers = int(customer.max()) + 1
    first = np.full(customers, 10**6)
    np.minimum.at(first, customer, day)
    known, later = day <= until, (day > until) & (day <= end)
    last = np.zeros(customers, dtype=np.int64)
    np.maximum.at(last, customer[known], day[known])
    x = np.bincount(customer[known], minlength=customers).astype(np.float64) - 1
    repeat = known & (day > first[customer])
    spent = np.bincount(customer[repeat], value[repeat], customers)
    return Outcome(
        x=x,
        t_x=(last - first).astype(np.float64),
        T=(until - first).astype(np.float64),
        monetary=spent / np.maximum(x, 1),
        purchases=np.bincount(customer[later], minlength=customers).astype(np.float64),
        value=np.bincount(customer[later], value[later], customers).astype(np.float64),
    )


def simulated(
    customers: int, params: dict[str, float], spend: tuple[float, float, float], holdout: float, seed: int, k: int = 1
) -> Outcome:
    """Customers of BG/NBD (k = 1) or MBG/CNBD-k (k > 1) with Gamma-Gamma spend, in continuous time."""
    random = np.random.default_rng(seed)
    r, alpha, a, b = params["r"], params["alpha"], params["a"], params["b"]
    T = random.integers(200, 700, customers).astype(np.float64)
    rate, leaves = random.gamma(r, 1 / alpha, customers), random.beta(a, b, customers)
    x, t_x, later = np.zeros(customers), np.zeros(customers), np.zeros(customers)
    now = np.zeros(customers)
    active = np.flatnonzero(random.random(customers) > (leaves if k > 1 else 0))
    while active.size:
        now[active] += random.gamma(k, 1 / rate[active])
        active = active[now[active] <= T[active] + holdout]
        early = active[now[active] <= T[active]]
        x[early] += 1
        t_x[early] = now[early]
        later[active[now[active] > T[active]]] += 1
        active = active[random.random(active.size) > leaves[active]]
    p, q, v = spend
    nu = random.gamma(q, 1 / v, customers)
    monetary = np.where(x > 0, random.gamma(np.maximum(p * x, 1e-9)) / nu / np.maximum(x, 1), 0)
    value = np.where(later > 0, random.gamma(np.maximum(p * later, 1e-9)) / nu, 0)
    return Outcome(x, t_x, T, monetary, later, value)
