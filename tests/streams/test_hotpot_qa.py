"""HotpotQA is held out, and brings its paragraphs."""

from __future__ import annotations

import pytest
from datasets import Dataset

from lifelong.errors import DataError
from streams.hotpot_qa import HUB, held_out_task

TOWER, BRIDGE, BERG = (
    "Tower: Ann Berg designed it. It is tall.",
    "Bridge: It is long.",
    "Ann Berg: She drew. Norway is her home.",
)


@pytest.fixture
def folder(tmp_path, lines):
    def folder(*rows):
        lines(tmp_path / "distractor.jsonl", rows)
        return tmp_path

    return folder


def test_paragraphs_are_passages_and_those_that_the_answer_takes_the_row_s_own(folder, hotpot_row):
    other = {
        **hotpot_row,
        "id": "b",
        "context": {"title": ["Tower", "Ann Berg"], "sentences": [["Another."], ["She."]]},
    }
    task = held_out_task(folder(hotpot_row, other), None, 0, None)
    assert (task.name, task.measure_only, task.kind, task.metric) == ("hotpotqa", True, "downstream", "token_f1")
    assert not task.train and list(task.test["id"]) == ["5a76", "b"]
    assert task.test[0]["passages"] == [TOWER, BERG] and task.test[0]["answers"] == ["Norway"]
    assert task.passages == (TOWER, BRIDGE, BERG, "Tower: Another.", "Ann Berg: She.")


def test_a_sample_is_drawn_with_a_seed(folder, hotpot_row):
    rows = folder(*[{**hotpot_row, "id": str(number)} for number in range(50)])
    samples = {seed: tuple(held_out_task(rows, 5, seed, None).test["id"]) for seed in (0, 0, 1)}
    assert all(len(set(ids)) == 5 for ids in samples.values()) and samples[0] != samples[1]
    assert samples[0] == tuple(held_out_task(rows, 5, 0, None).test["id"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"context": {"title": ["Tower"], "sentences": []}}, "line 1, field 'context': expected lists"),
        ({"context": [["Tower", ["It is tall."]]]}, "line 1, field 'context': expected lists"),
        ({"supporting_facts": [["Tower", 0]]}, "line 1, field 'supporting_facts': expected a list"),
        ({"supporting_facts": {"title": []}}, "line 1, field 'supporting_facts': names"),
        ({"supporting_facts": {"title": ["Dam"]}}, r"line 1, field 'supporting_facts': names \['Dam'\]"),
        ({"answer": None}, "line 1, column 'answer': expected text"),
    ],
)
def test_a_row_of_another_form_is_named(folder, row, message, hotpot_row):
    with pytest.raises(DataError, match=message):
        held_out_task(folder(hotpot_row | row), None, 0, None)


def test_the_hub_has_the_same_fields(hub, folder, hotpot_row):
    hub.tables[HUB] = Dataset.from_list([hotpot_row])
    task = held_out_task(None, None, 0, "abc")
    assert task.test.to_list() == held_out_task(folder(hotpot_row), None, 0, None).test.to_list()
    assert hub.calls == [(*HUB, "abc")]
    assert "hotpotqa/hotpot_qa" in task.source and "revision abc" in task.source and "card" in task.licence


def test_the_published_file_has_a_hundred_questions_of_ten_paragraphs(real):
    task = held_out_task(real("hotpot100"), None, 0, None)
    assert len(task.test) == 100 and len(task.passages) == 1000
    assert {len(passages) for passages in task.test["passages"]} == {2}
    assert {text for passages in task.test["passages"] for text in passages} <= set(task.passages)
