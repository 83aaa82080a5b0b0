"""Who writes questions about passages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Excerpt:
    """A passage that questions are written about.

    Args:
        text: the passage.
        title: of its document.
    """

    text: str
    title: str = ""


@dataclass(frozen=True)
class Pair:
    """A question and its answer.

    Args:
        question: to be understood without the passage.
        answer: as short as it can be.
        probes: the question in other words.
    """

    question: str
    answer: str
    probes: tuple[str, ...] = ()


class Generator(ABC):
    """Writes question-answer pairs."""

    @property
    @abstractmethod
    def name(self) -> str:
        """In reports."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Differs where other pairs may be written about the same passage."""

    @abstractmethod
    def write(self, excerpts: Sequence[Excerpt]) -> Iterator[list[Pair] | None]:
        """Pairs about each excerpt, in their order; ``None`` where what was written cannot be read."""

    def price(self, excerpts: Sequence[Excerpt]) -> str:
        """What writing about these will take, in words; empty where nothing is paid for."""
        return ""
