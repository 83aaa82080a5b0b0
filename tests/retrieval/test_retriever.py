"""Encoders, the retriever over them, hybrid search, re-ranking and splitting."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertForSequenceClassification

from lifelong.errors import ConfigError, DataError, ModelError
from lifelong.retrieval import Encoder, Hit, LexicalEncoder, Passage, Reranker, Retriever, Splitter

TEXTS = [
    "The capital of Fiji is Suva.",
    "Gold has the chemical symbol Au.",
    "HTTP status 404 has the reason phrase Not Found.",
    "The moon Titan has the designation Saturn VI.",
    "The kelvin is the unit of temperature.",
]


@pytest.fixture(scope="session")
def encoder_folder(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder with random weights and a window of sixteen tokens."""
    words = Transformer(str(bert_folder), max_seq_length=16)
    folder = tmp_path_factory.mktemp("encoder") / "toy"
    SentenceTransformer(modules=[words, Pooling(words.get_embedding_dimension())], device="cpu").save(str(folder))
    return folder


def test_lexical_scores_are_lnc_ltc_by_hand() -> None:
    texts = ["red red red blue", "blue green", "green"]
    encoder = LexicalEncoder(2**18)  # so many places that no two words share one
    retriever = Retriever(encoder)
    retriever.add(texts, ids=["a", "b", "c"])
    hits = retriever.retrieve(["red green green"], k=3)[0]

    def unit(weights: dict[str, float]) -> dict[str, float]:
        length = math.sqrt(sum(w * w for w in weights.values()))
        return {word: w / length for word, w in weights.items()}

    count = Counter(word for text in texts for word in {*text.split()})
    rarity = {word: math.log(4 / (1 + n)) + 1 for word, n in count.items()}
    asked = unit({"red": rarity["red"] ** 2, "green": (1 + math.log(2)) * rarity["green"] ** 2})
    passages = [unit({w: 1 + math.log(n) for w, n in Counter(t.split()).items()}) for t in texts]
    wanted = {id: sum(asked.get(w, 0) * v for w, v in p.items()) for id, p in zip("abc", passages, strict=True)}
    assert {hit.id: hit.score for hit in hits} == pytest.approx(wanted, abs=1e-6)
    assert [hit.id for hit in hits] == sorted(wanted, key=lambda id: -wanted[id])


def test_stages_removal_and_a_folder_leave_the_scores_of_what_is_there(tmp_path: Path) -> None:
    whole, grown = Retriever(LexicalEncoder()), Retriever(LexicalEncoder())
    whole.add(TEXTS)
    for text in ["something else entirely", *TEXTS]:
        grown.add([text])
    grown.remove(grown.add(["something else entirely"]))
    questions = ["What is the capital of Fiji?", "unit of temperature", ""]
    assert grown.retrieve(questions, 5) == whole.retrieve(questions, 5)
    grown.save(tmp_path)
    again = Retriever.load(tmp_path, LexicalEncoder())
    assert again.retrieve(questions, 5) == whole.retrieve(questions, 5)
    with pytest.raises(ModelError, match="another encoder"):
        Retriever.load(tmp_path, LexicalEncoder(512))


def test_an_encoder_that_several_retrievers_share_counts_for_each_alone(tmp_path: Path) -> None:
    shared = LexicalEncoder()
    alone, first, second = Retriever(LexicalEncoder()), Retriever(shared), Retriever(shared)
    alone.add(TEXTS)
    first.add(TEXTS)
    second.add(["gold gold", "gold", "the symbol of Fiji", *TEXTS])
    questions = ["the symbol of gold of Fiji", "unit of temperature"]
    assert first.retrieve(questions, 5) == alone.retrieve(questions, 5)
    first.save(tmp_path)
    assert Retriever.load(tmp_path, first.encoder).retrieve(questions, 5) == first.retrieve(questions, 5)


