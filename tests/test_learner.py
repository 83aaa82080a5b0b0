"""The loss is on answer tokens only, counts them over the whole step, and training really trains."""

from __future__ import annotations

import math

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lifelong.data import collate
from lifelong.encoding import IGNORED
from lifelong.errors import ConfigError, DivergedError
from lifelong.learner import Learner
from lifelong.libraries import quiet_libraries
from lifelong.losses import row_losses
from lifelong.models import load_model
from lifelong.strategies import Stage, Strategy
from lifelong.strategies.base import prepare
from lifelong.training import Training


def learner_on(folder, training=None, strategies=(), **settings) -> Learner:
    model, tokenizer = load_model(str(folder), settings.pop("adapter", None))
    return Learner(model, tokenizer, training or Training(epochs=1), prepare(strategies), **settings)


def fit(learner: Learner, stage: Stage, *callbacks: Callback) -> Learner:
    loader = learner.begin_stage(stage)
    learner.train()
    with quiet_libraries():
        trainer = Trainer(
            max_epochs=learner.settings.epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[*learner.strategies, *callbacks],
        )
        trainer.fit(learner, loader)
    return learner


def answer_length(row) -> int:
    return sum(label != IGNORED for label in row.labels)


class Gradients(Callback):
    """Keeps the gradient of the first optimiser step."""

    def __init__(self) -> None:
        self.first: dict[str, torch.Tensor] = {}

    def on_before_optimizer_step(self, trainer, learner, optimizer) -> None:
        if not self.first:
            self.first = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}


def test_the_loss_is_the_mean_over_answer_tokens_worked_out_by_hand():
    # two rows, a vocabulary of three; logits chosen so that every probability is a simple fraction
    logits = torch.tensor([[[0.0, 0, 0], [0, math.log(2), 0]], [[math.log(6), 0, 0], [0, 0, 0]]])
    targets = torch.tensor([[0, 1], [0, IGNORED]])
    expected = [math.log(3) + math.log(2), math.log(8 / 6)]  # 1/3 and 2/4, then 6/8
    assert row_losses(logits, targets).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("folder", ["llama_folder", "gpt2_folder"])
def test_the_step_loss_equals_a_full_forward_pass_with_everything_but_answers_taken_out(folder, request, tiny_stream):
    learner = learner_on(request.getfixturevalue(folder), Training(epochs=1, batch_size=64))
    learner.eval()  # no dropout, so that both passes see the same network
    stage = Stage.of(tiny_stream[0], 1)
    rows = [learner.encoder.encode(row) for row in stage.train]
    batch = collate(rows, learner.pad_id)
    outputs, targets = learner.answer_logits(batch)
    ours = row_losses(outputs.logits, targets).sum() / sum(answer_length(row) for row in rows)
    # by hand: one unpadded row at a time, log-probability of each answer token given all before it
    total = count = 0.0
    for row in rows:
        ids = torch.tensor([row.input_ids])
        chances = learner.model(ids).logits[0].log_softmax(-1)
        for place in range(len(row.input_ids) - answer_length(row), len(row.input_ids)):
            total -= float(chances[place - 1, row.input_ids[place]].detach())
            count += 1
    assert float(ours.detach()) == pytest.approx(total / count, rel=1e-5)
    assert rows[0].input_ids[-1] == learner.tokenizer.eos_token_id


@pytest.mark.parametrize("split", [(8, 1), (4, 2), (2, 4), (3, 3)])
def test_the_gradient_does_not_depend_on_how_the_step_was_split(split, gpt2_folder, tiny_stream):
    batch_size, accumulate = split
    gradients = []
    for settings in (Training(1, 8, 1), Training(1, batch_size, accumulate)):
        keeper = Gradients()
        learner = without_dropout(learner_on(gpt2_folder, settings))
        fit(learner, Stage.of(tiny_stream[0], 1), keeper)
        gradients.append(keeper.first)
    whole, parts = gradients
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def without_dropout(learner: Learner) -> Learner:
    for module in learner.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return learner


def test_a_strategys_addition_counts_once_per_step_however_it_was_split(gpt2_folder, tiny_stream):
    class Pull(Strategy):
        def loss(self, learner, batch, outputs, loss):
            return loss + 3.0 * learner.model.get_input_embeddings().weight.pow(2).sum()

    gradients = []
    for settings in (Training(1, 8, 1, gradient_clip=None), Training(1, 2, 4, gradient_clip=None)):
        keeper = Gradients()
        learner = without_dropout(learner_on(gpt2_folder, settings, [Pull()]))
        fit(learner, Stage.of(tiny_stream[0], 1), keeper)
        gradients.append(next(value for name, value in keeper.first.items() if "wte" in name))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_rows_weigh_in_the_loss_as_they_are_told_to(llama_folder, tiny_stream):
    """A row of weight 2 counts as if it were there twice."""
    learner = learner_on(llama_folder)
    rows = [learner.encoder.encode(row) for row in Stage.of(tiny_stream[0], 1).train][:3]

    def loss(batch):
        outputs, targets = learner.answer_logits(batch)
        tokens = ((batch["labels"] != IGNORED).sum(1) * batch["weight"]).sum()
        return float(((row_losses(outputs.logits, targets) * batch["weight"]).sum() / tokens).detach())

    learner.eval()
    weighted = collate(rows, learner.pad_id)
    weighted["weight"] = torch.tensor([1.0, 2.0, 1.0])
    assert loss(weighted) == pytest.approx(loss(collate([*rows, rows[1]], learner.pad_id)), rel=1e-5)


