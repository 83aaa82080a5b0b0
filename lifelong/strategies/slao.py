"""SLAO: one LoRA, into which those of all stages are merged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from lifelong.adapter_folder import DEFAULT
from lifelong.errors import ConfigError
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.incremental_lora import CONFLICTS
from lifelong.strategies.lora_layers import check_plain, lora_layers
from lifelong.strategies.traits import Traits
from lifelong.strategies.weights import Weights

if TYPE_CHECKING:
    from lifelong.learner import Learner


class SLAO(Strategy):
    """One LoRA for all tasks: A begins orthonormal, B is merged after each stage (arXiv 2512.23017).

    Stage k begins with the orthonormal factor of the last trained A, ``A^T = Q R``, ``A <- Q^T``, and with the B that
    was trained last, not the merged one. After it ``B_merged += (B - B_merged) / sqrt(k)``, and the model answers with
    the A of this stage and the merged B. The first stage begins as PEFT does.

    The factor and the rule for B are the paper's; that B begins where its training ended, and which A answers, is what
    reviews of the paper say of it, and could not be verified in its text. That R's diagonal is positive, which makes Q
    the result of Gram and Schmidt and unique, is ours.

    When a stage begins, strategies that are listed before this one still see the weights that answered, later ones
    those that training begins with. A classifier's head is not merged.

    Cost: twice the LoRA's B and once its A on the CPU, at most 8 bytes per trained parameter, whatever the number of
    stages; a step takes no longer.
    """

    traits = Traits(
        adapters=("LoRA",),
        boundary=True,
        kept="at most 8 * P",
        several_devices=True,
        stage="a QR decomposition of r columns per layer, on the CPU",
    )
    conflicts = CONFLICTS

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name)
        self.next_A: Weights = {}  # by layer: where the next stage begins
        self.next_B: Weights = {}
        self.merged_B: Weights = {}

    def check(self, learner: Learner, stages: Sequence[Stage]) -> None:
        check_plain("SLAO", learner.model)
        for path, layer in lora_layers(learner.model).items():
            rank, inputs = layer.lora_A[DEFAULT].weight.shape
            if rank > inputs:
                raise ConfigError(f"SLAO: the adapter's rank {rank} is more than the {inputs} inputs of {path}")

    @torch.no_grad()
    def before_stage(self, learner: Learner, stage: Stage) -> None:
        if not self.next_A:
            return
        for path, layer in lora_layers(learner.model).items():
            layer.lora_A[DEFAULT].weight.copy_(self.next_A[path])
            layer.lora_B[DEFAULT].weight.copy_(self.next_B[path])

    @torch.no_grad()
    def after_stage(self, learner: Learner, stage: Stage) -> None:
        for path, layer in lora_layers(learner.model).items():
            A, B = (part[DEFAULT].weight.detach().to("cpu", copy=True) for part in (layer.lora_A, layer.lora_B))
            self.next_A[path], self.next_B[path] = orthonormal(A), B
            self.merged_B[path] = merged(self.merged_B.get(path, torch.zeros_like(B)), B, stage.index)
            layer.lora_B[DEFAULT].weight.copy_(self.merged_B[path])

    def state_dict(self) -> dict[str, Any]:
        return {"next_A": self.next_A, "next_B": self.next_B, "merged_B": self.merged_B}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.next_A, self.next_B = dict(state_dict["next_A"]), dict(state_dict["next_B"])
        self.merged_B = dict(state_dict["merged_B"])


def orthonormal(A: torch.Tensor) -> torch.Tensor:
    """Rows that are orthonormal and span what the first rows of A span, each for itself.

    Args:
        A: (r, in), r at most in.

    Returns:
        Q^T of ``A^T = Q R`` with a positive diagonal of R; (r, in).
    """
    Q, R = torch.linalg.qr(A.float().T)
    signs = torch.where(R.diagonal() < 0, -1.0, 1.0)
    return (Q * signs).T.to(A.dtype).contiguous()


def merged(before: torch.Tensor, new: torch.Tensor, stage: int) -> torch.Tensor:
    """The merged B after a stage, counted from 1, whose own B is ``new``."""
    return before + (new - before) / math.sqrt(stage)
