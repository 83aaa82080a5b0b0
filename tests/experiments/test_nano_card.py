"""What the model card's figures are measured on."""

from __future__ import annotations

import json
from pathlib import Path

from nano_card import squad_rows

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
