"""Right is what follows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lifelong.errors import ModelError
from lifelong.judges.base import Case, Judge, Verdict
from lifelong.libraries import quiet_libraries

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


class EntailmentJudge(Judge):
    """A model of natural-language inference, as a cross-encoder of sentence-transformers.

    The score is the probability of "entailment". ``supported``: the passages together are the premise, question and
    claim the hypothesis. ``correct``: a gold answer behind the question is the premise, the answer behind it the
    hypothesis; the best gold answer counts.

    Args:
        model: a name on the hub, a folder, or a loaded model; one of its labels is called entailment.
        batch_size: pairs that are read at a time.
        device: where it runs; ``None`` for the best one there is.

    Raises:
        ModelError: there is no such model, or none of its labels is entailment.
    """

    aspects: ClassVar[frozenset[str]] = frozenset({"correct", "supported"})

    def __init__(self, model: str | Path | CrossEncoder, batch_size: int = 32, device: str | None = None) -> None:
        from lifelong.retrieval.reranker import load_cross_encoder

        self.model = model if not isinstance(model, str | Path) else load_cross_encoder(str(model), device)
        labels = {name.casefold(): number for number, name in self.model.config.id2label.items()}
        if "entailment" not in labels:
            raise ModelError(f"EntailmentJudge: the model's labels are {', '.join(labels)}; one must be entailment")
        self._label, self.batch_size = labels["entailment"], batch_size

    @property
    def name(self) -> str:
        return f"entailment ({Path(self.model.config.name_or_path or 'model').name})"

    def _judge(self, cases: Sequence[Case]) -> list[Verdict]:
        pairs = [self._pairs(case) for case in cases]
        flat = [pair for some in pairs for pair in some]
        if not flat:
            return []
        with quiet_libraries():
            logits = self.model.predict(flat, batch_size=self.batch_size, show_progress_bar=False)
        chances = iter(_softmax(np.asarray(logits, np.float64))[:, self._label].tolist())
        return [Verdict(max(next(chances) for _ in some)) for some in pairs]

    def _pairs(self, case: Case) -> list[tuple[str, str]]:
        said = f"{case.question} {case.answer}".strip()
        if case.aspect == "supported":
            return [(" ".join(case.passages), said)]
        return [(f"{case.question} {gold}", said) for gold in case.gold]


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)
