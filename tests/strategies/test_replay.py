"""Replay keeps an unbiased share of earlier rows, and mixes them into batches as what they are."""

from __future__ import annotations

import io
from collections import Counter

import pytest
import torch

from lifelong.describe import plain
from lifelong.errors import ConfigError, RunError
from lifelong.strategies import Replay, Stage
from lifelong.tasks import Task


def learned(replay: Replay, learner, stream, seed: int = 0) -> Replay:
    """The strategy after all stages of a stream, without any training."""
    for index, task in enumerate(stream, start=1):
        stage = Stage.of(task, index, stream.tasks[: index - 1], seed)
        learner.begin_stage(stage)
        replay.before_stage(learner, stage)
        replay.after_stage(learner, stage)
    return replay


def first_batch(learner, stream):
    stage = Stage.of(stream[-1], len(stream))
    (batch,) = next(iter(learner.begin_stage(stage)))
    return batch


def test_a_share_keeps_so_many_rows_of_every_task(learner, tiny_stream):
    replay = learned(Replay(capacity=0.5), learner, tiny_stream)
    kept = [row["task"] for row in replay.rows]
    assert {task: kept.count(task) for task in tiny_stream.names} == {
        task.name: len(task.train) // 2 for task in tiny_stream
    }
    assert len({(row["task"], row["id"]) for row in replay.rows}) == len(replay.rows)


def test_a_whole_number_keeps_so_many_rows_of_all_tasks_together(learner, tiny_stream):
    assert len(learned(Replay(capacity=5), learner, tiny_stream).rows) == 5


@pytest.mark.parametrize("capacity", [0.5, 0.3, 0.01, 1.0, 5, 20, 100])
def test_the_rows_that_will_be_kept_are_known_before(learner, tiny_stream, capacity):
    replay = Replay(capacity)
    sizes = [len(task.train) for task in tiny_stream]
    assert replay.rows_kept(sizes) == len(learned(replay, learner, tiny_stream).rows)


def test_which_rows_are_kept_depends_on_the_run_seed_and_not_on_the_global_one(learner, tiny_stream):
    def kept(seed: int, global_seed: int) -> list[str]:
        torch.manual_seed(global_seed)
        return [f"{row['task']}/{row['id']}" for row in learned(Replay(5), learner, tiny_stream, seed).rows]

    assert kept(0, 1) == kept(0, 2)
    assert kept(0, 1) != kept(7, 1)


def test_half_of_an_extended_batch_is_replayed_and_keeps_its_own_task(learner, tiny_stream):
    replay = learned(Replay(capacity=1.0, share=0.5), learner, tiny_stream[:2])
    batch = first_batch(learner, tiny_stream)
    replay.before_stage(learner, Stage.of(tiny_stream[-1], 3))
    extended = replay.extend_batch(learner, batch)
    size = len(batch["task"])
    assert extended["input_ids"].shape[0] == len(extended["task"]) == 2 * size
    assert extended["source"] == ["stream"] * size + ["Replay"] * size
    assert set(extended["task"][:size]) == {tiny_stream[-1].name}
    assert set(extended["task"][size:]) <= set(tiny_stream.names[:2])
    text = learner.tokenizer.decode(extended["input_ids"][-1][extended["attention_mask"][-1].bool()])
    questions = {row["question"]: task.name for task in tiny_stream for row in task.train}
    (question,) = [question for question in questions if question in text]
    assert questions[question] == extended["task"][-1]


def test_a_quarter_share_adds_one_row_to_every_three(learner, tiny_stream):
    replay = learned(Replay(capacity=1.0, share=0.25), learner, tiny_stream[:2])
    batch = first_batch(learner, tiny_stream)
    replay.before_stage(learner, Stage.of(tiny_stream[-1], 3))
    assert len(replay.extend_batch(learner, batch)["task"]) == len(batch["task"]) + round(len(batch["task"]) / 3)


