"""A month teaches questions about its papers, and a paper's passage holds their answers."""

from __future__ import annotations

import json
import statistics
from itertools import pairwise

import pytest
from datasets import Dataset

from lifelong.errors import DataError
from lifelong.metrics.answers import token_f1
from lifelong.retrieval import LexicalEncoder, Retriever
from streams.arxiv_qa import QUESTIONS, Selection, tasks

PROBLEM, SUMMARY = QUESTIONS["problem"].asked, QUESTIONS["summary"].asked
UNUSED = "Summarize the paper in two paragraphs."
EVERYTHING = {"questions": ["problem", "summary"], "papers": None, "words": None, "test": None, "seed": 0}


def papers(month: str, count: int) -> list[dict[str, str]]:
    """Three rows about each paper, one of a question that is not among the eight."""
    return [
        {
            "paper": f"{month}.{number:05}",
            "month": f"20{month[:2]}-{month[2:]}",
            "title": f"On  {word}",
            "question": question,
            "answer": f"It is about {word},\n\nas {kind} says.",
        }
        for number, word in enumerate(["kites", "locks", "mills", "nets"][:count])
        for question, kind in ((SUMMARY, "one"), (UNUSED, "nobody"), (PROBLEM, "another"))
    ]


@pytest.fixture
def build(tmp_path, lines):
    """Tasks of the rows that are given by file, ``{"2301": rows}``."""

    def build(files, months=None, **chosen):
        for yymm, rows in files.items():
            lines(tmp_path / f"{yymm}.jsonl", rows)
        months = months or [f"20{yymm[:2]}-{yymm[2:]}" for yymm in files]
        return list(tasks(months, tmp_path, Selection(**EVERYTHING | chosen), None))

    return build


def test_a_month_is_a_recall_task_about_its_papers(build):
    first, second = build({"2301": papers("2301", 2), "2302": papers("2302", 1)})
    assert (first.name, second.name) == ("arxiv 2023-01", "arxiv 2023-02")
    assert (first.kind, first.metric, first.licence) == ("knowledge", "token_f1", "none stated")
    assert first.train.to_list() == first.test.to_list() and len(first.train) == 4 and len(second.train) == 2
    row = first.train[1]
    assert row["id"] == "2301.00000/2" and row["question"] == f'About the paper "On kites": {PROBLEM}'
    assert row["answers"] == ["It is about kites, as another says."]
    assert row["probes"] == ['About the paper "On kites": Which problem does it try to solve?']


def test_a_paper_s_passage_is_its_title_and_a_line_for_each_answer_that_is_taught(build):
    (task,) = build({"2301": papers("2301", 2)})
    for word, rows in (("kites", task.train.to_list()[:2]), ("locks", task.train.to_list()[2:])):
        (passage,) = {text for row in rows for text in row["passages"]}
        title, *answers = passage.split("\n")
        assert title == f"On {word}"
        assert sorted(answers) == [f"It is about {word}, as another says.", f"It is about {word}, as one says."]


def test_the_place_of_a_line_does_not_tell_which_question_it_answers(build):
    one = papers("2301", 1)
    (task,) = build({"2301": [row | {"paper": f"2301.{number:05}"} for number in range(20) for row in one]})
    problems = [row for row in task.train if PROBLEM in row["question"]]
    places = {row["passages"][0].split("\n").index(row["answers"][0]) for row in problems}
    assert places == {1, 2}


def test_an_answer_begins_behind_its_announcement_and_may_be_cut(build):
    rows = [
        {**papers("2301", 1)[0], "answer": "Here is a summary:\n\n1. One two\n2. Three"},
        {**papers("2301", 1)[2], "answer": "Nothing but this:"},
    ]
    (task,) = build({"2301": rows})
    assert [answers for (answers,) in task.train["answers"]] == ["1. One two 2. Three", "Nothing but this:"]
    (task,) = build({"2301": rows}, words=2)
    assert [answers for (answers,) in task.train["answers"]] == ["1. One", "Nothing but"]
    assert sorted(task.train["passages"][0][0].split("\n")) == ["1. One", "Nothing but", "On kites"]


def test_a_question_that_was_answered_twice_has_two_right_answers(build):
    twice = [*papers("2301", 1), {**papers("2301", 1)[0], "answer": "Kites!"}]
    (task,) = build({"2301": twice})
    assert task.train["answers"][0] == ["It is about kites, as one says.", "Kites!"]
    assert "Kites!" in task.train["passages"][1][0]


