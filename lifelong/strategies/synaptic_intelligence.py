"""Synaptic intelligence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lifelong.strategies.anchor import Anchored, penalty_gradients, remembered
from lifelong.strategies.base import Stage
from lifelong.strategies.checks import check_number
from lifelong.strategies.traits import Traits
from lifelong.strategies.weights import Weights, trained

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from lifelong.learner import Learner


class PathIntegral:
    """How much each weight has lowered the loss on its way: the sum over steps of ``-gradient * change``.

    Args:
        parameters: by name; the way begins where they are.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self.start = list(remembered(parameters).values())
        self.path = [torch.zeros_like(one) for one in self.start]
        self._step: tuple[list[torch.Tensor], list[torch.Tensor]] | None = None

    def before_step(self, gradients: Sequence[torch.Tensor]) -> None:
        """The gradients of the loss where the parameters are now, one of each parameter's shape."""
        self._step = list(gradients), list(remembered(self.parameters).values())

    def after_step(self) -> None:
        """The parameters have moved."""
        if self._step is None:
            return
        (gradients, before), self._step = self._step, None
        torch._foreach_sub_(before, [one.detach() for one in self.parameters.values()])
        torch._foreach_addcmul_(self.path, gradients, before)

    def importance(self, damping: float) -> Weights:
        """``max(path, 0) / (change^2 + damping)`` over the whole way, by name; of Zenke et al. equation 5."""
        now = remembered(self.parameters)
        changes = torch._foreach_sub(list(now.values()), self.start)
        parts = zip(now, self.path, changes, strict=True)
        return {name: path.clamp(min=0) / (change.square() + damping) for name, path, change in parts}


class SynapticIntelligence(Anchored):
    """Pull weights to where the stage before left them, the harder the more they have lowered its loss.

    Zenke et al., "Continual learning through synaptic intelligence", 2017, https://arxiv.org/abs/1703.04200: while a
    stage is learned, each weight sums ``-gradient * change`` over the steps; after it ``omega = omega + sum / (change^2
    + damping)``, with the change over the whole stage, and from then on ``strength * sum omega (theta - theta*)^2``
    joins the loss.

    The gradient is that of the whole step before it is clipped, without this strategy's own penalty, whose gradient is
    subtracted in closed form. What other strategies and adapters add to the loss stays in it, and so does what those
    that are listed before have made of the gradient. A sum that is negative, of a weight that was moved against the
    loss, counts as 0: a negative importance would drive the weight away. That is ours.

    Args:
        strength: of the penalty; 0 changes nothing.
        damping: keeps importances bounded where a weight has hardly changed.
        name: see ``Strategy``.

    The defaults are ours.

    Cost: 8 bytes per trained parameter are kept, whatever the number of stages; while training, 16 more are held. Some
    passes over the trained parameters per step, and nothing after a stage.
    """

    traits = Traits(
        boundary=True,
        kept="8 * P",
        several_devices=True,
        step="some passes over the trained parameters more",
    )
    factor = 1.0

    def __init__(self, strength: float = 10.0, damping: float = 0.001, name: str | None = None) -> None:
        super().__init__(strength, name)
        self.damping = damping
        check_number(self, "damping", "(0, inf)")
        self._integral: PathIntegral | None = None

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        super().before_stage(learner, stage)
        self._integral = PathIntegral(trained(learner))

    def on_before_optimizer_step(self, trainer: Trainer, learner: Learner, optimizer: torch.optim.Optimizer) -> None:
        parameters = self._integral.parameters.values()
        # copies, since clipping writes into them
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad.clone() for one in parameters]
        gradients = [one.float() for one in gradients]
        if self.anchor is not None and self.strength:
            torch._foreach_sub_(gradients, penalty_gradients(*self.bound(learner), self.factor * self.strength))
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            for gradient in gradients:  # a step whose gradients overflowed is not taken, and changes nothing
                gradient.nan_to_num_(0.0, 0.0, 0.0)
        self._integral.before_step(gradients)

    def on_train_batch_end(self, trainer: Trainer, learner: Learner, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._integral.after_step()

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        self.keep(learner, self._integral.importance(self.damping))
        self._integral = None

    def step_state_dict(self) -> dict[str, Any]:
        return super().step_state_dict() | {"path": self._integral.path}

    def load_step_state_dict(self, state: dict[str, Any]) -> None:
        super().load_step_state_dict(state)
        self._integral.path = [
            one.to(here.device) for one, here in zip(state["path"], self._integral.path, strict=True)
        ]
