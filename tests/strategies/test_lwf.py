"""LwF keeps the answers of the model before the stage: its loss is a divergence worked out by hand."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig
from torch.nn.functional import kl_div

from lifelong.assembly import make_trainer
from lifelong.classification import Classification, labels_of
from lifelong.encoding import IGNORED
from lifelong.errors import ConfigError
from lifelong.libraries import quiet_libraries
from lifelong.strategies import Stage
from lifelong.strategies.lwf import LwF, distillation
from lifelong.strategies.weights import trained
from lifelong.training import Training

# p = (3/4, 1/4) of the teacher, q = (1/2, 1/2) of the student
WORKED = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, WORKED), (2.0, 4 * WORKED), (0.5, WORKED / 4)])
def test_worked_numbers(temperature, expected):
    student, teacher = torch.tensor([[5.0, 5.0]]), torch.tensor([[temperature * math.log(3), 0.0]])
    assert distillation(student, teacher, temperature).tolist() == pytest.approx([expected], rel=1e-5)


def test_it_equals_the_divergence_of_torch_and_is_zero_for_a_teacher_that_agrees():
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 3, 7, generator=draw) for _ in range(2))
    expected = 9 * kl_div((student / 3).log_softmax(-1), (teacher / 3).softmax(-1), reduction="none").sum(-1)
    assert torch.allclose(distillation(student, teacher, 3.0), expected, atol=1e-5)
    assert torch.equal(distillation(student, student, 3.0), torch.zeros(2, 3))


def test_its_gradient_is_the_temperature_times_the_difference_of_probabilities():
    student, teacher = torch.tensor([1.0, 2.0, 0.0], requires_grad=True), torch.tensor([0.0, 1.0, 3.0])
    distillation(student, teacher, 2.0).backward()
    expected = 2 * ((student.detach() / 2).softmax(0) - (teacher / 2).softmax(0))
    assert torch.allclose(student.grad, expected, atol=1e-6)


def moved(learner) -> None:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trained(learner).values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draw)


def stage_two(learner, stream, weights=None):
    """The second stage as the current one, and a batch of its rows, the last of them of the first task."""
    stage = Stage.of(stream[1], 2, stream.tasks[:1])
    learner.begin_stage(stage)
    learner.eval()
    rows = stage.train.to_list()[:3] + Stage.of(stream[0], 1).train.to_list()[:1]
    batch = learner.batch_of(rows)
    batch["weight"] = torch.tensor(weights or [1.0] * 4)
    return stage, batch


def step(learner, batch, lwf, loss=0.0):
    """What becomes of the loss of a step of one micro-batch."""
    learner.divisor = ((batch["labels"] != IGNORED).sum(1) * batch["weight"]).sum()
    outputs, batch["targets"] = learner.answer_logits(batch)
    return lwf.loss(learner, batch, outputs, torch.tensor(loss))


@pytest.mark.parametrize("adapter", [None, LoraConfig(r=2, init_lora_weights=False)])
@pytest.mark.parametrize("folder", ["llama_folder", "t5_folder"])
def test_the_loss_is_the_mean_divergence_per_answer_token_from_the_model_before(
    folder, adapter, make_learner, request, tiny_stream
):
    learner = make_learner(request.getfixturevalue(folder), adapter)
    weights = [1.0, 0.5, 2.0, 1.0]
    stage, batch = stage_two(learner, tiny_stream, weights)
    lwf, before = LwF(weight=0.5, temperature=2.0), copy.deepcopy(learner)
    lwf.before_stage(learner, stage)
    moved(learner)
    total = count = 0.0
    with torch.no_grad():
        student, targets = learner.answer_logits(batch)
        teacher, _ = before.answer_logits(batch)
    for row, weight in enumerate(weights):
        for place in range(targets.shape[1]):
            if targets[row, place] != IGNORED:
                p = (teacher.logits[row, place] / 2).softmax(0)
                q = (student.logits[row, place] / 2).softmax(0)
                total += weight * 4 * float((p * (p / q).log()).sum())
                count += weight
    assert step(learner, batch, lwf, loss=3.0).item() == pytest.approx(3 + 0.5 * total / count, rel=1e-4)


def test_the_mean_is_over_the_step_however_it_is_split(make_learner, tiny_stream):
    stage, weights = Stage.of(tiny_stream[1], 2, tiny_stream.tasks[:1]), []
    for accumulate in (1, 2, 4):
        lwf = LwF(weight=50.0)
        training = Training(
            epochs=2,
            batch_size=8 // accumulate,
            accumulate=accumulate,
            optimizer="SGD",
            learning_rate=0.1,
            schedule="constant",
            gradient_clip=None,
        )
        learner = make_learner(training=training, strategies=[lwf])
        for module in learner.modules():
            module.attention_dropout = 0.0  # whose draws would depend on the split
        loader = learner.begin_stage(stage)
        tokens = [int((batch["labels"] != IGNORED).sum()) for batch in next(iter(loader))]
        assert len(tokens) == accumulate and (accumulate == 1 or len(set(tokens)) > 1)
        lwf.before_stage(learner, stage)
        with quiet_libraries():
            trainer = make_trainer(SimpleNamespace(trainer={"accelerator": "cpu"}), max_epochs=2, callbacks=[lwf])
            trainer.fit(learner.train(), loader)
        weights.append(trained(learner))
    for some in weights[1:]:
        assert all(torch.allclose(some[name], one, atol=1e-5) for name, one in weights[0].items())


def test_it_is_zero_while_the_weights_are_those_of_the_teacher_and_pulls_back_to_them(learner, tiny_stream):
    stage, batch = stage_two(learner, tiny_stream)
    lwf = LwF()
    lwf.before_stage(learner, stage)
    assert step(learner, batch, lwf).item() == pytest.approx(0, abs=1e-6)
    moved(learner)
    values = []
    for _ in range(10):
        loss = step(learner, batch, lwf)
        gradients = torch.autograd.grad(loss, list(trained(learner).values()))
        norm = torch.stack([one.norm() for one in gradients]).norm()
        with torch.no_grad():
            for parameter, gradient in zip(trained(learner).values(), gradients, strict=True):
                parameter -= 0.02 * gradient / norm
        values.append(loss.item())
    assert values == sorted(values, reverse=True)


def test_the_teacher_keeps_the_adapter_alone(make_learner, tiny_stream):
    learner, lwf = make_learner(adapter=LoraConfig(r=2)), LwF()
    stage, _ = stage_two(learner, tiny_stream)
    lwf.before_stage(learner, stage)
    assert lwf._weights.keys() == trained(learner).keys()
    assert all("lora" in name for name in lwf._weights)


@pytest.mark.parametrize("folder", ["llama_folder", "bert_folder"])
def test_the_mode_and_the_random_state_are_left_as_they_were(
    folder, make_learner, request, tiny_stream, labelled_stream
):
    stream = tiny_stream if folder == "llama_folder" else labelled_stream
    settings = {} if stream is tiny_stream else {"labels": labels_of(stream)}
    learner, lwf = make_learner(request.getfixturevalue(folder), **settings), LwF()
    stage, batch = stage_two(learner, stream)
    lwf.before_stage(learner, stage)
    learner.train()
    outputs, batch["targets"] = learner.answer_logits(batch)
    state = torch.get_rng_state()
    lwf.loss(learner, batch, outputs, torch.tensor(0.0))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in learner.modules())


@pytest.mark.parametrize("scenario", ["class", "domain", "task"])
def test_a_classifier_is_distilled_on_labels_of_earlier_tasks(scenario, make_learner, bert_folder, labelled_stream):
    # the third task has a label of each of the two before: small, large, cold, hot
    learner = make_learner(
        bert_folder, labels=labels_of(labelled_stream), classification=Classification(scenario=scenario)
    )
    stage = Stage.of(labelled_stream[2], 3, labelled_stream.tasks[:2])
    learner.begin_stage(stage)
    batch = learner.batch_of(stage.train.to_list()[:3])
    lwf, before = LwF(temperature=2.0), copy.deepcopy(learner).eval()
    lwf.before_stage(learner, stage)
    moved(learner)
    learner.eval()

    def logits(one, row) -> torch.Tensor:
        states = one.model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        mask = batch["attention_mask"].bool()[row]
        return (one.head.weight @ states[row][mask].mean(0) + one.head.bias).detach() / 2

    groups = {"task": [[0, 1], [2, 3]]}.get(scenario, [[0, 1, 2, 3]])
    expected = 0.0
    for row in range(3):
        for group in groups:
            p, q = logits(before, row)[group].softmax(0), logits(learner, row)[group].softmax(0)
            expected += 4 * float((p * (p / q).log()).sum()) / 3
    assert step(learner, batch, lwf).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("scenario", ["class", "domain", "task"])
def test_labels_that_no_earlier_task_had_are_left_out_and_nothing_is_nan(
    scenario, make_learner, bert_folder, labelled_stream
):
    learner = make_learner(
        bert_folder, labels=labels_of(labelled_stream), classification=Classification(scenario=scenario)
    )
    stage, batch = stage_two(learner, labelled_stream)
    lwf = LwF()
    lwf.before_stage(learner, stage)
    learner.train()
    moved(learner)
    loss = step(learner, batch, lwf)
    loss.backward()
    assert loss.isfinite() and loss > 0
    assert all(one.grad is None or one.grad.isfinite().all() for one in trained(learner).values())
    assert (learner.head.weight.grad[:2] != 0).any()
    assert (learner.head.weight.grad[2:] == 0).all()


def test_the_first_stage_and_a_weight_of_zero_leave_the_loss_alone(learner, tiny_stream):
    loss, (stage, batch) = torch.tensor(1.0), stage_two(learner, tiny_stream)
    lwf = LwF()
    lwf.before_stage(learner, Stage.of(tiny_stream[0], 1))
    assert lwf.loss(learner, batch, None, loss) is loss
    off = LwF(weight=0)
    off.before_stage(learner, stage)
    assert off.loss(learner, batch, None, loss) is loss


def test_nothing_is_kept_from_stage_to_stage(learner, tiny_stream):
    stage, _ = stage_two(learner, tiny_stream)
    lwf = LwF()
    lwf.before_stage(learner, stage)
    lwf.after_stage(learner, stage)
    assert lwf.state_dict() == {} and LwF.traits.kept == "0"


def test_a_model_with_nothing_to_train_is_refused_before_training(learner):
    learner.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        LwF().check(learner, [])


@pytest.mark.parametrize("settings", [{"weight": -1}, {"temperature": 0}, {"temperature": float("inf")}])
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"LwF: {next(iter(settings))}"):
        LwF(**settings)
