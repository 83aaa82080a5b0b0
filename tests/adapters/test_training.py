"""A training step adds the auxiliary losses of mixtures to its gradient, of real tokens and with the kinds of rows."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import Precision
from peft import LoraConfig

from lifelong.adapters import LoraMoeConfig, MoeLoraConfig, MoralConfig
from lifelong.adapters.layer import MixtureLayer
from lifelong.classification import labels_of
from lifelong.encoding import IGNORED
from lifelong.errors import ConfigError
from lifelong.learner import Learner
from lifelong.libraries import quiet_libraries
from lifelong.losses import row_losses
from lifelong.mixtures import AuxiliaryLosses, gradient_scale
from lifelong.models import load_model
from lifelong.strategies import Replay, Stage, Strategy
from lifelong.strategies.base import prepare
from lifelong.tasks import Task
from lifelong.training import Training

WEIGHT, EXPERTS, TOP_K = 0.7, 4, 2
MORAL = {"num_experts": EXPERTS, "top_k": TOP_K, "r": 2, "lora_dropout": 0.0, "router_init_std": 1.0}


class Kept(Logger):
    """What was logged, by step."""

    name = version = "kept"

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def log_hyperparams(self, params) -> None: ...

    def log_metrics(self, metrics, step=None) -> None:
        self.values.append({name.split("/", 2)[2]: value for name, value in metrics.items()})  # train/<stage and task>/


class FirstStep(Callback):
    """The micro-batches of the first optimiser step, and the gradient that it ends with."""

    def __init__(self) -> None:
        self.batches, self.gradient = None, None

    def on_train_batch_start(self, trainer, learner, batches, number) -> None:
        self.batches = self.batches or batches

    def on_before_optimizer_step(self, trainer, learner, optimizer) -> None:
        if self.gradient is None:
            self.gradient = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def made(folder, adapter, accumulate=1, strategies=(), checkpointing=False, stream=None) -> Learner:
    """A learner without dropout, whose experts differ from the beginning."""
    model, tokenizer = load_model(str(folder), adapter, gradient_checkpointing=checkpointing)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".B"):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    training = Training(1, 8 // accumulate, accumulate, gradient_clip=None)
    labels = labels_of(stream) if stream else None
    learner = Learner(model, tokenizer, training, prepare(strategies), labels=labels)
    for module in learner.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):  # T5's attention, and a classifier's head
            module.dropout = 0.0
    return learner


def fit(learner: Learner, stage: Stage, *callbacks: Callback) -> list[dict[str, float]]:
    """Learn a stage. Returns what was logged at each step."""
    loader, kept = learner.begin_stage(stage), Kept()
    learner.train()
    for strategy in learner.strategies:
        strategy.before_stage(learner, stage)
    with quiet_libraries():
        Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=[kept],
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[*learner.strategies, *callbacks],
        ).fit(learner, loader)
    for strategy in learner.strategies:
        strategy.after_stage(learner, stage)
    return kept.values


def alone(batch, row: int):
    """One row of a batch, without padding."""
    length, labels = int(batch["attention_mask"][row].sum()), batch["labels"][row]
    labels = labels[:length] if len(labels) == len(batch["input_ids"][row]) else labels[labels != IGNORED]
    ids = batch["input_ids"][row : row + 1, :length]
    some = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels[None]}
    return some | {name: batch[name][row : row + 1] for name in ("task", "kind", "source", "weight")}


def by_hand(learner: Learner, batches) -> tuple[torch.Tensor, torch.Tensor]:
    """The answers' loss, and Switch's balance of all layers, the mean over micro-batches; each row on its own."""
    inputs: dict[str, list[torch.Tensor]] = {}
    layers = {name: module for name, module in learner.model.named_modules() if isinstance(module, MixtureLayer)}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: inputs.setdefault(name, []).append(given[0][0]))
        for name, layer in layers.items()
    ]
    answers = count = balance = 0.0
    for batch in batches:
        inputs.clear()
        for row in range(len(batch["task"])):
            outputs, targets = learner.answer_logits(alone(batch, row))
            answers = answers + row_losses(outputs.logits, targets).sum()
            count += int((targets != IGNORED).sum())
        for name, layer in layers.items():
            tokens = torch.cat(inputs[name])
            chances = (tokens @ layer.mixtures["default"].router.t()).softmax(-1)
            best = chances.topk(TOP_K).indices.flatten().bincount(minlength=EXPERTS)
            balance = balance + EXPERTS * (best / best.sum() * chances.mean(0)).sum() / len(batches)
    for hook in hooks:
        hook.remove()
    return answers / count, balance


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("folder", "checkpointing"),
    [("gpt2_folder", False), ("gpt2_folder", True), ("t5_folder", False), ("bert_folder", False)],
)
def test_a_steps_gradient_is_that_of_both_losses(
    folder, checkpointing, accumulate, request, tiny_stream, labelled_stream
):
    """The auxiliary losses are those of rows without padding, whichever way the step was split."""
    stream = labelled_stream if folder == "bert_folder" else tiny_stream
    settings = {"accumulate": accumulate, "stream": stream if folder == "bert_folder" else None}
    adapter = MoralConfig(**MORAL, balance_weight=WEIGHT)
    learner = made(request.getfixturevalue(folder), adapter, checkpointing=checkpointing, **settings)
    first, stage = FirstStep(), Stage.of(stream[0], 1)
    logged = fit(learner, stage, first)
    assert len(first.batches) == accumulate
    assert any((batch["attention_mask"] == 0).any() for batch in first.batches)

    other = made(request.getfixturevalue(folder), MoralConfig(**MORAL), **settings)
    other.begin_stage(stage)
    other.train()
    answers, balance = by_hand(other, first.batches)
    (answers + WEIGHT * balance).backward()
    expected = {name: p.grad for name, p in other.named_parameters() if p.grad is not None}
    assert expected.keys() == first.gradient.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(first.gradient[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert logged[0]["loss"] == pytest.approx(float(answers.detach()), rel=1e-5)
    assert logged[0]["auxiliary/balance"] == pytest.approx(WEIGHT * float(balance.detach()), rel=1e-5)


class Look(Strategy):
    """Keeps a step's batch as it is learned from, and the gates of every layer."""

    def before_stage(self, learner, stage) -> None:
        self.batch, self.gates = None, []
        if stage.index == 1:
            for layer in learner.model.modules():
                if isinstance(layer, MixtureLayer):
                    layer.register_forward_pre_hook(self.look)

    def extend_batch(self, learner, batch):
        self.batch = self.batch or batch
        return batch

    def look(self, layer, given) -> None:
        logits = given[0].detach() @ layer.mixtures["default"].router.detach().t()
        self.gates.append(logits.softmax(-1))


