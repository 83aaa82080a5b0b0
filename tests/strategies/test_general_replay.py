"""General replay mixes rows that belong to no task into every batch, by their share, and keeps nothing of them."""

from __future__ import annotations

import copy
import io
from collections import Counter

import pytest
import torch
import yaml

from lifelong.classification import Classification, labels_of
from lifelong.config import make_experiment
from lifelong.describe import plain
from lifelong.errors import ConfigError, DataError, RunError
from lifelong.registry import build, call
from lifelong.strategies import Stage
from lifelong.strategies.general_replay import GeneralReplay
from lifelong.task_stream import TaskStream
from lifelong.tasks import Task

WORDS = ("the sea is wide", "a bird sings", "rain falls on the roof", "bread is made of flour", "night comes")
STREAM_FILE = """
from lifelong import Task, TaskStream

def chat(rows: int = 5) -> TaskStream:
    pairs = [(f"say {n}", f"it is {n}") for n in range(rows)]
    return TaskStream("chat", [Task.from_pairs("numbers", pairs)])
"""


@pytest.fixture
def text(tmp_path):
    """Five pieces of text, a line each."""
    path = tmp_path / "general.txt"
    path.write_text("\n".join(WORDS), encoding="utf-8")
    return path


@pytest.fixture
def stream_file(tmp_path):
    path = tmp_path / "general.py"
    path.write_text(STREAM_FILE, encoding="utf-8")
    return path


def replay_of_text(path, share: float = 0.25) -> GeneralReplay:
    return GeneralReplay(str(path), share, characters=26)


def stages_of(stream) -> list[Stage]:
    return [Stage.of(task, index, stream.tasks[: index - 1]) for index, task in enumerate(stream, start=1)]


def extended(strategy: GeneralReplay, learner, stage: Stage, rows: int = 6, batches: int = 1) -> list[dict]:
    """Batches of the first rows of a stage, extended."""
    learner.begin_stage(stage)
    strategy.before_stage(learner, stage)
    batch = learner.batch_of(list(stage.train)[:rows])
    return [strategy.extend_batch(learner, batch) for _ in range(batches)]


def decoded(learner, batch: dict, number: int) -> str:
    return learner.tokenizer.decode(batch["input_ids"][number][batch["attention_mask"][number].bool()])


def test_every_batch_from_the_first_stage_on_has_its_share_of_the_text(learner, tiny_stream, text):
    strategy = replay_of_text(text)
    for stage in stages_of(tiny_stream):
        (batch,) = extended(strategy, learner, stage)
        assert batch["source"] == ["stream"] * 6 + ["GeneralReplay"] * 2
        assert strategy.rows_added(6) == 2
        assert set(batch["task"][:6]) == {stage.task.name}
        for number in (6, 7):
            assert decoded(learner, batch, number).replace("<eos>", "").strip() in WORDS


def test_its_rows_have_their_share_of_the_loss_however_long_they_are(learner, tiny_stream, text):
    stage = stages_of(tiny_stream)[0]
    for share in (0.1, 0.25, 0.75):
        (batch,) = extended(replay_of_text(text, share), learner, stage)
        tokens = [sum(label != -100 for label in labels) for labels in batch["labels"].tolist()]
        weights = [count * weight for count, weight in zip(tokens, batch["weight"].tolist(), strict=True)]
        assert batch["weight"][:6].tolist() == [1.0] * 6
        assert sum(weights[6:]) / sum(weights) == pytest.approx(share, rel=1e-5)
        assert len(weights[6:]) == max(1, round(6 * share / (1 - share)))


def test_each_row_is_drawn_once_before_any_comes_again(learner, tiny_stream, text):
    drawn = [
        name
        for batch in extended(replay_of_text(text), learner, stages_of(tiny_stream)[0], batches=5)
        for name in batch["id"][6:]
    ]
    assert [sorted(drawn[:5]), sorted(drawn[5:])] == [sorted(set(drawn))] * 2
    assert len(set(drawn)) == 5


def test_what_is_drawn_depends_on_the_stage_and_its_seed_and_on_nothing_else(learner, tiny_stream, text):
    def drawn(index: int, seed: int, global_seed: int) -> list[str]:
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        stage = Stage.of(tiny_stream[0], index, seed=seed)
        ids = [name for batch in extended(strategy, learner, stage, batches=4) for name in batch["id"][6:]]
        assert torch.equal(torch.get_rng_state(), before)
        return ids

    strategy = replay_of_text(text)
    assert drawn(1, 0, 0) == drawn(1, 0, 1)
    assert len({tuple(drawn(*which, 0)) for which in [(1, 0), (2, 0), (1, 5)]}) == 3


def test_another_dataset_is_named_like_a_stream_or_given(learner, tiny_stream, stream_file):
    task = Task.from_pairs("numbers", [(f"say {n}", f"it is {n}") for n in range(5)])
    sources = [
        f"{stream_file}:chat",
        {"class_path": f"{stream_file}:chat", "init_args": {"rows": 5}},
        TaskStream("chat", [task]),
        task,
    ]
    batches = [extended(GeneralReplay(source, 0.5), learner, stages_of(tiny_stream)[2])[0] for source in sources]
    assert all(batch["id"] == batches[0]["id"] for batch in batches)
    asked = [decoded(learner, batches[0], number) for number in range(6, 12)]
    # its task has the name of one in the stream, whose rows have the same ids, and is still another
    assert all("say " in one and "it is " in one for one in asked)
    assert Counter(batches[0]["task"]) == {"numbers": 6, "GeneralReplay numbers": 6}


