"""Dropout and a linear map in one, which keeps its input once."""

import pytest
import torch
from torch.nn.functional import dropout, linear

from lifelong.adapters.dropped import DroppedLinear

RATE = 0.4


def values(kind=torch.float64):
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(30, 7, generator=draw, dtype=kind), torch.randn(5, 7, generator=draw, dtype=kind)
    return x.requires_grad_(), weight.requires_grad_(), torch.randn(30, 5, generator=draw, dtype=kind)


def gradients(way, x, weight, upstream):
    torch.manual_seed(1)
    output = way(x, weight)
    return output, *torch.autograd.grad(output, (x, weight), upstream.to(output.dtype))


def test_it_is_dropout_followed_by_linear():
    ours = gradients(lambda x, weight: DroppedLinear.apply(x, weight, RATE), *values())
    torchs = gradients(lambda x, weight: linear(dropout(x, RATE), weight), *values())
    for own, other in zip(ours, torchs, strict=True):
        assert torch.allclose(own, other, atol=1e-12)


def test_one_of_two_may_be_frozen():
    x, weight, upstream = values()
    _, along, across = gradients(lambda x, weight: DroppedLinear.apply(x, weight, RATE), x, weight, upstream)
    for frozen, other, wanted in ((x, weight, across), (weight, x, along)):
        frozen.requires_grad_(False)
        torch.manual_seed(1)
        assert torch.equal(torch.autograd.grad(DroppedLinear.apply(x, weight, RATE), other, upstream)[0], wanted)
        frozen.requires_grad_()


def test_what_is_kept_is_the_input_itself_and_a_mask_of_bytes():
    x, weight, _ = values()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        DroppedLinear.apply(x, weight, RATE)
    assert {tensor.data_ptr() for tensor in kept} >= {x.data_ptr(), weight.data_ptr()}
    others = [tensor for tensor in kept if tensor.data_ptr() not in (x.data_ptr(), weight.data_ptr())]
    assert [tensor.dtype for tensor in others] == [torch.bool]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_gradients_under_autocast_are_of_the_types_of_what_they_belong_to(kind):
    x, weight, upstream = values(torch.float32)
    x = x.detach().to(kind).requires_grad_()
    exact = gradients(
        lambda x, weight: DroppedLinear.apply(x, weight, RATE), x.detach().float().requires_grad_(), weight, upstream
    )
    with torch.autocast("cpu", torch.bfloat16):
        output, along, across = gradients(lambda x, weight: DroppedLinear.apply(x, weight, RATE), x, weight, upstream)
    assert (output.dtype, along.dtype, across.dtype) == (torch.bfloat16, kind, torch.float32)
    for rounded, wanted in ((along, exact[1]), (across, exact[2])):
        assert (rounded - wanted).norm() < 0.02 * wanted.norm()
