"""O-LoRA: every task learns in directions of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch

from lifelong.adapter_folder import DEFAULT
from lifelong.strategies.base import Stage
from lifelong.strategies.checks import check_number
from lifelong.strategies.incremental_lora import EARLIER, IncrementalLoRA
from lifelong.strategies.lora_layers import lora_layers
from lifelong.strategies.traits import Traits

if TYPE_CHECKING:
    from lifelong.learner import Learner


class OrthogonalLoRA(IncrementalLoRA):
    """A new LoRA per task, whose A is pushed to be orthogonal to those of all tasks before (O-LoRA, arXiv 2310.14152).

    To the loss of ``IncrementalLoRA`` it adds ``lambda1 * sum |A_i A^T| + lambda2 * sum ||W||``: the first over layers,
    earlier tasks i and entries of the (r, r) products, the second over the Frobenius norms, not squared, of the new A
    and B of every layer. So it is in the authors' code (cmnfriend/O-LoRA); how the paper itself writes the two terms
    could not be verified. Both are sums over layers, and grow with depth.

    Args:
        lambda1: of orthogonality; .5 in the authors' runs.
        lambda2: of the norms; 0 to .3 in the authors' runs, by task. The default of 0 is ours.
        name: see ``Strategy``.

    Cost: as ``IncrementalLoRA``, and one batched product per shape of layer, (S r, in) by (in, r), in every step. The
    earlier A are kept once more, stacked, while a stage is trained.
    """

    traits = Traits(
        adapters=("LoRA",),
        boundary=True,
        kept="at most 4 * P * S",
        grows=True,
        several_devices=True,
        step="as IncrementalLoRA, and one product of the earlier A with the new one",
        stage="the new LoRA is copied to the earlier ones",
    )

    def __init__(self, lambda1: float = 0.5, lambda2: float = 0.0, name: str | None = None) -> None:
        super().__init__(name)
        self.lambda1, self.lambda2 = lambda1, lambda2
        check_number(self, "lambda1")
        check_number(self, "lambda2")
        self._pairs: list[tuple[torch.Tensor, list[torch.Tensor]]] = []
        self._weights: list[list[torch.Tensor]] = []

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        super().before_stage(learner, stage)
        layers = lora_layers(learner.model).values()
        met = [
            (layer.lora_A[EARLIER].weight.detach(), layer.lora_A[DEFAULT].weight)
            for layer in layers
            if self.lambda1 and EARLIER in layer.lora_A
        ]
        self._pairs = [
            (torch.stack([old for old, _ in group]).float(), [new for _, new in group])
            for group in alike(met, key=lambda pair: pair)
        ]
        new = [part[DEFAULT].weight for layer in layers for part in (layer.lora_A, layer.lora_B) if self.lambda2]
        self._weights = alike(new, key=lambda weight: (weight,))

    def loss(self, learner: Learner, batch: dict[str, Any], outputs: Any, loss: torch.Tensor) -> torch.Tensor:
        with torch.autocast(loss.device.type, enabled=False):
            for old, new in self._pairs:
                loss = loss + self.lambda1 * overlap(old, torch.stack(new).float()).to(loss.device)
            for weights in self._weights:
                loss = loss + self.lambda2 * norms(torch.stack(weights).float()).to(loss.device)
        return loss

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        super().after_stage(learner, stage)
        self._pairs, self._weights = [], []


def overlap(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """The sum of |A_old A_new^T| over all entries.

    Args:
        old: (L, R, in), the earlier A of L layers.
        new: (L, r, in).
    """
    return torch.bmm(old, new.transpose(1, 2)).abs().sum()


def norms(weights: torch.Tensor) -> torch.Tensor:
    """The sum of the Frobenius norms of L matrices, (L, rows, columns); its gradient is 0 where a matrix is."""
    return torch.linalg.vector_norm(weights, dim=(1, 2)).sum()


def alike(items: Iterable[Any], key: Callable[[Any], Iterable[torch.Tensor]]) -> list[list[Any]]:
    """Items in groups, in which the tensors of each have the same shapes and are on the same devices."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        groups[tuple((tensor.shape, tensor.device) for tensor in key(item))].append(item)
    return list(groups.values())
