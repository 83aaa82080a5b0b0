"""Passages become tasks by folder, by time and by topic."""

from __future__ import annotations

import pytest

from lifelong.documents import Document
from lifelong.documents.grouping import group
from lifelong.errors import ConfigError, DataError
from lifelong.retrieval import LexicalEncoder, Passage

NAMES = ["b/2025-02 x.txt", "a/deep/2024-12.txt", "2025-02-03.txt", "a/2025-01.txt"]
DOCUMENTS = [Document(name, name, "text", name.split("/")[-1][:7]) for name in NAMES]
PASSAGES = [Passage(f"text {n} {name}", f"{name}#{n}", name) for name in NAMES for n in (0, 1)]


def grouped(by: str, documents=DOCUMENTS, passages=PASSAGES, topics: int = 2) -> dict[str, list[int]]:
    return group(documents, passages, by, "my docs/", LexicalEncoder(), topics, 0)


def test_by_first_sub_folder_in_order_of_names() -> None:
    assert grouped("folder") == {"a": [2, 3, 6, 7], "b": [0, 1], "my docs": [4, 5]}


def test_by_time_in_its_order() -> None:
    assert grouped("month") == {"2024-12": [2, 3], "2025-01": [6, 7], "2025-02": [0, 1, 4, 5]}
    assert grouped("year") == {"2024": [2, 3], "2025": [0, 1, 4, 5, 6, 7]}


def test_by_topic_what_is_alike_comes_together() -> None:
    metals = ["gold is a yellow metal", "iron is a grey metal", "copper is a red metal that conducts"]
    moons = ["a moon orbits saturn", "the moon of mars orbits fast", "jupiter has a moon that orbits"]
    texts = [text for pair in zip(metals, moons, strict=True) for text in pair]
    passages = [Passage(text, str(n), NAMES[0]) for n, text in enumerate(texts)]
    found = grouped("topic", passages=passages)
    assert list(found.values()) == [[0, 2, 4], [1, 3, 5]]
    first, second = found
    assert first.startswith("1-") and "metal" in first and second.startswith("2-") and "moon" in second


def test_what_cannot_be_divided_is_said() -> None:
    with pytest.raises(DataError, match=r"b/x.txt: has no date"):
        grouped("month", [Document("b/x.txt", "x", "text")], [Passage("text", "1", "b/x.txt")])
    with pytest.raises(DataError, match="9 topics: there are 8 passages"):
        grouped("topic", topics=9)
    with pytest.raises(ConfigError, match=r"by: unknown 'topics'.*topic"):
        grouped("topics")
