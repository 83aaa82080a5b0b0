"""The embedded model's data: episodes are well-formed, repeatable, and teach nothing that a stream teaches."""

from __future__ import annotations

import importlib
import pkgutil
import re
from itertools import pairwise
from random import Random
from typing import Any

import nano_data
import pytest

from lifelong.prompts import PromptTemplate

COUNT = 1500
SENTENCES = [
    "The old king sent three ships across the bay before the winter came.",
    "Few people remember who planted the tall trees behind the school.",
]


def draw(count: int, seed: int = 0, unseen: bool = False) -> list[Any]:
    """Episodes of every kind, reading ones with one to six facts, and a family for every hundred sheets."""
    dice = nano_data.Dice(str(seed), unseen=unseen)
    families = [nano_data.family_episodes(dice, 40) for _ in range(count // 100)]
    sheets = [nano_data.draw_sheet(dice, 6, 3, sentences=SENTENCES) for _ in range(count)]
    closed = [[nano_data.closed_episode(dice)] for _ in range(count // 4)]
    return [episode for group in (*sheets, *closed, *families) for episode in group]


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
    dice = nano_data.Dice("1")
    names = {nano_data.invented_name(dice).lower() for _ in range(30_000)}
    subjects = {word for subject, _ in stated_facts(stream_rows) if len(subject) == 1 for word in subject}
    answers = {answer.lower() for row in stream_rows for answer in row["answers"]}
    assert sorted(names & (subjects | answers)) == []


def test_the_answer_stands_in_a_passage_of_every_reading_episode(episodes: list[Any]) -> None:
    for episode in (e for e in episodes if e.kind in ("read", "cloze")):
        assert any(episode.answer in passage for passage in episode.passages), episode


def test_the_answer_is_unknown_exactly_where_no_passage_has_it(episodes: list[Any]) -> None:
    for episode in (e for e in episodes if e.kind != "closed"):
        assert (episode.kind == "absent") == (episode.answer == "unknown"), episode


def test_an_absent_answer_is_not_in_the_passages_under_another_name(episodes: list[Any]) -> None:
    spoken_of = 0
    for episode in (e for e in episodes if e.kind == "absent"):
        shared = " ".join(episode.passages).lower()
        asked = re.match(r"(?:what is the|which) (\w+) (?:of|does) (.+?)(?: have)?\?$", episode.question.lower())
        if asked and asked[2] in shared:  # the subject is spoken of, but not what is asked of it
            assert asked[1] not in shared.split(), episode
            spoken_of += 1
    assert spoken_of > 10


def test_no_two_facts_of_an_episode_answer_the_same_question() -> None:
    dice = nano_data.Dice("3")
    for _ in range(500):
        facts = nano_data.draw_facts(dice, 4)
        assert len({fact.value for fact in facts}) == 4
        for i, fact in enumerate(facts):
            for other in facts[:i]:
                shared = fact.relation.names & other.relation.names
                assert fact.subject != other.subject or not (shared or fact.relation.bare), (fact, other)


def test_a_question_that_leaves_the_relation_open_has_one_answer() -> None:
    dice = nano_data.Dice("4")
    sheets = [nano_data.read_sheet(dice, 5, asked=10, absent=0.0) for _ in range(300)]
    for sheet in sheets:
        answers: dict[str, set[str]] = {}
        for episode in sheet:
            answers.setdefault(episode.question, set()).add(episode.answer)
        assert all(len(found) == 1 for found in answers.values()), sheet


def test_a_sheet_asks_for_every_fact_and_repeats_its_passages() -> None:
    dice = nano_data.Dice("5")
    for _ in range(200):
        sheet = nano_data.read_sheet(dice, 6, noise=3, asked=6, absent=0.0, sentences=SENTENCES)
        assert len({episode.answer for episode in sheet}) == 6
        assert len({episode.passages for episode in sheet}) == 1


def test_names_of_measuring_never_come_up_in_training() -> None:
    seen, unseen = nano_data.Dice("6"), nano_data.Dice("6", unseen=True)
    trained = {nano_data.invented_name(seen) for _ in range(20_000)}
    measured = {nano_data.invented_name(unseen) for _ in range(3_000)}
    assert len(measured) > 2_000 and not trained & measured


def test_closed_book_rows_have_no_passages_and_a_short_answer(episodes: list[Any]) -> None:
    closed = [episode for episode in episodes if episode.kind == "closed"]
    assert len(closed) > COUNT * 0.2
    for episode in closed:
        assert episode.passages == () and 1 <= len(episode.answer.split()) <= 6, episode


def test_a_family_asks_in_one_wording_about_many_subjects() -> None:
    dice = nano_data.Dice("6")
    for _ in range(50):
        family = nano_data.family_episodes(dice, 40)
        questions = [episode.question for episode in family]
        assert len(questions) == len(set(questions)) > 25
        assert len({question.rsplit(" ", 1)[0] for question in questions}) == 1


def test_every_kind_and_number_of_facts_occurs(episodes: list[Any]) -> None:
    assert {e.kind for e in episodes} == {"read", "absent", "cloze", "closed"}
    assert {e.facts for e in episodes if e.kind in ("read", "absent")} == {1, 2, 3, 4, 5, 6}


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
    assert draw(100, seed=5) == draw(100, seed=5)
    assert draw(100, seed=5) != draw(100, seed=6)


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
    cleaned = nano_data.text.clean_text(text, nano_data.Dice("0"))
    assert "Paris" not in cleaned and "atomic" not in cleaned
    assert re.fullmatch(r"In 1920 the [A-Z][a-z]+ closed, they say\.", cleaned.strip())
