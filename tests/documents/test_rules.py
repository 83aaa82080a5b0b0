"""Questions by rule, sentence by sentence."""

from __future__ import annotations

import pytest

from lifelong.documents import Excerpt, RuleGenerator
from lifelong.documents.rules import sentences
from lifelong.errors import ConfigError


def pairs(text: str, **settings) -> list[tuple[str, str]]:
    (written,) = RuleGenerator(**settings).write([Excerpt(text)])
    return [(pair.question, pair.answer) for pair in written]


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        ("The capital of Fiji is Suva.", "What is the capital of Fiji?", "Suva"),
        ("The speed of light is 299,792 km/s.", "What is the speed of light?", "299,792 km/s"),
        ("A router is a small layer that scores experts.", "What is a router?", "a small layer"),
        (
            "Reservoir sampling is one of the oldest methods.",
            "What is Reservoir sampling?",
            "one of the oldest methods",
        ),
        ("Dodos were the flightless birds of Mauritius.", "What were Dodos?", "the flightless birds of Mauritius"),
        (
            "Columbus reached the islands in 1492 with three ships.",
            "In which year: Columbus reached the islands in ____ with three ships?",
            "1492",
        ),
        (
            "The embedded model has 2,755,008 parameters.",
            "How many parameters: The embedded model has ____ parameters?",
            "2,755,008",
        ),
        (
            "The sun loses 4.3 million tonnes every second.",
            "How many million tonnes: The sun loses ____ million tonnes every second?",
            "4.3",
        ),
        (
            "Every spring the swallows fly north to Denmark and rest.",
            "What is missing: Every spring the swallows fly north to ____ and rest?",
            "Denmark",
        ),
        (
            'Sailors called the cold wind "mistral" when it blew.',
            'What is missing: Sailors called the cold wind "____" when it blew?',
            "mistral",
        ),
    ],
)
def test_each_kind_of_sentence_is_asked_about_in_its_way(sentence: str, question: str, answer: str) -> None:
    assert pairs(sentence) == [(question, answer)]


@pytest.mark.parametrize(
    "sentence",
    [
        "It is the capital of Fiji.",  # who?
        "This model is a large network of neurons.",
        "However, the capital of Fiji is Suva.",
        "The capital of Fiji",  # a heading
        "What is the capital of Fiji?",
        "Suva is nice.",  # too short
        "the capital of Fiji is Suva.",  # the end of something
        "The first is the one that came before.",
    ],
)
def test_what_cannot_be_understood_alone_is_not_asked(sentence: str) -> None:
    assert pairs(sentence, gaps=False) == []


def test_sentences_end_where_they_end() -> None:
    text = (
        "Dr. Smith met the U.S. envoy at noon. Figures, e.g. Fig. 2 and 3, follow below.\n"
        "A heading\nThe end is near (see above)."
    )
    assert list(sentences(text)) == [
        "Dr. Smith met the U.S. envoy at noon",
        "Figures, e.g. Fig. 2 and 3, follow below",
        "The end is near (see above)",
    ]


def test_simple_statements_go_before_gaps_and_there_are_no_more_than_asked_for() -> None:
    text = (
        "Every spring the swallows fly north to Denmark and rest. Columbus reached the islands in 1492 by ship. "
        "The capital of Fiji is Suva. A router is a small layer."
    )
    assert [answer for _, answer in pairs(text)] == ["Suva", "a small layer", "1492", "Denmark"]
    assert [answer for _, answer in pairs(text, pairs=2)] == ["Suva", "a small layer"]
    assert [answer for _, answer in pairs(text, gaps=False)] == ["Suva", "a small layer", "1492"]


def test_probes_ask_the_same_in_other_words() -> None:
    (written,) = RuleGenerator().write([Excerpt("The capital of Fiji is Suva.")])
    assert written[0].probes == ("Name the capital of Fiji.", "The capital of Fiji is what?")


def test_settings_are_checked_and_part_of_the_fingerprint() -> None:
    with pytest.raises(ConfigError, match="pairs must be at least 1"):
        RuleGenerator(pairs=0)
    generators = [RuleGenerator(), RuleGenerator(pairs=2), RuleGenerator(gaps=False)]
    assert len({generator.fingerprint for generator in generators}) == 3
