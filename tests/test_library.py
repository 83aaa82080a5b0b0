"""What each pass shows: gold, retrieved, distracted, absent, and mixtures of them."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from lifelong import Experiment, Task, TaskStream
from lifelong.errors import ConfigError, ModelError
from lifelong.evaluation import Evaluation, evaluate_task
from lifelong.library import BOOKS, Library, Retrieval, Shown, book_name, book_of, book_shares, passage_id
from lifelong.reports.terminal import show_run

CAPITALS = {"Fiji": "Suva", "Nepal": "Kathmandu", "Ghana": "Accra", "Cuba": "Havana", "Peru": "Lima", "Oman": "Muscat"}
SYMBOLS = {"gold": "Au", "iron": "Fe", "lead": "Pb", "silver": "Ag", "tin": "Sn", "neon": "Ne"}


def rows(facts: dict[str, str], relation: str) -> list[dict[str, Any]]:
    return [
        {
            "question": f"What is the {relation} of {key}?",
            "answers": [value],
            "passages": [f"{key}: {relation} {value}."],
        }
        for key, value in facts.items()
    ]


@pytest.fixture(scope="module")
def stream() -> TaskStream:
    capitals = recalled("capitals", rows(CAPITALS, "capital"), passages=["Some countries have two capitals."])
    return TaskStream("atlas", [capitals, recalled("symbols", rows(SYMBOLS, "symbol"))])


def recalled(name: str, some: list[dict[str, Any]], **settings: Any) -> Task:
    return Task(name, some, some, **settings)


def library(stream: TaskStream, **settings: Any) -> Library:
    return Library(Retrieval(**settings), stream, seed=3)


def shown(library: Library, task: Task, book: str) -> list[Shown]:
    some = [{**row, "task": task.name} for row in task.test]
    return library.shown(some, [row["question"] for row in some], book)


def test_the_index_follows_the_stream(stream: TaskStream) -> None:
    one = library(stream, k=2)
    assert all(found == Shown() for found in shown(one, stream[0], "retrieved"))
    one.follow(["capitals"])
    assert len(one.retriever) == 7
    gold = [row["passages"][0] for row in stream[0].test]
    assert [found.passages[0] for found in shown(one, stream[0], "retrieved")] == gold
    assert not {found.passages[0] for found in shown(one, stream[1], "retrieved")} & set(one.pool("symbols"))
    one.follow(["capitals"])
    one.follow(["symbols"])
    assert len(one.retriever) == 13
    assert [f.passages[0] for f in shown(one, stream[1], "retrieved")] == [r["passages"][0] for r in stream[1].test]
    everything = library(stream, scope="all")
    assert len(everything.retriever) == 13


def test_what_is_found_comes_with_scores_and_in_the_order_that_was_asked_for(stream: TaskStream) -> None:
    best_first, best_last = (library(stream, k=3, scope="all", order=order) for order in ("best_first", "best_last"))
    for first, last in zip(*(shown(one, stream[0], "retrieved") for one in (best_first, best_last)), strict=True):
        assert first.passages == last.passages and first.places == () and last.places == (2, 1, 0)
        scores = [hit.score for hit in first.hits]
        assert scores == sorted(scores, reverse=True) and [hit.text for hit in first.hits] == list(first.passages)
    high = library(stream, scope="all", min_score=0.99)
    assert all(found.passages == () for found in shown(high, stream[0], "retrieved"))


def test_distractors_are_others_of_the_task_and_never_hold_the_answer(stream: TaskStream) -> None:
    one = library(stream, distractors=2)
    places = Counter()
    for book in ("distracted", "absent"):
        for row, found in zip(stream[0].test, shown(one, stream[0], book), strict=True):
            assert set(found.passages) <= set(one.pool("capitals")) and len(set(found.passages)) == len(found.passages)
            assert (row["passages"][0] in found.passages) == (book == "distracted")
            assert len(found.passages) == 2 + (book == "distracted")
            if book == "distracted":
                assert found.passages[0] == row["passages"][0]  # the last to go where not all fit
                places[found.places.index(0)] += 1
        assert shown(one, stream[0], book) == shown(library(stream, distractors=2), stream[0], book)
    assert len(places) > 1
    telling = recalled("telling", [*rows({"a": "the Salt", "b": "salt"}, "load"), *rows({"c": "wool"}, "load")])
    (first, _, third) = shown(Library(Retrieval(), [telling]), telling, "absent")
    assert first.passages == ("c: load wool.",) and len(third.passages) == 2


def test_rows_of_no_task_have_no_others(stream: TaskStream) -> None:
    row = {"id": "0", "task": "elsewhere", "question": "?", "answers": ["x"], "passages": ["own"]}
    assert library(stream).shown([row], ["?"], "distracted") == [Shown(("own",), (0,))]


def test_books_by_share() -> None:
    assert book_shares("gold") == {"gold": 1.0}
    assert book_shares("closed 0.25, gold 0.75") == book_shares({"closed": 0.25, "gold": 0.75})
    assert (
        book_name({"closed": 0.25, "gold": 0.75}) == "closed 0.25, gold 0.75"
        and book_name({"gold": 1, "closed": 0}) == "gold"
    )
    some = [{"task": "t", "id": str(number)} for number in range(2000)]
    drawn = [book_of(row, "closed 0.25, gold 0.75", seed=1) for row in some]
    assert 0.22 < drawn.count("closed") / 2000 < 0.28
    assert drawn == [book_of(row, "closed 0.25, gold 0.75", seed=1) for row in some]
    assert drawn != [book_of(row, "closed 0.25, gold 0.75", seed=2) for row in some]


@pytest.mark.parametrize(
    ("book", "message"),
    [
        ("open", "unknown 'open'"),
        ("closed, gold", "a mixture looks like"),
        ("closed 0.5, gold 0.4", "add up to 0.9"),
        ({"closed": 1.5, "gold": -0.5}, "in 0..1"),
        ({"clsoed": 1.0}, "Did you mean 'closed'"),
    ],
)
def test_what_is_no_book_is_refused(book: Any, message: str, tiny_stream: TaskStream) -> None:
    with pytest.raises(ConfigError, match=message):
        Experiment(tiny_stream, train_book=book)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"k": 0}, "k"), ({"scope": "sen"}, "Did you mean 'seen'"), ({"order": "x"}, "order"), ({"tokens": 0}, "tokens")],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Retrieval(**settings)


@pytest.mark.parametrize("setting", ["encoder", "reranker"])
def test_a_models_folder_may_begin_at_home(setting: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ModelError, match=str(tmp_path / "none")):
        Retrieval(**{setting: "~/none"}).make()


def test_a_stream_without_passages_has_nothing_to_show() -> None:
    bare = TaskStream("bare", [Task.from_pairs("a", [("q", "a"), ("r", "b")])])
    for book in ("gold", "retrieved", "distracted", "absent"):
        with pytest.raises(ConfigError, match="passage"):
            Experiment(bare, evaluate={"books": ["closed", book]})


def test_prompts_hold_what_is_shown_and_drop_the_least_relevant(make_learner, stream: TaskStream) -> None:
    learner = make_learner("nano")
    encoder = learner.encoder
    encoder.library = library(stream, k=3, scope="all", order="best_last", tokens=14)
    row = {**stream[0].test[0], "task": "capitals"}
    (found,) = encoder.shown([row], "retrieved")
    assert found.passages[0] == row["passages"][0] and encoder.counts["passages dropped"] == 3 - len(found.passages) > 0
    encoder.library = library(stream, k=3, scope="all", order="best_last")
    (found,) = encoder.shown([row], "retrieved")
    text = learner.tokenizer.decode(encoder.encode_prompt(row, "retrieved"))
    assert text == learner.encoder.template.render(row["question"], found.passages[::-1])
    short = encoder.encode_prompts([row], "retrieved", reserves=[encoder.max_length - 45])[0]
    assert found.passages[0] in learner.tokenizer.decode(short) and len(short) <= 45
    encoder.library = None
    with pytest.raises(ConfigError, match="library"):
        encoder.shown([row], "retrieved")


def test_every_prediction_of_an_open_book_names_its_passages(make_learner, stream: TaskStream) -> None:
    learner = make_learner("nano")
    learner.encoder.library = library(stream, k=2, scope="all")
    for book in BOOKS:
        answers = evaluate_task(learner, stream[0], Evaluation(), book=book)
        for entry, row in zip(answers.predictions, stream[0].test, strict=True):
            passages = entry.get("passages", [])
            gold = passage_id(row["passages"][0]) in {passage["id"] for passage in passages}
            assert gold == (book in ("gold", "retrieved", "distracted"))
            assert all((passage["score"] is not None) == (book == "retrieved") for passage in passages)
            assert len(passages) == {"closed": 0, "gold": 1, "retrieved": 2, "distracted": 4, "absent": 3}[book]


def test_a_run_in_every_pass_resumes_to_the_same_answers(tiny_stream: TaskStream, llama_folder, tmp_path) -> None:
    def experiment(folder: str) -> Experiment:
        return Experiment(
            tiny_stream,
            str(llama_folder),
            epochs=1,
            train_book={"closed": 0.5, "retrieved": 0.5},
            retrieval={"k": 2},
            evaluate={"books": list(BOOKS)},
            folder=tmp_path / folder,
        )

    whole = experiment("whole").run(quiet=True)
    assert set(whole.rows["pass"]) == set(BOOKS)
    config = whole.config
    assert config["train_book"] == "closed 0.5, retrieved 0.5" and config["retrieval"]["k"] == 2
    cut = experiment("cut")
    cut.run(quiet=True)
    shutil.rmtree(tmp_path / "cut" / "stages" / "3")
    again = experiment("cut").run(quiet=True)
    assert again.predictions.equals(whole.predictions)
    quality = whole.retrieval.set_index(["stage", "task", "split"])
    first, last = (task.name for task in (tiny_stream[0], tiny_stream[2]))
    assert quality.loc[(0, first, "test"), "recall"] == 0 and quality.loc[(2, last, "test"), "recall"] == 0
    assert quality.loc[(3, first, "test"), "recall"] == quality.loc[(3, last, "test"), "recall"] == 1
    assert whole.retrieval_warnings == []
    assert cut.preview().stages[0].rows == 8


def test_whose_fault_wrong_answers_are(stream: TaskStream, tmp_path) -> None:
    """The questions of one task have no word in common with their passages."""
    riddles = [
        {"question": f"{key} {key}?", "answers": ["x"], "passages": [f"It is said of {n}."]}
        for n, key in enumerate(SYMBOLS)
    ]
    both = TaskStream("both", [stream[0], recalled("riddles", riddles)])
    settings = {"epochs": 1, "retrieval": {"k": 1}, "evaluate": {"books": ["retrieved"], "probes": False}}
    run = Experiment(both, folder=tmp_path / "run", **settings).run(quiet=True)
    (warning,) = run.retrieval_warnings
    assert warning.startswith("riddles: the passage") and "the retriever is at fault" in warning
    console = Console(record=True, width=120)
    show_run(run, console)
    text = console.export_text()
    assert "passages found, of the last stage, k = 1" in text and "the retriever is at fault" in text.replace("\n", " ")


def test_passages_that_an_encoder_reads_in_parts_are_counted_and_found_as_themselves(
    stream: TaskStream, llama_folder, bert_folder, tmp_path
) -> None:
    long = " ".join(["A very long passage goes on about the capital of Fiji."] * 60)
    some = [row | {"passages": [long]} for row in rows({"Fiji": "Suva"}, "capital")]
    tasks = TaskStream("long", [recalled("fiji", some), stream[1]])
    run = Experiment(
        tasks,
        model=str(llama_folder),
        retrieval={"encoder": str(bert_folder), "k": 1, "scope": "all"},
        evaluate={"books": ["retrieved"], "probes": False, "max_new_tokens": 2},
        epochs=1,
        folder=tmp_path / "run",
    ).run(quiet=True)
    assert run.costs[0]["shortened"]["passages in parts for the encoder"] == 1
    assert {*run.predictions["gold"].iloc[0]} == {passage_id(long)}
