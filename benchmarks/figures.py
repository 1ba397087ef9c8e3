"""A measured figure beside another, and how it is told."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`ours` beside `other`, in the same unit and measured in the same run.

    The ratio is ours / other; `target` is what it is to reach: at least, or, where `at_most` says so, at most. What
    could not be measured is NaN, and its row says so.
    """

    what: str
    beside: str
    ours: float
    other: float
    unit: str
    target: float
    at_most: bool = False

    @property
    def ratio(self) -> float:
        return self.ours / self.other

    @property
    def is_reached(self) -> bool:
        return self.ratio <= self.target if self.at_most else self.ratio >= self.target

    def row(self) -> str:
        sign = "≤" if self.at_most else "≥"
        verdict = "reached" if self.is_reached else "not reached"
        if math.isnan(self.ratio):
            return f"| {self.what} | – | {self.beside} | – | – | {sign} {self.target:g} | not measured |"
        return (
            f"| {self.what} | {_number(self.ours)} {self.unit} | {self.beside} | {_number(self.other)} {self.unit}"
            f" | {self.ratio:.2f} | {sign} {self.target:g} | {verdict} |"
        )


def within(what: str, measured: float, bound: float, unit: str) -> Figure:
    """A figure beside what it may be at most."""
    return Figure(what, "the bound", measured, bound, unit, 1, at_most=True)


HEAD = "| figure | measured | beside | measured | ratio | to reach | |\n|---|---|---|---|---|---|---|"


def table(figures: Iterable[Figure]) -> str:
    return "\n".join([HEAD, *(figure.row() for figure in figures)])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
