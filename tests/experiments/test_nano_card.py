"""What the model card's figures are measured on, and that they hold of the model that is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import nano_data
import pytest
from nano_card import squad_rows, world_facts_figures
from nano_measure import exact_match
from pretrain_nano import ASSETS

from lifelong.models import load_model

CONTEXT = (
    'The bridge was opened in 1931. It cost 3.5 million crowns, which Mayor Oren called "a bargain." '
    "Today some 40,000 people cross it every day! Its twin stands upstream."
)


def asked(question: str, answer: str) -> dict[str, object]:
    return {"question": question, "answers": [{"text": answer, "answer_start": CONTEXT.index(answer)}], "id": question}


def test_a_passage_is_the_sentence_that_holds_the_answer(tmp_path: Path) -> None:
    questions = {
        "When was the bridge opened?": ("1931", "The bridge was opened in 1931."),
        "What did it cost?": (
            "3.5 million crowns",
            'It cost 3.5 million crowns, which Mayor Oren called "a bargain."',
        ),
        "How many people cross it?": ("40,000", "Today some 40,000 people cross it every day!"),
        "Where is its twin?": ("upstream", "Its twin stands upstream."),
        "What happens every day, and where?": (
            "every day! Its twin",
            "Today some 40,000 people cross it every day! Its twin stands upstream.",
        ),
    }
    paragraph = {"context": CONTEXT, "qas": [asked(question, answer) for question, (answer, _) in questions.items()]}
    file = tmp_path / "bridges.json"
    file.write_text(json.dumps({"data": [{"title": "Bridges", "paragraphs": [paragraph]}]}), encoding="utf-8")
    rows = squad_rows(file)
    assert [(row["question"], row["answers"][0], *row["passages"]) for row in rows] == [
        (question, answer, passage) for question, (answer, passage) in questions.items()
    ]


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    return world_facts_figures(ASSETS, seed=0)


@pytest.mark.parametrize("task", ["elements", "capitals", "status_codes", "moons", "units"])
def test_untaught_it_knows_nothing_and_reads_what_it_is_shown(figures: dict[str, float], task: str) -> None:
    assert figures[f"{task}_closed"] <= 0.10
    assert figures[f"{task}_gold"] >= 0.80
    assert figures[f"{task}_distracted"] >= 0.65
    assert figures[f"{task}_gold_probes"] >= figures[f"{task}_gold"] - 0.10


def test_it_answers_unseen_questions_and_says_what_no_passage_holds() -> None:
    """A sample of what the card measures, with sentences beside the facts that are invented too."""
    model, tokenizer = load_model("nano")
    dice = nano_data.Dice("shipped", unseen=True)

    def share(facts: int, noise: int = 0, absent: float = 0.0) -> float:
        drawn = [nano_data.read_sheet(dice, facts, noise, 1, absent)[0] for _ in range(150)]
        return exact_match(model, drawn, tokenizer)

    assert share(1) > 0.9 and share(4) > 0.8 and share(6, 3) > 0.7 and share(3, absent=1.0) > 0.75
