"""The pull towards an anchor: autograd on the written formula is the oracle."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lifelong.errors import RunError
from lifelong.strategies.anchor import fitted, merged, penalty, penalty_gradients, remembered

SHAPES = [(3, 2), (4,), ()]


def tensors(seed: int, dtype=torch.float32) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=draw).to(dtype) for shape in SHAPES]


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_value_and_gradient_are_those_of_the_formula(weighted, scale):
    anchors, importances = tensors(1), tensors(2) if weighted else None
    ours, plain = ([one.requires_grad_() for one in tensors(0)] for _ in range(2))
    weights = importances or [torch.ones(shape) for shape in SHAPES]
    expected = scale * sum((f * (p - a) ** 2).sum() for f, p, a in zip(weights, plain, anchors, strict=True))
    found = penalty(ours, anchors, importances, scale)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    (expected / 4).backward()
    (found / 4).backward()
    in_closed_form = penalty_gradients(ours, anchors, importances, scale)
    for one, other, known in zip(ours, plain, in_closed_form, strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-6)
        assert torch.allclose(known / 4, other.grad, rtol=1e-6)


def test_weights_of_half_precision_are_anchored_in_float32():
    parameters = [one.requires_grad_() for one in tensors(0, torch.bfloat16)]
    named = {str(number): nn.Parameter(one.detach()) for number, one in enumerate(parameters)}
    assert all(one.dtype == torch.float32 for one in remembered(named).values())
    # importances so small that bfloat16 would do, and distances that it would round away
    anchors = [one.detach().float() + 2**-12 for one in parameters]
    found = penalty(parameters, anchors, tensors(1), 1.0)
    assert found.item() == pytest.approx(sum(one.sum().item() for one in tensors(1)) * 2**-24, rel=1e-5)
    found.backward()
    assert all(one.grad.dtype == torch.bfloat16 and one.grad.abs().sum() > 0 for one in parameters)


def test_the_penalty_is_in_float32_under_autocast_too():
    parameters = [one.requires_grad_() for one in tensors(0)]
    plain = penalty(parameters, tensors(1), tensors(2), 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(penalty(parameters, tensors(1), tensors(2), 1.0), plain)


def test_importances_are_merged_with_decay():
    new, before = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([4.0, 8.0])}
    assert merged(None, new, 0.5)["a"].tolist() == [1, 2]
    assert merged(before, new, 0.5)["a"].tolist() == [3, 6]
    assert merged(before, new, 0.0)["a"].tolist() == [1, 2]


def test_rows_by_which_a_head_has_grown_are_filled():
    parameters = {"head": nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))}
    kept = {"head": torch.tensor([[7.0, 8.0]])}
    assert fitted(kept, parameters, torch.Tensor.float)["head"].tolist() == [[7, 8], [3, 4]]
    assert fitted(kept, parameters, torch.zeros_like)["head"].tolist() == [[7, 8], [0, 0]]


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (2,)])
def test_what_is_remembered_of_another_model_is_refused(shape):
    parameters = {"a": nn.Parameter(torch.zeros(2, 2))}
    with pytest.raises(RunError, match="none is a of shape"):
        fitted({"a": torch.zeros(shape)}, parameters, torch.zeros_like)
    with pytest.raises(RunError, match="none is a of shape"):
        fitted({"b": torch.zeros(2, 2)}, parameters, torch.zeros_like)
