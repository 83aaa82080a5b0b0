"""A pull of the weights towards an anchor, stronger where they are important: what several methods have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from lifelong.errors import RunError
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.checks import check_number
from lifelong.strategies.weights import Weights, trained

if TYPE_CHECKING:
    from lifelong.learner import Learner

Tensors = Sequence[torch.Tensor]


def penalty(parameters: Tensors, anchors: Tensors, importances: Tensors | None, scale: float) -> torch.Tensor:
    """``scale * sum importance * (theta - anchor)^2``, 0-dim, in float32, with its gradient for the parameters.

    Args:
        parameters: theta.
        anchors: of the same shapes, in float32, as are the importances.
        importances: of the same shapes; ``None`` counts every weight as 1.
        scale: of the sum.
    """
    return _Penalty.apply(anchors, importances, scale, *parameters)


def penalty_gradients(
    parameters: Tensors, anchors: Tensors, importances: Tensors | None, scale: float
) -> list[torch.Tensor]:
    """``2 * scale * importance * (theta - anchor)``, in float32; arguments as for ``penalty``."""
    _, weighted = _weighted_distances([one.detach() for one in parameters], anchors, importances)
    return list(torch._foreach_mul(weighted, 2 * scale))


def _weighted_distances(parameters: Tensors, anchors: Tensors, importances: Tensors | None) -> tuple[Tensors, Tensors]:
    """``theta - anchor``, and the same times the importance."""
    distances = torch._foreach_sub(list(parameters), list(anchors))
    return distances, distances if importances is None else torch._foreach_mul(distances, list(importances))


class _Penalty(torch.autograd.Function):
    """One look at the weights serves value and gradient: a graph of the formula takes about twice as long."""

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensors, importances: Tensors | None, scale: float, *parameters: torch.Tensor
    ) -> torch.Tensor:
        distances, weighted = _weighted_distances(parameters, anchors, importances)
        ctx.weighted, ctx.scale, ctx.dtypes = weighted, scale, [one.dtype for one in parameters]
        sums = [torch.dot(one.flatten(), other.flatten()) for one, other in zip(distances, weighted, strict=True)]
        return scale * torch.stack([one.to(sums[0].device) for one in sums]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[Any, ...]:
        factor = 2 * ctx.scale * upstream
        gradients = (one * factor.to(one.device) for one in ctx.weighted)
        return None, None, None, *(one.to(dtype) for one, dtype in zip(gradients, ctx.dtypes, strict=True))


def remembered(parameters: Mapping[str, nn.Parameter]) -> Weights:
    """Copies in float32, where the parameters are: what an anchor is made of."""
    return {name: one.detach().float().clone(memory_format=torch.contiguous_format) for name, one in parameters.items()}


def merged(before: Weights | None, new: Weights, decay: float) -> Weights:
    """``decay * before + new`` of the same names; ``before`` is ``None`` where there is nothing yet."""
    return new if before is None else {name: one + decay * before[name] for name, one in new.items()}


def fitted(
    weights: Weights, parameters: Mapping[str, nn.Parameter], fill: Callable[[torch.Tensor], torch.Tensor]
) -> Weights:
    """What is remembered of some parameters, where these are now, in the order in which they are.

    Args:
        weights: remembered, by name.
        parameters: by name.
        fill: what to remember of the last rows of a parameter, those by which a classifier's head has grown since.

    Raises:
        RunError: what is remembered is of other parameters.
    """
    found = {}
    for name, parameter in parameters.items():
        kept = weights.get(name)
        if kept is not None and kept.shape != parameter.shape and kept.shape[1:] == parameter.shape[1:]:
            kept = torch.cat([kept.to(parameter.device), fill(parameter.detach()[len(kept) :])])
        if kept is None or kept.shape != parameter.shape:
            raise RunError(f"weights of another model are remembered: none is {name} of shape {tuple(parameter.shape)}")
        found[name] = kept.to(parameter.device)
    return found


OTHER_WEIGHTS = "it remembers trained weights from stage to stage, and there they are frozen or begun anew"


class Anchored(Strategy):
    """A strategy that adds ``scale * sum importance * (theta - anchor)^2`` to the loss, once it has an anchor.

    Its gradient is known, so the penalty takes a few passes over the trained weights, forwards and backwards together.
    It is part of the loss and not of the gradient alone: it is logged, clipped and scaled with everything else, and
    under accumulation each micro-batch brings it once.

    Attributes:
        anchor: weights by name, in float32; ``None`` before there are any.
        importance: the same; ``None`` for strategies that count every weight as 1.
    """

    conflicts = dict.fromkeys(("IncrementalLoRA", "OrthogonalLoRA", "SLAO"), OTHER_WEIGHTS)
    factor: ClassVar[float] = 0.5  # between strength and scale, as in the method's paper

    def __init__(self, strength: float, name: str | None = None) -> None:
        super().__init__(name)
        self.strength = strength
        check_number(self, "strength")
        self.anchor: Weights | None = None
        self.importance: Weights | None = None
        self._bound: tuple[Tensors, Tensors, Tensors | None] | None = None

    def check(self, learner: Learner, stages: Sequence[Stage]) -> None:
        trained(learner)

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        self._bound = None

    def loss(self, learner: Learner, batch: dict[str, Any], outputs: Any, loss: torch.Tensor) -> torch.Tensor:
        if self.strength == 0 or self.anchor is None:
            return loss
        return loss + penalty(*self.bound(learner), self.factor * self.strength).to(loss.device)

    def bound(self, learner: Learner) -> tuple[Tensors, Tensors, Tensors | None]:
        """The stage's parameters, their anchors and their importances; looked up once per stage."""
        if self._bound is None:
            parameters = trained(learner)
            self.anchor = fitted(self.anchor, parameters, torch.Tensor.float)
            if self.importance is not None:
                self.importance = fitted(self.importance, parameters, lambda new: torch.zeros_like(new).float())
            importances = None if self.importance is None else list(self.importance.values())
            self._bound = list(parameters.values()), list(self.anchor.values()), importances
        return self._bound

    def keep(self, learner: Learner, importance: Weights, decay: float = 1.0) -> None:
        """Make the learner's weights the anchor, and add their importance to what is left of that before."""
        if self.anchor is not None:
            self.bound(learner)  # a head may have grown
        self.importance = merged(self.importance, importance, decay)
        self.anchor, self._bound = remembered(trained(learner)), None

    def state_dict(self) -> dict[str, Any]:
        return {"anchor": self.anchor, "importance": self.importance}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.anchor, self.importance = state_dict["anchor"], state_dict["importance"]
        self._bound = None
