"""Which of the pairs that were written are worth learning."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lifelong.documents.generator import Pair
from lifelong.errors import ConfigError
from lifelong.judges.base import Case, Judge
from lifelong.metrics.answers import normalize_answer
from lifelong.retrieval import Passage, PassageEncoder, Retriever

REASONS = {
    "malformed": "no question, no answer, or an answer of too many words",
    "unsupported": "the answer is not found in the passage, nor entailed by it",
    "beside the passage": "the question only makes sense to who sees the passage",
    "gives itself away": "the question holds the answer",
    "ambiguous": "the same question has several answers",
    "near-duplicate": "another question asks the same",
    "not found again": "the question does not bring its passage back",
}
_BESIDE = re.compile(
    r"\b(?:according to (?:the|this)|(?:in|from|of|by|does|do) (?:the|this|these) "
    r"(?:text|passage|document|article|author|authors|excerpt|section|paragraph|paper|figure|table|example)s?"
    r"|(?:mentioned|described|given|shown|listed|stated|discussed) (?:above|below|here|in the)"
    r"|the (?:above|following|latter|former|passage|text|excerpt))\b"
    r"|^\W*(?:what|who|when|where|why|how|which)\W+(?:is|are|was|were|did|does|do|has|have|can|will)\W+"
    r"(?:it|he|she|they|this|that|these|those)\b",
    re.IGNORECASE,
)
SEVERAL_ANSWERS_LOOKED_AT = 20  # nearest questions that a question is compared with


@dataclass(frozen=True)
class Written:
    """A pair, and what it was written about."""

    pair: Pair
    passage: Passage


@dataclass(frozen=True)
class Screen:
    """What a pair must hold to be kept.

    Args:
        longest_answer: in words.
        similar: inner product of the encoder's vectors from which on the later one of two questions goes.
        found_within: a question must bring its passage back among so many.
        entailment: a cross-encoder of natural-language inference, by name or folder, for answers that are not found
            to the letter; ``None``: such pairs go.

    Raises:
        ConfigError: naming the setting.
    """

    longest_answer: int = 12
    similar: float = 0.95
    found_within: int = 5
    entailment: str | None = None

    def __post_init__(self) -> None:
        for name in ("longest_answer", "found_within"):
            if getattr(self, name) < 1:
                raise ConfigError(f"screen.{name}: must be at least 1, got {getattr(self, name)}")

    def apply(
        self, written: Sequence[Written], passages: Sequence[Passage], encoder: PassageEncoder
    ) -> tuple[list[Written], dict[str, list[Written]]]:
        """Divide pairs into those to keep, in their order, and those to drop, by the first of ``REASONS`` that holds.

        Args:
            written: pairs.
            passages: all that there are; a question is searched among them.
            encoder: of questions and passages.
        """
        left, dropped = list(written), defaultdict(list)
        steps: dict[str, Callable[[list[Written]], list[bool]]] = {
            "malformed": lambda some: [self._malformed(one.pair) for one in some],
            "unsupported": self._unsupported,
            "beside the passage": lambda some: [bool(_BESIDE.search(one.pair.question)) for one in some],
            "gives itself away": lambda some: [_within(one.pair.answer, one.pair.question) for one in some],
            "ambiguous": _ambiguous,
            "near-duplicate": lambda some: self._repeated(some, encoder),
            "not found again": lambda some: self._lost(some, passages, encoder),
        }
        for reason, step in steps.items():
            goes = step(left) if left else []
            dropped[reason] = [one for one, gone in zip(left, goes, strict=True) if gone]
            left = [one for one, gone in zip(left, goes, strict=True) if not gone]
        return [_probed(one) for one in left], {reason: gone for reason, gone in dropped.items() if gone}

    def _malformed(self, pair: Pair) -> bool:
        words = len(pair.answer.split())
        return not _words(pair.answer) or not _words(pair.question) or words > self.longest_answer

    def _unsupported(self, written: list[Written]) -> list[bool]:
        missing = [not _within(one.pair.answer, one.passage.text) for one in written]
        if self.entailment is None or not any(missing):
            return missing
        doubtful = [one for one, gone in zip(written, missing, strict=True) if gone]
        entailed = iter(_entailed(_judge(self.entailment), doubtful))
        return [gone and not next(entailed) for gone in missing]

    def _repeated(self, written: list[Written], encoder: PassageEncoder) -> list[bool]:
        questions = [one.pair.question for one in written]
        index = Retriever(encoder)
        index.add(list(dict.fromkeys(questions)))
        near = index.retrieve(questions, min(SEVERAL_ANSWERS_LOOKED_AT, len(index)), self.similar)
        kept: set[str] = set()
        repeated = []
        for question, hits in zip(questions, near, strict=True):
            repeated.append(any(hit.text in kept for hit in hits) or question in kept)
            kept |= set() if repeated[-1] else {question}
        return repeated

    def _lost(self, written: list[Written], passages: Sequence[Passage], encoder: PassageEncoder) -> list[bool]:
        index = Retriever(encoder)
        index.add(passages)
        found = index.retrieve([one.pair.question for one in written], min(self.found_within, len(index)))
        return [all(hit.text not in one.passage.text for hit in hits) for one, hits in zip(written, found, strict=True)]


def _probed(one: Written) -> Written:
    """With those probes alone that would be fit to be questions."""
    probes = [
        probe
        for probe in one.pair.probes
        if _words(probe) and not _BESIDE.search(probe) and not _within(one.pair.answer, probe)
    ]
    return replace(one, pair=replace(one.pair, probes=tuple(probes)))


def _within(part: str, text: str) -> bool:
    """Whether a text holds another as whole words, letters' case and punctuation aside."""
    return f" {_words(part)} " in f" {_words(text)} "


def _words(text: str) -> str:
    return " ".join(re.findall(r"\d+(?:[.,]\d+)+|\w+", text.lower()))


def _ambiguous(written: list[Written]) -> list[bool]:
    answers = defaultdict(set)
    for one in written:
        answers[normalize_answer(one.pair.question)].add(normalize_answer(one.pair.answer))
    return [len(answers[normalize_answer(one.pair.question)]) > 1 for one in written]


def _judge(model: str) -> Judge:
    from lifelong.judges import EntailmentJudge

    return EntailmentJudge(model)


def _entailed(judge: Judge, written: list[Written]) -> list[bool]:
    cases = [
        Case("supported", f"{one.pair.question} {one.pair.answer}", passages=(one.passage.text,)) for one in written
    ]
    return [verdict.yes is True for verdict in judge.judge(cases)]