def test_kinds_of_rows_reach_the_localised_constraint_those_of_replayed_rows_too(gpt2_folder, tiny_stream):
    delta, experts = 0.4, 4
    task = Task("skill", tiny_stream[1].train, tiny_stream[1].test, kind="downstream")
    adapter = LoraMoeConfig(num_experts=experts, r=2, lora_dropout=0.0, delta=delta, balance_weight=WEIGHT)
    replay, look = Replay(capacity=8), Look()
    learner = made(gpt2_folder, adapter, strategies=[replay, look])
    fit(learner, Stage.of(task, 1))
    logged = fit(learner, Stage.of(tiny_stream[0], 2))
    batch = look.batch
    assert set(zip(batch["kind"], batch["source"], strict=True)) == {
        ("knowledge", "stream"),
        ("downstream", replay.state_key),
    }
    expected = 0.0
    assert len(look.gates) == 4  # of one step: two blocks with two layers each
    for gates in look.gates:
        use = (gates * batch["attention_mask"][..., None]).sum(1)
        weighed = []
        for row, kind in enumerate(batch["kind"]):
            for expert in range(experts):
                own = (kind == "downstream") == (expert >= experts // 2)
                weighed.append(float(use[row, expert]) * (1 + delta if own else 1 - delta))
        values = torch.tensor(weighed)
        expected += float(WEIGHT * values.var(correction=0) / values.mean())
    assert logged[0]["auxiliary/localized_balance"] == pytest.approx(expected, rel=1e-4)


def test_where_kinds_are_missing_the_constraint_says_so(gpt2_folder):
    model, _ = load_model(str(gpt2_folder), LoraMoeConfig())
    with pytest.raises(ConfigError, match="needs the type of each sample"):
        model.train()(input_ids=torch.ones(2, 3, dtype=torch.long))


def test_the_gradient_is_scaled_as_the_loss_is_and_shared_among_micro_batches(gpt2_folder):
    scaled = SimpleNamespace(scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    assert gradient_scale(scaled) == 1024.0
    assert gradient_scale(Precision()) == gradient_scale(SimpleNamespace(scaler=None)) == 1.0
    model, _ = load_model(str(gpt2_folder), MoralConfig(balance_weight=0.1))
    assert AuxiliaryLosses(model, 4, scaled).scale == 256.0
    assert AuxiliaryLosses(model, 4, Precision()).scale == 0.25


def test_a_learner_sums_the_losses_of_a_stage_and_begins_anew_with_the_next(gpt2_folder, tiny_stream):
    learner = made(gpt2_folder, MoeLoraConfig(r=2, balance_weight=0.1, contrast_weight=0.1), accumulate=2)
    learner.training_settings = Training(3, 2, 2)
    for index in (1, 2):
        logged = fit(learner, Stage.of(tiny_stream[index], index))
        assert len(logged) == len(learner.losses) > 1
        assert learner.auxiliary.keys() == {"balance", "contrast"}
        for name, total in learner.auxiliary.items():
            assert not total.requires_grad
            assert float(total) == pytest.approx(sum(values[f"auxiliary/{name}"] for values in logged), rel=1e-5)


@pytest.mark.parametrize("adapter", [None, LoraConfig(target_modules=["q_proj"])])
def test_a_model_without_mixtures_learns_without_them(adapter, llama_folder, tiny_stream, monkeypatch):
    monkeypatch.setitem(sys.modules, "lifelong.adapters", None)  # importing it would fail
    logged = fit(made(llama_folder, adapter), Stage.of(tiny_stream[0], 1))
    assert set(logged[0]) == {"loss", "learning_rate"}


def test_a_mixture_without_auxiliary_losses_logs_none(llama_folder, tiny_stream):
    learner = made(llama_folder, MoralConfig())
    logged = fit(learner, Stage.of(tiny_stream[0], 1))
    assert set(logged[0]) == {"loss", "learning_rate"} and learner.auxiliary == {}


class AsksAgain(Strategy):
    """Runs the model a second time in each step, on half of the batch, and adds nothing."""

    def loss(self, learner, batch, outputs, loss):
        few = {key: value[:4] for key, value in batch.items()}
        return loss + 0 * learner.answer_logits(few)[0].logits.sum()


def test_a_strategy_that_runs_the_model_again_brings_the_losses_no_second_time(gpt2_folder, tiny_stream):
    gradients = []
    for strategies in ([], [AsksAgain()]):
        learner, first = (
            made(gpt2_folder, MoralConfig(balance_weight=WEIGHT, **MORAL), strategies=strategies),
            FirstStep(),
        )
        fit(learner, Stage.of(tiny_stream[0], 1), first)
        gradients.append(first.gradient)
    for name, once in gradients[0].items():
        assert torch.allclose(once, gradients[1][name], atol=1e-6), name
