"""5L-bench's figures on hand-worked examples, and on scripted models whose figures are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lifelong import Task, TaskStream, evaluation
from lifelong.errors import ConfigError
from lifelong.evaluation import Evaluation, evaluate_task
from lifelong.five_l import compare_judges, five_l_table
from lifelong.judges import Judge, MatchJudge, Verdict
from lifelong.library import BOOKS, Library, Retrieval
from lifelong.metrics.five_l import claims, declines, faithfulness, filtering, fluency, recall_accuracy, refusal_rate

FACTS = {"Fiji": "Suva", "Nepal": "Kathmandu", "Ghana": "Accra", "Cuba": "Havana", "Peru": "Lima"}


def test_figures_by_hand() -> None:
    assert recall_accuracy([1, 0, 1, None]) == pytest.approx(2 / 3)
    assert faithfulness([[1, 0], [1], [], [None], [0.5, None]]) == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert filtering([1, 1, 0, 1, None], [1, 0, 1, 1, 1]) == pytest.approx(2 / 3)
    assert refusal_rate(["unknown", "Suva", "I don't know.", "It cannot be answered"]) == 0.75
    assert fluency([0.5, 1.0]) == 0.75
    assert all(math.isnan(value) for value in (recall_accuracy([]), faithfulness([[]]), filtering([0], [1])))
    with pytest.raises(ValueError, match="1 answers with the gold passage alone, 2"):
        filtering([1], [1, 0])


@pytest.mark.parametrize("text", ["Unknown", "I do not know that.", "Not mentioned in the text", "No answer."])
def test_an_answer_that_declines_claims_nothing(text: str) -> None:
    assert declines(text) and claims(text) == []


@pytest.mark.parametrize("text", ["unknown soldier", "Knowing", "Noanswer Bay"])
def test_an_answer_that_only_sounds_like_it_does_not(text: str) -> None:
    assert not declines(text) and claims(text) == [text]


@pytest.fixture(scope="module")
def task() -> Task:
    rows = [
        {
            "question": f"What is the capital of {country}?",
            "answers": [city],
            "passages": [f"{city} is the capital of {country}."],
            "probes": [f"Which city is {country} ruled from?"],
        }
        for country, city in FACTS.items()
    ]
    return Task("capitals", rows, rows)


@pytest.fixture
def figures(
    make_learner: Callable[..., Any], task: Task, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, dict[str, float]]]:
    """The figures by pass of a model that answers a prompt's text as a function says."""

    def measured(says: Callable[[str], str], judge: Judge | None = None) -> dict[str, dict[str, float]]:
        learner = make_learner("nano")
        learner.encoder.library = Library(Retrieval(k=1, scope="all", distractors=2), TaskStream("one", [task]))

        def scripted(learner: Any, prompts: list[list[int]], *_: Any) -> list[list[int]]:
            said = [says(learner.tokenizer.decode(ids)) for ids in prompts]
            return [learner.tokenizer(text, add_special_tokens=False)["input_ids"] for text in said]

        monkeypatch.setattr(evaluation, "generate_tokens", scripted)
        frames = []
        for book in BOOKS:
            for split in ("test", "probe"):
                found = evaluate_task(learner, task, Evaluation(), split, book)
                place = {"stage": 0, "task": task.name, "split": split, "pass": book}
                frames.append(pd.DataFrame([place | entry for entry in found.predictions]))
        passages = {p.id: p.text for p in learner.encoder.library.retriever.index.passages(range(len(FACTS)))}
        table = five_l_table(pd.concat(frames), passages, judge or MatchJudge())
        return {row["pass"]: row for row in table.to_dict("records")}

    return measured


def shown(prompt: str) -> list[str]:
    return [line.removeprefix("Passage: ") for line in prompt.splitlines() if line.startswith("Passage: ")]


def test_a_model_that_copies_its_passage_is_faithful_and_nothing_else(figures) -> None:
    table = figures(lambda prompt: shown(prompt)[0] if shown(prompt) else "Paris")
    for book in ("gold", "retrieved", "distracted", "absent"):
        assert table[book]["Faith"] == 1
    assert all(row["RA"] == 0 for row in table.values())
    assert table["absent"]["RR"] == 0 and math.isnan(table["closed"]["Faith"])
    assert math.isnan(table["distracted"]["Filter"])  # none is right without distractors


