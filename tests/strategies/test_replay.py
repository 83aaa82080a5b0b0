"""Replay keeps an unbiased share of earlier rows, and mixes them into batches as what they are."""

from __future__ import annotations

import io

import pytest
import torch

from lifelong.errors import ConfigError
from lifelong.strategies import Replay, Stage


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
    stage = Stage.of(tiny_stream[2], 3)
    for strategy in (replay, twin):
        strategy.after_stage(learner, stage)
    assert [row["id"] for row in twin.rows] == [row["id"] for row in replay.rows]


@pytest.mark.parametrize(
    "settings", [{"capacity": 0}, {"capacity": 1.5}, {"capacity": -0.1}, {"share": 0}, {"share": 1}]
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"Replay: {next(iter(settings))}"):
        Replay(**settings)
