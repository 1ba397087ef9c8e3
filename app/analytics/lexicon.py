"""Reasons in words: exit reasons and free texts, English and Chinese, read by a lexicon of phrases.

A text is searched for phrases, the longest first and no two over the same words. A phrase that is negated says nothing
("not the price"); what is good speaks when it is negated ("never helpful"). What a text says for one type grows with
every phrase (1 − Π(1 − w)), and a text that gives several types spreads its weight among them.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from app.analytics import lexicon_en as en
from app.analytics import lexicon_zh as zh
from app.analytics.complaints import FloatArray
from app.analytics.signals import COMPETITIVE, NATURAL, NEGLIGENT, PASSIVE

THEMES = ("gone", "price", "rival", "oversight", "withholding", "bad_credit", "failing")
"""What words can say, in the order of the signals said_gone to said_failing."""
THEME_TYPE = (NATURAL, COMPETITIVE, COMPETITIVE, PASSIVE, PASSIVE, PASSIVE, NEGLIGENT)
TEXT_LIMIT = 2_000
"""Characters of a text that are read."""

_POSITIVE_WEIGHT = 0.8
_HEAD_WEIGHT = 0.9
_WINDOW_EN, _WINDOW_ZH = 5, 5
_MARKS = "，。！？；、：,.!?;:…\\s"
_GAP_EN = f"(?:(?!(?:{'|'.join(sorted(en.NEGATORS))}) )[a-z0-9]+ ){{0,3}}?"
_GAP_ZH = f"[^不没未无非{_MARKS}]{{0,6}}?"
"""A gap holds no negation: "the price is not that high" is no "price … high"."""
_CJK = re.compile(r"[\u3400-\u9fff]")
_LATIN = re.compile(r"[a-z]")
_TOKEN = re.compile(r"[a-z0-9]+|[.,;:!?()]")
_CONTRACTED = re.compile(r"\b(ca|wo|do|does|did|is|was|are|were|have|has|had|would|could|should)n'?t\b")
_WHOLE = {"ca": "can", "wo": "will"}


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase found in a text, in normal form.

    Parameters
    ----------
    words : str
        What was found; a negation that belongs to it is part of it.
    theme : str
        One of `THEMES`, or "nothing".
    weight : float
        How surely the words mean it, in (0, 1].
    """

    words: str
    theme: str
    weight: float