def test_an_encoder_gives_the_model_its_prompts_and_lengths(encoder_folder: Path, tmp_path: Path) -> None:
    encoder = Encoder(encoder_folder, question_prompt="ask: ", passage_prompt="say: ", cache=tmp_path)
    plain = SentenceTransformer(str(encoder_folder), device="cpu")
    for vectors, prompt in ((encoder.encode_passages(TEXTS), "say: "), (encoder.encode_questions(TEXTS), "ask: ")):
        wanted = plain.encode([prompt + text for text in TEXTS], normalize_embeddings=True)
        np.testing.assert_allclose(vectors, wanted, atol=1e-5)
    loud = Encoder(plain, normalize=False, cache=False)
    np.testing.assert_allclose(loud.encode_passages(TEXTS), plain.encode(TEXTS), atol=1e-5)
    assert len({e.fingerprint for e in (encoder, loud, Encoder(plain, cache=False))}) == 3
    assert Encoder(encoder_folder, cache=False).fingerprint == Encoder(plain, cache=False).fingerprint


def test_the_prompts_of_the_models_own_configuration_count(encoder_folder: Path) -> None:
    model = SentenceTransformer(str(encoder_folder), device="cpu", prompts={"query": "q: ", "document": "d: "})
    encoder = Encoder(model, cache=False)
    assert (encoder.question_prompt, encoder.passage_prompt) == ("q: ", "d: ")
    assert Encoder(model, question_prompt="", cache=False).question_prompt == ""


def test_no_text_is_computed_twice(encoder_folder: Path, tmp_path: Path) -> None:
    first = Encoder(encoder_folder, cache=tmp_path)
    vectors = first.encode_passages([*TEXTS, *TEXTS])
    assert first.computed == len(TEXTS)
    second = Encoder(encoder_folder, cache=tmp_path)
    assert np.array_equal(second.encode_passages([*TEXTS, *TEXTS]), vectors) and second.computed == 0
    second.encode_passages(["new", *TEXTS])
    assert second.computed == 1
    Encoder(encoder_folder, cache=tmp_path, passage_prompt="p: ").encode_passages(TEXTS)
    other = Encoder(encoder_folder, cache=tmp_path, normalize=False)
    other.encode_passages(TEXTS)
    assert other.computed == len(TEXTS)  # vectors of other settings are others
    retriever = Retriever(Encoder(encoder_folder, cache=False))
    retriever.add(["one", "two"])
    retriever.add(["one", "two", "three"])
    assert retriever.encoder.computed == 3  # and an index does not ask for what it has


def test_a_passage_beyond_the_window_is_split_and_counted(encoder_folder: Path) -> None:
    encoder = Encoder(encoder_folder, cache=False)
    retriever = Retriever(encoder)
    long = " ".join(TEXTS)
    ids = retriever.add([long, "short"], ids=["long", "short"])
    assert retriever.split == 1 and ids[-1] == "short" and len(ids) == len(retriever) > 3
    hits = retriever.retrieve(["x"], k=len(retriever))[0]
    for hit in hits:
        assert encoder.pieces(hit.text) <= encoder.window
        if hit.document == "long":
            assert long[hit.start : hit.end] == hit.text
    told = {place for hit in hits if hit.document == "long" for place in range(hit.start, hit.end)}
    assert all(place in told or long[place] == " " for place in range(len(long)))


def test_hybrid_is_the_sum_of_reciprocal_ranks() -> None:
    retriever = Retriever(LexicalEncoder(), hybrid=True)
    retriever.add(TEXTS, ids=list("abcde"))
    question = "the unit of temperature of Titan"
    hits = retriever.retrieve([question], k=5)[0]
    retriever._keywords.follow(retriever.index)
    lexical = [hit.id for hit in _plain(TEXTS).retrieve([question], 5)[0]]
    keywords = [list("abcde")[row] for row in retriever._keywords.search([question], 5)[0] if row >= 0]
    wanted = Counter()
    for ranking in (lexical, keywords):
        for rank, id in enumerate(ranking, 1):
            wanted[id] += 1 / (60 + rank)
    assert {hit.id: hit.score for hit in hits} == pytest.approx(dict(wanted))
    assert hits[0].id == "e"
    retriever.add(["Titan is the temperature unit of temperature units."], ids=["f"])
    assert retriever.retrieve([question], k=2)[0][0].id in "ef"  # BM25 sees what was added