def test_all_questions_of_the_data_can_be_taken_without_probes(build):
    (task,) = build({"2301": papers("2301", 1)}, questions=None)
    assert len(task.train) == 3 and not any(task.train["probes"])
    assert any(UNUSED in question for question in task.train["question"])


def test_papers_and_questions_are_drawn_with_a_seed_and_what_is_asked_was_taught(build):
    files = {"2301": papers("2301", 4)}
    drawn = {seed: build(files, papers=2, test=2, seed=seed)[0] for seed in range(8)}
    for task in drawn.values():
        assert len(task.train) == 4 and len(task.test) == 2
        assert all(row in task.train.to_list() for row in task.test.to_list())
    assert len({tuple(task.train["id"]) for task in drawn.values()}) > 2
    assert build(files, papers=2, test=2, seed=3)[0].fingerprint() == drawn[3].fingerprint()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"paper": "2302.00001"}, r"2301\.jsonl, line 1, field 'paper': '2302.00001' is no paper of 2023-01"),
        ({"title": None}, r"line 1, column 'title': expected text"),
        ({"answer": "  \n "}, r"line 1, field 'answers': holds an empty text"),
    ],
)
def test_a_row_of_another_form_is_named(build, row, message):
    with pytest.raises(DataError, match=message):
        build({"2301": [papers("2301", 1)[0] | row]})


def test_a_month_without_any_of_the_questions_is_an_error(build):
    with pytest.raises(DataError, match="none of the questions about a paper of 2023-01"):
        build({"2301": papers("2301", 1)}, questions=["keywords"])


def test_the_hub_has_numbers_without_titles_or_last_zeros(hub):
    rows = [
        {"paper_id": number, "question": SUMMARY, "answer": f"Of {number}."}
        for number in ("2301.0001", "1412.698", "cs/0501001", "2303.00002", "2301.00003")
    ]
    hub.tables["taesiri/arxiv_qa", None, "train"] = Dataset.from_list(rows)
    made = list(tasks(["2014-12", "2023-01"], None, Selection(**EVERYTHING), "abc"))
    asked = [row["question"].split('"')[1] for task in made for row in task.train]
    assert asked == ["arXiv:1412.6980", "arXiv:2301.00010", "arXiv:2301.00003"]
    assert made[1].train[0]["passages"] == ["arXiv:2301.00010\nOf 2301.0001."]
    assert hub.calls == [("taesiri/arxiv_qa", None, "train", "abc")]
    assert "revision abc" in made[0].source and "card" in made[0].licence


class TestPublishedFiles:
    @pytest.fixture
    def months(self, real):
        every = Selection(list(QUESTIONS), None, None, None, 0)
        return list(tasks([f"2023-0{month}" for month in range(1, 5)], real("arxivqa"), every, None))

    def test_every_row_of_the_eight_questions_is_taught(self, real, months):
        asked = {wording.asked for wording in QUESTIONS.values()}
        for task, path in zip(months, sorted(real("arxivqa").glob("*.jsonl")), strict=True):
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            assert len(task.train) == len({(r["paper"], r["question"]) for r in rows if r["question"] in asked})
            for row in task.train:
                assert all(f"\n{answer}\n" in f"\n{row['passages'][0]}\n" for answer in row["answers"])

    def test_the_documented_floor_of_the_metric(self, months):
        """Answers to one question about two papers have words in common."""
        scores = []
        for rows in (task.train.to_list() for task in months):
            by_question: dict[str, list[str]] = {}
            for row in rows:
                by_question.setdefault(row["probes"][0].split('": ')[1], []).append(row["answers"][0])
            pairs = (pair for some in by_question.values() for pair in pairwise(some))
            scores += [token_f1(one, [other]) for one, other in pairs]
        assert statistics.mean(scores) == pytest.approx(0.23, abs=0.01)

    def test_words_alone_find_the_paper(self, months):
        """With titles in question and passage, finding the paper is not what is hard."""
        rows = [row for task in months for row in task.train]
        retriever = Retriever(LexicalEncoder())
        retriever.add(list(dict.fromkeys(row["passages"][0] for row in rows)))
        found = retriever.retrieve([row["question"] for row in rows], k=3)
        share = sum(any(hit.text == row["passages"][0] for hit in hits) for row, hits in zip(rows, found, strict=True))
        assert share / len(rows) > 0.9
