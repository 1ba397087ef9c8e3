"""The fields of a stored value, as Feast is given them: numbers, counts and words."""

NUMBERS = (
    *("net_spend", "abc_net_spend", "cumulative_share", "clv_historical", "clv_current", "clv_predicted", "clv_total"),
    *("expected_purchases", "expected_purchase_value", "p_alive", "interval_low", "interval_high", "churn_probability"),
)
COUNTS = ("days_since_last_order", "order_count", "r", "f", "m", "horizon_days")
WORDS = (
    *("segment", "abc_grade", "churn_state", "churn_type", "churn_subtype", "action", "lifecycle_status"),
    *("lifecycle_stage", "run_id", "currency"),
)
