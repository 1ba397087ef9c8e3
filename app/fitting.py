"""Fit a population that comes in parts: what a part tells of its customers adds up, and the fit is made of the sums.

Each part is looked at three times. ``tally_part`` counts it, and of all counts ``cut_population`` knows where grades
end. ``sum_part`` adds it up by the segments that follow, and of all sums ``fit_models`` fits lifetime value.
``value_part`` values it, and of all values ``fit_population`` knows the tiers of customers. Nobody needs the figures
of all customers at once. Pure: figures in, fits out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.analytics.actions import fit_clv_tiers
from app.analytics.booking import empty_figures
from app.analytics.churn_learning import Learned
from app.analytics.clv import ClvFit, fit_clv
from app.analytics.counted import Counted, Place, find_place
from app.analytics.origins import Cut, Split, count_known, plan_cuts, split_at
from app.analytics.pareto import AbcFit, ParetoCurve, RankedSpend, cumulative_share, rank_spend, spend_before
from app.analytics.population import UNITS_LIMIT, TotalTooLarge
from app.analytics.rfm import RfmFit, f_boundaries, fit_rfm, score_rfm
from app.analytics.summary import CustomerFigures
from app.analytics.tabulation import TablesOfFit
from app.analytics.tally import Histories, PurchaseTally, PurchaseValues, RankTally, read_member, to_arrays
from app.analytics.textbook import SegmentSums, fit_textbook, sum_segments
from app.analytics.valuation import ClvValues, mean_purchase_value
from app.churn_typing import ChurnFit, expert_weights
from app.population import Population
from app.scoring import Fitted, value_customers, whole_worth
from app.workspace_settings import WorkspaceSettings

Graded = Literal["order_count", "graded_spend"]
"""Figures whose last customers of a grade are known by their ids, as ``RankTally`` names them."""


def nobody(as_of_day: int, settings: WorkspaceSettings) -> Population:
    """A part without customers: what a population that has none is fitted to."""
    return Population(as_of_day, (), empty_figures(0, settings.rfm.window_days or 1))


# ---- Counting -------------------------------------------------------------------------------------------------------


def tally_part(population: Population, settings: WorkspaceSettings) -> tuple[RankTally, PurchaseTally]:
    """Count the customers of a part. Raises ``TotalTooLarge``."""
    net, cost = (np.abs(population.figures[name]) for name in ("net_spend", "net_cost"))
    if int(net.max(initial=0)) + int(cost.max(initial=0)) >= UNITS_LIMIT:
        raise TotalTooLarge("a customer's net spend less cost is too large to be counted in ten-thousandths")
    arrays = population.arrays
    buyers = np.flatnonzero(arrays.has_order)
    histories = Histories.of(arrays.frequency[buyers], arrays.recency_days[buyers], arrays.T_days[buyers])
    graded, in_window = _graded(population, settings, "graded_spend"), population.figures["window_net_spend"]
    net_spend = Counted.of(in_window[buyers])
    ranks = RankTally(
        T_days=Counted.of(histories.T_days, histories.customers),
        days_since_last_order=histories.days_since_last_order,
        order_count=Counted.of(_graded(population, settings, "order_count")[buyers]),
        net_spend=net_spend,
        graded_spend=net_spend if graded is in_window else Counted.of(graded[buyers]),
    )
    repeaters = np.flatnonzero(arrays.frequency > 0)
    repeats = arrays.frequency[repeaters]
    values = spend = PurchaseValues.of(repeats, arrays.monetary_value[repeaters])
    if settings.clv.basis == "margin":
        values = PurchaseValues.of(repeats, mean_purchase_value(arrays, "margin")[repeaters])
    return ranks, PurchaseTally(histories, values, spend)


@dataclass(frozen=True)
class Before:
    """What stands before a part in the order of all customers.

    Attributes
    ----------
    spend : int64 array (m,), of ``spend_before``.
    known : int64 array (c,), customers of earlier parts who are known at each of the contest's cuts.
    """

    spend: NDArray[np.int64]
    known: NDArray[np.int64]


@dataclass(frozen=True)
class RankedPopulation:
    """A population as its counts tell it.

    Attributes
    ----------
    tally, spend : of the population.
    cuts : of the contest of models, if there is one.
    before : what stands before each part.
    boundaries : the last customers of grades, by the figure that is graded: the part of each, and the place there.
    """

    tally: RankTally
    spend: RankedSpend
    cuts: list[Cut]
    before: list[Before]
    boundaries: dict[Graded, dict[Place, tuple[int, Place]]]


def rank_population(parts: Sequence[RankTally], settings: WorkspaceSettings, as_of_day: int) -> RankedPopulation:
    """Put the parts, at least one, together in the order of ids. Raises ``TotalTooLarge``."""
    tally = RankTally.joined(parts)
    spend = rank_spend(tally.graded_spend, settings.abc.analytic())
    cuts = []
    if settings.clv.model != "textbook":
        cuts = plan_cuts(tally.T_days, as_of_day)
    known = np.zeros((len(parts) + 1, len(cuts)), dtype=np.int64)
    for index, part in enumerate(parts):
        here = [count_known(part.T_days, cut.holdout_days) for cut in cuts]
        known[index + 1] = known[index] + np.array(here, dtype=np.int64)
    spends = spend_before(tally.graded_spend, [part.graded_spend for part in parts])
    places: dict[Graded, list[Place]] = {
        "order_count": f_boundaries(settings.rfm.analytic(), tally.order_count),
        "graded_spend": spend.places,
    }
    return RankedPopulation(
        tally,
        spend,
        cuts,
        [Before(*one) for one in zip(spends, known[:-1], strict=True)],
        {
            name: {place: find_place(place, [getattr(part, name) for part in parts]) for place in wanted}
            for name, wanted in places.items()
        },
    )


def id_at(population: Population, settings: WorkspaceSettings, graded: Graded, place: Place) -> str:
    """The id of a customer of a part, by place among its customers with a counted order."""
    alike = _graded(population, settings, graded) == place.value
    return population.customer_ids[int(np.flatnonzero(alike & (population.figures["order_count"] > 0))[place.nth])]


def _graded(population: Population, settings: WorkspaceSettings, graded: Graded) -> NDArray[np.int64]:
    if graded == "order_count":
        return population.figures["window_order_count"]
    return population.on_basis(settings.abc.basis, "net_spend", "net_cost")


@dataclass(frozen=True)
class Grades:
    """Where grades end, and where the contest of models cuts the time: all that adding up by segments needs."""

    rfm: RfmFit
    abc: AbcFit
    curve: ParetoCurve
    cuts: list[Cut]

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; ``from_dict`` reads it back."""
        return {
            "rfm": self.rfm.to_dict(),
            "abc": self.abc.to_dict(),
            "curve": {field.name: getattr(self.curve, field.name).tolist() for field in fields(ParetoCurve)},
            "cuts": [asdict(cut) for cut in self.cuts],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Grades":
        return cls(
            RfmFit.from_dict(stored["rfm"]),
            AbcFit.from_dict(stored["abc"]),
            ParetoCurve(**{name: np.array(column) for name, column in stored["curve"].items()}),
            [Cut(**cut) for cut in stored["cuts"]],
        )


def cut_population(
    ranked: RankedPopulation, settings: WorkspaceSettings, ids: Mapping[Graded, Mapping[Place, str]]
) -> Grades:
    """Find where grades end, given the ids of the customers at the boundaries."""
    tally = ranked.tally
    rfm = fit_rfm(
        settings.rfm.analytic(),
        days_since_last_order=tally.days_since_last_order,
        order_count=tally.order_count,
        net_spend=tally.net_spend,
        ranked=ids["order_count"],
    )
    return Grades(rfm, ranked.spend.fit(ids["graded_spend"]), ranked.spend.curve, ranked.cuts)


# ---- Adding up ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartSums:
    """What a part adds to the fit once grades are known: sums by segment, and its customers at the contest's cuts."""

    segments: SegmentSums
    splits: list[Split]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays by name; ``from_arrays`` reads it back."""
        return to_arrays({"segments": self.segments, **{str(index): split for index, split in enumerate(self.splits)}})

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], cuts: int) -> "PartSums":
        splits = [read_member(arrays, str(index), Split) for index in range(cuts)]
        return cls(
            read_member(arrays, "segments", SegmentSums),
            [replace(split, holdout_days=float(split.holdout_days)) for split in splits],
        )


def sum_part(
    population: Population,
    settings: WorkspaceSettings,
    grades: Grades,
    known_before: NDArray[np.int64],
    purchase_days: NDArray[np.int32] | None,
) -> PartSums:
    """Add a part up by segments, and split its customers at the contest's cuts.

    ``purchase_days`` (d,) come by customer, as many of each as the figures count; None where there is no contest.
    """
    arrays = population.arrays
    sums = sum_segments(
        segment=_segments(population, arrays, grades.rfm),
        segments=grades.rfm.segments,
        has_order=arrays.has_order,
        year_order_count=arrays.year_order_count,
        year_net_spend=arrays.year_net_spend,
        year_cost=arrays.year_cost,
        prior_year_order_count=arrays.prior_year_order_count,
        basis=settings.clv.basis,
    )
    if purchase_days is None:
        return PartSums(sums, [])
    customer = np.repeat(np.arange(arrays.has_order.size, dtype=np.int32), arrays.purchase_days)
    at_cuts = zip(grades.cuts, known_before.tolist(), strict=True)
    return PartSums(sums, [split_at(cut, customer, purchase_days, known) for cut, known in at_cuts])


def _segments(population: Population, arrays: CustomerFigures, rfm: RfmFit) -> NDArray[np.int8]:
    return score_rfm(
        rfm,
        as_of_day=population.as_of_day,
        days_since_last_order=arrays.days_since_last_order,
        order_count=arrays.window_order_count,
        net_spend=arrays.window_net_spend,
        has_order=arrays.has_order,
        customer_ids=population.customer_ids,
    ).segment


def fit_models(
    tallies: Sequence[PurchaseTally],
    sums: Sequence[PartSums],
    settings: WorkspaceSettings,
    grades: Grades,
) -> ClvFit:
    """Fit lifetime value to the counts and sums of all parts, of which there is at least one."""
    textbook = fit_textbook(
        SegmentSums.joined([part.segments for part in sums]),
        grades.rfm.segments,
        basis=settings.clv.basis,
        lifespan_years=settings.clv.lifespan_years,
    )
    return fit_clv(
        PurchaseTally.joined(tallies),
        textbook,
        model=settings.clv.model,
        splits=[Split.joined(parts) for parts in zip(*(part.splits for part in sums), strict=True)],
    )


# ---- Valuing --------------------------------------------------------------------------------------------------------


def value_part(
    population: Population,
    settings: WorkspaceSettings,
    grades: Grades,
    clv: ClvFit,
    before: NDArray[np.int64],
    kept: TablesOfFit | None = None,
) -> tuple[ClvValues, NDArray[np.float64], Counted]:
    """The values of a part over the horizon of the settings, its cumulative shares of spend, and the counts of what
    its customers are worth.

    ``kept`` are tables from other parts of the same population and fit.
    """
    arrays = population.arrays
    segment = _segments(population, arrays, grades.rfm)
    values = value_customers(arrays, settings, clv, segment, settings.clv.horizon_days, kept)
    graded = _graded(population, settings, "graded_spend")
    share = cumulative_share(graded, arrays.has_order, before, grades.abc.positive_units)
    worth = whole_worth(population.on_basis(settings.clv.basis, "net_spend", "net_cost"), values)
    return values, share, Counted.of(worth[np.isfinite(worth)])


def fit_population(
    worth: Sequence[Counted],
    settings: WorkspaceSettings,
    grades: Grades,
    clv: ClvFit,
    learned: Learned | None = None,
) -> Fitted:
    """Put the fit of a population together, given what the customers of each part are worth.

    ``learned`` is what learning churn types from labels came to, None where there are no labels.
    """
    churn = ChurnFit(
        method="inactivity" if settings.churn.method == "inactivity" or clv.purchases is None else "probability",
        horizon_days=settings.churn.horizon_days,
        weights=learned.weights if learned else expert_weights(),
        learning=learned.summary() if learned else {},
        calibration=_churn_calibration(clv),
        tiers=fit_clv_tiers(Counted.joined(worth)) if worth else None,
    )
    return Fitted(grades.rfm, grades.abc, clv, churn)


def _churn_calibration(clv: ClvFit) -> dict[str, Any] | None:
    """How the probability of churn came true in the model's calibration."""
    if clv.calibration is None:
        return None
    deciles = [
        {"customers": group["customers"], "predicted": group["forecast"], "actual": group["actual"]}
        for group in clv.calibration["churn_deciles"]
    ]
    return {"horizon_days": clv.calibration["holdout_days"], "deciles": deciles}
