"""A-GEM lets no step go against the mean gradient of earlier tasks."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import pytest
import torch
from lightning.pytorch import Trainer
from peft import LoraConfig
from torch.nn.functional import cross_entropy

from lifelong.adapters import LoraMoeConfig
from lifelong.errors import ConfigError
from lifelong.libraries import quiet_libraries
from lifelong.strategies import Stage
from lifelong.strategies.agem import AGEM, agem_weight
from lifelong.strategies.base import prepare
from lifelong.strategies.episodes import memory_gradient
from lifelong.strategies.gem import GEM
from lifelong.strategies.weights import trained
from lifelong.task_stream import TaskStream
from lifelong.tasks import Task
from lifelong.training import Training


def vectors(*shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def remembering(strategy, learner, stream):
    """The strategy after all stages but the last, which it is about to meet, without any training."""
    for index, task in enumerate(stream[:-1], start=1):
        strategy.after_stage(learner, Stage.of(task, index, stream.tasks[: index - 1]))
    stage = Stage.of(stream[-1], len(stream), stream.tasks[:-1])
    learner.begin_stage(stage)
    strategy.before_stage(learner, stage)
    return strategy


def row_by_row_gradient(learner, rows) -> dict[str, torch.Tensor]:
    """The gradient of the mean loss per answer token, from one plain pass per row."""
    learner.eval()
    learner.zero_grad()
    encoded = [learner.encoder.encode(row) for row in rows]
    tokens = sum(label != -100 for row in encoded for label in row.labels)
    for row in encoded:
        logits = learner.model(torch.tensor([row.input_ids])).logits[0, :-1]
        (cross_entropy(logits, torch.tensor(row.labels[1:]), reduction="sum") / tokens).backward()
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in trained(learner).items()}
    learner.zero_grad()
    return found


def fit(learner, stage):
    loader = learner.begin_stage(stage)
    with quiet_libraries():
        trainer = Trainer(
            max_epochs=learner.settings.epochs,
            accelerator="cpu",
            callbacks=list(learner.strategies),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(learner.train(), loader)
    return learner


def flat(gradients: dict[str, torch.Tensor] | Sequence[torch.Tensor]) -> torch.Tensor:
    parts = gradients.values() if isinstance(gradients, dict) else gradients
    return torch.cat([gradient.flatten() for gradient in parts])


def projected(gradient: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """A gradient in two parts, of which the first is an entry; itself where it may stay."""
    weight = agem_weight(gradient.split([1, len(gradient) - 1]), reference.split([1, len(gradient) - 1]))
    return gradient if weight is None else gradient + weight * reference


# ---------------------------------------------------------------- the projection


def test_a_gradient_against_the_reference_loses_that_part_of_it_and_nothing_else():
    # by hand: (1, -1, 2) . (0, 2, 0) = -2, and 2 * 2 = 4, so (1, -1, 2) + 2 / 4 * (0, 2, 0)
    found = projected(torch.tensor([1.0, -1.0, 2.0]), torch.tensor([0.0, 2.0, 0.0]))
    assert found.tolist() == [1.0, 0.0, 2.0]


@pytest.mark.parametrize("seed", range(10))
def test_the_projection_is_the_equation_and_never_against_the_reference(seed):
    gradient, reference = vectors(2, 50, seed=seed)
    if gradient @ reference > 0:
        reference = -reference
    found = projected(gradient, reference)
    by_numpy = gradient.numpy() - (gradient.numpy() @ reference.numpy()) / (reference.numpy() @ reference.numpy()) * (
        reference.numpy()
    )
    assert torch.allclose(found, torch.from_numpy(by_numpy), atol=1e-12)
    assert abs(float(found @ reference)) < 1e-9
    # the nearest of all that are allowed: nothing that leans further towards the reference is nearer
    for step in vectors(20, 50, seed=seed + 100):
        other = found + 0.1 * step
        if other @ reference >= 0:
            assert (other - gradient).norm() >= (found - gradient).norm() - 1e-9


@pytest.mark.parametrize("reference", [[1.0, 1.0], [0.0, 0.0], [-2.0, 1.0], [float("nan"), 1.0], [float("-inf"), 0.0]])
def test_a_gradient_that_agrees_or_meets_no_usable_reference_stays(reference):
    assert agem_weight([torch.tensor([1.0, 2.0])], [torch.tensor(reference)]) is None


@pytest.mark.parametrize("gradient", [[-math.inf, 1.0], [math.nan, -1.0], [-1.0, math.inf]])
def test_a_gradient_that_is_not_finite_stays(gradient):
    assert agem_weight([torch.tensor(gradient)], [torch.ones(2)]) is None


# ---------------------------------------------------------------- the memory's gradient


@pytest.mark.parametrize("adapter", [None, LoraConfig(target_modules="all-linear", init_lora_weights=False)])
def test_the_memorys_gradient_is_that_of_the_mean_loss_per_answer_token(make_learner, tiny_stream, adapter):
    learner = make_learner(adapter=adapter, training=Training(batch_size=3))
    stage = Stage.of(tiny_stream[1], 2, tiny_stream.tasks[:1])
    learner.begin_stage(stage)
    rows = list(stage.train)  # eight rows, read three at a time
    expected = row_by_row_gradient(learner, rows)
    assert torch.allclose(flat(memory_gradient(learner.train(), rows)), flat(expected), atol=1e-6)


def test_the_memorys_gradient_leaves_no_trace(learner, tiny_stream):
    stage = Stage.of(tiny_stream[0], 1)
    learner.begin_stage(stage)
    learner.train()
    for parameter in learner.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = torch.get_rng_state()
    memory_gradient(learner, list(stage.train))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in learner.modules())
    assert all((parameter.grad == 1).all() for parameter in learner.parameters())


def test_auxiliary_losses_of_a_mixture_stay_out_of_the_memorys_gradient(make_learner, tiny_stream):
    found = []
    for beta in (0.0, 10.0):
        adapter = LoraMoeConfig(r=2, num_experts=2, balance_weight=beta)
        learner = make_learner(adapter=adapter)
        stage = Stage.of(tiny_stream[0], 1)
        learner.begin_stage(stage)
        found.append(flat(memory_gradient(learner, list(stage.train))))
    assert found[0].any()
    assert torch.equal(*found)


# ---------------------------------------------------------------- steps


def stepped(learner, strategy, gradients: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
    for name, parameter in trained(learner).items():
        parameter.grad = None if gradients[name] is None else gradients[name].clone()
    strategy.on_before_optimizer_step(None, learner, None)
    return {name: parameter.grad for name, parameter in trained(learner).items()}


def test_a_step_against_the_memory_is_projected(learner, tiny_stream):
    strategy = remembering(AGEM(rows_per_task=8, batch_size=16), learner, tiny_stream)
    reference = row_by_row_gradient(learner, strategy.episodes.rows)
    noise = {name: 0.01 * torch.randn_like(gradient) for name, gradient in reference.items()}
    against = {name: noise[name] - gradient for name, gradient in reference.items()}
    expected = projected(flat(against).double(), flat(reference).double())
    found = flat(stepped(learner, strategy, against))
    assert torch.allclose(found.double(), expected, atol=1e-6)
    assert float(found @ flat(reference)) > -1e-5 * float(flat(reference).norm() * flat(against).norm())


def test_a_step_with_the_memory_stays_as_it_is(learner, tiny_stream):
    strategy = remembering(AGEM(rows_per_task=8, batch_size=16), learner, tiny_stream)
    reference = row_by_row_gradient(learner, strategy.episodes.rows)
    found = stepped(learner, strategy, reference)
    assert all(torch.equal(found[name], gradient) for name, gradient in reference.items())


def test_a_parameter_without_a_gradient_counts_as_zero_and_gets_its_part_of_the_projection(learner, tiny_stream):
    strategy = remembering(AGEM(rows_per_task=8, batch_size=16), learner, tiny_stream)
    reference = row_by_row_gradient(learner, strategy.episodes.rows)
    first = next(iter(reference))
    against = {name: None if name == first else -gradient for name, gradient in reference.items()}
    zeros = {name: torch.zeros_like(reference[name]) if one is None else one for name, one in against.items()}
    expected = projected(flat(zeros), flat(reference))
    found = stepped(learner, strategy, against)
    assert torch.allclose(flat(found), expected, atol=1e-6)
    assert found[first].any()


def test_a_step_that_a_scaler_will_skip_is_left_to_it(learner, tiny_stream):
    strategy = remembering(AGEM(), learner, tiny_stream)
    infinite = {name: torch.full_like(p, float("inf")) for name, p in trained(learner).items()}
    found = stepped(learner, strategy, infinite)
    assert all(gradient.isinf().all() for gradient in found.values())


def test_the_first_stage_has_nothing_to_project_on(learner, tiny_stream):
    strategy = AGEM()
    stage = Stage.of(tiny_stream[0], 1)
    learner.begin_stage(stage)
    strategy.before_stage(learner, stage)
    own = {name: torch.randn_like(p) for name, p in trained(learner).items()}
    assert all(torch.equal(own[name], one) for name, one in stepped(learner, strategy, own).items())


def test_a_classifiers_head_is_projected_too(make_learner, bert_folder, labelled_stream):
    from lifelong.classification import labels_of

    learner = make_learner(bert_folder, labels=labels_of(labelled_stream.tasks))
    strategy = remembering(AGEM(), learner, labelled_stream)
    gradient = memory_gradient(learner, strategy.episodes.rows)
    assert flat(gradient).isfinite().all()
    head = [name for name in trained(learner) if name.startswith("head")]
    against = {name: -part for name, part in zip(trained(learner), gradient, strict=True)}
    strategy.batch_size = None
    found = stepped(learner, strategy, against)
    size = flat(found).norm() / flat(gradient).norm()
    assert head and size < 1e-3  # the opposite of the reference has nothing left


def test_a_trained_step_is_projected_once_over_all_micro_batches(make_learner, tiny_stream):
    """Plain SGD, so that what was stepped along can be read off the weights: eight rows in micro-batches of two."""
    # the second task teaches other answers to the first one's questions, which cannot but go against it
    rows = list(tiny_stream[0].train)
    wrong = [{**row, "answers": other["answers"]} for row, other in zip(rows, rows[1:] + rows[:1], strict=True)]
    stream = TaskStream("against", [tiny_stream[0], Task("other answers", wrong, wrong)])
    training = Training(
        epochs=1,
        batch_size=2,
        accumulate=4,
        learning_rate=0.1,
        optimizer="SGD",
        schedule="constant",
        gradient_clip=None,
    )
    teach = Training(epochs=20, batch_size=8, learning_rate=1e-2)
    taught = fit(make_learner(training=teach), Stage.of(stream[0], 1)).state_dict()

    def step(strategies):
        learner = make_learner(training=training, strategies=strategies)
        learner.load_state_dict(taught)
        for strategy in strategies:
            remembering(strategy, learner, stream)
        before = {name: p.detach().clone() for name, p in trained(learner).items()}
        fit(learner, Stage.of(stream[1], 2, stream.tasks[:1]))
        return flat({name: (before[name] - p.detach()) / 0.1 for name, p in trained(learner).items()})

    learner = make_learner(training=training)
    learner.load_state_dict(taught)
    memory = remembering(AGEM(rows_per_task=8), learner, stream).episodes
    reference = flat(row_by_row_gradient(learner, memory.rows))
    plain, found = step(()), step((AGEM(rows_per_task=8),))
    assert plain @ reference < 0
    assert torch.allclose(found, projected(plain, reference), atol=1e-4)
    assert (found - plain).norm() > 0.01 * plain.norm()


# ---------------------------------------------------------------- rows and settings


def test_every_task_keeps_so_many_rows_and_a_step_draws_some_of_all(learner, tiny_stream):
    strategy = remembering(AGEM(rows_per_task=3), learner, tiny_stream)
    assert [[row["task"] for row in rows] for rows in strategy.episodes.tasks] == [
        [name] * 3 for name in tiny_stream.names[:2]
    ]


def test_the_state_survives_a_safe_load(learner, tiny_stream):
    strategy = remembering(AGEM(rows_per_task=3), learner, tiny_stream)
    file = io.BytesIO()
    torch.save(strategy.state_dict(), file)
    file.seek(0)
    twin = AGEM(rows_per_task=3)
    twin.load_state_dict(torch.load(file, weights_only=True))
    for one in (strategy, twin):
        one.before_stage(learner, learner.stage)
    assert twin.episodes.rows == strategy.episodes.rows
    rows = strategy.episodes.rows
    assert torch.equal(*(flat(one.drawn_gradient(learner, rows)) for one in (strategy, twin)))


@pytest.mark.parametrize(
    "settings", [{"rows_per_task": 0}, {"rows_per_task": 0.5}, {"batch_size": 0}, {"batch_size": True}]
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"AGEM: {next(iter(settings))}"):
        AGEM(**settings)


@pytest.mark.parametrize("pair", [(AGEM(), GEM()), (AGEM(), AGEM()), (GEM(), GEM())])
def test_a_gradient_is_projected_by_one_strategy_only(pair):
    with pytest.raises(ConfigError, match="cannot run together"):
        prepare(pair)
