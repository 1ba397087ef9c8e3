"""The settings of a workspace: how its customers are scored. Typed, with a default for everything.

A run takes the workspace's settings with its own laid over them, and keeps what came out.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.analytics.churn import ChurnLimits
from app.analytics.pareto import AbcSettings
from app.analytics.rfm import RfmSettings

ClvModel = Literal["auto", "textbook", "bg_nbd", "mbg_nbd", "pareto_nbd", "mbg_cnbd_k"]
Basis = Literal["revenue", "margin"]
Days = Annotated[int, Field(ge=1, le=36_500)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RfmThresholds(_Part):
    """Own limits in place of cut points: one fewer than grades, rising. A figure equal to a limit is below it."""

    r: list[float] | None = Field(default=None, description="Days since the last order.")
    f: list[float] | None = Field(default=None, description="Orders.")
    m: list[float] | None = Field(default=None, description="Net spend.")


class RfmPart(_Part):
    """How recency, frequency and money are graded."""

    k: Annotated[int, Field(ge=2, le=10, description="Number of grades.")] = 5
    ties: Annotated[
        Literal["equal", "first"],
        Field(description="`equal`: equal figures, equal scores. `first`: F is ranked by (figure, customer_id)."),
    ] = "equal"
    window_days: Annotated[Days | None, Field(description="Limits F and M to the last days; null is all time.")] = None
    preset: Annotated[
        Literal["quantiles", "thirds"],
        Field(description="`thirds`: R by 4 and 8 calendar months, F and M by thirds, three grades."),
    ] = "quantiles"
    thresholds: RfmThresholds | None = None
    grid: Annotated[
        dict[str, str] | None,
        Field(max_length=100, description='Own segments by R and F: `{"55": "stars"}`, or `{"10-9": "stars"}`.'),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _thirds_are_a_preset(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("thresholds") == "thirds":
            return {**given, "thresholds": None, "preset": "thirds"}
        return given

    @model_validator(mode="after")
    def _holds_together(self) -> "RfmPart":
        self.analytic()
        return self

    def analytic(self) -> RfmSettings:
        limits = self.thresholds or RfmThresholds()
        return RfmSettings(
            k=self.k,
            ties=self.ties,
            window_days=self.window_days,
            preset=self.preset,
            r_limits=tuple(limits.r) if limits.r is not None else None,
            f_limits=tuple(limits.f) if limits.f is not None else None,
            m_limits=tuple(limits.m) if limits.m is not None else None,
            grid=self.grid,
        )


class AbcPart(_Part):
    """How customers are graded by the share of spend that they bring."""

    preset: Annotated[
        Literal["standard", "literal"], Field(description="`standard`: 0.80 and 0.95. `literal`: 0.80 and 0.99.")
    ] = "standard"
    a_share: Annotated[float | None, Field(gt=0, lt=1, description="Own limit of A.")] = None
    b_share: Annotated[float | None, Field(gt=0, lt=1, description="Own limit of B.")] = None
    basis: Basis = "revenue"

    @model_validator(mode="after")
    def _holds_together(self) -> "AbcPart":
        self.analytic()
        return self

    def analytic(self) -> AbcSettings:
        return AbcSettings(preset=self.preset, a_share=self.a_share, b_share=self.b_share)


class ClvPart(_Part):
    """How lifetime value is told."""

    model: Annotated[ClvModel, Field(description="`auto` takes the best forecaster of the customers' own past.")] = (
        "auto"
    )
    basis: Annotated[Basis, Field(description="`margin` is net spend less cost.")] = "revenue"
    horizon_days: Annotated[Days, Field(description="How far `predicted` looks ahead.")] = 365
    discount_rate: Annotated[float, Field(ge=0, le=10, description="A year; predictive models only.")] = 0.10
    lifespan_years: Annotated[
        float, Field(gt=0, le=100, description="Of the textbook's customers, where too few are known to tell.")
    ] = 3.0
    interval_level: Annotated[float, Field(gt=0, lt=1, description="Of the interval around `predicted`.")] = 0.90


class CustomEvent(_Part):
    """What a custom event of a name speaks for."""

    speaks_for: Literal["natural", "competitive", "passive", "negligent"]
    weight: Annotated[float, Field(ge=0, le=3, description="Log-odds at age zero.")] = 1.0


class ChurnPart(_Part):
    """When a customer is at risk, and when churned."""

    method: Annotated[
        Literal["auto", "inactivity", "probability"],
        Field(description="`auto`: by probability where the run fitted a predictive model, else by inactivity."),
    ] = "auto"
    horizon_days: Annotated[Days, Field(description="`probability` is that of no order within these days.")] = 180
    active_days: Annotated[Days, Field(description="Active up to so many days since the last order.")] = 90
    at_risk_days: Annotated[Days, Field(description="At risk up to so many days; churned beyond.")] = 180

    custom_events: Annotated[
        dict[str, CustomEvent], Field(max_length=200, description="What `custom.recorded` events speak for, by name.")
    ] = {}
    trust_custom_events: Annotated[
        bool, Field(description="Whether a custom event not named here may say for itself what it speaks for.")
    ] = False

    @model_validator(mode="after")
    def _holds_together(self) -> "ChurnPart":
        self.analytic()
        return self

    def analytic(self) -> ChurnLimits:
        return ChurnLimits(active_days=self.active_days, at_risk_days=self.at_risk_days)


class RunsPart(_Part):
    """When runs start by themselves."""

    every_hours: Annotated[int | None, Field(ge=1, le=8_784, description="Null: only when asked for.")] = None


class WorkspaceSettings(_Part):
    """How a workspace's customers are scored."""

    rfm: RfmPart = RfmPart()
    abc: AbcPart = AbcPart()
    clv: ClvPart = ClvPart()
    churn: ChurnPart = ChurnPart()
    runs: RunsPart = RunsPart()


DEFAULTS = WorkspaceSettings()


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes`` laid over ``base``: parts merge field by field, anything else is replaced."""
    result = dict(base)
    for name, value in changes.items():
        known = result.get(name)
        result[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return result
