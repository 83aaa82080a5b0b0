"""EWC keeps one merged Fisher and the latest weights, and its penalty is the written formula."""

from __future__ import annotations

import io

import pytest
import torch
from peft import LoraConfig

from lifelong.classification import labels_of
from lifelong.encoding import IGNORED
from lifelong.errors import ConfigError
from lifelong.experiment import Experiment
from lifelong.strategies import Stage
from lifelong.strategies.base import prepare
from lifelong.strategies.ewc import EWC
from lifelong.strategies.mas import MAS
from lifelong.strategies.weights import snapshot, trained
from lifelong.task_stream import TaskStream
from lifelong.tasks import Task


def stages_of(stream) -> list[Stage]:
    return [Stage.of(task, index, stream.tasks[: index - 1]) for index, task in enumerate(stream, start=1)]


def learned(strategy, learner, stages):
    """The strategy after some stages, in each of which the weights have moved a little."""
    draw = torch.Generator().manual_seed(0)
    for stage in stages:
        learner.begin_stage(stage)
        strategy.before_stage(learner, stage)
        with torch.no_grad():
            for parameter in trained(learner).values():
                parameter += 0.01 * torch.randn(parameter.shape, generator=draw)
        strategy.after_stage(learner, stage)
    return strategy


def fisher_by_loop(learner, stage) -> dict[str, torch.Tensor]:
    """The mean over rows of squared gradients of the whole answer's loss, as transformers computes it."""
    parameters = trained(learner)
    total = {name: torch.zeros_like(one) for name, one in parameters.items()}
    learner.eval()
    for row in stage.train:
        batch = learner.batch_of([row])
        tokens = (batch["labels"] != IGNORED).sum()
        loss = learner.model(batch["input_ids"], labels=batch["labels"]).loss * tokens
        for name, gradient in zip(
            parameters,
            torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True),
            strict=True,
        ):
            total[name] += gradient.square() / len(stage.train)
    return total


@pytest.fixture
def lora(make_learner):
    return make_learner(adapter=LoraConfig(r=2, init_lora_weights=False))


def test_after_a_stage_it_has_the_weights_and_their_fisher_and_merges_with_decay(lora, tiny_stream):
    stages, ewc = stages_of(tiny_stream), EWC(decay=0.25)
    learned(ewc, lora, stages[:1])
    first = fisher_by_loop(lora, stages[0])
    for name, weight in snapshot(lora).items():
        assert torch.equal(ewc.anchor[name], weight)
        assert torch.allclose(ewc.importance[name], first[name], rtol=1e-3, atol=1e-6)
    learned(ewc, lora, stages[1:2])
    second = fisher_by_loop(lora, stages[1])
    for name, weight in snapshot(lora).items():
        assert torch.equal(ewc.anchor[name], weight)
        assert torch.allclose(ewc.importance[name], 0.25 * first[name] + second[name], rtol=1e-3, atol=1e-6)


def test_the_penalty_and_its_gradient_are_those_of_the_formula(lora, tiny_stream):
    stages, ewc = stages_of(tiny_stream), EWC(strength=30.0)
    learned(ewc, lora, stages[:1])
    lora.begin_stage(stages[1])
    ewc.before_stage(lora, stages[1])
    parameters = trained(lora)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter += 0.1
    expected = 15 * sum(
        (ewc.importance[name] * (one - ewc.anchor[name]).square()).sum() for name, one in parameters.items()
    )
    gradients = torch.autograd.grad(expected, list(parameters.values()))
    found = ewc.loss(lora, {}, None, torch.tensor(2.0))
    assert found.item() == pytest.approx(2 + expected.item(), rel=1e-5)
    found.backward()
    for one, gradient in zip(parameters.values(), gradients, strict=True):
        assert torch.allclose(one.grad, gradient, rtol=1e-5, atol=1e-8)


def test_the_first_stage_and_a_strength_of_zero_leave_the_loss_alone(lora, tiny_stream):
    stages, loss = stages_of(tiny_stream), torch.tensor(1.0)
    fresh = EWC()
    fresh.before_stage(lora, stages[0])
    assert fresh.loss(lora, {}, None, loss) is loss
    assert learned(EWC(strength=0), lora, stages[:1]).loss(lora, {}, None, loss) is loss


def test_what_is_kept_does_not_grow_and_takes_what_is_declared(learner, tiny_stream):
    stages, sizes = stages_of(tiny_stream), []
    ewc = EWC(samples=2)
    for stage in stages:
        learned(ewc, learner, [stage])
        file = io.BytesIO()
        torch.save(ewc.state_dict(), file)
        sizes.append(len(file.getvalue()))
    declared = eval(EWC.traits.kept, {"P": sum(one.numel() for one in trained(learner).values())})
    assert sizes == pytest.approx([declared] * 3, rel=0.05)