@dataclass(frozen=True, slots=True)
class TextReadings:
    """What k texts say.

    Parameters
    ----------
    themes : ndarray of float, shape (k, 7)
        Strength of each of `THEMES`, from 0 to 1; rows sum to at most 1.
    phrases : tuple of tuples of Phrase, length k
        What was found, in order of the text. Phrases are words of customers: fit for an answer, never for a log.
    """

    themes: FloatArray
    phrases: tuple[tuple[Phrase, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    pattern: re.Pattern[str]
    keys: tuple[str, ...]
    theme: str
    weight: float
    positive: bool


_Lexicon = dict[str, list[_Entry]]
"""Entries by the beginning of a word that they cannot do without, so that a text meets few of them."""
_KEY_EN = 5


@dataclass(frozen=True, slots=True)
class _Match:
    start: int
    end: int
    theme: str
    weight: float


def read_texts(texts: Sequence[str]) -> TextReadings:
    """Read texts by the lexicon; each distinct text is read once.

    Parameters
    ----------
    texts : sequence of str, length k
        Reason codes, short labels or free texts, mixed languages; empty texts say nothing. What follows the first
        2,000 characters is not read.

    Returns
    -------
    TextReadings
    """
    distinct = dict.fromkeys(texts)
    found = {text: _find(text[:TEXT_LIMIT]) for text in distinct}
    themes = np.zeros((len(texts), len(THEMES)))
    for row, text in enumerate(texts):
        for phrase in found[text]:
            if phrase.theme in THEMES:
                column = THEMES.index(phrase.theme)
                themes[row, column] = 1 - (1 - themes[row, column]) * (1 - phrase.weight)
    return TextReadings(_spread(themes), tuple(found[text] for text in texts))


def _spread(themes: FloatArray) -> FloatArray:
    """Let each type keep its own share: one type all of its strength, two equal ones half each."""
    by_type = np.array(THEME_TYPE)[:, None] == np.arange(4)
    said = themes @ by_type
    strength = 1 - np.stack([np.prod(1 - themes[:, of_type], axis=1) for of_type in by_type.T], axis=1)
    total = strength.sum(axis=1, keepdims=True)
    share = np.divide(strength, total, out=np.zeros_like(strength), where=total > 0)
    within = np.divide(strength * share, said, out=np.zeros_like(said), where=said > 0)
    result: FloatArray = themes * (within @ by_type.T)
    return result


def _find(text: str) -> tuple[Phrase, ...]:
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'").replace("‘", "'")
    found: list[Phrase] = []
    if _LATIN.search(plain):
        found += _find_english(plain)
    if _CJK.search(plain):
        found += _find_chinese(plain.translate(zh.SIMPLIFIED))
    return tuple(found)


# English -------------------------------------------------------------------------------------------------------------


def _tokens(text: str) -> list[str]:
    whole = _CONTRACTED.sub(lambda match: _WHOLE.get(match[1], match[1]) + " not", text.replace("cannot", "can not"))
    return _TOKEN.findall(whole.replace("_", " ").replace("'s", " "))


def _find_english(text: str) -> list[Phrase]:
    tokens = _tokens(text)
    label = _label_en(tokens)
    if label is not None:
        return [label]
    line = f" {' '.join(tokens)} "
    found = [
        Phrase(line[match.start : match.end].strip(), match.theme, match.weight)
        for match in _resolve(_candidates(_english(), _keys_en(tokens), line, _negated_en))
        if not _negated_en(line, match.start, False)[0] and not _pattern(en.AFTERWARDS).match(line[match.end - 1 :])
    ]
    return found or _head_en(tokens)


def _label_en(tokens: list[str]) -> Phrase | None:
    """The whole answer as a label: "Price", "delivery issues"."""
    while len(tokens) > 1 and (tokens[-1] in en.LABEL_TAILS or tokens[-1] == "."):
        tokens = tokens[:-1]
    return Phrase(tokens[0], *en.LABELS[tokens[0]]) if len(tokens) == 1 and tokens[0] in en.LABELS else None


def _head_en(tokens: list[str]) -> list[Phrase]:
    """In a short label nothing else was found in, the last noun says what it is about: "network reliability"."""
    while len(tokens) > 1 and tokens[-1] in en.LABEL_TAILS:
        tokens = tokens[:-1]
    if not 2 <= len(tokens) <= 4 or not en.NEGATORS.isdisjoint(tokens) or tokens[-1] not in en.LABELS:
        return []
    theme, weight = en.LABELS[tokens[-1]]
    return [Phrase(" ".join(tokens), theme, weight * _HEAD_WEIGHT)]


def _negated_en(line: str, start: int, positive: bool) -> tuple[bool, int]:
    """Whether a negation governs what starts there, and where the negation starts.

    Two negations cancel. Scope runs back over some words of the clause.
    """
    before = line[:start].split()
    negated, position, where = False, start, len(line[:start].rstrip())
    for back in range(1, min(_WINDOW_EN, len(before)) + 1):
        word = before[-back]
        where = line.rfind(word, 0, where)
        if word in en.STOPS and not (word in en.CAUSES and _cause_denied(before[:-back])):
            break
        if word in en.NEGATORS or (positive and word in en.DEFICITS):
            if line.startswith(en.NOT_NEGATING, where):
                continue
            negated, position = not negated, where
    return negated, position


def _cause_denied(before: list[str]) -> bool:
    """Whether the words before "because" deny the cause: "not because", "did not leave because"."""
    if before and before[-1] in en.LEAVING:
        before = before[:-1]
    return bool(before) and before[-1] in en.NEGATORS


@cache
def _english() -> _Lexicon:
    def entries(text: str, theme: str, weight: float, positive: bool) -> Iterator[_Entry]:
        for phrase in filter(None, (" ".join(part.split()) for part in _with_classes(text).split(";"))):
            words = phrase.split()
            pattern = "".join(map(_word_pattern, words))
            required = [word.replace("*", "").split("|") for word in words if word != "~" and not word.endswith("?")]
            rarest = max(required, key=lambda stems: min(map(len, stems)))
            keys = tuple({stem[:_KEY_EN] for stem in rarest})
            yield _Entry(re.compile("(?<= )" + pattern), keys, theme, weight, positive)

    return _index(_entries(entries, en.PHRASES, en.POSITIVE))


def _keys_en(tokens: list[str]) -> set[str]:
    return {token[:size] for token in tokens for size in range(2, _KEY_EN + 1)}


def _with_classes(phrase: str) -> str:
    return re.sub("[A-Z]+", lambda match: en.WORDS[match[0]], phrase)


def _word_pattern(word: str) -> str:
    if word == "~":
        return _GAP_EN
    optional = word.endswith("?")
    choice = "|".join(stem.replace("*", "[a-z0-9]*") for stem in word.rstrip("?").split("|"))
    return f"(?:(?:{choice}) )?" if optional else f"(?:{choice}) "


# Chinese -------------------------------------------------------------------------------------------------------------


def _find_chinese(text: str) -> list[Phrase]:
    label = _label_zh(text)
    if label is not None:
        return [label]
    return [
        Phrase(text[match.start : match.end], match.theme, match.weight)
        for match in _resolve(_candidates(_chinese(), _keys_zh(text), text, _negated_zh))
        if not _negated_zh(text, match.start, False)[0] and not _pattern(zh.AFTERWARDS).match(text[match.end :])
    ]


def _label_zh(text: str) -> Phrase | None:
    word = re.sub(f"[{_MARKS}]", "", text)
    for tail in ("", *zh.LABEL_TAILS):
        stem = word.removesuffix(tail)
        if stem in zh.LABELS:
            return Phrase(stem, *zh.LABELS[stem])
    return None


def _negated_zh(text: str, start: int, positive: bool) -> tuple[bool, int]:
    """As `_negated_en`, by characters."""
    low = max(0, start - _WINDOW_ZH)
    stops = list(_pattern(f"[{_MARKS}]|{zh.STOP}").finditer(text, low, start))
    low = stops[-1].end() if stops else low
    negators = list(_pattern(zh.NEGATOR).finditer(text, low, start))
    return len(negators) % 2 == 1, negators[0].start() if negators else start


@cache
def _chinese() -> _Lexicon:
    def entries(text: str, theme: str, weight: float, positive: bool) -> Iterator[_Entry]:
        for phrase in text.format_map(zh.WORDS).split():
            pattern = phrase.replace("(", "(?:").replace("~", _GAP_ZH)
            literal = phrase
            while literal != (literal := re.sub(r"\([^()]*\)\??|[^()|]\?", "~", literal)):
                pass
            longest = max(literal.split("~"), key=len)
            yield _Entry(re.compile(pattern), (longest[:2],), theme, weight, positive)

    return _index(_entries(entries, zh.PHRASES, zh.POSITIVE))


def _keys_zh(text: str) -> set[str]:
    return {"", *text, *map("".join, pairwise(text))}


# Both ----------------------------------------------------------------------------------------------------------------


def _entries(
    make: Callable[[str, str, float, bool], Iterator[_Entry]],
    phrases: dict[str, dict[float, str]],
    positive: dict[str, str],
) -> Iterator[_Entry]:
    for theme, by_weight in phrases.items():
        for weight, text in by_weight.items():
            yield from make(text, theme, weight, False)
    for theme, text in positive.items():
        yield from make(text, theme, _POSITIVE_WEIGHT, True)


def _index(entries: Iterable[_Entry]) -> _Lexicon:
    index: dict[str, list[_Entry]] = defaultdict(list)
    for entry in entries:
        for key in entry.keys:
            index[key].append(entry)
    return dict(index)


@cache
def _pattern(expression: str) -> re.Pattern[str]:
    return re.compile(expression)


def _candidates(
    lexicon: _Lexicon, keys: set[str], line: str, negated: Callable[[str, int, bool], tuple[bool, int]]
) -> Iterator[_Match]:
    # An entry may be found by several keys; its position in the lexicon plays no part, so a set will do.
    for entry in {entry for key in keys for entry in lexicon.get(key, ())}:
        for match in entry.pattern.finditer(line):
            start = match.start()
            if entry.positive:
                denied, start = negated(line, start, True)
                if not denied:
                    continue
            yield _Match(start, match.end(), entry.theme, entry.weight)


def _resolve(matches: Iterable[_Match]) -> list[_Match]:
    """The longest first, none over the words of another; different themes of the very same words all stand."""
    chosen: list[_Match] = []
    for match in sorted(matches, key=lambda m: (m.start - m.end, -m.weight, m.start, m.theme)):
        rivals = [other for other in chosen if match.start < other.end and other.start < match.end]
        if all((other.start, other.end) == (match.start, match.end) and other.theme != match.theme for other in rivals):
            chosen.append(match)
    return sorted(chosen, key=lambda m: (m.start, m.end))
