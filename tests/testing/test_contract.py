"""The contract check passes what keeps the contract, and names what does not."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from peft import PeftModel

from lifelong.errors import ConfigError
from lifelong.strategies import Cumulative, Joint, Strategy, Traits
from lifelong.testing import ContractError, check_strategy


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


class AnswersByChance(Scales):
    def answering(self, learner, examples):
        torch.rand(1)
        return super().answering(learner, examples)


class StaysInEvaluation(Scales):
    @contextmanager
    def answering(self, learner, examples):
        yield
        learner.eval()


class NeverAdds(Scales):
    def rows_added(self, rows):
        return rows


class KeepsRowsForNothing(Scales):
    traits = Traits(adapters=("LoRA",), kept="4 * S", stores_data="its first rows")


class NeedsAnAdapter(Scales):
    traits = Traits(kept="4 * S")

    def check(self, learner, stages):
        if not isinstance(learner.model, PeftModel):
            raise ConfigError("there is no adapter")


class CountsSteps(Scales):
    """Remembers something from step to step, and says nothing of it."""

    def before_stage(self, learner, stage):
        self.steps = 0

    def loss(self, learner, batch, outputs, loss):
        self.steps += 1
        return loss * (1 + self.factor * self.steps)


class WantsFreeAnswers(Scales):
    traits = Traits(adapters=("LoRA",), families=("causal", "seq2seq"), kept="4 * S")

    def plan(self, stages):
        if any(stages[0].train["choices"]):
            raise ConfigError("rows with choices")
        return stages


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
        (CountsSteps, "interrupted, resumed.*after stage 3 the weights"),
        (CountsPreparations, "after stage [123] the weights"),
        (DrawsGlobally, "DrawsGlobally.after_stage draws from the global random state of torch"),
        (DrawsBeforeSteps, "DrawsBeforeSteps.on_train_batch_start draws"),
        (AnswersByChance, "AnswersByChance.answering draws from the global random state of torch"),
        (StaysInEvaluation, "StaysInEvaluation.answering leaves the learner in another mode"),
        (NeverAdds, "NeverAdds with causal and adapter 'LoRA': rows_added says that it adds rows .* never did"),
        (NeedsAnAdapter, "with causal and adapter 'none', as its traits declare: the run breaks off: there is no adap"),
        (WantsFreeAnswers, "do not declare the family 'classifier', and it is refused for another reason: rows with"),
        (KeepsMore, "keeps tensors of 6000 bytes, and traits.kept says 0"),
        (LosesItsSettings, "its configuration gives"),
    ],
)
def test_what_breaks_it_is_named(broken, named):
    with pytest.raises(ContractError, match=named):
        check_strategy(broken, families=["causal"])


def test_an_effect_at_zero_strength_is_named():
    with pytest.raises(ContractError, match="HasNoZero at zero strength, beside no strategy: after stage 1"):
        check_strategy(HasNoZero, zero=lambda: HasNoZero(0.0), families=["causal"])


@pytest.mark.parametrize(
    ("make", "zero"), [(lambda: Scales(0.0), lambda: Scales(0.0)), (lambda: KeepsRowsForNothing(0.0), None)]
)
def test_a_strategy_that_did_nothing_is_not_taken_for_one_that_was_seen(make, zero):
    with pytest.raises(ContractError, match=r"'LoRA': the run is the same as without it.*give settings"):
        check_strategy(make, zero, families=["causal"])


def test_a_strategy_that_makes_one_stage_of_all_is_not_looked_at():
    with pytest.raises(ContractError, match="plans 1 stages for 3 tasks"):
        check_strategy(Joint, adapters=["LoRA"], families=["causal"])
