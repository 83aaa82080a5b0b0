"""Stages know where they are, and strategies that cannot run together are refused."""

from __future__ import annotations

import pytest
import torch

from lifelong.errors import ConfigError
from lifelong.strategies import Cumulative, Joint, Naive, Replay, Stage, Strategy
from lifelong.strategies.base import prepare


def stages_of(stream) -> list[Stage]:
    return [Stage.of(task, index, stream.tasks[: index - 1]) for index, task in enumerate(stream, start=1)]


def asked(stage: Stage) -> list[str]:
    return [f"{row['task']}/{row['question']}" for row in stage.train]


def all_of(*tasks) -> list[str]:
    return [f"{task.name}/{row['question']}" for task in tasks for row in task.train]


def test_a_stage_knows_its_task_and_the_earlier_ones(tiny_stream):
    third = stages_of(tiny_stream)[2]
    assert third.index == 3
    assert [task.name for task in third.earlier] == list(tiny_stream.names[:2])
    assert asked(third) == all_of(tiny_stream[2])


def test_a_stage_cannot_be_changed(tiny_stream):
    with pytest.raises(AttributeError):
        stages_of(tiny_stream)[0].index = 5


def test_a_stages_generator_is_the_same_whenever_it_is_asked_for(tiny_stream):
    first, second = stages_of(tiny_stream)[:2]

    def draw(stage, name):
        return torch.rand(3, generator=stage.generator(name)).tolist()

    assert draw(first, "a") == draw(first, "a")
    assert len({tuple(draw(*pair)) for pair in [(first, "a"), (first, "b"), (second, "a")]}) == 3


def test_joint_is_one_stage_with_every_row_and_each_row_its_own_task(tiny_stream):
    (only,) = Joint().plan(stages_of(tiny_stream))
    assert sorted(asked(only)) == sorted(all_of(*tiny_stream))


def test_cumulative_trains_on_all_rows_so_far(tiny_stream):
    for number, stage in enumerate(Cumulative().plan(stages_of(tiny_stream)), start=1):
        assert sorted(asked(stage)) == sorted(all_of(*tiny_stream[:number]))


def test_naive_changes_nothing(tiny_stream):
    stages, batch, loss = stages_of(tiny_stream), {"task": ["a"]}, torch.tensor(1.0)
    assert Naive().plan(stages) is stages
    assert Naive().extend_batch(None, batch) is batch
    assert Naive().loss(None, batch, None, loss) is loss


@pytest.mark.parametrize("pair", [(Joint(), Cumulative()), (Cumulative(), Joint()), (Replay(), Joint())])
def test_strategies_that_conflict_are_refused_with_the_reason(pair):
    with pytest.raises(ConfigError, match="cannot run together: "):
        prepare(pair)


@pytest.mark.parametrize("first", [Joint, type("MyJoint", (Joint,), {})])
@pytest.mark.parametrize("second", [Replay, type("MyReplay", (Replay,), {})])
def test_conflicts_hold_for_classes_made_from_those_that_are_named(first, second):
    for pair in ([first(), second()], [second(), first()]):
        names = " and ".join(type(one).__name__ for one in pair)
        with pytest.raises(ConfigError, match=f"{names} cannot run together: a joint run has no earlier tasks"):
            prepare(pair)


def test_a_class_may_lift_a_conflict_of_its_parents():
    class RepeatsItself(Replay):
        conflicts = {}

    assert len(prepare([RepeatsItself(), Joint()])) == 2


def test_two_of_one_class_get_keys_of_their_own():
    keys = [strategy.state_key for strategy in prepare([Replay(), Replay(), Replay(name="small"), Naive()])]
    assert keys == ["Replay", "Replay-2", "Replay-small", "Naive"]


def test_two_of_one_name_are_refused():
    with pytest.raises(ConfigError, match="Replay-a"):
        prepare([Replay(name="a"), Replay(name="a")])


def test_a_users_strategy_needs_nothing_but_the_hooks_it_uses():
    class Mine(Strategy):
        """Only one hook."""

        def loss(self, learner, batch, outputs, loss):
            return loss * 2

    (mine,) = prepare([Mine()])
    assert mine.state_key == "Mine"
    assert mine.loss(None, {}, None, torch.tensor(2.0)) == 4


@pytest.mark.parametrize("name", ["a/b", "", ["x"], 3])
def test_a_name_that_no_file_could_have_is_refused(name):
    with pytest.raises(ConfigError, match="Replay: name: "):
        Replay(name=name)