def test_training_moves_the_weights_in_every_stage(llama_folder, tiny_stream):
    learner = learner_on(llama_folder, Training(epochs=1, learning_rate=1e-2))
    for index, task in enumerate(tiny_stream, start=1):
        before = [parameter.detach().clone() for parameter in learner.parameters()]
        fit(learner, Stage.of(task, index))
        moved = [not torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True)]
        assert all(moved), f"stage {index} left {moved.count(False)} tensors as they were"


def test_only_the_adapter_is_trained(llama_folder, tiny_stream):
    from peft import LoraConfig

    learner = learner_on(llama_folder, Training(1, learning_rate=1e-2), adapter=LoraConfig(target_modules=["q_proj"]))
    before = {name: parameter.detach().clone() for name, parameter in learner.named_parameters()}
    fit(learner, Stage.of(tiny_stream[0], 1))
    moved = {name for name, parameter in learner.named_parameters() if not torch.equal(before[name], parameter)}
    assert moved
    assert all("lora_" in name for name in moved)


def test_the_learning_rate_warms_up_and_falls_to_zero(llama_folder, tiny_stream):
    rates = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, learner, *_):
            rates.append(learner.lr_schedulers().get_last_lr()[0])

    fit(learner_on(llama_folder, Training(5, 4, learning_rate=1.0, warmup=0.2)), Stage.of(tiny_stream[0], 1), Watch())
    # ten steps, two of them warm-up: transformers' linear schedule, worked out by hand
    assert rates == pytest.approx([0.5, 1.0, *(remaining / 8 for remaining in range(7, -1, -1))])


def test_the_gradient_is_clipped_to_the_norm_asked_for(llama_folder, tiny_stream):
    norms = []

    learner = learner_on(llama_folder, Training(1, gradient_clip=1e-3))
    step = learner.on_before_optimizer_step

    def watched(optimizer):
        step(optimizer)
        norms.append(float(torch.stack([p.grad.norm() for p in learner.parameters() if p.grad is not None]).norm()))

    learner.on_before_optimizer_step = watched
    fit(learner, Stage.of(tiny_stream[0], 1))
    assert norms
    assert max(norms) <= 1e-3 * 1.001


def test_a_loss_that_is_not_finite_ends_the_training(llama_folder, tiny_stream):
    class Break(Strategy):
        def loss(self, learner, batch, outputs, loss):
            return loss * float("nan") if learner.run_step >= 1 else loss

    learner = learner_on(llama_folder, Training(1, 4), [Break()])
    with pytest.raises(DivergedError, match=r"stage 1 \(.*\): the loss became nan at step 2"):
        fit(learner, Stage.of(tiny_stream[0], 1))


def test_dropout_draws_are_repeatable_and_do_not_depend_on_the_global_state(gpt2_folder, tiny_stream):
    def losses(global_seed: int) -> list[float]:
        torch.manual_seed(global_seed)
        learner = learner_on(gpt2_folder, Training(2, 4))
        return torch.stack(fit(learner, Stage.of(tiny_stream[0], 1)).losses).tolist()

    assert losses(1) == losses(2)


def test_settings_of_a_task_replace_the_general_ones(llama_folder, tiny_stream):
    name = tiny_stream[0].name
    training = Training(epochs=1, learning_rate=1e-3, per_task={name: {"epochs": 3, "learning_rate": 0.5}})
    learner = learner_on(llama_folder, training)
    learner.begin_stage(Stage.of(tiny_stream[0], 1))
    assert (learner.settings.epochs, learner.settings.learning_rate) == (3, 0.5)
    learner.begin_stage(Stage.of(tiny_stream[1], 2))
    assert (learner.settings.epochs, learner.settings.learning_rate) == (1, 1e-3)


def test_more_tokens_than_the_models_context_are_refused(llama_folder):
    with pytest.raises(ConfigError, match=r"max_length: 100000 tokens are more than the model's context"):
        learner_on(llama_folder, max_length=100_000)


def test_a_model_with_nothing_to_train_is_refused(llama_folder, tiny_stream):
    learner = learner_on(llama_folder)
    learner.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        fit(learner, Stage.of(tiny_stream[0], 1))


def test_strategies_are_told_what_the_losses_of_rows_are_divided_by(llama_folder, tiny_stream):
    """The loss made anew from outputs, targets, weights and divisor is the one that strategies are given."""

    class Again(Strategy):
        def __init__(self) -> None:
            super().__init__()
            self.pairs: list[tuple[float, float]] = []

        def extend_batch(self, learner, batch):
            return learner.extend(batch, list(learner.stage.train)[:1], self.state_key, weight=0.5)

        def loss(self, learner, batch, outputs, loss):
            rows = row_losses(outputs.logits, batch["targets"]) * batch["weight"]
            self.pairs.append((loss.item(), (rows.sum() / learner.divisor).item()))
            return loss

    again = Again()
    training = Training(epochs=1, batch_size=2, accumulate=3)
    fit(learner_on(llama_folder, training, [again]), Stage.of(tiny_stream[0], 1))
    assert len(again.pairs) == 4
    for given, made in again.pairs:
        assert made == pytest.approx(given, rel=1e-6)
