"""Questions in, passages out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lifelong.errors import ConfigError, DataError
from lifelong.retrieval.encoder import ObservingEncoder, PassageEncoder
from lifelong.retrieval.index import PassageIndex
from lifelong.retrieval.keywords import KeywordIndex
from lifelong.retrieval.passages import Hit, Passage
from lifelong.retrieval.reranker import Reranker
from lifelong.retrieval.splitter import Splitter

RANK_OFFSET = 60  # of reciprocal rank fusion; Cormack, Clarke and Büttcher (2009)


class Retriever:
    """An encoder and an index, and what may stand beside them.

        >>> from lifelong.retrieval import LexicalEncoder
        >>> retriever = Retriever(LexicalEncoder())
        >>> ids = retriever.add(["The capital of Fiji is Suva.", "Gold has the symbol Au."], ids=["fiji", "gold"])
        >>> [[hit.id for hit in found] for found in retriever.retrieve(["What is the symbol of gold?"], k=1)]
        [['gold']]

    Args:
        encoder: of passages and questions; of one that observes, a fresh one is used.
        kind: of the index, see `PassageIndex`.
        search: parameters of searching, likewise.
        hybrid: search by BM25 too, and order by the sum of reciprocal ranks (Cormack, Clarke and Büttcher, 2009).
        reranker: orders the ``candidates`` best again.
        candidates: how many passages per question a hybrid or a re-ranker looks at, at least.
        device: of the index, see `PassageIndex`.

    Raises:
        ConfigError: ``candidates`` is not positive, or the index cannot be made.
    """

    def __init__(
        self,
        encoder: PassageEncoder,
        kind: str = "exact",
        search: dict[str, float] | None = None,
        hybrid: bool = False,
        reranker: Reranker | None = None,
        candidates: int = 50,
        device: str = "auto",
    ) -> None:
        if candidates < 1:
            raise ConfigError(f"candidates={candidates}: at least one passage is looked at")
        self.encoder = encoder.fresh() if isinstance(encoder, ObservingEncoder) else encoder
        self.hybrid, self.reranker, self.candidates = hybrid, reranker, candidates
        self.index = PassageIndex(encoder.dimension, kind, encoder.fingerprint, search, device)
        self.split = 0  # passages that were longer than the encoder's window
        self._keywords = KeywordIndex() if hybrid else None

    def __len__(self) -> int:
        return len(self.index)

    def add(self, passages: Sequence[str | Passage], ids: Sequence[str] | None = None) -> list[str]:
        """Add passages; a text that is there is left out, and one beyond the encoder's window is split at sentences.

        Args:
            passages: texts, or what a `Splitter` made.
            ids: names of texts; made from the texts where ``None``.

        Returns:
            the ids under which the passages are found; more than were given where some were split.

        Raises:
            DataError: a passage is empty, lengths differ, or an id is there with another text.
        """
        if ids is not None and len(ids) != len(passages):
            raise DataError(f"{len(ids)} ids for {len(passages)} passages")
        named = ids if ids is not None else [""] * len(passages)
        whole = [p if isinstance(p, Passage) else Passage(p, id) for p, id in zip(passages, named, strict=True)]
        for passage in whole:
            if not passage.text.strip():
                raise DataError(f"passage {passage.id!r} is empty")
        parts = [part for passage in whole for part in self._fitting(passage)]
        fresh: dict[str, Passage] = {}
        for part in parts:
            if self.index.id_of(part.text) is None:
                fresh.setdefault(part.text, part)
        if fresh:
            self.index.add(list(fresh.values()), self.encoder.encode_passages(list(fresh)))
            if isinstance(self.encoder, ObservingEncoder):
                self.encoder.observe(list(fresh))
        return [self.index.id_of(part.text) for part in parts]

    def remove(self, ids: Sequence[str]) -> None:
        """Remove passages, see `PassageIndex.remove`."""
        texts = [passage.text for passage in self.index.named(ids)]
        self.index.remove(ids)
        if isinstance(self.encoder, ObservingEncoder):
            self.encoder.forget(texts)

    def retrieve(self, questions: Sequence[str], k: int = 5, min_score: float | None = None) -> list[list[Hit]]:
        """The passages that fit each question best, best first.

        Args:
            questions: any number.
            k: passages per question.
            min_score: passages below it are left out, so that there may be fewer, or none. A hybrid's scores are sums
                of reciprocal ranks, of at most 2/61; a re-ranker's its own.

        Raises:
            DataError: the index is empty, or ``k`` is not in 1..``len(self)``.
        """
        if not questions:
            return []
        wide = k
        if k > 0 and (self.hybrid or self.reranker):
            wide = max(k, min(self.candidates, len(self)))
        scores, rows = self.index.search(self.encoder.encode_questions(questions), wide)
        if self._keywords is not None:
            self._keywords.follow(self.index)
            scores, rows = _fused(rows, self._keywords.search(questions, wide))
        found = self._hits(scores, rows)
        if self.reranker is not None:
            found = self.reranker.rerank(questions, found)
        floor = -np.inf if min_score is None else min_score
        return [[hit for hit in hits[:k] if hit.score >= floor] for hits in found]

    def save(self, folder: str | Path) -> None:
        """Write the index, see `PassageIndex.save`."""
        self.index.save(folder)

    @classmethod
    def load(cls, folder: str | Path, encoder: PassageEncoder, **settings: Any) -> Retriever:
        """A retriever over an index that was saved.

        Args:
            folder: where.
            encoder: the one that it was made with.
            settings: ``hybrid``, ``reranker``, ``candidates`` and ``device``, as of the class.

        Raises:
            RunError: the index is missing or damaged.
            ModelError: it was made by another encoder.
        """
        index = PassageIndex.load(folder, encoder.fingerprint, settings.get("device", "auto"))
        retriever = cls(encoder, **settings)
        retriever.index = index
        if isinstance(retriever.encoder, ObservingEncoder):
            retriever.encoder.observe(index.texts)
        return retriever

    def _fitting(self, passage: Passage) -> list[Passage]:
        window = self.encoder.window
        if window is None or self.encoder.pieces(passage.text) <= window:
            return [passage]
        self.split += 1
        first = passage.start
        return [
            Passage(part.text, part.id, passage.document, first + part.start, first + part.end)
            for part in Splitter(window, count=self.encoder.pieces).split(passage.text, passage.id)
        ]

    def _hits(self, scores: np.ndarray, rows: np.ndarray) -> list[list[Hit]]:
        used, places = np.unique(rows[rows >= 0], return_inverse=True)
        passages = self.index.passages(used)
        flat = iter(places.tolist())
        return [
            [
                Hit(p.id, p.text, score, p.document, p.start, p.end)
                for score, row in zip(line, line_rows, strict=True)
                if row >= 0
                for p in (passages[next(flat)],)
            ]
            for line, line_rows in zip(scores.tolist(), rows.tolist(), strict=True)
        ]


def _fused(*rankings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reciprocal rank fusion of rows, each of shape (questions, n), best first, -1 for none.

    Returns:
        scores and rows of shape (questions, most rows of a question), -inf and -1 behind the last.
    """
    fused = []
    for lines in zip(*rankings, strict=True):
        sums: dict[int, float] = {}
        for line in lines:
            for rank, row in enumerate(line.tolist(), 1):
                if row >= 0:
                    sums[row] = sums.get(row, 0) + 1 / (RANK_OFFSET + rank)
        fused.append(sorted(sums.items(), key=lambda pair: -pair[1]))
    most = max(map(len, fused))
    scores, rows = np.full((len(fused), most), -np.inf), np.full((len(fused), most), -1)
    for line, pairs in enumerate(fused):
        for place, (row, score) in enumerate(pairs):
            scores[line, place], rows[line, place] = score, row
    return scores, rows
