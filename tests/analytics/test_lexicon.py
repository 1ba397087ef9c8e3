import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.analytics import lexicon_en, lexicon_zh
from app.analytics.event_columns import EVENT_CODE, event_columns
from app.analytics.evidence import weigh_evidence
from app.analytics.lexicon import TEXT_LIMIT, THEME_TYPE, THEMES, read_texts
from app.analytics.reading import read_events
from app.analytics.signals import SIGNALS, TYPES, default_weights

SAYINGS = {
    "natural": [
        "We have moved to another city and cannot use the service there",
        "My mother passed away last month",
        "The shop is closing down for good",
        "I'm emigrating to Canada",
        "Our company was dissolved in March",
        "I am retiring and will not need this any longer",
        "You do not deliver to my new area",
        "I didn't leave because of a competitor; I moved abroad",
        "搬到外地去了",
        "老人已经去世",
        "公司倒闭了",
        "全家移民，不再需要",
        "我们店关门了",
        "贵公司的产品很好，只是我退休了",
        "不得不搬家",
        "Relocation to Berlin",
        "relocated",
        "customer_deceased",
        "business_closed",
        "My husband died and the account was his",
        "We shut our restaurant after the pandemic",
        "I live outside your service area now",
        "Nothing wrong with your service, I just moved to Spain",
        "孩子毕业了，不用了",
        "搬迁",
        "我们搬到了上海，那边没有你们的店",
        "经营不善，企业已注销",
    ],
    "competitive": [
        "I found a cheaper provider",
        "Your rival gave me a better deal",
        "It has become too expensive for us",
        "The monthly fee keeps going up",
        "I can't afford it anymore",
        "Prices are way higher than elsewhere",
        "Switched to Acme because they ship faster",
        "Another store offers free shipping",
        "Not worth the money",
        "we went with someone else",
        "Competitor has more features",
        "not the quality but the price is too high",
        "Great service, but a competitor was cheaper",
        "not only expensive",
        "价格太贵了",
        "别家更便宜",
        "换了另一家供应商",
        "竞争对手给的条件更好",
        "性价比不高",
        "运费太高，不划算",
        "不是质量不好，而是价格太贵",
        "非常贵",
        "price_too_high",
        "better-offer-elsewhere",
        "Your prices went up again this year",
        "Verizon offered me more data for less",
        "Cost cutting at our company",
        "moved our account to a different supplier",
        "moving to a competitor next week",
        "COMPETITOR",
        "Too many hidden fees",
        "I'm paying far too much",
        "The new plan of your competitor suits us better",
        "隔壁超市更便宜",
        "涨价太厉害",
        "被对手挖走了",
        "现在用别的平台了",
        "贵",
        "预算不够",
        "京东送得更快",
    ],
    "passive": [
        "I simply forgot to renew",
        "my credit card had expired",
        "The direct debit bounced",
        "I didn't notice that the subscription had ended",
        "I refuse to pay until my complaint is settled",
        "customer defaulted on three invoices",
        "account closed for fraud",
        "忘了续费",
        "信用卡过期了，扣款失败",
        "没有收到续费提醒",
        "问题不解决就不付款",
        "该客户恶意拖欠货款",
        "expired_card",
        "forgotten",
        "renewal lapsed",
        "I lost my bank card and got a new one",
        "We are withholding payment until the machine is repaired",
        "non-payment",
        "bad debt",
        "卡换了，自动扣费失败",
        "一时疏忽忘记缴费",
        "拒绝支付尾款",
        "欠费",
    ],
    "negligent": [
        "Nobody ever answered my emails",
        "The delivery was two weeks late and the box was damaged",
        "Your staff were rude to me",
        "The product broke after three days",
        "I waited on hold for an hour",
        "I was charged twice and you refused to refund me",
        "The app keeps crashing",
        "not happy with the support I received",
        "They never fixed the problem",
        "Poor quality",
        "The courier lost my parcel",
        "Terrible communication from your side",
        "It isn't because of the price, your delivery is always late",
        "客服态度很差",
        "投诉了三次都没人处理",
        "送货太慢，而且包装破损",
        "质量不好，用了两天就坏了",
        "对服务不满意",
        "系统老是卡顿，问题一直没解决",
        "並非因為搬家，是因為客服態度惡劣",
        "slow_delivery",
        "Delivery issues",
        "bad service",
        "unresolved_complaint",
        "the technician never showed up",
        "I have complained three times without any result",
        "internet connection drops all the time",
        "You sent me the wrong size twice",
        "Your website is impossible to use",
        "support was useless",
        "no one called me back",
        "The food was cold and the driver unfriendly",
        "Product didn't work as advertised",
        "I'm sick of waiting for answers",
        "You don't care about customers",
        "Staff lacked knowledge",
        "The price isn't too high, but the quality has declined",
        "等了一个月还没发货",
        "打电话没人接",
        "商品有瑕疵，退货还不给退",
        "太失望了",
        "快递把东西弄丢了",
        "店员很不耐烦",
        "物流问题",
        "价格還可以，就是物流太慢",
        "質量差",
    ],
    "unknown": [
        "I don't know",
        "no particular reason",
        "Prefer not to say",
        "hello there",
        "price was not the reason",
        "We did not move",
        "No complaints about the service",
        "The support was never rude",
        "不知道",
        "没什么特别的原因",
        "不是因为价格",
        "价格不是问题",
        "没有搬家",
        "服务没有不满意",
        "other",
        "N/A",
        "just because",
        "it has nothing to do with your prices",
        "I wasn't unhappy with anything",
        "without any delivery delays",
        "I have no problem with the price",
        "说不清楚",
        "没有什么不满",
        "跟价格没关系",
        "没有人态度不好",
    ],
}


