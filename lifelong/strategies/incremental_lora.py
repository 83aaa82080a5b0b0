"""A new LoRA for every task."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer

from lifelong.adapter_folder import DEFAULT, activate, add_adapter
from lifelong.errors import ConfigError
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.lora_layers import check_plain, lora_layers
from lifelong.strategies.traits import Traits

if TYPE_CHECKING:
    from lifelong.learner import Learner

EARLIER = "earlier"  # the adapter that holds the LoRAs of all stages so far
RESET = "each stage begins a new LoRA, and what is remembered of the weights of an earlier one says nothing of it"
OWN = "both decide what becomes of a stage's LoRA"
CONFLICTS = {
    **dict.fromkeys(("EWC", "SynapticIntelligence", "MAS", "L2Anchor"), RESET),
    **dict.fromkeys(("IncrementalLoRA", "OrthogonalLoRA", "SLAO", "ModelMerging"), OWN),
}


class IncrementalLoRA(Strategy):
    """A new LoRA per task beside the frozen ones of all tasks before (IncLoRA, as compared with in arXiv 2310.14152).

    After k stages ``h = W x + sum_i s B_i A_i x``, with ``s`` the adapter's scaling. The adapter ``default`` is the one
    that is trained; each stage begins it anew, A drawn as PEFT would and B zero. The adapter ``earlier`` holds those of
    all stages, concatenated to one LoRA of k times the rank and the scaling 1, so that a layer takes two products
    whatever the number of tasks. It has no dropout, as the frozen layer has none. A stage's folder ``adapter`` is that
    one, a complete standard LoRA, which ``PeftModel.from_pretrained`` loads and another run goes on with; the new LoRA,
    in ``adapter/default``, adds nothing to it.

    A classifier's head is one for all tasks, and goes on being trained.

    ``LwF`` and other teachers are right beside it where they remember the weights in ``before_stage``: the new LoRA is
    zero then, and the earlier ones answer.

    Cost: one LoRA more per stage, in memory and on disk; a step multiplies by a rank that grows with the stages.
    """

    traits = Traits(
        adapters=("LoRA",),
        boundary=True,
        kept="at most 4 * P * S",
        grows=True,
        several_devices=True,
        step="as without, and a second LoRA whose rank grows with the number of stages",
        stage="the new LoRA is copied to the earlier ones",
    )
    conflicts = CONFLICTS

    def check(self, learner: Learner, stages: Sequence[Stage]) -> None:
        name = type(self).__name__
        check_plain(name, learner.model)
        drawn = learner.model.peft_config[DEFAULT].init_lora_weights
        if drawn is not True and drawn != "gaussian":
            raise ConfigError(
                f"{name}: the adapter's init_lora_weights must be True or 'gaussian', and is {drawn!r}: each stage "
                "begins a new LoRA that adds nothing"
            )
        new = [layer.lora_B[DEFAULT].weight for layer in lora_layers(learner.model).values()]
        if any(not weight.is_meta and weight.any() for weight in new):  # values of a dry run are not there
            raise ConfigError(
                f"{name}: the adapter has been trained already, and each stage begins a new one; merge it into the "
                "model first, and begin with a fresh LoraConfig"
            )

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        generator = stage.generator(f"{self.state_key}/A")
        kind = learner.model.peft_config[DEFAULT].init_lora_weights
        for layer in lora_layers(learner.model).values():
            begin(layer, kind, generator)

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        fold(learner.model)


def begin(layer: LoraLayer, kind: bool | str, generator: torch.Generator) -> None:
    """A fresh LoRA in place of the default adapter's: B is zero, A drawn.

    Args:
        layer: of PEFT.
        kind: ``"gaussian"`` for a standard deviation of 1 / r; ``True`` for Kaiming-uniform with a = sqrt(5), which
            is uniform between -1 / sqrt(in) and 1 / sqrt(in).
        generator: on the CPU.
    """
    A = layer.lora_A[DEFAULT].weight
    if kind == "gaussian":
        drawn = torch.empty(A.shape).normal_(std=1 / len(A), generator=generator)
    else:
        bound = 1 / math.sqrt(A.shape[1])
        drawn = torch.empty(A.shape).uniform_(-bound, bound, generator=generator)
    with torch.no_grad():
        A.copy_(drawn)
        layer.lora_B[DEFAULT].weight.zero_()


@torch.no_grad()
def fold(model: PeftModel) -> None:
    """Concatenate the default adapter to the earlier ones, and let it add nothing: what the model computes stays.

    Args:
        model: with a LoRA ``default``, and ``earlier`` if there is any.
    """
    pairs = {name: _joined(layer) for name, layer in lora_layers(model).items()}
    new = model.peft_config[DEFAULT]
    parts = model.peft_config[EARLIER].r // new.r if EARLIER in model.peft_config else 0
    add_adapter(model, EARLIER, _of_several(new, parts + 1))
    for name, layer in lora_layers(model).items():
        A, B = pairs[name]
        layer.lora_A[EARLIER].weight.copy_(A)
        layer.lora_B[EARLIER].weight.copy_(B)
        layer.lora_B[DEFAULT].weight.zero_()
    activate(model, active=[EARLIER, DEFAULT], trained=[DEFAULT])


def _joined(layer: LoraLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """A (R + r, in) and B (out, R + r) of a layer's earlier LoRAs, of rank R in all, and its new one, scaled."""
    A, B = layer.lora_A[DEFAULT].weight, layer.lora_B[DEFAULT].weight * layer.scaling[DEFAULT]
    if EARLIER not in layer.lora_A:
        return A, B
    return torch.cat([layer.lora_A[EARLIER].weight, A]), torch.cat([layer.lora_B[EARLIER].weight, B], 1)


def _of_several(config: LoraConfig, parts: int) -> LoraConfig:
    """The configuration of so many LoRAs as one: in every layer as many times the rank, and the scaling 1."""
    config = copy.deepcopy(config)
    config.r *= parts
    config.rank_pattern = {pattern: rank * parts for pattern, rank in config.rank_pattern.items()}
    config.lora_alpha, config.alpha_pattern = config.r, dict(config.rank_pattern)
    config.use_rslora, config.lora_dropout, config.init_lora_weights = False, 0.0, True
    return config
