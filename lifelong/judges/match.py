"""Right is what is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from lifelong.errors import ConfigError
from lifelong.judges.base import Case, Judge, Verdict
from lifelong.metrics.answers import exact_match, normalize_answer, token_f1


class MatchJudge(Judge):
    """Compares words after SQuAD's normalisation: no model, and no understanding.

    ``correct`` is exact match, or token F1 of at least ``threshold``. ``supported`` is whether the words of the claim
    stand in a row in one of the passages.

    Args:
        threshold: F1 from which on an answer counts as right; 1 is exact match.

    Raises:
        ConfigError: the threshold is not in (0, 1].
    """

    aspects: ClassVar[frozenset[str]] = frozenset({"correct", "supported"})

    def __init__(self, threshold: float = 1.0) -> None:
        if not 0 < threshold <= 1:
            raise ConfigError(f"MatchJudge: threshold must be above 0 and at most 1, got {threshold}")
        self.threshold = threshold

    @property
    def name(self) -> str:
        return "match" if self.threshold == 1 else f"match (F1 {self.threshold:g})"

    def _judge(self, cases: Sequence[Case]) -> list[Verdict]:
        return [Verdict(float(self._holds(case))) for case in cases]

    def _holds(self, case: Case) -> bool:
        if case.aspect == "supported":
            claim = f" {normalize_answer(case.answer)} "
            return any(claim in f" {normalize_answer(passage)} " for passage in case.passages)
        score = exact_match if self.threshold == 1 else token_f1
        return score(case.answer, case.gold) >= self.threshold
