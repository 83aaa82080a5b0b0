"""The embedded model's data: episodes are well-formed, repeatable, and teach nothing that a stream teaches."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
from itertools import pairwise
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest

from lifelong.prompts import PromptTemplate

ROOT = Path(__file__).resolve().parents[2]
COUNT = 4000
SENTENCES = [
    "The old king sent three ships across the bay before the winter came.",
    "Few people remember who planted the tall trees behind the school.",
]


def load_nano_data() -> ModuleType:
    """The module under test, which is a script's neighbour and in no package."""
    spec = importlib.util.spec_from_file_location("nano_data", ROOT / "experiments" / "nano_data.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["nano_data"] = module  # dataclasses look their module up while they are built
    spec.loader.exec_module(module)
    return module


nano_data = load_nano_data()


def draw(count: int, seed: int = 0) -> list[Any]:
    """Episodes of every kind, reading ones with one to four facts, and a family for every hundred of them."""
    rng = Random(seed)
    families = [nano_data.family_episodes(rng, 40) for _ in range(count // 100)]
    drawn = [nano_data.draw_episode(rng, sentences=SENTENCES) for _ in range(count)]
    return drawn + [episode for family in families for episode in family]


@pytest.fixture(scope="module")
def episodes() -> list[Any]:
    return draw(COUNT)


@pytest.fixture(scope="module")
def stream_rows() -> list[dict[str, Any]]:
    """Every row of every table of facts that the catalogue's streams teach."""
    package = importlib.import_module("streams.facts")
    modules = [importlib.import_module(f"streams.facts.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    rows = [row for module in modules if hasattr(module, "rows") for row in module.rows()]
    assert len(rows) >= 100, "the tables of streams.facts were not found: has their layout changed?"
    return rows


def contains(text: str, phrase: str) -> bool:
    """Whether ``phrase`` stands in ``text`` as whole words, capitals aside."""
    return re.search(rf"(?<!\w){re.escape(phrase.lower())}(?!\w)", text.lower()) is not None


def subject_words(row: dict[str, Any]) -> set[str]:
    """The words of a row's question, in lower case."""
    return set(re.findall(r"\w+", row["question"].lower()))


def stated_facts(rows: list[dict[str, Any]]) -> list[tuple[set[str], set[str]]]:
    """For each row the words that only its question has within its task, and its answers in lower case."""
    by_task: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_task.setdefault(row["id"].split("/")[0], []).append(row)
    facts = []
    for task in by_task.values():
        common = set.intersection(*(subject_words(row) for row in task))
        facts += [(subject_words(row) - common, {answer.lower() for answer in row["answers"]}) for row in task]
    return facts


def leaks(episode: Any, facts: list[tuple[set[str], set[str]]]) -> list[tuple[set[str], set[str]]]:
    """The facts whose subject and one of whose answers stand together in a sentence or question of an episode."""
    _, answer = episode.texts()
    sentences = [*re.split(r"(?<=[.?!])\s", " ".join(episode.passages)), episode.question + answer]
    words = [set(re.findall(r"\w+", sentence.lower())) for sentence in sentences]
    found = []
    for subject, answers in facts:
        for sentence, present in zip(sentences, words, strict=True):
            if subject <= present and any(contains(sentence, a) for a in answers if a not in subject):
                found.append((subject, answers))
    return found


def test_no_text_of_a_stream_occurs_in_the_episodes(episodes: list[Any], stream_rows: list[dict[str, Any]]) -> None:
    taught = {text for row in stream_rows for text in (row["question"], *row["probes"], *row["passages"])}
    shown = {text for e in episodes for text in (e.question, *e.passages)}
    assert len(taught) > 300 and not taught & shown
    everything = "\n".join(shown)
    assert not [text for text in taught if text in everything]


def test_no_answer_of_a_stream_stands_beside_its_subject(
    episodes: list[Any], stream_rows: list[dict[str, Any]]
) -> None:
    facts = stated_facts(stream_rows)
    assert all(subject and answers for subject, answers in facts)
    assert [found for episode in episodes for found in leaks(episode, facts)] == []


def test_a_stated_fact_of_a_stream_would_be_noticed(stream_rows: list[dict[str, Any]]) -> None:
    facts = stated_facts(stream_rows)
    unnoticed = [
        row["id"]
        for row in stream_rows
        if not leaks(nano_data.Episode("closed", row["question"], row["answers"][0]), facts)
    ]
    assert unnoticed == []


def test_invented_names_are_no_subject_or_answer_of_a_stream(stream_rows: list[dict[str, Any]]) -> None:
    rng = Random(1)
    names = {nano_data.invented_name(rng).lower() for _ in range(30_000)}
    subjects = {word for subject, _ in stated_facts(stream_rows) if len(subject) == 1 for word in subject}
    answers = {answer.lower() for row in stream_rows for answer in row["answers"]}
    assert sorted(names & (subjects | answers)) == []


def test_the_answer_stands_in_a_passage_of_every_reading_episode(episodes: list[Any]) -> None:
    for episode in (e for e in episodes if e.kind in ("read", "cloze")):
        assert any(episode.answer in passage for passage in episode.passages), episode


def test_the_answer_is_unknown_exactly_where_no_passage_has_it(episodes: list[Any]) -> None:
    for episode in (e for e in episodes if e.kind != "closed"):
        assert (episode.kind == "absent") == (episode.answer == "unknown"), episode


def test_no_two_facts_of_an_episode_answer_the_same_question() -> None:
    rng = Random(3)
    for _ in range(500):
        facts = nano_data.draw_facts(rng, 4)
        assert len({fact.value for fact in facts}) == 4
        for i, fact in enumerate(facts):
            for other in facts[:i]:
                asked = set(fact.relation.questions) & set(other.relation.questions)
                assert fact.subject != other.subject or not asked, (fact, other)


def test_closed_book_rows_have_no_passages_and_a_short_answer(episodes: list[Any]) -> None:
    closed = [episode for episode in episodes if episode.kind == "closed"]
    assert len(closed) > COUNT * 0.03
    for episode in closed:
        assert episode.passages == () and 1 <= len(episode.answer.split()) <= 5, episode


def test_a_family_asks_in_one_wording_about_many_subjects() -> None:
    rng = Random(6)
    for _ in range(50):
        family = nano_data.family_episodes(rng, 40)
        questions = [episode.question for episode in family]
        assert len(questions) == len(set(questions)) > 25
        assert len({question.rsplit(" ", 1)[0] for question in questions}) == 1


def test_every_kind_and_number_of_facts_occurs(episodes: list[Any]) -> None:
    assert {e.kind for e in episodes} == {"read", "absent", "cloze", "closed"}
    assert {e.facts for e in episodes if e.kind in ("read", "absent")} == {1, 2, 3, 4}


def test_a_prompt_is_the_template_s_to_the_letter(episodes: list[Any]) -> None:
    template = PromptTemplate()
    for episode in episodes:
        assert episode.texts() == (
            template.render(episode.question, episode.passages),
            template.answer(episode.answer, episode.question),
        )
    one = nano_data.Episode("read", "What colour is Vorn?", "red", ("Vorn is red.",), 1)
    assert "".join(one.texts()) == "Passage: Vorn is red.\nQuestion: What colour is Vorn?\nAnswer: red"


def test_the_seed_decides_every_episode() -> None:
    assert draw(300, seed=5) == draw(300, seed=5)
    assert draw(300, seed=5) != draw(300, seed=6)


def test_copied_tokens_are_marked_where_they_can_be_foreseen() -> None:
    rng = Random(4)
    for _ in range(300):
        ids, known = nano_data.copy_row(rng, range(10, 4000), 40)
        assert len(ids) == len(known) and any(known) and not known[0]
        for place, marked in enumerate(known):
            if marked:  # the same pair of neighbours stood there before
                assert (ids[place - 1], ids[place]) in pairwise(ids[:place])


def test_cleaned_text_states_no_fact_that_a_stream_teaches() -> None:
    text = "Paris is the capital of France .\nIn 1920 the <unk> closed , they say .\nIts atomic number is 6 .\n"
    cleaned = nano_data.clean_text(text, Random(0))
    assert "Paris" not in cleaned and "atomic" not in cleaned
    assert re.fullmatch(r"In 1920 the [A-Z][a-z]+ closed, they say\.", cleaned.strip())
