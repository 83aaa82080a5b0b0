"""What is kept of what was written, and why the rest goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifelong.documents import Pair, Screen
from lifelong.documents.screen import REASONS, Written
from lifelong.errors import ConfigError
from lifelong.judges import Case, EntailmentJudge
from lifelong.retrieval import LexicalEncoder, Passage

FIJI = Passage("The capital of Fiji is Suva, a city on the coast of Viti Levu.", "fiji")
GOLD = Passage("Gold has the chemical symbol Au and melts at 1,064 degrees.", "gold")
MOON = Passage("The largest moon of Saturn, Titan, has lakes of methane.", "moon")
PASSAGES = [FIJI, GOLD, MOON]


def apply(*written: tuple[str, str, Passage], **settings) -> tuple[list[str], dict[str, list[str]]]:
    some = [Written(Pair(question, answer), passage) for question, answer, passage in written]
    kept, dropped = Screen(**settings).apply(some, PASSAGES, LexicalEncoder())
    return (
        [one.pair.question for one in kept],
        {reason: [one.pair.question for one in gone] for reason, gone in dropped.items()},
    )


GOOD = [
    ("What is the capital of Fiji?", "Suva", FIJI),
    ("At how many degrees does gold melt?", "1,064", GOLD),
    ("Which moon of Saturn has lakes of methane?", "titan", MOON),
]


def test_good_pairs_are_kept_in_their_order() -> None:
    assert apply(*GOOD) == ([question for question, *_ in GOOD], {})


@pytest.mark.parametrize(
    ("reason", "question", "answer", "passage"),
    [
        ("malformed", "What is the capital of Fiji?", " ", FIJI),
        ("malformed", "", "Suva", FIJI),
        ("malformed", "Where is the capital of Fiji?", "a city on the coast of Viti Levu, " * 3, FIJI),
        ("unsupported", "What is the capital of Fiji?", "Nadi", FIJI),
        ("unsupported", "At how many degrees does gold melt?", "064", GOLD),
        ("unsupported", "What is the symbol of gold?", "A", GOLD),
        ("beside the passage", "According to the text, what is the capital of Fiji?", "Suva", FIJI),
        ("beside the passage", "Which city is mentioned in the passage about Fiji?", "Suva", FIJI),
        ("beside the passage", "What is it the capital of?", "Fiji", FIJI),
        ("gives itself away", "Is Suva the capital of Fiji?", "Suva", FIJI),
        ("not found again", "Which metal is the heaviest?", "Gold", GOLD),
    ],
)
def test_each_reason_is_seen(reason: str, question: str, answer: str, passage: Passage) -> None:
    kept, dropped = apply((question, answer, passage), *GOOD[2:], found_within=1)
    assert dropped == {reason: [question]} and kept == [GOOD[2][0]]


def test_every_reason_has_a_description() -> None:
    some = [Written(Pair("", ""), FIJI)]
    _, dropped = Screen().apply(some, PASSAGES, LexicalEncoder())
    assert set(dropped) <= set(REASONS)


def test_the_later_of_two_that_ask_the_same_goes() -> None:
    kept, dropped = apply(GOOD[0], ("The capital of Fiji is what?", "Suva", FIJI), GOOD[1], GOOD[0], similar=0.6)
    assert kept == [GOOD[0][0], GOOD[1][0]]
    assert dropped == {"near-duplicate": ["The capital of Fiji is what?", GOOD[0][0]]}


def test_a_question_with_two_answers_goes_with_both() -> None:
    kept, dropped = apply(("What is the symbol?", "Au", GOLD), ("what is the Symbol", "Suva", FIJI), GOOD[2])
    assert kept == [GOOD[2][0]] and dropped == {"ambiguous": ["What is the symbol?", "what is the Symbol"]}


def test_a_question_must_bring_its_own_passage_back() -> None:
    wrong = ("What is the capital of Fiji on the coast of Viti Levu?", "Gold", GOLD)
    assert apply(wrong, GOOD[2], found_within=1)[1] == {"not found again": [wrong[0]]}
    assert apply(wrong, GOOD[2], found_within=3)[1] == {}


def test_probes_that_would_be_no_questions_go() -> None:
    probes = ("Fiji's capital is called what?", "Is Suva its capital?", "What is named in the passage?", " ")
    (kept,), _ = Screen().apply([Written(Pair(GOOD[0][0], "Suva", probes), FIJI)], PASSAGES, LexicalEncoder())
    assert kept.pair.probes == probes[:1]


def test_what_is_not_found_to_the_letter_may_be_entailed(nli_folder: Path) -> None:
    judge = EntailmentJudge(nli_folder)
    pairs = [
        (f"How is {word} capital of Fiji known?", word, FIJI) for word in ("seaside", "town", "port", "old", "new")
    ]
    entailed = [
        judge.judge([Case("supported", f"{question} {answer}", passages=(FIJI.text,))])[0].yes
        for question, answer, _ in pairs
    ]
    kept, dropped = apply(*pairs, entailment=str(nli_folder), similar=2.0)
    assert kept == [question for (question, *_), yes in zip(pairs, entailed, strict=True) if yes]
    assert len(dropped.get("unsupported", ())) == entailed.count(False)
    assert apply(*pairs)[0] == []


def test_settings_are_checked() -> None:
    for setting in ("longest_answer", "found_within"):
        with pytest.raises(ConfigError, match=setting):
            Screen(**{setting: 0})
