"""MIGU: only what answers strongly is updated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from lifelong.errors import ConfigError
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.checks import check_number
from lifelong.strategies.traits import Traits

if TYPE_CHECKING:
    from lifelong.learner import Learner


class MagnitudeMask(Strategy):
    """Update only the rows of weights whose outputs are largest (MIGU, arXiv 2406.17245).

    Of each linear layer the mean magnitude of every output is taken over the positions of all rows of an optimiser
    step. The rows of the weight, and the entries of the bias, that make the largest ``threshold`` of the outputs keep
    their gradient, and that of the others is zero. The magnitudes need no normalisation by their L1 norm for that,
    since it does not change which of a layer's are largest. The first stage is trained whole.

    All weights: linear layers except the language head, whose rows are tokens; what is no linear layer (embeddings,
    norms, a classifier's head) is updated whole. LoRA: the rows of A by A's outputs, those of B by the outputs of the
    whole layer with its adapter. The mean over positions, padding among them, the first stage, and the two rules for
    A and B are those of the authors' code (wenyudu/MIGU); the exception of the head is ours.

    What an optimiser does without a gradient, by its momentum or weight decay, it does to masked rows too, as in the
    authors' code.

    Args:
        threshold: share of each weight's rows that is updated, in (0, 1]; with 1 nothing is masked. The authors' code
            gives what is left out instead, 1 - threshold. The default of .3 is ours.
        name: see ``Strategy``.

    Cost: a step reads the outputs of the layers once more.
    """

    traits = Traits(adapters=("none", "LoRA"), boundary=True, step="as without, and a sum over each layer's outputs")

    def __init__(self, threshold: float = 0.3, name: str | None = None) -> None:
        super().__init__(name)
        self.threshold = threshold
        check_number(self, "threshold", "(0, 1]")
        self.sizes: list[OutputSizes] = []

    def check(self, learner: Learner, stages: Sequence[Stage]) -> None:
        if not watched(learner.model):
            raise ConfigError("MagnitudeMask: the model trains no linear layer, whose gradient could be masked")

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        self._forget()
        if stage.index > 1 and self.threshold < 1:
            self.sizes = [OutputSizes(*found) for found in watched(learner.model)]

    def on_before_optimizer_step(self, trainer: Any, learner: Learner, optimizer: torch.optim.Optimizer) -> None:
        for sizes in self.sizes:
            sizes.mask(self.threshold)

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        self._forget()

    def _forget(self) -> None:
        for sizes in self.sizes:
            sizes.remove()
        self.sizes = []


Masked = list[tuple[nn.Parameter, int]]  # parameters, and along which of their dimensions outputs run


class OutputSizes:
    """The magnitudes of a module's outputs since the last step, and the parameters that are masked by them.

    Args:
        module: whose last output dimension is n. Its passes count in training mode and where gradients flow.
        masked: parameters with n entries along the dimension given with each.
    """

    def __init__(self, module: nn.Module, masked: Masked) -> None:
        self.masked = masked
        self.total: torch.Tensor | None = None
        self._handle: RemovableHandle = module.register_forward_hook(self._note)

    def _note(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return
        values = output.detach().flatten(0, -2)
        total = torch.linalg.vector_norm(values, ord=1, dim=0, dtype=torch.float32)
        self.total = total if self.total is None else self.total + total

    def mask(self, share: float) -> None:
        """Set the gradient to zero outside of the largest share, and begin anew."""
        if self.total is None:
            return
        small = ~largest(self.total, share)
        for parameter, dimension in self.masked:
            if parameter.grad is not None:
                shape = [-1 if number == dimension else 1 for number in range(parameter.dim())]
                parameter.grad.masked_fill_(small.view(shape), 0)
        self.total = None

    def remove(self) -> None:
        """Look at the module no more."""
        self._handle.remove()


def largest(values: torch.Tensor, share: float) -> torch.Tensor:
    """Which of the n values (n,) are among the largest share, at least one; a boolean tensor."""
    count = max(1, round(share * len(values)))
    return torch.zeros_like(values, dtype=torch.bool).index_fill(0, values.topk(count).indices, True)


def watched(model: nn.Module) -> list[tuple[nn.Module, Masked]]:
    """The modules whose outputs decide, and the trained parameters that each decides about."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    found: list[tuple[nn.Module, Masked]] = []
    inside: set[nn.Module] = set()  # what belongs to a LoRA is not looked at twice
    for module in model.modules():
        if isinstance(module, LoraLayer):
            inside.update(part for kind in (module.lora_A, module.lora_B) for part in kind.values())
            for name in module.active_adapters:
                if name in module.lora_A and isinstance(module.lora_A[name], nn.Linear):
                    A, B = module.lora_A[name], module.lora_B[name]
                    found += [(A, _parameters(A)), (module, _parameters(B))]
        elif isinstance(module, nn.Linear | Conv1D) and module not in inside and module is not head:
            found.append((module, _parameters(module)))
    trained = [(module, [pair for pair in masked if pair[0].requires_grad]) for module, masked in found]
    return [(module, masked) for module, masked in trained if masked]


def _parameters(module: nn.Linear | Conv1D) -> Masked:
    weight = (module.weight, 1 if isinstance(module, Conv1D) else 0)
    return [weight] if module.bias is None else [weight, (module.bias, 0)]
