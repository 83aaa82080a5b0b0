"""The contract check passes what keeps the contract, and names what does not."""

from __future__ import annotations

import pytest
import torch

from lifelong.strategies import Cumulative, Naive, Strategy, Traits
from lifelong.testing import ContractError, check_strategy


@pytest.mark.parametrize("make", [Naive, Cumulative])
def test_what_keeps_the_contract_passes(make):
    check_strategy(make, adapters=["LoRA"], families=["causal"])


@pytest.mark.parametrize("family", ["seq2seq", "classifier"])
def test_other_families_are_run_too(family):
    check_strategy(Cumulative, adapters=["none"], families=[family])


class Scales(Strategy):
    """Keeps the contract in everything; those below break it in one thing each."""

    traits = Traits(adapters=("LoRA",), kept="4 * S")

    def __init__(self, factor: float = 0.5, name: str | None = None) -> None:
        super().__init__(name)
        self.factor, self.seen = factor, torch.zeros(0)

    def loss(self, learner, batch, outputs, loss):
        return loss * (1 + self.factor * len(self.seen)) if self.factor else loss

    def after_stage(self, learner, stage):
        self.seen = torch.cat([self.seen, torch.ones(1)])

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state_dict):
        self.seen = state_dict["seen"]


class Forgets(Scales):
    def state_dict(self):
        return {}

    def load_state_dict(self, state_dict):
        pass


class CountsPreparations(Scales):
    def before_stage(self, learner, stage):
        self.factor = self.factor * 2


class DrawsGlobally(Scales):
    def after_stage(self, learner, stage):
        super().after_stage(learner, stage)
        torch.rand(1)


class DrawsBeforeSteps(Scales):
    def on_train_batch_start(self, trainer, learner, batch, batch_idx):
        torch.rand(1)


class KeepsMore(Scales):
    traits = Traits(adapters=("LoRA",), kept="0")

    def after_stage(self, learner, stage):
        self.seen = torch.ones(500 * stage.index)


class LosesItsSettings(Scales):
    def __init__(self, factor: float = 0.5, name: str | None = None) -> None:
        super().__init__(factor * 2, name)


class HasNoZero(Scales):
    def loss(self, learner, batch, outputs, loss):
        return loss * 1.5


def test_a_strategy_that_keeps_it_in_everything_passes():
    check_strategy(Scales, zero=lambda: Scales(0.0), families=["causal"])


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (Forgets, "interrupted, resumed.*after stage 3 the weights"),
        (CountsPreparations, "after stage [123] the weights"),
        (DrawsGlobally, "DrawsGlobally.after_stage draws from the global random state of torch"),
        (DrawsBeforeSteps, "DrawsBeforeSteps.on_train_batch_start draws"),
        (KeepsMore, "keeps tensors of 6000 bytes, and traits.kept says 0"),
        (LosesItsSettings, "its configuration gives"),
        (HasNoZero, "HasNoZero at zero strength"),
    ],
)
def test_what_breaks_it_is_named(broken, named):
    with pytest.raises(ContractError, match=named):
        check_strategy(broken, zero=lambda: broken(0.0), families=["causal"])


def test_a_formula_over_values_that_are_not_known_comes_to_nothing():
    traits = Traits(kept="8 * P + 40 * R")
    assert traits.bytes_kept(parameters=10, rows=2) == 160
    assert traits.bytes_kept(parameters=10) is None
