"""From the name of an encoder in a configuration to the encoder."""

from __future__ import annotations

from pathlib import Path

from lifelong.retrieval.encoder import Encoder, PassageEncoder
from lifelong.retrieval.lexical import LexicalEncoder

LEXICAL = "lexical"


def make_encoder(name: str) -> PassageEncoder:
    """A `LexicalEncoder` for ``"lexical"``, else a model of sentence-transformers by name or folder.

    Raises:
        ModelError: there is no such model.
    """
    return LexicalEncoder() if name == LEXICAL else Encoder(Path(name).expanduser())
