"""What A-GEM and GEM share: a gradient is projected part by part, wherever its parts are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from lifelong.strategies.agem import agem_weight
from lifelong.strategies.episodes import Projection, add_to_gradient
from lifelong.strategies.gem import gem_weights


class Elsewhere(torch.Tensor):
    """A tensor on another device than the CPU: no operation takes it together with one that is there, but to copy."""

    @staticmethod
    def __new__(cls, value: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(cls, value.shape, dtype=value.dtype, device="meta")
        made.value = value
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        tensors = [one for one in tree_leaves((arguments, named)) if torch.is_tensor(one)]
        if not all(isinstance(one, cls) for one in tensors):
            raise RuntimeError("tensors on two devices")
        arguments, named = tree_map(
            lambda one: one.value if isinstance(one, cls) else one, (arguments, dict(named or {}))
        )
        result = operation(*arguments, **named)
        moves = torch.device(named.get("device") or "meta").type == "cpu"
        return result if moves else tree_map(lambda one: cls(one) if torch.is_tensor(one) else one, result)


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def spread(parts: torch.Tensor) -> list[torch.Tensor]:
    """Three parts, the middle one elsewhere."""
    return [parts[0], Elsewhere(parts[1]), parts[2]]


def test_here_and_elsewhere_cannot_be_joined():
    with pytest.raises(RuntimeError, match="two devices"):
        torch.cat(spread(vectors(3, 2)))
    assert torch.equal(Elsewhere(torch.ones(2)).cpu(), torch.ones(2))


def test_the_parts_of_a_gradient_may_be_on_several_devices():
    gradient, references = vectors(3, 2, 4), -vectors(3, 2, 4)[None] + vectors(2, 3, 2, 4, seed=1)
    weight, weights = agem_weight(gradient, references[0]), gem_weights(gradient, references)
    assert weight and all(weights)
    assert agem_weight(spread(gradient), spread(references[0])) == pytest.approx(weight, rel=1e-12)
    assert gem_weights(spread(gradient), [spread(one) for one in references]) == pytest.approx(weights, rel=1e-9)


def test_a_vector_in_parts_has_the_weights_of_the_whole():
    gradient, references = vectors(24), -vectors(24)[None] + vectors(2, 24, seed=1)
    sizes = [1, 20, 3]
    parts = [one.split(sizes) for one in references]
    # the formula, for one reference
    weight = -(gradient @ references[0]) / (references[0] @ references[0])
    assert agem_weight(gradient.split(sizes), parts[0]) == pytest.approx(float(weight), rel=1e-12)
    # and for two, both of which hold: G (g + G^T v) = 0
    weights = gem_weights(gradient.split(sizes), parts)
    expected = torch.linalg.solve(references @ references.T, -references @ gradient)
    assert (expected > 0).all()
    assert weights == pytest.approx(expected.tolist(), rel=1e-9)


def test_the_weighted_references_join_the_gradient_each_where_it_belongs():
    parameters = [nn.Parameter(torch.zeros(size)) for size in (2, 1, 1)]
    parameters[0].grad = torch.tensor([1.0, 2.0])
    references = [
        [torch.tensor([1.0, 0.0]), torch.tensor([4.0]), torch.tensor([0.0])],
        [torch.tensor([0.0, 1.0]), torch.tensor([1.0]), torch.tensor([0.0])],
    ]
    add_to_gradient(parameters, references, [0.5, 3.0])
    assert parameters[0].grad.tolist() == [1.5, 5.0]
    assert parameters[1].grad.tolist() == [5.0]
    assert parameters[2].grad is None


def test_a_gradient_of_half_precision_is_rounded_once():
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    parameter.grad = torch.ones(1, dtype=torch.bfloat16)
    step = 2.0**-8  # half of the distance from 1 to the next number above it in bfloat16
    add_to_gradient([parameter], [[torch.tensor([step])]] * 3, [1.0, 1.0, 1.0])
    assert parameter.grad.item() == 1 + 4 * step  # 1 + 3 steps lies between 1 + 2 and 1 + 4, and is rounded to even


def test_what_projects_must_say_on_what_and_how_far():
    with pytest.raises(TypeError, match="abstract"):
        Projection(8, None, None)
