"""What a judge is asked, and what it says."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lifelong.errors import ConfigError

# what may be judged, and the question that it comes to
ASPECTS = {
    "correct": "Does the answer say what a gold answer says?",
    "supported": "Do the passages support the claim?",
    "relevant": "Does the answer address the question?",
    "fluent": "Is the answer well-formed language?",
}


@dataclass(frozen=True)
class Case:
    """One thing to be judged.

    Args:
        aspect: a key of ``ASPECTS``.
        answer: what the model said, or for ``supported`` one claim of it.
        question: what it was asked.
        gold: right answers, for ``correct``.
        passages: what it was shown, for ``supported``.

    Raises:
        ValueError: there is no such aspect, or something is missing that it needs.
    """

    aspect: str
    answer: str
    question: str = ""
    gold: tuple[str, ...] = ()
    passages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.aspect not in ASPECTS:
            raise ValueError(f"aspect {self.aspect!r} is none of {', '.join(ASPECTS)}")
        if self.aspect == "correct" and not self.gold:
            raise ValueError("a case of 'correct' needs a gold answer")
        if self.aspect in ("correct", "relevant") and not self.question:
            raise ValueError(f"a case of {self.aspect!r} needs the question")


@dataclass(frozen=True)
class Verdict:
    """What a judge says.

    Args:
        score: from 0, no, to 1, yes; ``None`` where the judge gave none that could be read.
        reason: in its words, or why there is no score.
    """

    score: float | None
    reason: str = ""

    @property
    def yes(self) -> bool | None:
        """Whether the score is at least one half; ``None`` without a score."""
        return None if self.score is None else self.score >= 0.5


class Judge(ABC):
    """Gives verdicts on cases.

    ``aspects`` are those that it can judge; ``name`` stands in reports.
    """

    aspects: ClassVar[frozenset[str]] = frozenset(ASPECTS)

    @property
    @abstractmethod
    def name(self) -> str:
        """In reports: the kind of judge, and its model."""

    @abstractmethod
    def _judge(self, cases: Sequence[Case]) -> list[Verdict]:
        """One verdict per case, all of aspects that this judge has."""

    def judge(self, cases: Sequence[Case]) -> list[Verdict]:
        """One verdict per case, in their order; an empty answer is right, relevant or fluent in no case.

        Raises:
            ConfigError: a case is of an aspect that this judge cannot judge.
        """
        for case in cases:
            if case.aspect not in self.aspects:
                raise ConfigError(
                    f"{self.name} cannot judge whether an answer is {case.aspect}; it judges whether one is "
                    f"{', '.join(sorted(self.aspects))}"
                )
        said = [number for number, case in enumerate(cases) if case.answer.strip()]
        verdicts = [Verdict(0.0, "no answer")] * len(cases)
        for number, verdict in zip(said, self._judge([cases[number] for number in said]), strict=True):
            verdicts[number] = verdict
        return verdicts
