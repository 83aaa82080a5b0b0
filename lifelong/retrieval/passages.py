"""What is indexed, and what is found."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


def content_id(text: str) -> str:
    """The id of a passage that was given none: 16 hexadecimal digits of the SHA-256 of its text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Passage:
    """A text to be found.

    Args:
        text: what is encoded, and shown to the model.
        id: names it in the index. Made from the text where empty.
        document: the document, or the longer passage, that it was cut from; its own id where it is whole.
        start: where it begins in the document, in characters.
        end: where it ends there, exclusive.
    """

    text: str
    id: str = ""
    document: str = ""
    start: int = 0
    end: int = -1

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", content_id(self.text))
        if not self.document:
            object.__setattr__(self, "document", self.id)
        if self.end < 0:
            object.__setattr__(self, "end", self.start + len(self.text))


@dataclass(frozen=True)
class Hit:
    """A passage that was found, and how well it fits; higher is better.

    The score is a cosine between -1 and 1 from an encoder that normalises, the sum of reciprocal ranks from a hybrid,
    and the cross-encoder's output behind a re-ranker.
    """

    id: str
    text: str
    score: float
    document: str = ""
    start: int = 0
    end: int = 0