def types_of(*texts: str) -> list[str]:
    every = np.arange(len(texts))
    themes = read_texts(texts).themes
    events = event_columns(every, np.full(every.size, EVENT_CODE["exit.answered"]), np.zeros(every.size), text=every)
    told = weigh_evidence(read_events(events, every.size, 0.0, themes), every.size, default_weights())
    return [TYPES[code] for code in told.type]


def themes_of(text: str) -> set[str]:
    return {phrase.theme for phrase in read_texts([text]).phrases[0]} & set(THEMES)


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in SAYINGS.items() for text in texts])
def test_what_customers_say_gives_the_type(kind: str, text: str) -> None:
    assert types_of(text) == [kind]


@pytest.mark.parametrize(
    ("said", "denied"),
    [
        ("it was too expensive", "it was never too expensive"),
        ("your staff is rude", "your staff isn't rude"),
        ("we moved away", "we didn't move away"),
        ("delays", "without delays"),
        ("there were problems and delays", "there were no problems or delays"),
        ("because of the price", "not because of the price"),
        ("I left because of a competitor", "I didn't leave because of a competitor"),
        ("the price was the reason", "the price was not the reason"),
        ("the price is the problem", "the price isn't the problem"),
        ("the price is high", "the price is not high"),
        ("the price is high", "the price had nothing to do with it"),
        ("价格太贵", "价格不贵"),
        ("因为搬家", "不是因为搬家"),
        ("对客服态度不满", "对客服态度没有不满"),
        ("因为竞争对手", "并非因为竞争对手"),
        ("投诉", "从未投诉"),
        ("价格是原因", "价格不是原因"),
        ("物流太慢", "物流并不慢"),
    ],
)
def test_a_negation_takes_the_reason_back(said: str, denied: str) -> None:
    assert themes_of(said)
    assert not themes_of(denied)


@pytest.mark.parametrize(
    ("plain", "negated"),
    [
        ("the agent was helpful", "the agent was not helpful"),
        ("they answered", "they never answered"),
        ("they kept me satisfied", "I was hardly satisfied"),
        ("affordable plans", "lack of affordable plans"),
        ("客服专业", "客服不专业"),
        ("按时送到", "没有按时送到"),
        ("东西便宜", "东西不便宜"),
    ],
)
def test_what_is_good_speaks_only_when_it_is_denied(plain: str, negated: str) -> None:
    assert not themes_of(plain)
    assert themes_of(negated)


@pytest.mark.parametrize(
    ("text", "themes"),
    [
        ("not the price but the rude staff", {"failing"}),
        ("It isn't the service. The price is too high.", {"price"}),
        ("I was not unhappy", set()),
        ("I was never not satisfied", set()),
        ("It was not without delays", {"failing"}),
        ("not only expensive but also rude", {"price", "failing"}),
        ("no longer live there", {"gone"}),
        ("不是价格贵，而是质量差", {"failing"}),
        ("不仅贵而且服务差", {"price", "failing"}),
        ("不得不搬家", {"gone"}),
        ("非常贵", {"price"}),
        ("不少投诉", {"failing"}),
        ("贵公司很好", set()),
    ],
)
def test_the_scope_of_a_negation_ends_and_its_lookalikes_do_not_negate(text: str, themes: set[str]) -> None:
    assert themes_of(text) == themes


@pytest.mark.parametrize(
    "text",
    ["competitive prices", "free of charge", "the charger", "in charge of sales", "prices are fair", "差不多", "出差"],
)
def test_words_that_only_look_like_a_reason_say_nothing(text: str) -> None:
    assert not themes_of(text)


