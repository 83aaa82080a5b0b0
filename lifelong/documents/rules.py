"""Questions by rule, without any model: definitions, "X is Y", years, numbers, and gaps in sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from lifelong.documents.generator import Excerpt, Generator, Pair
from lifelong.errors import ConfigError

RULES = 1  # to be raised where a rule writes something else about the same passage
GAP = "____"
SHORTEST, LONGEST = 5, 35  # sentences, in words
LONGEST_ANSWER = 10  # words
# a sentence that begins with one of these speaks of what stands before it
_POINTING = re.compile(
    r"\W*(?:it|they|this|these|those|that|s?he|its|their|his|her|such|here|there|however|but|and|also|then|so|both|each"
    r"|which|who|we|you|i|our|your|my|thus|therefore|hence|otherwise|instead|finally|first|second|next|another|others?"
    r"|some|what|when|where|why|how|if|as|for|because|while|although|yet|or|nor)\b",
    re.IGNORECASE,
)
_MARKS = "'\u2019`\"\u201c\u201d"  # apostrophes and quotation marks
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_YEAR = re.compile(r"\b(?P<answer>1\d{3}|20\d\d)\b(?![.,]\d)")
_NUMBER = re.compile(
    r"(?<![\w.,$-])(?P<answer>\d+(?:[.,]\d+)*)(?:\s(?P<scale>hundred|thousand|million|billion|percent))?"
    r"\s(?P<noun>[a-z]{3,})"
)
_WORD = rf"[\w{_MARKS}.-]+"
_SUBJECT = rf"(?P<x>(?:(?:[Tt]he|[Aa]n?)\s)?{_WORD}(?:\s{_WORD}){{0,6}}?)"
_EQUALS = re.compile(rf"^{_SUBJECT}\s(?P<verb>is|was)\s(?P<answer>[A-Z0-9{_MARKS}](?:[^,;:()]|,(?=\d))*)$")
_DEFINES = re.compile(rf"^{_SUBJECT}\s(?P<verb>is|are|was|were)\s(?P<answer>(?:an?|the|one of)\s.+)$")
_CUT = re.compile(
    r"\s*(?:[,;:(\u2014\u2013]|\s-\s|\b(?:that|which|who|where|when|while|because|so that|and is|and has)\b).*$"
)
_NO_SUBJECT = re.compile(
    r"\b(?:that|which|who|if|when|where|while|is|are|was|were|not|there|and|or|but|in|on|at"
    r"|first|second|last|next|same|other|rest|latter|former|whole|only|most|more|all|one)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(rf"(?<=[.!?])[{_MARKS})]*\s+(?=[A-Z0-9{_MARKS}(])")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|al|Dr|Mr|Mrs|Ms|Prof|St|No|Fig|Eq|Sec|[A-Z])\.$")
_END = r"(?=[\s,;:?!)]|\.?$)"  # no gap in a path, a name with dots, or a word with a hyphen
_NAME = re.compile(rf"(?<=\s)[A-Z]\w+(?:\s(?:of\s)?[A-Z]\w+)*{_END}")
_QUOTED = re.compile(rf"(?<=[{_MARKS[2:]}])[^{_MARKS}]{{2,40}}(?=[{_MARKS[2:]}])")
_LONG_WORD = re.compile(rf"(?<=\s)[a-z]{{8,}}{_END}")


class RuleGenerator(Generator):
    """Writes at most one question about each sentence that can be understood alone.

    In this order: "The capital of Fiji is Suva" asks for the capital; "A router is a small layer" asks what it is;
    years and numbers are asked for beside the sentence with a gap; and what is left loses a name, a quoted word or its
    longest word. Questions are plain and the sentences' own; probes ask the same in other frames, not in other words.

    Args:
        pairs: per passage, at most; the first kinds of the list above go first.
        gaps: whether to leave out words of sentences that state nothing simpler.

    Raises:
        ConfigError: ``pairs`` is not positive.
    """

    def __init__(self, pairs: int = 4, gaps: bool = True) -> None:
        if pairs < 1:
            raise ConfigError(f"RuleGenerator: pairs must be at least 1, got {pairs}")
        self.pairs, self.gaps = pairs, gaps

    @property
    def name(self) -> str:
        return "rules"

    @property
    def fingerprint(self) -> str:
        return f"rules {RULES} {self.pairs} {self.gaps}"

    def write(self, excerpts: Sequence[Excerpt]) -> Iterator[list[Pair] | None]:
        yield from (self._about(excerpt.text) for excerpt in excerpts)

    def _about(self, text: str) -> list[Pair]:
        rules = WITHOUT_GAPS + (_missing,) * self.gaps
        ranked = []
        for sentence in sentences(text):
            written = ((rank, pair) for rank, rule in enumerate(rules) if (pair := rule(sentence)) is not None)
            ranked += [found] if (found := next(written, None)) else []
        ranked.sort(key=lambda found: found[0])
        return [pair for _, pair in ranked[: self.pairs]]


def sentences(text: str) -> Iterator[str]:
    """Sentences that stand for themselves, without their full stop.

    >>> list(sentences("Suva is the capital city of Fiji. It has 93,000 people. A heading"))
    ['Suva is the capital city of Fiji']
    """
    for paragraph in text.split("\n"):
        whole = ""
        for part in _SENTENCE.split(paragraph.strip()):
            whole = f"{whole} {part}".strip()
            if _ABBREVIATION.search(whole):
                continue
            if _stands_alone(whole):
                yield whole.rstrip(".")
            whole = ""


def _stands_alone(sentence: str) -> bool:
    words = sentence.split()
    return (
        sentence.endswith(".")
        and SHORTEST <= len(words) <= LONGEST
        and not sentence[0].islower()
        and not _POINTING.match(sentence)
    )


def _equals(sentence: str) -> Pair | None:
    """'The capital of Fiji is Suva.'"""
    found = _EQUALS.match(sentence)
    if found is None or " of " not in found["x"] or not _fits(found) or len(found["answer"].split()) > LONGEST_ANSWER:
        return None
    subject, answer = _uncapitalised(found["x"]), found["answer"].strip('"“”`')
    verb = found["verb"]
    return Pair(f"What {verb} {subject}?", answer, (f"Name {subject}.", f"{_capitalised(subject)} {verb} what?"))


def _defines(sentence: str) -> Pair | None:
    """'A router is a small layer that ...'"""
    found = _DEFINES.match(sentence)
    if found is None or not _fits(found):
        return None
    answer = _CUT.sub("", found["answer"])
    if not 2 <= len(answer.split()) <= LONGEST_ANSWER:
        return None
    subject, verb = _uncapitalised(found["x"]), found["verb"]
    return Pair(f"What {verb} {subject}?", answer, (f"How is {subject} described?", f"Say what {subject} {verb}."))


def _year(sentence: str) -> Pair | None:
    """'The tower was finished in 1889.'"""
    return _with_gap(sentence, _YEAR, "In which year: {gap}?", ("Which year belongs into the gap: {gap}?",))


def _number(sentence: str) -> Pair | None:
    """'The model has 2,755,008 parameters.'"""
    found = _NUMBER.search(sentence)
    if found is None or found["noun"] in ENGLISH_STOP_WORDS:
        return None
    noun = f"{found['scale'] or ''} {found['noun']}".strip()
    return _with_gap(sentence, _NUMBER, f"How many {noun}: {{gap}}?", ("Which number belongs into the gap: {gap}?",))


def _missing(sentence: str) -> Pair | None:
    """Any other sentence, without a name, a quoted word or its longest word."""
    for pattern in (_QUOTED, _NAME, _LONG_WORD):
        found = max(pattern.finditer(sentence), key=lambda match: len(match[0]), default=None)
        if found is not None:
            return _gapped(sentence, found, "What is missing: {gap}?", ("Fill the gap: {gap}.",))
    return None


WITHOUT_GAPS: tuple[Callable[[str], Pair | None], ...] = (_equals, _defines, _year, _number)


def _with_gap(sentence: str, pattern: re.Pattern[str], question: str, probes: tuple[str, ...]) -> Pair | None:
    """A question about the only place where a pattern is found."""
    found = list(pattern.finditer(sentence))
    return _gapped(sentence, found[0], question, probes) if len(found) == 1 else None


def _gapped(sentence: str, found: re.Match[str], question: str, probes: tuple[str, ...]) -> Pair:
    group = "answer" if "answer" in found.re.groupindex else 0
    start, end = found.span(group)
    gap = f"{sentence[:start]}{GAP}{sentence[end:]}"
    return Pair(question.format(gap=gap), found[group], tuple(probe.format(gap=gap) for probe in probes))


def _fits(found: re.Match[str]) -> bool:
    return not _NO_SUBJECT.search(found["x"]) and not found["answer"].startswith(("the one ", "the same "))


def _uncapitalised(subject: str) -> str:
    return subject[0].lower() + subject[1:] if re.match(r"(?:The|An?)\s", subject) else subject


def _capitalised(subject: str) -> str:
    return subject[0].upper() + subject[1:]
