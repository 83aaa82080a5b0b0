"""The pull towards the beginning of the stage, or of the run, in closed form."""

from __future__ import annotations

import io

import pytest
import torch
from peft import LoraConfig

from lifelong.errors import ConfigError
from lifelong.experiment import Experiment
from lifelong.strategies import Stage
from lifelong.strategies.l2_anchor import L2Anchor
from lifelong.strategies.weights import trained
from lifelong.task_stream import TaskStream


@pytest.fixture
def lora(make_learner):
    return make_learner(adapter=LoraConfig(r=2))


def moved(learner, by: float) -> int:
    """Add a number to every trained weight. Returns how many there are."""
    with torch.no_grad():
        for parameter in trained(learner).values():
            parameter += by
    return sum(parameter.numel() for parameter in trained(learner).values())


def value(strategy, learner) -> float:
    return strategy.loss(learner, {}, None, torch.tensor(0.0)).item()


@pytest.mark.parametrize(("to", "distances"), [("stage", (1.0, 2.0)), ("start", (1.0, 3.0))])
def test_every_weight_counts_the_square_of_its_distance(to, distances, lora, tiny_stream):
    strategy = L2Anchor(strength=0.5, to=to)
    for index, distance in enumerate(distances, start=1):
        strategy.before_stage(lora, Stage.of(tiny_stream[index - 1], index))
        weights = moved(lora, float(index))
        assert value(strategy, lora) == pytest.approx(0.25 * weights * distance**2, rel=1e-5)
        strategy.after_stage(lora, Stage.of(tiny_stream[index - 1], index))


def test_its_gradient_is_strength_times_the_distance(lora, tiny_stream):
    strategy = L2Anchor(strength=0.5)
    strategy.before_stage(lora, Stage.of(tiny_stream[0], 1))
    moved(lora, 2.0)
    strategy.loss(lora, {}, None, torch.tensor(0.0)).backward()
    assert all(torch.allclose(one.grad, torch.ones_like(one), atol=1e-5) for one in trained(lora).values())


@pytest.mark.parametrize("to", ["stage", "start"])
def test_a_run_that_is_taken_up_again_has_the_same_anchor(to, learner, tiny_stream):
    strategy, twin, file = L2Anchor(to=to), L2Anchor(to=to), io.BytesIO()
    strategy.before_stage(learner, Stage.of(tiny_stream[0], 1))
    weights = moved(learner, 1.0)
    torch.save(strategy.state_dict(), file)
    assert len(file.getvalue()) == pytest.approx(eval(strategy.traits.kept, {"P": weights}), rel=0.05, abs=2000)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    for one in (strategy, twin, twin):
        one.before_stage(learner, Stage.of(tiny_stream[1], 2))
    moved(learner, 1.0)
    assert value(strategy, learner) == value(twin, learner) > 0


def test_a_strength_of_zero_leaves_the_loss_alone(lora, tiny_stream):
    strategy, loss = L2Anchor(strength=0), torch.tensor(1.0)
    strategy.before_stage(lora, Stage.of(tiny_stream[0], 1))
    moved(lora, 1.0)
    assert strategy.loss(lora, {}, None, loss) is loss


def test_a_model_with_nothing_to_train_is_refused_before_training(learner):
    learner.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        L2Anchor().check(learner, [])


def test_in_half_precision_the_anchor_is_where_training_begins(make_learner, llama_folder, tiny_stream, tmp_path):
    run = Experiment(
        TaskStream("one", tiny_stream.limit(train=2, test=1).tasks[:1]),
        str(llama_folder),
        strategies=[L2Anchor(to="start")],
        epochs=1,
        check_resources=False,
        evaluate={"probes": False, "max_new_tokens": 2},
        folder=tmp_path / "run",
        trainer={"accelerator": "cpu", "precision": "bf16-true"},
    ).run(quiet=True)
    anchor = torch.load(run.folder.stage(1) / "strategies" / "L2Anchor.pt", weights_only=True)["anchor"]
    read = trained(make_learner())  # in float32
    assert all(torch.equal(one, read[name].bfloat16().float()) for name, one in anchor.items())
    assert not all(torch.equal(one, read[name]) for name, one in anchor.items())


@pytest.mark.parametrize("settings", [{"strength": -1}, {"to": "end"}])
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"L2Anchor: {next(iter(settings))}"):
        L2Anchor(**settings)