def test_the_state_survives_a_safe_load(lora, tiny_stream):
    stages = stages_of(tiny_stream)
    ewc, twin, file = learned(EWC(), lora, stages[:1]), EWC(), io.BytesIO()
    torch.save(ewc.state_dict(), file)
    file.seek(0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    for strategy in (ewc, twin):
        strategy.before_stage(lora, stages[1])
        strategy.before_stage(lora, stages[1])
    with torch.no_grad():
        for parameter in trained(lora).values():
            parameter += 0.1
    values = [strategy.loss(lora, {}, None, torch.tensor(0.0)) for strategy in (ewc, twin)]
    assert values[0] == values[1] > 0


@pytest.fixture
def classifier(make_learner, bert_folder, labelled_stream):
    """Only the head of it is trained: a softmax regression on what the model makes of a text."""
    learner = make_learner(bert_folder, labels=labels_of(labelled_stream))
    learner.model.requires_grad_(False)
    return learner


def test_of_a_classifiers_head_the_exact_fisher_is_that_of_softmax_regression(classifier, labelled_stream):
    stage, ewc = stages_of(labelled_stream)[0], EWC(kind="exact")
    ewc.check(classifier, [stage])
    learned(ewc, classifier, [stage])
    classifier.eval()
    weight = torch.zeros(4, 32)
    for row in stage.train:
        batch = classifier.batch_of([row])
        states = classifier.model(batch["input_ids"]).last_hidden_state[0].mean(0)
        chances = (classifier.head.weight @ states + classifier.head.bias)[:2].softmax(0)  # of small and large alone
        weight[:2] += (chances * (1 - chances)).detach()[:, None] * states.square()
    assert torch.allclose(ewc.importance["head.weight"], weight / len(stage.train), atol=1e-6)
    assert (ewc.importance["head.weight"][2:] == 0).all()


def test_labels_that_come_later_are_free(classifier, labelled_stream):
    first = stages_of(labelled_stream)[0]
    ewc = learned(EWC(strength=1.0), classifier, [first])
    classifier.add_labels({"more": ["round", "flat"]})
    ewc.before_stage(classifier, first)
    with torch.no_grad():
        classifier.head.weight[4:] += 5
    assert ewc.loss(classifier, {}, None, torch.tensor(0.0)) == 0
    learned(ewc, classifier, [first])
    assert ewc.importance["head.weight"].shape == (6, 32)


def test_exact_is_refused_for_free_answers_and_not_for_choices(learner, tiny_stream):
    with pytest.raises(ConfigError, match=r"EWC: kind='exact'.*'colours'.*kind='sampled'"):
        EWC(kind="exact").check(learner, stages_of(tiny_stream))
    rows = [{"question": f"What is {word}?", "answer": "big", "choices": ["big", "small"]} for word in "abcd"]
    stage, ewc = Stage.of(Task("sizes", rows, rows), 1), EWC(kind="exact")
    ewc.check(learner, [stage])
    learned(ewc, learner, [stage])
    assert sum(one.sum() for one in ewc.importance.values()) > 0


def test_a_model_with_nothing_to_train_is_refused_before_training(learner, tiny_stream):
    learner.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        EWC().check(learner, stages_of(tiny_stream))


def test_a_run_with_gradient_checkpointing_remembers_the_same(tiny_stream, llama_folder, tmp_path):
    states = []
    for checkpointing in (False, True):
        run = Experiment(
            TaskStream("two", tiny_stream.limit(train=4, test=1).tasks[:2]),
            str(llama_folder),
            strategies=[EWC(), MAS()],
            epochs=1,
            batch_size=2,
            gradient_checkpointing=checkpointing,
            check_resources=False,
            evaluate={"probes": False, "max_new_tokens": 2},
            folder=tmp_path / str(checkpointing),
            trainer={"accelerator": "cpu"},
        ).run(quiet=True)
        files = (run.folder.stage(2) / "strategies" / f"{name}.pt" for name in ("EWC", "MAS"))
        states.append([torch.load(file, weights_only=True)["importance"] for file in files])
    for plain, checkpointed in zip(*states, strict=True):
        largest = max(one.max() for one in plain.values())
        assert all((checkpointed[name] - one).abs().max() <= 1e-4 * largest for name, one in plain.items())


@pytest.mark.parametrize("other", ["IncrementalLoRA", "OrthogonalLoRA", "SLAO"])
def test_it_does_not_run_with_strategies_that_train_other_weights_at_every_stage(other):
    with pytest.raises(ConfigError, match="cannot run together: it remembers"):
        prepare([EWC(), type(other, (EWC,), {"conflicts": {}})()])


@pytest.mark.parametrize(
    "settings",
    [
        {"strength": -1},
        {"strength": float("nan")},
        {"strength": "1"},
        {"kind": "diagonal"},
        {"decay": 1.1},
        {"decay": -0.1},
        {"samples": 0},
        {"samples": 2.5},
        {"samples": True},
    ],
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"EWC: {next(iter(settings))}"):
        EWC(**settings)
