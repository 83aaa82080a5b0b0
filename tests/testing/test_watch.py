"""A watched strategy does what it did, and says in which hook it broke a rule."""

from __future__ import annotations

import copy
import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from lifelong.strategies import Stage, Strategy
from lifelong.strategies.weights import snapshot, swapped
from lifelong.testing import ContractError
from lifelong.testing.watch import Watch


def asked(learner, strategy) -> None:
    """As an evaluation asks: in evaluation mode, and back in the mode of before."""
    training = learner.training
    with strategy.answering(learner, []):
        learner.eval()
        learner.train(training)


class Adds(Strategy):
    """Doubles a batch, and says so."""

    def extend_batch(self, learner, batch):
        return learner.extend(batch, list(learner.stage.train)[: len(batch["task"])], source=self.state_key)

    def rows_added(self, rows):
        return rows


class AddsUntold(Adds):
    def rows_added(self, rows):
        return 0


@pytest.fixture
def batch(learner, tiny_stream):
    return next(iter(learner.begin_stage(Stage.of(tiny_stream[0], 1))))[0]


def test_rows_are_counted_that_a_strategy_or_a_copy_of_it_adds(learner, batch):
    watch = Watch(Adds())
    extended = copy.deepcopy(watch.strategy).extend_batch(learner, batch)
    assert extended["source"] == ["stream"] * 8 + ["Adds"] * 8 and watch.added == len(batch["id"])
    watch.strategy.extend_batch(learner, batch)
    assert watch.added == 2 * len(batch["id"])


def test_more_rows_than_were_told_of_are_seen(learner, batch):
    with pytest.raises(ContractError, match=r"AddsUntold.extend_batch adds 8 rows to 8; rows_added says 0"):
        Watch(AddsUntold()).strategy.extend_batch(learner, batch)


@pytest.mark.parametrize(
    ("source", "draw"),
    [("torch", lambda: torch.rand(1)), ("NumPy", lambda: np.random.rand()), ("Python", lambda: random.random())],
)
@pytest.mark.parametrize("hook", ["before_stage", "on_fit_start", "state_dict"])
def test_a_draw_is_seen_in_any_hook_and_from_any_source(source, draw, hook):
    drawing = type("Draws", (Strategy,), {hook: lambda self, *arguments: draw()})
    with pytest.raises(ContractError, match=f"Draws.{hook} draws from the global random state of {source}"):
        getattr(Watch(drawing()).strategy, hook)()


class Answers(Strategy):
    """Does something when its context is opened and when it is closed."""

    def __init__(self, opens=lambda learner: None, closes=lambda learner: None):
        super().__init__()
        self.opens, self.closes = opens, closes

    @contextmanager
    def answering(self, learner, examples):
        self.opens(learner)
        yield
        self.closes(learner)


def change(learner) -> None:
    next(learner.parameters()).data.add_(1)


def freeze(learner) -> None:
    next(learner.parameters()).requires_grad_(False)


@pytest.mark.parametrize(
    ("when", "what", "named"),
    [
        ("opens", lambda learner: torch.rand(1), "draws from the global random state of torch"),
        ("closes", lambda learner: random.random(), "draws from the global random state of Python"),
        ("opens", change, "leaves model.model.embed_tokens.weight behind as it was not before"),
        ("closes", change, "leaves model.model.embed_tokens.weight behind"),
        ("opens", freeze, "leaves model.model.embed_tokens.weight behind"),
        ("closes", lambda learner: learner.eval(), "leaves the learner in another mode"),
        ("closes", lambda learner: learner.register_buffer("new", torch.zeros(1)), "leaves other weights behind"),
    ],
)
def test_what_is_left_behind_after_answering_is_seen(learner, when, what, named):
    learner.train()
    with pytest.raises(ContractError, match=f"Answers.answering {named}"):
        asked(learner, Watch(Answers(**{when: what})).strategy)


@pytest.mark.parametrize("training", [True, False])
def test_answering_with_other_weights_for_a_while_is_nothing_to_say_of(learner, training):
    class AnswersWithOthers(Strategy):
        @contextmanager
        def answering(self, learner, examples):
            with swapped(learner, {name: value + 1 for name, value in snapshot(learner).items()}):
                yield

    learner.train(training)
    torch.manual_seed(0)
    asked(learner, Watch(AnswersWithOthers()).strategy)


def test_a_mode_that_whoever_asks_changes_is_not_the_strategys(learner):
    learner.train()
    learner.model.eval()  # as a model is before its first stage
    asked(learner, Watch(Answers()).strategy)
    assert learner.model.training


def test_draws_of_whoever_asks_are_not_the_strategys(learner):
    with Watch(Answers()).strategy.answering(learner, []):
        torch.rand(1)


def test_an_error_while_answering_stays_what_it_is(learner):
    with pytest.raises(RuntimeError, match="no answer today"), Watch(Answers()).strategy.answering(learner, []):
        raise RuntimeError("no answer today")
