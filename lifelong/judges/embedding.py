"""Right is what is near."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lifelong.errors import ConfigError
from lifelong.judges.base import Case, Judge, Verdict

if TYPE_CHECKING:
    from lifelong.retrieval import Encoder


class EmbeddingJudge(Judge):
    """Compares sentence embeddings: wording does not matter, and neither do small words such as "not".

    ``correct`` is whether the cosine of the answer and the nearest gold answer, each behind the question, reaches
    ``threshold``; ``relevant`` is the cosine of question and answer itself, 0 where it is negative.

    Args:
        encoder: a model of sentence-transformers, by name or folder, or one that is loaded.
        threshold: cosine from which on an answer counts as right.

    Raises:
        ConfigError: the threshold is not in (0, 1].
        ModelError: there is no such model.
    """

    aspects: ClassVar[frozenset[str]] = frozenset({"correct", "relevant"})

    def __init__(self, encoder: str | Path | Encoder, threshold: float = 0.9) -> None:
        if not 0 < threshold <= 1:
            raise ConfigError(f"EmbeddingJudge: threshold must be above 0 and at most 1, got {threshold}")
        if isinstance(encoder, str | Path):
            from lifelong.retrieval import Encoder

            encoder = Encoder(Path(encoder).expanduser())
        self.encoder, self.threshold = encoder, threshold

    @property
    def name(self) -> str:
        return f"embedding ({self.encoder.name}, {self.threshold:g})"

    def _judge(self, cases: Sequence[Case]) -> list[Verdict]:
        pairs = [self._pairs(case) for case in cases]
        texts = list(dict.fromkeys(text for some in pairs for pair in some for text in pair))
        vectors = dict(zip(texts, _unit(self.encoder.encode_passages(texts)), strict=True))
        verdicts = []
        for case, some in zip(cases, pairs, strict=True):
            cosine = max(float(vectors[one] @ vectors[other]) for one, other in some)
            score = float(cosine >= self.threshold) if case.aspect == "correct" else min(max(cosine, 0.0), 1.0)
            verdicts.append(Verdict(score, f"cosine {cosine:.3f}"))
        return verdicts

    def _pairs(self, case: Case) -> list[tuple[str, str]]:
        if case.aspect == "relevant":
            return [(case.question, case.answer)]
        return [(f"{case.question} {case.answer}", f"{case.question} {gold}") for gold in case.gold]


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)
