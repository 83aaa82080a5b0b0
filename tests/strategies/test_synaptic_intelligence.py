"""The path integral is the loss that each weight has lowered: in closed form on a quadratic, and in training."""

from __future__ import annotations

import io

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from lifelong.errors import ConfigError
from lifelong.libraries import quiet_libraries
from lifelong.strategies import Stage
from lifelong.strategies.anchor import remembered
from lifelong.strategies.base import prepare
from lifelong.strategies.synaptic_intelligence import PathIntegral, SynapticIntelligence
from lifelong.strategies.weights import trained
from lifelong.training import Training


def test_on_a_quadratic_with_gradient_flow_it_is_the_analytic_value():
    # L = 1/2 sum a (theta - m)^2; the flow is m + (theta_0 - m) exp(-a t), and each weight lowers its own part of L
    a, m = torch.tensor([1.0, 2.0, 0.5, 3.0]), torch.tensor([1.0, -1.0, 2.0, 0.0])
    begin, time, step, damping = torch.tensor([0.0, 1.0, -1.0, 0.0]), 1.0, 1e-3, 0.1
    weights = nn.Parameter(begin.clone())
    integral = PathIntegral({"w": weights})
    for _ in range(round(time / step)):
        gradient = a * (weights.detach() - m)
        integral.before_step([gradient])
        with torch.no_grad():
            weights -= step * gradient
        integral.after_step()
    end = m + (begin - m) * torch.exp(-a * time)
    lowered = 0.5 * a * ((begin - m) ** 2 - (end - m) ** 2)
    expected = lowered / ((end - begin) ** 2 + damping)
    assert expected[3] == 0
    assert torch.allclose(integral.importance(damping)["w"], expected, rtol=5e-3)


def test_worked_steps_and_a_weight_that_moved_against_the_loss_counts_as_nothing():
    weights = nn.Parameter(torch.tensor([0.0, 0.0]))
    integral = PathIntegral({"w": weights})
    for gradient, change in (([-2.0, 1.0], [1.0, 1.0]), ([-1.0, 1.0], [2.0, 1.0])):
        integral.before_step([torch.tensor(gradient)])
        with torch.no_grad():
            weights += torch.tensor(change)
        integral.after_step()
    assert integral.path[0].tolist() == [4, -2]
    assert integral.importance(damping=1.0)["w"].tolist() == pytest.approx([4 / 10, 0])


def trained_once(make_learner, folder, stage, si, **settings):
    """A learner without dropout, before and after a stage under SI; the stage's loss at both times."""
    training = Training(optimizer="SGD", schedule="constant", **settings)
    learner = make_learner(folder, training=training, strategies=prepare([si]))
    for module in learner.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    loader = learner.begin_stage(stage)
    batch = learner.batch_of(stage.train.to_list())

    def loss() -> float:
        with torch.no_grad():
            return float(learner.answer_losses(batch).sum() / (batch["labels"] != -100).sum())

    learner.train()
    si.before_stage(learner, stage)
    before = loss()
    trainer = Trainer(
        max_epochs=learner.settings.epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[si],
    )
    with quiet_libraries():
        trainer.fit(learner, loader)
    return learner, before - loss()


@pytest.mark.parametrize("strength", [0.0, 0.5])
def test_in_training_the_weights_together_have_lowered_the_loss_by_what_it_fell(
    strength, make_learner, llama_folder, tiny_stream
):
    # all rows are in each step of two micro-batches; the gradient is clipped, and the penalty pulls, which neither
    # the gradient of the integral nor the loss of the answers may know of
    stage, si = Stage.of(tiny_stream[1], 2), SynapticIntelligence(strength=strength)
    probe = make_learner(llama_folder)
    si.anchor = {name: one - 0.05 for name, one in remembered(trained(probe)).items()}
    si.importance = {name: torch.ones_like(one) for name, one in si.anchor.items()}
    settings = {"epochs": 60, "batch_size": 4, "accumulate": 2, "learning_rate": 0.01, "gradient_clip": 0.2}
    learner, fallen = trained_once(make_learner, llama_folder, stage, si, **settings)
    assert len(learner.losses) == 60
    lowered = float(sum(path.sum() for path in si._integral.path))
    assert abs(fallen) > 0.01
    assert lowered == pytest.approx(fallen, rel=0.05)


@pytest.fixture
def learner_after(make_learner, llama_folder, tiny_stream):
    si = SynapticIntelligence(strength=2.0)
    learner, _ = trained_once(
        make_learner, llama_folder, Stage.of(tiny_stream[0], 1), si, epochs=3, batch_size=8, learning_rate=0.1
    )
    return learner, si


def test_after_a_stage_importances_are_added_up_and_the_weights_are_the_anchor(learner_after, tiny_stream):
    learner, si = learner_after
    first, stage = si._integral.importance(si.damping), Stage.of(tiny_stream[0], 1)
    si.after_stage(learner, stage)
    assert all(torch.equal(si.anchor[name], one) for name, one in trained(learner).items())
    assert all(torch.equal(si.importance[name], one) for name, one in first.items())
    assert sum(one.sum() for one in first.values()) > 0
    si.before_stage(learner, stage)  # and nothing moves
    si.after_stage(learner, stage)
    assert all(torch.equal(si.importance[name], one) for name, one in first.items())
    si.before_stage(learner, stage)
    with torch.no_grad():
        for parameter in trained(learner).values():
            parameter += 0.1
    expected = 2 * 0.01 * sum(one.sum() for one in first.values())
    assert si.loss(learner, {}, None, torch.tensor(0.0)).item() == pytest.approx(float(expected), rel=1e-3)


def test_the_state_survives_a_safe_load_and_takes_what_is_declared(learner_after, tiny_stream):
    learner, si = learner_after
    si.after_stage(learner, Stage.of(tiny_stream[0], 1))
    file, twin = io.BytesIO(), SynapticIntelligence()
    torch.save(si.state_dict(), file)
    declared = eval(si.traits.kept, {"P": sum(one.numel() for one in trained(learner).values())})
    assert len(file.getvalue()) == pytest.approx(declared, rel=0.05)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert all(torch.equal(twin.importance[name], one) for name, one in si.importance.items())
    assert all(torch.equal(twin.anchor[name], one) for name, one in si.anchor.items())


def test_a_strength_of_zero_leaves_the_loss_alone(learner_after, tiny_stream):
    learner, si = learner_after
    si.after_stage(learner, Stage.of(tiny_stream[0], 1))
    si.strength, loss = 0.0, torch.tensor(1.0)
    assert si.loss(learner, {}, None, loss) is loss


@pytest.mark.parametrize("settings", [{"strength": -1}, {"damping": 0}, {"damping": -0.1}])
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"SynapticIntelligence: {next(iter(settings))}"):
        SynapticIntelligence(**settings)