def test_a_model_that_refuses_has_a_refusal_rate_of_one(figures) -> None:
    table = figures(lambda prompt: "unknown")
    assert table["absent"]["RR"] == 1
    assert all(row["RA"] == 0 and math.isnan(row["Faith"]) for row in table.values())


def test_a_model_that_answers_from_memory_does_not_care_for_the_book(figures) -> None:
    def memory(prompt: str) -> str:
        question = prompt.split("Question: ")[1]
        known = next(city for country, city in FACTS.items() if country in question)
        return known if question.startswith("What") else "Paris"  # it knows the words that it was taught

    table = figures(memory)
    for book, row in table.items():
        assert (row["RA"], row["RA_probe"], row["gap"]) == (1, 0, 1)
        if book in ("gold", "retrieved", "distracted"):
            assert row["Faith"] == 1
    assert table["absent"]["RR"] == 0 and table["absent"]["Faith"] == 0  # true, and not from what it was shown
    assert table["distracted"]["Filter"] == 1


def test_a_model_that_takes_the_first_passage_is_led_astray(figures, task: Task) -> None:
    table = figures(lambda prompt: (shown(prompt) or ["Paris is"])[0].split(" is")[0])
    assert table["gold"]["RA"] == table["retrieved"]["RA"] == 1 and table["gold"]["gap"] == 0
    assert table["distracted"]["Filter"] == table["distracted"]["RA"] < 1
    assert table["distracted"]["Faith"] == 1


def test_a_judge_with_more_opinions_fills_the_other_columns(figures) -> None:
    class Generous(Judge):
        name = "generous"

        def _judge(self, cases):
            return [
                Verdict({"correct": 1.0, "supported": 0.25, "relevant": 0.5, "fluent": None}[c.aspect]) for c in cases
            ]

    row = figures(lambda prompt: "Something. And more.", Generous())["gold"]
    assert (row["RA"], row["Faith"], row["QR"]) == (1, 0.25, 0.5) and math.isnan(row["FL"])


class Says(Judge):
    """Calls an answer right where a function of it says so."""

    def __init__(self, name: str, says: Callable[[str], bool | None]) -> None:
        self._name, self.says = name, says

    @property
    def name(self) -> str:
        return self._name

    def _judge(self, cases):
        return [Verdict(None if (yes := self.says(case.answer)) is None else float(yes)) for case in cases]


def test_judges_are_compared_on_the_answers_of_a_run() -> None:
    answers = ["Suva", "Suva of course", "Nadi", "Nadi I believe", "Lima", "Quito in the far north of it all"]
    rows = [{"question": "What?", "prediction": text, "answers": ["Suva", "Lima"]} for text in answers]
    text_row = {"question": "", "prediction": "", "answers": ["raw"]}
    judges = [MatchJudge(), Says("long", lambda text: len(text.split()) > 1), Says("shy", lambda text: None)]
    found = compare_judges(pd.DataFrame([*rows, text_row]), judges[:2])
    # matching says y n n n y n, the other one n y n y n y: they agree on the third alone
    assert found.agreement["cases"] == 6 and found.agreement["observed"] == pytest.approx(1 / 6)
    assert found.disagreements["answer"].tolist() == [text for text in answers if text != "Nadi"]
    # within those that matching calls wrong: (yes, words) = (1, 3), (0, 1), (1, 3), (1, 8); among right ones all are no
    assert found.length_bias == {"long": pytest.approx(np.corrcoef([1, 0, 1, 1], [3, 1, 3, 8])[0, 1])}
    assert compare_judges(pd.DataFrame(rows), judges[1:]).agreement["undecided"]["shy"] == 6
    for wrong in (judges[:1], [judges[1], judges[1]]):
        with pytest.raises(ConfigError, match="at least two judges"):
            compare_judges(pd.DataFrame(rows), wrong)
