"""Words in common, weighted by how rare they are: an encoder without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer

from lifelong.errors import ConfigError
from lifelong.retrieval.encoder import ObservingEncoder

AT_A_TIME = 1000


class LexicalEncoder(ObservingEncoder):
    """TF-IDF whose passages never change: rare words count on the side of the question alone.

    In the SMART notation this is lnc.ltc (Manning, Raghavan and Schütze, Introduction to Information Retrieval, 6.4.3),
    with the squared inverse document frequency in the question, since the passages have none: ``1 + log tf`` per word,
    hashed with a sign into ``dimension`` places, and vectors of length 1. Document frequencies follow the index: a
    stage is added without encoding again what is there.

    Args:
        dimension: places that words are hashed into. Fewer cost less memory (4 bytes each per passage), and mix up more
            words.
        words: up to how many words in a row count as one.

    Raises:
        ConfigError: a size is not positive.
    """

    def __init__(self, dimension: int = 4096, words: int = 1) -> None:
        if dimension < 1 or words < 1:
            raise ConfigError(f"dimension={dimension}, words={words}: both are at least 1")
        self._dimension, self.words = dimension, words
        self._hashing = HashingVectorizer(n_features=dimension, ngram_range=(1, words), norm=None, alternate_sign=True)
        self.count = 0
        self.frequencies = np.zeros(dimension, np.int64)  # passages with a word that is hashed there

    @property
    def dimension(self) -> int:
        return self._dimension

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"lexical {self.dimension} {self.words}".encode()).hexdigest()[:32]

    def fresh(self) -> LexicalEncoder:
        return LexicalEncoder(self.dimension, self.words)

    def observe(self, texts: Sequence[str]) -> None:
        self._count(texts, 1)

    def forget(self, texts: Sequence[str]) -> None:
        self._count(texts, -1)

    def _count(self, texts: Sequence[str], sign: int) -> None:
        if texts:
            self.frequencies += sign * self._hashing.transform(texts).getnnz(axis=0)
            self.count += sign * len(texts)

    def encode_passages(self, texts: Sequence[str]) -> np.ndarray:
        return self._encoded(texts, 1.0)

    def encode_questions(self, texts: Sequence[str]) -> np.ndarray:
        rarity = np.log((1 + self.count) / (1 + self.frequencies)) + 1
        return self._encoded(texts, rarity**2)

    def _encoded(self, texts: Sequence[str], weights: np.ndarray | float) -> np.ndarray:
        """Scaled vectors, computed for some texts at a time: on the way a vector takes several times its memory."""
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for start in range(0, len(texts), AT_A_TIME):
            some = texts[start : start + AT_A_TIME]
            vectors[start : start + AT_A_TIME] = _scaled(self._terms(some) * weights)
        return vectors

    def _terms(self, texts: Sequence[str]) -> np.ndarray:
        counts = self._hashing.transform(texts).toarray()
        return np.sign(counts) * np.where(counts == 0, 0, 1 + np.log(np.maximum(np.abs(counts), 1)))


def _scaled(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; a text without a word stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)