def test_the_first_stage_has_nothing_to_replay(learner, tiny_stream):
    replay, batch = Replay(), first_batch(learner, tiny_stream)
    replay.before_stage(learner, Stage.of(tiny_stream[0], 1))
    assert replay.extend_batch(learner, batch) is batch


def test_the_state_survives_a_safe_load_and_goes_on_drawing_the_same(learner, tiny_stream):
    replay = learned(Replay(5), learner, tiny_stream[:2])
    file = io.BytesIO()
    torch.save(replay.state_dict(), file)
    file.seek(0)
    twin = Replay(5)
    twin.load_state_dict(torch.load(file, weights_only=True))
    stage = Stage.of(tiny_stream[2], 3, tiny_stream.tasks[:2])
    batch = first_batch(learner, tiny_stream)
    drawn = []
    for strategy in (replay, twin):
        strategy.before_stage(learner, stage)
        drawn.append([strategy.extend_batch(learner, batch)["id"] for _ in range(3)])
        strategy.after_stage(learner, stage)
    assert twin.rows == replay.rows
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[0][1]


def through_a_file(replay: Replay) -> dict:
    file = io.BytesIO()
    torch.save(replay.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_the_rows_kept_and_drawn_are_those_of_algorithm_r_and_a_permutation(learner, tiny_stream):
    """Both by hand, with the same generators."""
    stages = [Stage.of(task, index, tiny_stream.tasks[: index - 1], 4) for index, task in enumerate(tiny_stream, 1)]
    replay, kept = Replay(0.4), []
    for stage in stages[:2]:
        replay.before_stage(learner, stage)
        replay.after_stage(learner, stage)
        draw, places = stage.generator("Replay/keep"), []
        for number in range(8):
            place = number if number < 3 else int(torch.randint(number + 1, (), generator=draw))
            places[place : place + 1] = [number] if place < 3 else places[place : place + 1]
        kept += [(stage.task.name, stage.train[number]["id"]) for number in places]
    assert [(row["task"], row["id"]) for row in replay.rows] == kept
    assert replay.rows == [stages[number // 3].train[int(name)] for number, (_, name) in enumerate(kept)]
    replay.before_stage(learner, stages[2])
    draw = stages[2].generator("Replay/draw")
    for size in (4, 6, 9):
        few = torch.randperm(6, generator=draw)[:size] if size <= 6 else torch.randint(6, (size,), generator=draw)
        assert [(row["task"], row["id"]) for row in replay.drawn(size)] == [kept[number] for number in few.tolist()]


@pytest.mark.parametrize(("capacity", "counts"), [(9, [3, 3, 3]), (7, [3, 2, 2]), (3, [1, 1, 1]), (0.25, [2, 2, 2])])
@pytest.mark.parametrize("buffer", ["balanced", "ring"])
def test_balanced_and_ring_buffers_keep_as_many_rows_of_every_task(buffer, capacity, counts, learner, tiny_stream):
    replay = learned(Replay(capacity, buffer=buffer), learner, tiny_stream)
    kept = Counter(row["task"] for row in replay.rows)
    assert sorted((kept[name] for name in tiny_stream.names), reverse=True) == counts
    if buffer == "ring":
        latest = [task.train[-kept[task.name] :]["id"] for task in tiny_stream]
        assert [sorted(row["id"] for row in replay.rows if row["task"] == name) for name in tiny_stream.names] == latest


def test_a_buffer_can_be_balanced_over_labels(learner, labelled_stream):
    replay = learned(Replay(8, buffer="balanced", by="answer"), learner, labelled_stream)
    assert Counter(row["answers"][0] for row in replay.rows) == {"small": 2, "large": 2, "cold": 2, "hot": 2}


def test_the_state_holds_references_and_no_text(learner, tiny_stream):
    replay = learned(Replay(1.0), learner, tiny_stream)
    file = io.BytesIO()
    torch.save(replay.state_dict(), file)
    assert all(row["question"].encode() not in file.getvalue() for task in tiny_stream for row in task.train)
    assert len(replay.rows) == 24
    assert file.tell() < 24 * 24 + 6500 * 3 + 3_000  # as its traits say, and what torch.save writes for nothing


@pytest.mark.parametrize("buffer", ["reservoir", "balanced", "ring"])
def test_before_each_stage_a_restored_buffer_is_looked_up_in_the_stream(buffer, learner, tiny_stream):
    replay = learned(Replay(6, buffer=buffer), learner, tiny_stream[:2])
    twin = Replay(6, buffer=buffer)
    twin.load_state_dict(through_a_file(replay))
    other = Task("places", tiny_stream[2].train, tiny_stream[2].test)
    for earlier in (tiny_stream.tasks[:1], (tiny_stream[0], other)):
        again = Replay(6, buffer=buffer)
        again.load_state_dict(through_a_file(replay))
        with pytest.raises(RunError, match=r"Replay, before stage 3: .*not a continuation of its own: task 'places'"):
            again.before_stage(learner, Stage.of(tiny_stream[2], 3, earlier))
    stage = Stage.of(tiny_stream[2], 3, tiny_stream.tasks[:2])
    for _ in range(2):  # repeatable
        twin.before_stage(learner, stage)
    assert twin.rows == replay.rows


def test_rows_of_no_task_of_the_stream_are_kept_as_text(learner, tiny_stream):
    stage = Stage.of(tiny_stream[0], 1)
    made_up = stage.train.map(lambda row: {"question": "Say again: " + row["question"]})
    planned = Stage(1, tiny_stream[0], made_up)
    replay = Replay(3)
    replay.before_stage(learner, planned)
    replay.after_stage(learner, planned)
    assert all(row["question"].startswith("Say again: ") for row in replay.rows)
    twin = Replay(3)
    twin.load_state_dict(through_a_file(replay))
    twin.before_stage(learner, Stage.of(tiny_stream[1], 2, tiny_stream.tasks[:1]))
    assert twin.rows == replay.rows


def test_rows_of_earlier_tasks_in_a_planned_stage_are_references_too(learner, tiny_stream):
    stages = [Stage.of(task, index, tiny_stream.tasks[: index - 1]) for index, task in enumerate(tiny_stream, 1)]
    everything = stages[2].with_rows_of(stages)
    replay = Replay(24)
    replay.before_stage(learner, everything)
    replay.after_stage(learner, everything)
    assert replay.rows == list(everything.train)
    assert replay.state_dict()["all tasks"]["texts"] == {}


def test_fewer_rows_than_tasks_are_refused_where_each_task_should_have_some(learner, tiny_stream):
    stages = [Stage.of(task, index) for index, task in enumerate(tiny_stream, 1)]
    Replay(2).check(learner, stages)
    Replay(2, buffer="ring", by="answer").check(learner, stages)
    Replay(3, buffer="ring").check(learner, stages)
    with pytest.raises(ConfigError, match="Replay: capacity: 2 rows are fewer than one for each of the 3 tasks"):
        Replay(2, buffer="ring").check(learner, stages)


def test_its_settings_are_plain_values():
    settings = {"capacity": 20, "share": 0.25, "buffer": "balanced", "by": "answer", "name": None}
    assert plain(Replay(20, 0.25, "balanced", "answer"))["init_args"] == settings


@pytest.mark.parametrize(
    "settings",
    [
        *({"capacity": value} for value in (0, -2, 1.5, -0.1, 0.0, True)),
        *({"share": value} for value in (0, 1, -0.5, 1.5, "half", None)),
        *({"buffer": value} for value in ("reservoirs", None, ["ring"])),
        {"by": "task"},  # of a reservoir
        {"by": "label", "buffer": "ring"},
    ],
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"Replay: {next(iter(settings))}"):
        Replay(**settings)
