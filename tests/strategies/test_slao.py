"""SLAO against its rules in numpy: where a stage begins, and what answers after it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from peft import LoraConfig

from lifelong.errors import ConfigError
from lifelong.strategies import Stage
from lifelong.strategies.lora_layers import lora_layers
from lifelong.strategies.slao import SLAO, merged, orthonormal

ADAPTER = {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"], "rank_pattern": {"v_proj": 2}}


def stage_of(stream, index: int) -> Stage:
    return Stage.of(stream[(index - 1) % len(stream)], index)


def weights(model) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A and B of every layer."""
    return {
        name: tuple(part["default"].weight.detach().numpy().copy() for part in (layer.lora_A, layer.lora_B))
        for name, layer in lora_layers(model).items()
    }


def learn(model, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Stands for training: A and B move at random from where they are."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            for part in (layer.lora_A, layer.lora_B):
                part["default"].weight.add_(torch.randn(part["default"].weight.shape, generator=generator))
    return weights(model)


def gram_schmidt(A: np.ndarray) -> np.ndarray:
    """Row after row made orthogonal to those before it, and of length 1, in float64."""
    rows: list[np.ndarray] = []
    for row in A.astype(np.float64):
        for other in rows:
            row = row - (row @ other) * other
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


def test_the_orthonormal_factor_is_what_gram_and_schmidt_make_of_the_rows():
    A = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    Q = orthonormal(A)
    np.testing.assert_allclose(Q.numpy(), gram_schmidt(A.numpy()), atol=1e-5)
    np.testing.assert_allclose((Q @ Q.T).numpy(), np.eye(4), atol=1e-5)
    assert orthonormal(torch.tensor([[3.0, 4.0], [1.0, 0.0]])).tolist() == [
        pytest.approx([0.6, 0.8]),
        pytest.approx([0.8, -0.6]),
    ]


def test_B_is_merged_by_the_root_of_the_stage():
    new = torch.tensor([8.0, -2.0])
    assert merged(torch.tensor([4.0, 4.0]), new, 1).tolist() == [8.0, -2.0]
    assert merged(torch.tensor([4.0, 4.0]), new, 4).tolist() == [6.0, 1.0]


def test_three_stages_follow_the_rules_in_numpy(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(**ADAPTER))
    strategy, before = SLAO(), weights(learner.model)
    expected_B = {name: np.zeros_like(B) for name, (_, B) in before.items()}
    for index in (1, 2, 3):
        strategy.before_stage(learner, stage_of(tiny_stream, index))
        for name, (A, B) in weights(learner.model).items():
            last_A, last_B = before[name]
            np.testing.assert_allclose(A, last_A if index == 1 else gram_schmidt(last_A), atol=1e-5)
            np.testing.assert_allclose(B, last_B)
        before = learn(learner.model, index)
        strategy.after_stage(learner, stage_of(tiny_stream, index))
        for name, (A, B) in weights(learner.model).items():
            expected_B[name] += (before[name][1] - expected_B[name]) / np.sqrt(index)
            np.testing.assert_allclose(A, before[name][0])
            np.testing.assert_allclose(B, expected_B[name], atol=1e-6)


def test_one_stage_is_plain_training(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(**ADAPTER))
    strategy, begins = SLAO(), weights(learner.model)
    strategy.before_stage(learner, stage_of(tiny_stream, 1))
    assert all(np.array_equal(A, begins[name][0]) for name, (A, _) in weights(learner.model).items())
    ends = learn(learner.model, 1)
    strategy.after_stage(learner, stage_of(tiny_stream, 1))
    for name, pair in weights(learner.model).items():
        assert all(np.array_equal(*each) for each in zip(pair, ends[name], strict=True))


def test_the_state_survives_a_safe_load_and_the_next_stage_begins_the_same(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(**ADAPTER))
    strategy = SLAO()
    for index in (1, 2):
        strategy.before_stage(learner, stage_of(tiny_stream, index))
        learn(learner.model, index)
        strategy.after_stage(learner, stage_of(tiny_stream, index))
    file = io.BytesIO()
    torch.save(strategy.state_dict(), file)
    file.seek(0)
    twin = SLAO()
    twin.load_state_dict(torch.load(file, weights_only=True))
    other = make_learner(adapter=LoraConfig(**ADAPTER))
    other.load_state_dict(learner.state_dict())
    results = []
    for each, its in ((strategy, learner), (twin, other)):
        each.before_stage(its, stage_of(tiny_stream, 3))
        each.before_stage(its, stage_of(tiny_stream, 3))
        begins = weights(its.model)
        learn(its.model, 3)
        each.after_stage(its, stage_of(tiny_stream, 3))
        results.append([array for pairs in (begins, weights(its.model)) for pair in pairs.values() for array in pair])
    assert all(np.array_equal(*each) for each in zip(*results, strict=True))


def test_more_rows_than_inputs_are_refused(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(r=33, target_modules=["q_proj"]))
    with pytest.raises(ConfigError, match=r"SLAO: the adapter's rank 33 is more than the 32 inputs of .*q_proj"):
        SLAO().check(learner, [stage_of(tiny_stream, 1)])


def test_a_lora_that_is_more_than_a_and_b_is_refused(make_learner, tiny_stream):
    learner = make_learner(adapter=LoraConfig(**ADAPTER, use_dora=True))
    with pytest.raises(ConfigError, match="SLAO: needs a plain LoRA; leave the adapter's use_dora out"):
        SLAO().check(learner, [stage_of(tiny_stream, 1)])
