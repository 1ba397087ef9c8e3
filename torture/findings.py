"""What the programme answers: a row a promise."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is tried: the short form or the long one, and for how long at most."""

    small: bool = False
    seconds: float = 1_800.0


@dataclass(frozen=True, slots=True)
class Finding:
    promise: str
    tried: str
    figure: str
    bound: str
    kept: bool | None
    """None: as far as it was tried, but that was less than it should be."""

    def row(self) -> str:
        return f"| {self.promise} | {self.tried} | {self.figure} | {self.bound} | {_VERDICTS[self.kept]} |"


def kept_as_far(holds: bool, in_full: bool) -> bool | None:
    """The verdict where the time may have been up before all was tried."""
    return in_full or None if holds else False


_VERDICTS = {True: "kept", False: "MISSED", None: "not in full"}
HEAD = "| promise | how tried | figure | bound | |\n|---|---|---|---|---|"


def table(findings: Iterable[Finding]) -> str:
    return "\n".join([HEAD, *(finding.row() for finding in findings)])
