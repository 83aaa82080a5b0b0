"""BM25 beside the vectors."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np

from lifelong.retrieval.index import PassageIndex


class KeywordIndex:
    """BM25 over the passages of an index, counted anew when they have changed."""

    def __init__(self) -> None:
        self._keys: np.ndarray | None = None
        self._index = bm25s.BM25()
        self._words: set[str] = set()

    def follow(self, index: PassageIndex) -> None:
        """Take over the passages of ``index``."""
        if self._keys is not None and np.array_equal(self._keys, index.keys):
            return
        self._keys = index.keys.copy()
        tokens = _tokens(index.texts)
        self._words = {word for line in tokens for word in line}
        self._index = bm25s.BM25()
        if self._words:
            self._index.index(tokens, show_progress=False)

    def search(self, questions: Sequence[str], k: int) -> np.ndarray:
        """Rows of the best passages, best first, of shape (questions, k); -1 where no word is in common."""
        rows = np.full((len(questions), k), -1)
        for line, words in enumerate(_tokens(questions)):
            known = [word for word in words if word in self._words]
            if known:
                found, scores = self._index.retrieve([known], k=k, show_progress=False)
                rows[line] = np.where(scores[0] > 0, found[0], -1)
        return rows


def _tokens(texts: Sequence[str]) -> list[list[str]]:
    return bm25s.tokenize(list(texts), stopwords=None, return_ids=False, show_progress=False)
