"""O-LoRA pushes the A of a new LoRA away from all earlier ones, by one product for all layers of a shape."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from peft import LoraConfig

from lifelong.errors import ConfigError
from lifelong.strategies import Stage
from lifelong.strategies.lora_layers import lora_layers
from lifelong.strategies.orthogonal_lora import OrthogonalLoRA, norms, overlap
from lifelong.strategies.weights import trained

# shapes that differ between layers, in inputs and in rank
ADAPTER = {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"], "rank_pattern": {"v_proj": 2}}
ZERO = torch.zeros(())


def stage_of(stream, index: int) -> Stage:
    return Stage.of(stream[(index - 1) % len(stream)], index)


def learn(model, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Stands for training: the default LoRA gets random values, of which copies are returned."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            for part in (layer.lora_A, layer.lora_B):
                part["default"].weight.normal_(generator=generator)
    return {
        name: (layer.lora_A["default"].weight.detach().clone(), layer.lora_B["default"].weight.detach().clone())
        for name, layer in lora_layers(model).items()
    }


def in_third_stage(learner, stream, **settings):
    """O-LoRA in its third stage, and copies of the three LoRAs."""
    strategy, copies = OrthogonalLoRA(**settings), []
    for index in (1, 2):
        strategy.before_stage(learner, stage_of(stream, index))
        copies.append(learn(learner.model, index))
        strategy.after_stage(learner, stage_of(stream, index))
    strategy.before_stage(learner, stage_of(stream, 3))
    return strategy, [*copies, learn(learner.model, 3)]


def test_the_penalty_is_the_loop_over_layers_earlier_tasks_and_rows(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(**ADAPTER))
    strategy, (first, second, new) = in_third_stage(learner, tiny_stream, lambda1=0.25)
    by_hand = 0.0
    for name, earlier in itertools.product(new, (first, second)):
        for old_row in earlier[name][0].tolist():
            for new_row in new[name][0].tolist():
                by_hand += abs(sum(a * b for a, b in zip(old_row, new_row, strict=True)))
    value = strategy.loss(learner, {}, None, torch.tensor(2.0))
    assert value.item() == pytest.approx(2 + 0.25 * by_hand, rel=1e-5)


def test_the_second_penalty_is_the_sum_of_the_norms_of_every_new_matrix(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(**ADAPTER))
    strategy, (_, _, new) = in_third_stage(learner, tiny_stream, lambda1=0, lambda2=0.5)
    by_hand = sum(
        math.sqrt(sum(value**2 for value in matrix.flatten().tolist())) for pair in new.values() for matrix in pair
    )
    assert strategy.loss(learner, {}, None, ZERO).item() == pytest.approx(0.5 * by_hand, rel=1e-5)


def test_the_gradient_of_the_penalty_is_that_of_its_formula(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(**ADAPTER))
    strategy, (first, second, new) = in_third_stage(learner, tiny_stream, lambda1=2.0, lambda2=3.0)
    strategy.loss(learner, {}, None, ZERO).backward()
    for name, layer in lora_layers(learner.model).items():
        A, B = new[name]
        old = torch.cat([first[name][0], second[name][0]])
        # d|x|/dx is the sign, and d||W||/dW is W / ||W||
        expected = 2 * torch.sign(A @ old.T) @ old + 3 * A / A.norm()
        assert torch.allclose(layer.lora_A["default"].weight.grad, expected, atol=1e-4)
        assert torch.allclose(layer.lora_B["default"].weight.grad, 3 * B / B.norm(), atol=1e-5)
        assert layer.lora_A["earlier"].weight.grad is None


def test_a_matrix_of_zeros_has_no_gradient_and_no_nan():
    zero = torch.zeros(2, 3, 4, requires_grad=True)
    norms(zero).backward()
    assert torch.equal(zero.grad, torch.zeros(2, 3, 4))


def test_rows_in_directions_of_their_own_cost_nothing():
    rows = torch.eye(6)
    assert overlap(rows[None, :4], rows[None, 4:]) == 0
    assert overlap(rows[None, :4], -rows[None, 3:]) == 1


def test_the_first_stage_and_no_strength_leave_the_loss_itself(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(**ADAPTER))
    strategy = OrthogonalLoRA()
    strategy.before_stage(learner, stage_of(tiny_stream, 1))
    assert strategy.loss(learner, {}, None, ZERO) is ZERO
    strategy, _ = in_third_stage(learner, tiny_stream, lambda1=0, lambda2=0)
    assert strategy.loss(learner, {}, None, ZERO) is ZERO


def test_half_precision_around_it_does_not_round_the_penalty(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(**ADAPTER))
    strategy, _ = in_third_stage(learner, tiny_stream)
    exact = strategy.loss(learner, {}, None, ZERO)
    with torch.autocast("cpu", torch.bfloat16):
        assert strategy.loss(learner, {}, None, ZERO) == exact


def largest_cosine(learner) -> float:
    """Between a row of an earlier A and one of the new A of the same layer."""
    unit = torch.nn.functional.normalize
    layers = lora_layers(learner.model).values()
    pairs = [(unit(layer.lora_A["earlier"].weight), unit(layer.lora_A["default"].weight)) for layer in layers]
    return max((new @ old.T).abs().max().item() for old, new in pairs)


def test_what_is_learned_under_it_is_orthogonal_to_what_was_learned_before(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).eval()
    strategy = OrthogonalLoRA(lambda1=100.0)
    strategy.before_stage(learner, stage_of(tiny_stream, 1))
    strategy.after_stage(learner, stage_of(tiny_stream, 1))
    (batch,) = next(iter(learner.begin_stage(stage_of(tiny_stream, 2))))
    strategy.before_stage(learner, stage_of(tiny_stream, 2))
    assert largest_cosine(learner) > 0.1
    optimizer = torch.optim.AdamW(trained(learner).values(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
    losses = []
    for _ in range(100):
        losses.append(learner.answer_losses(batch).mean())
        optimizer.zero_grad()
        strategy.loss(learner, batch, None, losses[-1]).backward()
        optimizer.step()
        schedule.step()
    assert losses[-1] < 0.8 * losses[0]
    assert largest_cosine(learner) < 1e-3


@pytest.mark.parametrize(
    "settings", [{"lambda1": -0.1}, {"lambda1": float("nan")}, {"lambda2": -1}, {"lambda2": "much"}, {"lambda2": True}]
)
def test_impossible_settings_are_refused_by_name(settings):
    with pytest.raises(ConfigError, match=f"OrthogonalLoRA: {next(iter(settings))}"):
        OrthogonalLoRA(**settings)
