"""Which passages make up a task."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal, get_args

import numpy as np

from lifelong.documents.reading import Document
from lifelong.errors import ConfigError, DataError, suggestion
from lifelong.retrieval import Passage, PassageEncoder

By = Literal["folder", "month", "year", "topic"]
WORDS_OF_A_NAME = 3


def group(
    documents: Sequence[Document],
    passages: Sequence[Passage],
    by: By,
    root: str,
    encoder: PassageEncoder,
    topics: int,
    seed: int,
) -> dict[str, list[int]]:
    """Numbers of passages by the name of their task, in the order in which the tasks are to be learned.

    Args:
        documents: by ``name``, which is the ``document`` of their passages.
        passages: to divide.
        by: first sub-folder, in order of names; month or year of the document, in order of time; or topic: a cluster of
            similar passages (k-means on the encoder's vectors), in order of first appearance.
        root: names the task of documents that are in no sub-folder.
        encoder: of passages, for topics.
        topics: how many.
        seed: of the clusters' first centres.

    Raises:
        DataError: a document has no date, or there are fewer passages than topics.
        ConfigError: there is no such way.
    """
    if by not in get_args(By):
        raise ConfigError(f"by: unknown {by!r}{suggestion(by, get_args(By))}")
    if by == "topic":
        return _topics([passage.text for passage in passages], encoder, topics, seed)
    known = {document.name: document for document in documents}
    name = (lambda document: _folder(document, root)) if by == "folder" else (lambda document: _period(document, by))
    tasks = defaultdict(list)
    for number, passage in enumerate(passages):
        tasks[name(known[passage.document])].append(number)
    return {task: tasks[task] for task in sorted(tasks)}


def _folder(document: Document, root: str) -> str:
    parts = PurePosixPath(document.name).parts
    return _named(parts[0] if len(parts) > 1 else root)


def _period(document: Document, by: str) -> str:
    if document.date is None:
        raise DataError(
            f"{document.name}: has no date, neither in its name (2026-11-23, 2026-11) nor in front matter or meta "
            "tags: give it one, or divide by folder or topic"
        )
    return document.date[: 4 if by == "year" else 7]


def _topics(texts: list[str], encoder: PassageEncoder, topics: int, seed: int) -> dict[str, list[int]]:
    from sklearn.cluster import KMeans

    if not 1 <= topics <= len(texts):
        raise DataError(f"{topics} topics: there are {len(texts)} passages")
    clusters = KMeans(topics, n_init=4, random_state=seed).fit_predict(encoder.encode_passages(texts))
    found = [np.flatnonzero(clusters == cluster).tolist() for cluster in dict.fromkeys(clusters.tolist())]
    names = _names([" ".join(texts[number] for number in members) for members in found])
    return dict(zip(names, found, strict=True))


def _names(topics: list[str]) -> list[str]:
    """The words that tell topics apart best, by TF-IDF."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(stop_words="english", token_pattern=r"[a-zA-Z]{3,}", sublinear_tf=True)
    scores = words.fit_transform(topics).toarray()
    vocabulary = words.get_feature_names_out()
    best = [vocabulary[np.argsort(-line, kind="stable")[:WORDS_OF_A_NAME]] for line in scores]
    return [f"{number}-{_named('-'.join(some))}" for number, some in enumerate(best, 1)]


def _named(text: str) -> str:
    """A name that a task may have."""
    return re.sub(r"[^\w.\- ]+", "-", text).strip("-. ") or "documents"
