"""Labels of codes, in English and Chinese. Codes never change with the language; labels are for people."""

from typing import Literal, get_args

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

SEGMENTS: dict[str, dict[Language, str]] = {
    "champions": {"en": "Champions", "zh": "重要价值客户"},
    "loyal_customers": {"en": "Loyal customers", "zh": "忠诚客户"},
    "potential_loyalists": {"en": "Potential loyalists", "zh": "潜在忠诚客户"},
    "new_customers": {"en": "New customers", "zh": "新客户"},
    "promising": {"en": "Promising", "zh": "有潜力客户"},
    "need_attention": {"en": "Need attention", "zh": "需要关注的客户"},
    "about_to_sleep": {"en": "About to sleep", "zh": "即将沉睡客户"},
    "hibernating": {"en": "Hibernating", "zh": "沉睡客户"},
    "at_risk": {"en": "At risk", "zh": "有流失风险的客户"},
    "cant_lose": {"en": "Can't lose them", "zh": "不能失去的客户"},
    "high_value": {"en": "High value", "zh": "高价值客户"},
    "medium_value": {"en": "Medium value", "zh": "中价值客户"},
    "low_value": {"en": "Low value", "zh": "低价值客户"},
}
GRADES: dict[str, dict[Language, str]] = {
    "A": {"en": "A: most of the revenue", "zh": "A类：贡献大部分收入"},
    "B": {"en": "B: the middle", "zh": "B类：中间客户"},
    "C": {"en": "C: the long tail", "zh": "C类：长尾客户"},
}
CHURN_STATES: dict[str, dict[Language, str]] = {
    "active": {"en": "Active", "zh": "活跃"},
    "at_risk": {"en": "At risk of leaving", "zh": "有流失风险"},
    "churned": {"en": "Lost", "zh": "已流失"},
    "never_purchased": {"en": "Never purchased", "zh": "从未购买"},
}
CHURN_TYPES: dict[str, dict[Language, str]] = {
    "natural": {"en": "Natural loss: nobody's fault", "zh": "自然流失"},
    "competitive": {"en": "Competitive loss: won by a rival", "zh": "竞争流失"},
    "passive": {"en": "Passive loss: not by choice, or stopped paying", "zh": "被动流失"},
    "negligent": {"en": "Negligent loss: our own failing", "zh": "过失流失"},
    "unknown": {"en": "Reason unknown", "zh": "原因不明"},
}
CHURN_SUBTYPES: dict[str, dict[Language, str]] = {
    "non_malicious": {"en": "Not meant: forgotten or expired", "zh": "非恶意：遗忘或过期"},
    "retaliatory": {"en": "Withholds payment in anger", "zh": "报复性：因不满而拒付"},
    "malicious": {"en": "Fraud or bad credit", "zh": "恶意：欺诈或信用不良"},
}
LIFECYCLE_STATUSES: dict[str, dict[Language, str]] = {
    "prospect": {"en": "Prospect", "zh": "潜在客户"},
    "new": {"en": "New", "zh": "新客户"},
    "active": {"en": "Active", "zh": "活跃客户"},
    "occasional": {"en": "Occasional", "zh": "偶尔购买客户"},
    "inactive": {"en": "Inactive", "zh": "不活跃客户"},
}
LIFECYCLE_STAGES: dict[str, dict[Language, str]] = {
    "exploration": {"en": "Exploration", "zh": "考察期"},
    "formation": {"en": "Formation", "zh": "形成期"},
    "stable": {"en": "Stable", "zh": "稳定期"},
    "decline": {"en": "Decline", "zh": "衰退期"},
}
ACTIONS: dict[str, dict[Language, str]] = {
    "close_kindly": {"en": "Close the account kindly", "zh": "善意结束关系"},
    "win_back_price": {"en": "Win back with a better price", "zh": "以价格优惠赢回"},
    "win_back_service": {"en": "Win back with better service", "zh": "以更好的服务赢回"},
    "win_back_talk": {"en": "Ask what the rival does better, then win back", "zh": "了解竞争对手的优势后赢回"},
    "win_back_offer": {"en": "Send a standard win-back offer", "zh": "发送标准赢回优惠"},
    "apologise_and_compensate": {
        "en": "Mend the failing, apologise and compensate",
        "zh": "改正过失，道歉并补偿",
    },
    "mend_and_apologise": {"en": "Mend the failing and apologise", "zh": "改正过失并道歉"},
    "remind_renewal": {"en": "Send a reminder to renew or pay", "zh": "提醒续费或更新付款方式"},
    "remind_personally": {"en": "Call to help renew or pay", "zh": "专人联系，协助续费或付款"},
    "settle_dispute": {"en": "Settle the dispute fast", "zh": "尽快解决争议"},
    "do_not_keep": {"en": "Do not keep; stop credit", "zh": "不再挽留，停止授信"},
    "call_and_ask": {"en": "Call and ask why", "zh": "致电了解原因"},
    "ask_why": {"en": "Ask why in a short survey", "zh": "通过简短问卷了解原因"},
    "keep_warm": {"en": "Keep in touch at low cost", "zh": "低成本保持联系"},
    "reactivate_cheaply": {"en": "Try to reactivate at low cost", "zh": "低成本尝试唤醒"},
    "reward_loyalty": {"en": "Reward loyalty", "zh": "奖励忠诚"},
    "nurture": {"en": "Develop the relationship", "zh": "培养客户关系"},
    "invite_first_order": {"en": "Invite to a first order", "zh": "邀请首次下单"},
}

LABELS: dict[str, dict[str, dict[Language, str]]] = {
    "segment": SEGMENTS,
    "grade": GRADES,
    "churn_state": CHURN_STATES,
    "churn_type": CHURN_TYPES,
    "churn_subtype": CHURN_SUBTYPES,
    "lifecycle_status": LIFECYCLE_STATUSES,
    "lifecycle_stage": LIFECYCLE_STAGES,
    "action": ACTIONS,
}
"""All of them, by what the code is a code of."""


def label(of: str, code: str, language: Language = "en") -> str:
    """The label of a code; the code itself where it has none, such as a segment of the workspace's own."""
    labels = LABELS[of].get(code)
    return code if labels is None else labels[language]
