"""The index: what it finds is what brute force finds, however it grew, shrank, and was kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lifelong.errors import ConfigError, DataError, ModelError, RunError
from lifelong.retrieval import Passage, PassageIndex

SIZE = 24
KINDS = ["exact", "HNSW", "IVF8,Flat", "PCA20,Flat", "SQ8"]


def drawn(count: int, seed: int = 0) -> tuple[list[Passage], np.ndarray]:
    vectors = np.random.default_rng(seed).normal(size=(count, SIZE)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        Passage(f"passage {seed}-{n}", f"{seed}-{n}", f"document {n // 3}", n, n + 2) for n in range(count)
    ], vectors


def built(kind: str = "exact", count: int = 400, **settings: object) -> tuple[PassageIndex, list[Passage], np.ndarray]:
    passages, vectors = drawn(count)
    index = PassageIndex(SIZE, kind, "abc", **settings)
    index.add(passages, vectors)
    return index, passages, vectors


def brute_force(questions: np.ndarray, vectors: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(questions.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, :k]


@pytest.fixture(scope="module")
def questions() -> np.ndarray:
    return np.random.default_rng(9).normal(size=(50, SIZE)).astype(np.float32)


def found(index: PassageIndex, questions: np.ndarray, k: int = 7) -> list[list[str]]:
    return [[passage.id for passage in index.passages(rows)] for rows in index.search(questions, k)[1]]


def test_what_is_found_is_what_brute_force_finds(questions: np.ndarray) -> None:
    index, _, vectors = built()
    scores, rows = index.search(questions, 7)
    wanted = brute_force(questions, vectors, 7)
    assert np.array_equal(rows, wanted)
    np.testing.assert_allclose(scores, np.take_along_axis(questions @ vectors.T, wanted, 1), rtol=1e-5)


@pytest.mark.parametrize("kind", ["HNSW", "IVF8,Flat"])
def test_other_kinds_find_nearly_the_same(kind: str, questions: np.ndarray) -> None:
    index, _, vectors = built(kind, search={"efSearch": 200} if kind == "HNSW" else {"nprobe": 8})
    rows, wanted = index.search(questions, 7)[1], brute_force(questions, vectors, 7)
    assert np.mean([len({*a} & {*b}) / 7 for a, b in zip(rows.tolist(), wanted.tolist(), strict=True)]) > 0.98


def test_every_kind_knows_which_passage_a_vector_belongs_to(questions: np.ndarray) -> None:
    for kind in KINDS:
        index, passages, vectors = built(kind)
        rows = index.search(vectors[:20], 1)[1][:, 0]
        assert index.passages(rows) == passages[:20], kind


def test_growing_in_steps_equals_growing_at_once(questions: np.ndarray) -> None:
    passages, vectors = drawn(300)
    steps = PassageIndex(SIZE)
    for start in range(0, 300, 70):
        steps.add(passages[start : start + 70], vectors[start : start + 70])
    whole = PassageIndex(SIZE)
    whole.add(passages, vectors)
    for one, other in zip(steps.search(questions, 9), whole.search(questions, 9), strict=True):
        assert np.array_equal(one, other)
    assert steps.passages(range(300)) == whole.passages(range(300)) == passages


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_removed_is_gone(kind: str, questions: np.ndarray, tmp_path: Path) -> None:
    settings = {"search": {"nprobe": 8}} if kind.startswith("IVF") else {}
    index, passages, vectors = built(kind, **settings)
    gone = [passage.id for passage in passages[::3]]
    index.remove(gone)
    assert len(index) == 400 - len(gone) and gone[0] not in index and index.id_of(passages[0].text) is None
    kept = [n for n in range(400) if n % 3]
    lines = found(index, questions)
    assert not {*gone} & {id for line in lines for id in line}
    if kind in ("exact", "IVF8,Flat"):
        assert lines == [[f"0-{kept[n]}" for n in row] for row in brute_force(questions, vectors[kept], 7)]
    index.save(tmp_path)
    assert passages[0].text.encode() + b"p" not in b"".join(f.read_bytes() for f in tmp_path.iterdir())
    assert index._index.ntotal == len(kept)
    fresh, more = drawn(5, seed=2)
    index.add(fresh, more)  # and what comes later is not taken for what was there
    assert index.passages(index.search(more, 1)[1][:, 0]) == fresh


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_equals_before(kind: str, questions: np.ndarray, tmp_path: Path) -> None:
    index, _, _ = built(kind)
    index.remove(["0-5"])
    index.save(tmp_path)
    again = PassageIndex.load(tmp_path, "abc")
    for one, other in zip(again.search(questions, 9), index.search(questions, 9), strict=True):
        assert np.array_equal(one, other)
    assert again.texts == index.texts and again.ids == index.ids
    fresh, vectors = drawn(10, seed=3)
    assert again.add(fresh, vectors) == index.add(fresh, vectors)
    assert found(again, questions) == found(index, questions)
    again.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3  # the files of the state before are gone
    assert found(PassageIndex.load(tmp_path), questions) == found(index, questions)


def test_the_same_text_is_not_added_twice() -> None:
    index, passages, vectors = built(count=10)
    again = [Passage(passages[3].text, "another name"), Passage("new", "n"), Passage("new", "m")]
    assert index.add(again, vectors[:3]) == ["0-3", "n", "n"]
    assert len(index) == 11


def test_a_kind_that_is_trained_is_exact_until_there_are_vectors_enough(questions: np.ndarray) -> None:
    passages, vectors = drawn(400)
    index = PassageIndex(SIZE, "IVF8,Flat", search={"nprobe": 8})
    index.add(passages[:300], vectors[:300])
    assert not index.trained  # 39 for each of eight centres is 312
    assert np.array_equal(index.search(questions, 5)[1], brute_force(questions, vectors[:300], 5))
    index.add(passages[300:], vectors[300:])
    assert index.trained
    assert np.array_equal(index.search(questions, 5)[1], brute_force(questions, vectors, 5))
    product = PassageIndex(SIZE, "PQ4x4")
    product.add(*drawn(39 * 16 - 1))
    assert not product.trained
    product.add(*drawn(1, seed=5))
    assert product.trained


def test_what_cannot_be_searched_says_so(questions: np.ndarray) -> None:
    index = PassageIndex(SIZE)
    with pytest.raises(DataError, match="empty"):
        index.search(questions, 1)
    index.add(*drawn(4))
    for k in (0, 5):
        with pytest.raises(DataError, match="holds 4 passages"):
            index.search(questions, k)
    with pytest.raises(DataError, match="shape"):
        index.search(questions[:, :5], 1)
    with pytest.raises(DataError, match="finite"):
        index.search(questions * np.nan, 1)
    with pytest.raises(DataError, match="another text"):
        index.add([Passage("something else", "0-1")], questions[:1])
    with pytest.raises(DataError, match="no passage 'x'"):
        index.remove(["0-1", "x"])
    assert len(index) == 4


def test_what_cannot_be_made_says_so() -> None:
    with pytest.raises(ConfigError, match="index_factory"):
        PassageIndex(SIZE, "HSNW")
    with pytest.raises(ConfigError, match="PQ5"):
        PassageIndex(SIZE, "PQ5")  # 24 numbers do not fall into five parts
    with pytest.raises(ConfigError, match="nprobe"):
        PassageIndex(SIZE, "exact", search={"nprobe": 3})
    with pytest.raises(ConfigError, match="device"):
        PassageIndex(SIZE, device="tpu")
    with pytest.raises(ConfigError, match="dimension"):
        PassageIndex(0)


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    built()[0].save(tmp_path / "index")
    with pytest.raises(ModelError, match="another encoder"):
        PassageIndex.load(tmp_path / "index", "abd")
    for name in ("vectors-*.faiss", "passages-*.arrow"):
        file = next((tmp_path / "index").glob(name))
        whole = file.read_bytes()
        for damaged in (whole[:-10], whole[:99] + bytes([whole[99] ^ 1]) + whole[100:]):
            file.write_bytes(damaged)
            with pytest.raises(RunError, match="missing or was altered"):
                PassageIndex.load(tmp_path / "index")
        file.write_bytes(whole)
    manifest = tmp_path / "index" / "manifest.json"
    facts = json.loads(manifest.read_text())
    facts["files"]["vectors.faiss"]["file"] = "../elsewhere"
    for text in ("{", "[]", "{}", json.dumps(facts)):
        manifest.write_text(text)
        with pytest.raises(RunError, match="build the index again"):
            PassageIndex.load(tmp_path / "index")
    with pytest.raises(RunError, match="holds no index"):
        PassageIndex.load(tmp_path)
    with pytest.raises(RunError, match="another folder"):
        built()[0].save(tmp_path)


def test_a_reader_never_sees_half_of_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, _, _ = built()
    index.save(tmp_path)
    index.add(*drawn(3, seed=4))
    rename = os.replace
    for moment in range(3):
        left = iter(range(moment))

        def stopped(source: str, target: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            rename(source, target)

        monkeypatch.setattr(os, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            index.save(tmp_path)
        assert len(PassageIndex.load(tmp_path)) == 400
    monkeypatch.undo()
    index.save(tmp_path)
    assert len(PassageIndex.load(tmp_path)) == 403
