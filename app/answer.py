"""From a row of scores, just computed or stored, to the value that callers read."""

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from app.explanation import OwnFigures, explain_scores
from app.labels import Language, label
from app.scoring import FittedRun, rfm_text
from app.store.workspaces import Workspace
from app.value import (
    Abc,
    Churn,
    Clv,
    Evidence,
    Explanation,
    Interval,
    Lifecycle,
    RecommendedAction,
    Rfm,
    TypeProbabilities,
    Value,
)
from app.workspace_settings import WorkspaceSettings


@dataclass(frozen=True)
class Answer:
    """What all values of an answer share."""

    workspace: Workspace
    settings: WorkspaceSettings
    run: FittedRun | None
    as_of: datetime
    source: str
    horizon_days: int
    language: Language

    def in_language(self, language: Language) -> "Answer":
        return self if language == self.language else replace(self, language=language)

    def value(self, row: Any) -> Value:
        """The value that a row of scores tells: one just computed, or one that was stored."""
        fit = self.run.fitted.clv if self.run else None
        interval = None
        if row.interval_low is not None:
            interval = Interval(self.settings.clv.interval_level, row.interval_low, row.interval_high)
        return Value(
            customer_id=row.customer_id,
            as_of=self.as_of,
            source=self.source,
            run_id=self.run.name if self.run else None,
            currency=self.workspace.currency,
            rfm=Rfm(
                row.days_since_last_order,
                row.order_count,
                row.net_spend,
                row.r,
                row.f,
                row.m,
                rfm_text(row, self.run.fitted.rfm.k) if self.run else None,
                row.segment,
            ),
            abc=Abc(row.abc_grade, row.abc_net_spend, row.cumulative_share),
            clv=Clv(
                basis=self.settings.clv.basis,
                historical=row.clv_historical,
                current=row.clv_current,
                predicted=row.clv_predicted,
                total=row.clv_total,
                horizon_days=self.horizon_days,
                expected_purchases=row.expected_purchases,
                expected_purchase_value=row.expected_purchase_value,
                p_alive=row.p_alive,
                interval=interval,
                method=fit.model if fit else None,
                fallback_reason=fit.fallback_reason if fit else None,
            ),
            churn=_churn(row),
            lifecycle=Lifecycle(row.lifecycle_status, row.lifecycle_stage),
            recommended_action=RecommendedAction(
                row.action, label("action", row.action, self.language) if row.action else None
            ),
            explanation=None,
        )

    def explanation(self, row: Any, own: OwnFigures | None) -> Explanation:
        """Why the value is what it is. ``own`` are the figures that gave the row, where they are known."""
        return explain_scores(
            row,
            own,
            settings=self.settings,
            fitted=self.run.fitted if self.run else None,
            as_of_day=self.workspace.local_day(self.as_of),
            horizon_days=self.horizon_days,
            currency=self.workspace.currency,
        )


def _churn(row: Any) -> Churn:
    evidence = json.loads(row.evidence) if isinstance(row.evidence, str) else row.evidence or []
    return Churn(
        row.churn_state,
        row.churn_probability,
        row.churn_type,
        row.churn_subtype,
        TypeProbabilities(*row.type_probabilities) if row.type_probabilities else None,
        [Evidence(**{**told, "occurred_at": datetime.fromisoformat(told["occurred_at"])}) for told in evidence],
    )
