"""Where a stage's time goes: what strategies take is theirs, what a loader takes the input's. By a clock of our own."""

import pytest

from lifelong import Experiment, learner
from lifelong.data import StepDataset
from lifelong.strategies import Strategy


class Clock:
    """Stands still but for naps."""

    now = 0.0

    @classmethod
    def nap(cls):
        cls.now += 1.0


class Sleeps(Strategy):
    """In one of the places where a strategy may be busy."""

    def __init__(self, where: str = "loss", name: str | None = None) -> None:
        super().__init__(name)
        self.where = where

    def _nap(self, where):
        if where == self.where:
            Clock.nap()

    def before_stage(self, learner, stage):
        self._nap("before_stage")

    def extend_batch(self, learner, batch):
        self._nap("extend_batch")
        return batch

    def loss(self, learner, batch, outputs, loss):
        self._nap("loss")
        return loss

    def on_before_optimizer_step(self, trainer, learner, optimizer):
        self._nap("on_before_optimizer_step")

    def on_train_batch_end(self, *_):
        self._nap("on_train_batch_end")

    def after_stage(self, learner, stage):
        self._nap("after_stage")


@pytest.fixture
def seconds(tiny_stream, llama_folder, tmp_path, monkeypatch):
    """A function that gives the seconds of a stage of four steps."""
    monkeypatch.setattr("lifelong.stopwatch.perf_counter", lambda: Clock.now)

    def run(*strategies):
        run = Experiment(
            tiny_stream[:1],
            str(llama_folder),
            strategies=strategies,
            epochs=1,
            batch_size=2,
            evaluate={"probes": False, "max_new_tokens": 1},
            check_resources=False,
            folder=tmp_path / "run",
            trainer={"accelerator": "cpu"},
        ).run(quiet=True)
        assert run.costs[1]["steps"] == 4
        return {name: run.costs[1]["seconds"][name] for name in ("training", "strategy", "input")}

    return run


@pytest.mark.parametrize("where", ["extend_batch", "loss", "on_before_optimizer_step", "on_train_batch_end"])
def test_each_step_of_a_strategy_is_the_strategy_s(where, seconds):
    assert seconds(Sleeps(where)) == {"training": 0, "strategy": 4, "input": 0}


@pytest.mark.parametrize("where", ["before_stage", "after_stage"])
def test_so_is_what_it_does_around_a_stage(where, seconds):
    assert seconds(Sleeps(where)) == {"training": 0, "strategy": 1, "input": 0}


def test_waiting_for_a_batch_is_input(seconds, monkeypatch):
    read = StepDataset.__getitem__

    def slowly(self, step):
        Clock.nap()
        return read(self, step)

    monkeypatch.setattr(StepDataset, "__getitem__", slowly)
    assert seconds() == {"training": 0, "strategy": 0, "input": 4}


def test_what_is_left_is_training(seconds, monkeypatch):
    losses = learner.row_losses

    def slowly(*arguments):
        Clock.nap()
        return losses(*arguments)

    monkeypatch.setattr(learner, "row_losses", slowly)
    assert seconds(Sleeps("loss")) == {"training": 4, "strategy": 4, "input": 0}