def _plain(texts: list[str]) -> Retriever:
    retriever = Retriever(LexicalEncoder())
    retriever.add(texts, ids=list("abcde"))
    return retriever


def test_a_reranker_has_the_last_word(bert_folder: Path, tmp_path: Path) -> None:
    config = BertConfig.from_pretrained(bert_folder, num_labels=1)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "cross")
    Transformer(str(bert_folder)).tokenizer.save_pretrained(tmp_path / "cross")
    model = CrossEncoder(str(tmp_path / "cross"), device="cpu")
    retriever = Retriever(LexicalEncoder(), reranker=Reranker(model))
    retriever.add(TEXTS)
    question = "the unit of temperature"
    hits = retriever.retrieve([question, question], k=2)[1]
    scores = model.predict([(question, text) for text in TEXTS])
    assert [hit.text for hit in hits] == [TEXTS[n] for n in np.argsort(-scores)[:2]]
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.tolist(), reverse=True)[:2], abs=1e-5)


def test_passages_below_the_lowest_score_are_left_out() -> None:
    retriever = _plain(TEXTS)
    hits = retriever.retrieve(["gold", "nothing of all this"], k=5, min_score=0.2)
    assert [hit.id for hit in hits[0]] == ["b"]
    assert all(hit.score >= 0.2 for hit in hits[1])
    assert retriever.retrieve([], k=3) == []


def test_what_cannot_be_retrieved_says_so(tmp_path: Path) -> None:
    retriever = Retriever(LexicalEncoder())
    with pytest.raises(DataError, match="empty: add passages"):
        retriever.retrieve(["x"], 1)
    with pytest.raises(DataError, match="passage 'b' is empty"):
        retriever.add(["text", "  "], ids=["a", "b"])
    with pytest.raises(DataError, match="1 ids for 2"):
        retriever.add(["one", "two"], ids=["a"])
    retriever.add(["one", "two"])
    for k in (0, 3):
        with pytest.raises(DataError, match=f"k={k}"):
            retriever.retrieve(["x"], k)
    hybrid = Retriever(LexicalEncoder(), hybrid=True)
    hybrid.add(["one", "two"])
    with pytest.raises(DataError, match="k=0"):
        hybrid.retrieve(["x"], 0)
    with pytest.raises(ModelError, match="no encoder"):
        Encoder(tmp_path)
    with pytest.raises(ConfigError, match="batch_size"):
        Encoder(tmp_path, batch_size=0)
    with pytest.raises(ConfigError, match="candidates"):
        Retriever(LexicalEncoder(), candidates=0)


def test_a_document_is_cut_at_sentences_and_every_part_knows_its_place() -> None:
    text = "One two three. Four five six seven! Eight?\n\nNine ten eleven twelve thirteen. Fourteen."
    parts = Splitter(6).split(text, "numbers")
    assert all(text[part.start : part.end] == part.text and len(part.text.split()) <= 6 for part in parts)
    assert [part.text for part in parts] == [
        "One two three.",
        "Four five six seven! Eight?",
        "Nine ten eleven twelve thirteen. Fourteen.",
    ]
    assert [part.id for part in parts] == ["numbers#0", "numbers#1", "numbers#2"]
    again = Splitter(4, overlap=2).split("One two. Three four. Five six. Seven eight.", "numbers")
    assert [part.text for part in again] == [
        "One two. Three four.",
        "Three four. Five six.",
        "Five six. Seven eight.",
    ]
    long = Splitter(4).split("one two three four five six seven eight nine", "long")
    assert [part.text for part in long] == ["one two three four", "five six seven eight", "nine"]
    with pytest.raises(ConfigError, match="overlap"):
        Splitter(4, 4)


def test_a_passage_is_named_after_its_text() -> None:
    assert Passage("x").id == Passage("x").document != Passage("y").id
    assert (Passage("abc").start, Passage("abc").end) == (0, 3)
    assert Hit("a", "text", 0.5) == Hit("a", "text", 0.5)
