"""Documents into passages."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from semantic_text_splitter import TextSplitter

from lifelong.errors import ConfigError
from lifelong.retrieval.passages import Passage


class Splitter:
    """Cuts a document where paragraphs, sentences or, in a sentence that is too long, words end.

    Args:
        tokens: longest passage.
        overlap: how much of a passage the next one may repeat.
        count: tokens of a text, such as ``encoder.pieces``; words where ``None``.

    Raises:
        ConfigError: ``tokens`` is not positive, or the overlap is not below it.
    """

    def __init__(self, tokens: int = 128, overlap: int = 0, count: Callable[[str], int] | None = None) -> None:
        if tokens < 1 or not 0 <= overlap < tokens:
            raise ConfigError(f"tokens={tokens}, overlap={overlap}: at least one token, and an overlap below it")
        self.tokens, self.overlap, self.count = tokens, overlap, count or words

    @cached_property
    def _splitter(self) -> TextSplitter:
        return TextSplitter.from_callback(self.count, self.tokens, overlap=self.overlap)

    def split(self, text: str, document: str = "") -> list[Passage]:
        """The passages of a document, in order; each knows where in the text it stands.

        Args:
            text: the document.
            document: its name. Made from the text where empty.
        """
        document = document or Passage(text).id
        parts = self._splitter.chunk_indices(text)
        return [
            Passage(part, f"{document}#{number}", document, start, start + len(part))
            for number, (start, part) in enumerate(parts)
        ]


def words(text: str) -> int:
    """Number of words."""
    return len(text.split())
