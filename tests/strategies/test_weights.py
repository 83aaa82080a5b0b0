"""A learner answers with other weights for a while, and has its own back."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig

from lifelong.errors import ConfigError, RunError
from lifelong.strategies.weights import snapshot, swapped, teacher, trained


def test_only_what_is_trained_is_named_and_a_classifiers_head_is_part_of_it(make_learner, bert_folder):
    adapter = LoraConfig(r=2, target_modules=["query"])
    names = set(trained(make_learner(bert_folder, adapter, labels={"one": ["a", "b"]})))
    assert {name.split(".")[0] for name in names} == {"head", "model"}
    assert all("lora_" in name for name in names if name.startswith("model"))


def test_a_frozen_model_has_nothing_to_train(learner):
    learner.requires_grad_(False)
    with pytest.raises(ConfigError, match="every parameter of the model is frozen"):
        trained(learner)


def test_a_snapshot_does_not_follow_the_weights(learner):
    before = snapshot(learner)
    name, parameter = next(iter(trained(learner).items()))
    with torch.no_grad():
        parameter.add_(1)
    assert torch.equal(before[name] + 1, parameter)


def test_swapped_weights_answer_inside_and_not_outside(learner):
    ids = torch.arange(6)[None]
    learner.eval()
    zeros = {name: torch.zeros_like(parameter) for name, parameter in trained(learner).items()}
    before = learner.model(ids).logits
    with swapped(learner, zeros):
        assert not learner.model(ids).logits.any()
    assert torch.equal(learner.model(ids).logits, before)


def test_weights_of_another_type_are_rounded_to_the_models(learner):
    learner.bfloat16().eval()
    ids, weights = torch.arange(6)[None], snapshot(learner)
    before = learner.model(ids).logits
    with torch.no_grad():
        for parameter in trained(learner).values():
            parameter.zero_()
    with swapped(learner, {name: one.float() for name, one in weights.items()}):
        assert torch.equal(learner.model(ids).logits, before)
    assert all(parameter.dtype == torch.bfloat16 for parameter in trained(learner).values())


def test_a_gradient_is_that_of_the_own_weights_though_others_answered_in_between(learner):
    ids = torch.arange(6)[None]
    learner.eval()
    learner.model(ids).logits.square().sum().backward()
    wanted = {name: parameter.grad.clone() for name, parameter in trained(learner).items()}
    learner.zero_grad()
    loss = learner.model(ids).logits.square().sum()
    with teacher(learner, {name: torch.zeros_like(value) for name, value in trained(learner).items()}):
        assert not learner.model(ids).logits.requires_grad
    loss.backward()
    assert all(torch.equal(parameter.grad, wanted[name]) for name, parameter in trained(learner).items())


def test_a_teacher_is_in_evaluation_mode_and_leaves_every_module_in_its_own(learner):
    learner.train()
    learner.model.model.layers[0].eval()
    modes = [module.training for module in learner.modules()]
    with teacher(learner, {}):
        assert not any(module.training for module in learner.modules())
    assert [module.training for module in learner.modules()] == modes


@pytest.mark.parametrize("weights", [{"model.nothing": torch.zeros(1)}, {"model.lm_head.weight": torch.zeros(2, 2)}])
def test_weights_of_another_model_are_refused(learner, weights):
    with pytest.raises(RunError, match="weights of another model"), swapped(learner, weights):
        pass
