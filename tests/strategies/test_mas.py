"""MAS measures how the squared norm of the logits depends on each weight, row by row."""

from __future__ import annotations

import io

import pytest
import torch
from peft import LoraConfig
from torch import nn

from lifelong.classification import labels_of
from lifelong.encoding import IGNORED
from lifelong.errors import ConfigError
from lifelong.strategies import Stage
from lifelong.strategies.gradients import mean_over_samples
from lifelong.strategies.mas import MAS, sensitivity
from lifelong.strategies.weights import trained


@pytest.mark.parametrize("batch_size", [1, 4, 10])
def test_of_a_linear_model_it_is_the_mean_of_twice_the_output_times_the_input(batch_size):
    draw = torch.Generator().manual_seed(0)
    layer, x = nn.Linear(3, 4, bias=False), torch.randn(10, 3, generator=draw)
    nn.init.normal_(layer.weight, generator=draw)

    def forward(rows):
        return layer(x[list(rows)]).unsqueeze(1), torch.zeros(len(rows), 1, dtype=torch.long)

    found = mean_over_samples(layer, {"weight": layer.weight}, range(10), forward, sensitivity, torch.abs, batch_size)
    expected = torch.stack([2 * torch.outer(layer.weight.detach() @ one, one) for one in x]).abs().mean(0)
    assert torch.allclose(found["weight"], expected, rtol=1e-5)


def test_only_answers_and_labels_that_compete_count():
    least = torch.finfo(torch.float32).min
    logits = torch.tensor([[[1.0, 2, least], [3, 4, least]], [[5, 6, 7], [8, 9, 10]]], requires_grad=True)
    targets = torch.tensor([[0, IGNORED], [2, 1]])
    ((values, weights),) = sensitivity(logits, targets)
    assert values.tolist() == [1 + 4, 25 + 36 + 49 + 64 + 81 + 100]
    assert weights.tolist() == [1, 1]
    values.sum().backward()
    assert logits.grad[0].tolist() == [[2, 4, 0], [0, 0, 0]]


def after(mas, learner, stage):
    learner.begin_stage(stage)
    mas.before_stage(learner, stage)
    mas.after_stage(learner, stage)
    return mas


def test_of_a_language_model_it_is_taken_over_the_answers_positions(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(r=2, init_lora_weights=False))
    stage = Stage.of(tiny_stream[0], 1)
    mas, parameters = after(MAS(), learner, stage), trained(learner)
    expected = {name: torch.zeros_like(one) for name, one in parameters.items()}
    learner.eval()
    for row in stage.train:
        batch = learner.batch_of([row])
        answers = batch["labels"][0, 1:] != IGNORED
        value = learner.model(batch["input_ids"]).logits[0, :-1][answers].square().sum()
        for name, gradient in zip(parameters, torch.autograd.grad(value, list(parameters.values())), strict=True):
            expected[name] += gradient.abs() / len(stage.train)
    largest = max(one.max() for one in expected.values())
    for name, one in mas.importance.items():
        assert (one - expected[name]).abs().max() < 1e-5 * largest
    twice = after(MAS(decay=0.5), learner, stage)
    twice.after_stage(learner, stage)
    for name, one in mas.importance.items():
        assert torch.allclose(twice.importance[name], 1.5 * one)


def test_of_a_classifier_it_is_finite_where_labels_are_masked(make_learner, bert_folder, labelled_stream):
    learner = make_learner(bert_folder, labels=labels_of(labelled_stream))
    mas = after(MAS(), learner, Stage.of(labelled_stream[0], 1))
    assert all(one.isfinite().all() for one in mas.importance.values())
    assert (mas.importance["head.weight"][:2] > 0).any()
    assert (mas.importance["head.weight"][2:] == 0).all()


def test_the_penalty_has_the_strength_and_not_half_of_it(make_learner, tiny_stream):
    learner, stage = make_learner(adapter=LoraConfig(r=2, init_lora_weights=False)), Stage.of(tiny_stream[0], 1)
    mas = after(MAS(strength=3.0, samples=2), learner, stage)
    mas.before_stage(learner, stage)
    with torch.no_grad():
        for parameter in trained(learner).values():
            parameter += 0.1
    expected = 3 * 0.01 * sum(one.sum() for one in mas.importance.values())
    assert mas.loss(learner, {}, None, torch.tensor(0.0)).item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_state_survives_a_safe_load_and_takes_what_is_declared(learner, tiny_stream):
    mas, twin, file = after(MAS(samples=2), learner, Stage.of(tiny_stream[0], 1)), MAS(), io.BytesIO()
    torch.save(mas.state_dict(), file)
    declared = eval(MAS.traits.kept, {"P": sum(one.numel() for one in trained(learner).values())})
    assert len(file.getvalue()) == pytest.approx(declared, rel=0.05)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    for kept, known in ((twin.anchor, mas.anchor), (twin.importance, mas.importance)):
        assert kept.keys() == known.keys() and all(torch.equal(kept[name], known[name]) for name in known)


@pytest.mark.parametrize("settings", [{"strength": -1}, {"decay": 2}, {"samples": 0}])
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"MAS: {next(iter(settings))}"):
        MAS(**settings)
