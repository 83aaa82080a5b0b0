"""Few rows are encoded in memory, many into a file that the next run finds by its content."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from lifelong.encoding import PromptEncoder
from lifelong.preparation import IN_MEMORY, PreparedRows, lengths, prepare, take
from lifelong.prompts import PromptTemplate
from lifelong.strategies.base import labelled
from lifelong.tasks import Task

MANY = IN_MEMORY + 30


@pytest.fixture
def rows():
    return labelled_rows("?")


def labelled_rows(end: str):
    # every tenth question is too long to fit
    texts = [f"{'how ' * (60 if number % 10 == 0 else 1)}many {number}{end}" for number in range(MANY)]
    task = Task(
        "many", [{"question": text, "answer": f"a {len(text)}"} for text in texts], [{"question": "q", "answer": "a"}]
    )
    return labelled(task, task.train)


@pytest.fixture
def encoder(llama_folder, tmp_path, monkeypatch):
    """A function that makes an encoder; tokens are cached in a folder of the test's own."""
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(llama_folder)
    return lambda **settings: PromptEncoder(tokenizer, PromptTemplate(**settings), 64)


def test_many_rows_are_those_of_one_by_one_with_the_same_counts(encoder, rows):
    one, whole = encoder(), encoder()
    expected = [one.encode(row) for row in rows]
    found = prepare(whole, rows, "closed")
    assert isinstance(found, PreparedRows)
    assert take(found, range(MANY)) == expected
    assert list(lengths(found)) == [len(row.input_ids) for row in expected]
    assert whole.counts == one.counts == {"questions cut": -(-MANY // 10)}


def test_few_rows_stay_in_memory(encoder, rows, tmp_path):
    few = rows.select(range(20))
    found = prepare(encoder(), few, "closed")
    assert found == [encoder().encode(row) for row in few]
    assert take(found, [3, 1]) == [found[3], found[1]]
    assert not (tmp_path / "cache").exists()


def test_a_second_time_nothing_is_encoded_and_the_counts_are_the_same(encoder, rows, monkeypatch):
    first = encoder()
    expected = take(prepare(first, rows, "closed"), [0, 5, MANY - 1])
    second = encoder()
    monkeypatch.setattr(PromptEncoder, "encode_rows", lambda *_: pytest.fail("was encoded again"))
    assert take(prepare(second, rows, "closed"), [0, 5, MANY - 1]) == expected
    assert second.counts == first.counts


@pytest.mark.parametrize("change", ["rows", "wording", "length", "book"])
def test_whatever_decides_the_tokens_gives_another_file(change, encoder, rows, tmp_path):
    prepare(encoder(), rows, "closed")
    other = encoder(cue="Reply:") if change == "wording" else encoder()
    if change == "length":
        other.max_length = 50
    prepare(other, labelled_rows("!") if change == "rows" else rows, "gold" if change == "book" else "closed")
    assert len([*(tmp_path / "cache" / "tokens").glob("*.arrow")]) == 2


@pytest.mark.parametrize(("book", "files"), [("closed", 1), ("closed 0.5, gold 0.5", 2)])
def test_another_seed_gives_another_file_where_it_decides_what_is_shown(book, files, encoder, rows, tmp_path):
    for seed in (0, 1):
        one = encoder()
        one.seed = seed
        prepare(one, rows, book)
    assert len([*(tmp_path / "cache" / "tokens").glob("*.arrow")]) == files


@pytest.mark.parametrize("file", ["*.arrow", "*.json"])
def test_a_damaged_file_is_made_anew(file, encoder, rows, tmp_path):
    expected = take(prepare(encoder(), rows, "closed"), [1, 2])
    (path,) = (tmp_path / "cache" / "tokens").glob(file)
    path.write_bytes(b"")
    assert take(prepare(encoder(), rows, "closed"), [1, 2]) == expected