def test_a_file_can_describe_it_and_bring_it_back(learner, tiny_stream, text, stream_file):
    source = {"class_path": f"{stream_file}:chat", "init_args": {"rows": 4}}
    for strategy in (replay_of_text(text), GeneralReplay(source)):
        described = yaml.safe_load(yaml.safe_dump(plain(strategy)))
        described["class_path"] = f"{GeneralReplay.__module__}.GeneralReplay"
        again = build(described, "strategies.0", ())
        assert (again.source, again.share, again.characters) == (
            strategy.source,
            strategy.share,
            strategy.characters,
        )
        stage = stages_of(tiny_stream)[0]
        assert extended(again, learner, stage)[0]["id"] == extended(strategy, learner, stage)[0]["id"]


def test_what_is_in_memory_is_described_by_its_content_and_cannot_come_from_a_file(tiny_stream):
    described = [plain(GeneralReplay(source)) for source in (tiny_stream, tiny_stream[:2], tiny_stream)]
    assert described[0] == described[2] != described[1]
    yaml.safe_dump(described[0])
    with pytest.raises(ConfigError, match="GeneralReplay: source: was made in Python"):
        GeneralReplay(**described[0]["init_args"])


def test_the_state_holds_none_of_the_rows_and_tells_when_they_have_changed(learner, text):
    strategy = replay_of_text(text)
    file = io.BytesIO()
    torch.save(strategy.state_dict(), file)
    assert all(words.encode() not in file.getvalue() for words in WORDS)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    replay_of_text(text).load_state_dict(state)
    text.write_text("other words", encoding="utf-8")
    with pytest.raises(RunError, match="GeneralReplay: source: its rows are others"):
        replay_of_text(text).load_state_dict(state)


def test_a_copy_of_it_draws_the_same(learner, tiny_stream):
    """Each run works on copies of its strategies."""
    strategy, stage = GeneralReplay(tiny_stream[1], 0.5), stages_of(tiny_stream)[0]
    assert extended(copy.deepcopy(strategy), learner, stage)[0]["id"] == extended(strategy, learner, stage)[0]["id"]


def test_text_and_labels_go_into_models_of_other_families(
    make_learner, t5_folder, bert_folder, tiny_stream, labelled_stream, text
):
    learner, strategy = make_learner(t5_folder), replay_of_text(text)
    strategy.check(learner, stages_of(tiny_stream))
    (batch,) = extended(strategy, learner, stages_of(tiny_stream)[0])
    assert torch.isfinite(learner.answer_losses(batch)).all()
    learner = make_learner(bert_folder, labels=labels_of(labelled_stream))
    strategy = GeneralReplay(labelled_stream[2], 0.5)
    strategy.check(learner, stages_of(labelled_stream))
    (batch,) = extended(strategy, learner, stages_of(labelled_stream)[0])
    assert {"small", "cold"} == {learner.family.labels[label] for label in batch["labels"][6:, 0].tolist()}
    assert torch.isfinite(learner.answer_losses(batch)).all()
    with pytest.raises(DataError, match="none of the 4"):
        replay_of_text(text).check(learner, stages_of(labelled_stream))
    by_task = make_learner(
        bert_folder, labels=labels_of(labelled_stream), classification=Classification(scenario="task")
    )
    with pytest.raises(ConfigError, match="rows of no task have nothing to learn"):
        strategy.check(by_task, stages_of(labelled_stream))


def test_text_that_does_not_fit_is_refused_before_training(make_learner, tiny_stream, tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("short\n" + "xq " * 100, encoding="utf-8")
    learner = make_learner(max_length=64)
    learner.encoder.counts["questions cut"] = 2
    with pytest.raises(DataError, match="text"):
        GeneralReplay(str(path), characters=400).check(learner, stages_of(tiny_stream))
    GeneralReplay(str(path), characters=40).check(learner, stages_of(tiny_stream))
    assert dict(learner.encoder.counts) == {"questions cut": 2}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no_such_file.txt", "there is no file no_such_file.txt"),
        ("streams.world_fact", "GeneralReplay: source: there is no 'streams.world_fact'"),
        (Task("held out", None, [{"question": "q", "answer": "a"}], measure_only=True), "has no rows to train on"),
    ],
)
def test_a_source_without_rows_is_refused_before_training(source, message, learner, tiny_stream):
    with pytest.raises((ConfigError, DataError), match=message):
        GeneralReplay(source).check(learner, stages_of(tiny_stream))


@pytest.mark.parametrize(
    "settings",
    [
        *({"share": value} for value in (0, 1, -0.1, 1.5, "half")),
        *({"characters": value} for value in (0, -1, 2.5, True)),
        *({"source": value} for value in (5, None, ["a.txt"])),
    ],
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"GeneralReplay: {next(iter(settings))}"):
        GeneralReplay(**{"source": "general.txt"} | settings)


def test_code_that_makes_its_rows_needs_to_be_allowed(stream_file):
    stream_file.write_text("raise RuntimeError('has been imported')", encoding="utf-8")
    for source in (f"{stream_file}:chat", {"class_path": f"{stream_file}:chat"}):
        strategy = call(GeneralReplay, {"source": source}, "strategies.0")  # imports nothing
        config = {"stream": "streams.world_facts", "strategies": [strategy]}
        with pytest.raises(ConfigError, match=r"strategies\.0\.init_args\.source: .* use --trust"):
            make_experiment(config, trust=False)
        make_experiment({**config, "strategies": [GeneralReplay("streams.python_reference")]}, trust=False)
