"""Finding the passages that answer a question: encoders, a FAISS index that grows with the stream, and a retriever.

The package is useful alone: it needs no stream, no run and no model but the encoder's.
"""

from lifelong.retrieval.choice import make_encoder
from lifelong.retrieval.encoder import Encoder, ObservingEncoder, PassageEncoder
from lifelong.retrieval.index import PassageIndex
from lifelong.retrieval.lexical import LexicalEncoder
from lifelong.retrieval.passages import Hit, Passage
from lifelong.retrieval.reranker import Reranker
from lifelong.retrieval.retriever import Retriever
from lifelong.retrieval.splitter import Splitter

__all__ = [
    "Encoder",
    "Hit",
    "LexicalEncoder",
    "ObservingEncoder",
    "Passage",
    "PassageEncoder",
    "PassageIndex",
    "Reranker",
    "Retriever",
    "Splitter",
    "make_encoder",
]