def test_a_move_to_a_rival_is_no_removal() -> None:
    assert themes_of("moved to another provider") == {"rival"}
    assert themes_of("moved to another city") == {"gone"}


@pytest.mark.parametrize("text", ["price-too-high", "PRICE_TOO_HIGH", "Price too high!", "  price   too high  "])
def test_spelling_of_a_code_does_not_matter(text: str) -> None:
    assert types_of(text) == ["competitive"]


def test_curly_apostrophes_wide_letters_and_traditional_characters_are_read() -> None:
    assert not themes_of("it wasn’t the price")
    assert themes_of("ｃｏｍｐｅｔｉｔｏｒ") == {"rival"}
    assert themes_of("價格太貴") == themes_of("价格太贵") == {"price"}


def test_both_languages_in_one_text_are_read() -> None:
    assert themes_of("客服态度差, and too expensive") == {"failing", "price"}


def test_a_noun_alone_is_a_reason_only_as_a_label() -> None:
    assert types_of("Service") == ["negligent"]
    assert themes_of("I used the service for years and then I thought about it") == set()


def test_a_mixed_text_spreads_its_weight() -> None:
    alone, mixed = read_texts(["rude staff", "rude staff, and a competitor was there"]).themes
    failing, rival = THEMES.index("failing"), THEMES.index("rival")
    assert 0 < mixed[failing] < alone[failing]
    assert mixed[rival] > 0
    assert mixed.sum() <= 1


def test_two_themes_of_one_type_do_not_weaken_each_other() -> None:
    alone, both = read_texts(["too expensive", "too expensive, a competitor is cheaper"]).themes
    assert both.sum() >= alone.sum()


def test_the_phrase_found_is_told() -> None:
    (phrase,) = read_texts(["Sadly the delivery never arrived"]).phrases[0]
    assert phrase.words == "never arrived"
    assert phrase.theme == "failing"
    (negated,) = read_texts(["They were not really helpful at all"]).phrases[0]
    assert negated.words == "not really helpful"


def test_nothing_said_is_nothing_read() -> None:
    read = read_texts(["", "   ", "?!", "🙂", "12345", "привет"])
    assert read.themes.sum() == 0
    assert read_texts([]).themes.shape == (0, len(THEMES))


def test_only_the_first_two_thousand_characters_are_read() -> None:
    assert not read_texts(["x " * (TEXT_LIMIT // 2) + "too expensive"]).phrases[0]


def test_themes_are_the_signals_of_words_in_order() -> None:
    said = [signal for signal in SIGNALS if signal.code.startswith("said_")]
    assert [signal.code for signal in said] == [f"said_{theme}" for theme in THEMES]
    assert [int(np.argmax(signal.weights)) for signal in said] == list(THEME_TYPE)


@pytest.mark.parametrize("lexicon", [lexicon_en, lexicon_zh])
def test_every_theme_has_phrases_and_weights_in_range(lexicon: object) -> None:
    phrases = lexicon.PHRASES  # type: ignore[attr-defined]
    assert set(phrases) == {*THEMES, "nothing"}
    assert all(0 < weight <= 1 for by_weight in phrases.values() for weight in by_weight)
    assert {theme for theme, _ in lexicon.LABELS.values()} <= set(phrases)  # type: ignore[attr-defined]


def test_plain_phrases_of_the_lexicon_are_found_as_what_they_are() -> None:
    for theme, by_weight in lexicon_en.PHRASES.items():
        for phrase in (" ".join(part.split()) for text in by_weight.values() for part in text.split(";")):
            if re.fullmatch("[a-z ]+", phrase):
                assert theme in {found.theme for found in read_texts([phrase + " anyway"]).phrases[0]}, phrase


@pytest.mark.parametrize(
    "hostile", ["贵" * TEXT_LIMIT, "not " * 500, "price " * 400, "no response " * 170, "价格不" * 700, "a" * TEXT_LIMIT]
)
def test_no_text_takes_long(hostile: str) -> None:
    started = time.process_time()
    read_texts([hostile])
    assert time.process_time() - started < 1.0


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [*"不没价格贵服务差很但，。 ", "not ", "never ", "price ", "rude ", "moved ", "but ", "too ", "high "]
        )
    )
)
def test_any_words_are_read_within_bounds_and_alike_in_any_company(words: list[str]) -> None:
    text = "".join(words)
    alone = read_texts([text])
    beside = read_texts(["rude", text, text])
    assert alone.themes.min() >= 0
    assert alone.themes.sum() <= 1 + 1e-12
    np.testing.assert_array_equal(alone.themes[0], beside.themes[1])
    np.testing.assert_array_equal(alone.themes[0], beside.themes[2])
