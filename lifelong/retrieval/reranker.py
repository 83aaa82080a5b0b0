"""A second look at what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.errors import ModelError
from lifelong.libraries import quiet_libraries
from lifelong.retrieval.encoder import SAFE
from lifelong.retrieval.passages import Hit

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


class Reranker:
    """A cross-encoder of sentence-transformers, which reads question and passage together.

    Args:
        model: a name on the hub, a folder, or a loaded model.
        batch_size: pairs that are read at a time.
        device: where it runs; ``None`` for the best one there is.

    Raises:
        ModelError: there is no such model, or it gives more than one number to a pair.
    """

    def __init__(self, model: str | Path | CrossEncoder, batch_size: int = 32, device: str | None = None) -> None:
        self.model = model if not isinstance(model, str | Path) else load_cross_encoder(str(model), device)
        if self.model.num_labels != 1:
            raise ModelError(f"a re-ranker gives one number to a pair, this model {self.model.num_labels}")
        self.batch_size = batch_size

    def rerank(self, questions: Sequence[str], hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
        """The same hits of every question with the model's scores, best first."""
        pairs = [(question, hit.text) for question, found in zip(questions, hits, strict=True) for hit in found]
        if not pairs:
            return [[] for _ in questions]
        with quiet_libraries():
            scores = iter(self.model.predict(pairs, batch_size=self.batch_size, show_progress_bar=False).tolist())
        scored = [[replace(hit, score=next(scores)) for hit in found] for found in hits]
        return [sorted(found, key=lambda hit: -hit.score) for found in scored]


def load_cross_encoder(name: str, device: str | None) -> CrossEncoder:
    """A cross-encoder by name or folder.

    Raises:
        ModelError: there is no such model.
    """
    from sentence_transformers import CrossEncoder

    try:
        with quiet_libraries():
            return CrossEncoder(name, device=device, model_kwargs=SAFE)
    except (OSError, ValueError) as error:
        raise ModelError(f"no cross-encoder {name!r} in a folder or on the hub ({error})") from error
