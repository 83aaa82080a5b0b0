"""Papers are learned month by month, HotpotQA is held out, and open book means something for both."""

from __future__ import annotations

import pytest

from lifelong import Experiment
from lifelong.errors import DataError
from streams import five_l
from streams.arxiv_qa import QUESTIONS


@pytest.fixture
def folder(tmp_path, lines, hotpot_row):
    for month in ("2301", "2302"):
        rows = [
            {
                "paper": f"{month}.{number:05}",
                "title": f"Paper {number} of {month}",
                "question": wording.asked,
                "answer": f"{name} of {number}",
            }
            for number in range(3)
            for name, wording in QUESTIONS.items()
        ]
        lines(tmp_path / "arxivqa" / f"{month}.jsonl", rows)
    lines(tmp_path / "hotpot100" / "distractor.jsonl", [{**hotpot_row, "id": str(number)} for number in range(3)])
    return tmp_path


MONTHS = ("2023-02", "2023-01")


def test_months_come_in_the_order_of_time_and_hotpotqa_is_held_out(folder):
    stream = five_l(MONTHS, folder=folder)
    assert stream.names == ("arxiv 2023-01", "arxiv 2023-02", "hotpotqa")
    assert [task.name for task in stream.held_out] == ["hotpotqa"]
    assert [len(task.train) for task in stream] == [24, 24, 0]
    assert all(task.source and task.licence for task in stream)


def test_a_small_part_can_be_taken(folder):
    stream = five_l(MONTHS, ["summary", "keywords"], papers=2, words=1, test=3, hotpot=1, folder=folder)
    assert [len(task.train) for task in stream] == [4, 4, 0]
    assert [len(task.test) for task in stream] == [3, 3, 1]
    assert {answer for (answer,) in stream[0].train["answers"]} == {"summary", "keywords"}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"months": ["2023-13"]}, "months: expected a year and a month"),
        ({"months": ["2301"]}, "months: expected a year and a month"),
        ({"questions": ["summry"]}, r"no question 'summry'\. Did you mean 'summary'"),
        ({"papers": 0}, "papers: must be at least 1"),
        ({"words": 0}, "words: must be at least 1"),
        ({"test": 0}, "test: must be at least 1"),
        ({"hotpot": 0}, "hotpot: must be at least 1"),
        ({"revision": {"arxiv_qa": "x"}}, r"no dataset 'arxiv_qa'\. Did you mean 'taesiri/arxiv_qa'"),
    ],
)
def test_what_there_is_not_is_an_error(folder, chosen, message):
    with pytest.raises(DataError, match=message):
        five_l(**{"months": MONTHS, "folder": folder} | chosen)


def test_missing_files_of_both_sources_are_named_at_once(tmp_path):
    with pytest.raises(DataError, match=r"arxivqa: .*2302\.jsonl, 2301\.jsonl.*hotpot100: .*distractor\.jsonl"):
        five_l(MONTHS, folder=tmp_path)


def test_without_a_folder_the_hub_is_asked(hub):
    with pytest.raises(DataError, match=r"taesiri/arxiv_qa, split train, could not be loaded.*arxivqa/"):
        five_l(MONTHS)
    assert hub.calls == [("taesiri/arxiv_qa", None, "train", None)]


def test_every_pass_has_something_to_show(folder, llama_folder, tmp_path):
    """Gold and distracting passages are there for every question, and the index holds what has come so far."""
    stream = five_l(MONTHS, ["problem", "future work"], papers=2, hotpot=1, folder=folder)
    books = ["closed", "gold", "retrieved", "distracted", "absent"]
    run = Experiment(
        stream,
        str(llama_folder),
        epochs=1,
        train_book="retrieved",
        retrieval={"k": 2, "distractors": 1},
        evaluate={"books": books, "max_new_tokens": 4},
        folder=tmp_path / "run",
        trainer={"accelerator": "cpu"},
    ).run(quiet=True)
    table = run.five_l()
    assert set(table["pass"]) == set(books) and set(table["task"]) == set(stream.names)
    assert table["RA_probe"].notna().sum() == len(table) * 2 / 3  # HotpotQA has no other wordings
    asked = run.predictions.query("stage == 2 and split == 'test' and `pass` != 'closed'")
    sizes = {book: set(some["passages"].map(len)) for book, some in asked.groupby("pass")}
    assert sizes == {"gold": {1, 2}, "retrieved": {2}, "distracted": {2, 3}, "absent": {1}}
    found = run.predictions.query("stage == 1 and `pass` == 'retrieved'")["passages"]
    known = {run.passages[passage["id"]] for some in found for passage in some}
    later = {text for row in stream["arxiv 2023-02"].train for text in row["passages"]}
    assert known and not known & later
