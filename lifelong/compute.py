"""How much is computed while a stage is learned: positions that go through the model, and FLOPs by formula."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from lifelong.distributed import from_all

if TYPE_CHECKING:
    from lifelong.learner import Learner

TRAINED, PASSED = "trained", "passed"  # with gradients, and without
READ, ANSWERED = "read", "answered"
# in the models of T5's and of BART's kind
_CROSS_KEYS_VALUES = re.compile(r"\.(EncDecAttention\.[kv]|encoder_attn\.[kv]_proj)$")


class Flops(NamedTuple):
    """Per position: of a pass forward, and of one forward and backward."""

    forward: int
    training: int

    def __sub__(self, other: Flops) -> Flops:
        return Flops(self.forward - other.forward, self.training - other.training)


def note_pass(positions: Counter[str], read: int, answered: int, trained: bool) -> None:
    """Count a pass through the model.

    Args:
        positions: of a learner.
        read: positions of all rows of its input, padding included.
        answered: positions with logits; of an encoder-decoder those of the decoder.
        trained: whether gradients are recorded.
    """
    way = TRAINED if trained else PASSED
    positions[f"{way} {READ}"] += read
    positions[f"{way} {ANSWERED}"] += answered


def positions_of_all(learner: Learner) -> Counter[str]:
    """Those of all processes."""
    return sum(from_all(learner.positions), Counter())


def flops_per_position(learner: Learner) -> dict[str, Flops] | None:
    """FLOPs of products with weights, as ``lifelong.adapters.account`` counts them, where each is computed.

    A causal model reads with all layers but its head, which computes logits where some row of the batch answers. An
    encoder-decoder reads with its encoder, and with the keys and values that its decoder makes of what was read, and
    answers with the rest. An encoder reads, and its classifier is too small to count.

    Returns:
        By ``READ`` and ``ANSWERED``; ``None`` where the adapter is of a kind that is not known there.
    """
    base = learner.model.get_base_model() if hasattr(learner.model, "get_base_model") else learner.model
    whole = _flops([learner.model])
    if whole is None:
        return None
    if learner.family.name == "seq2seq":
        over_encoder = [module for name, module in base.named_modules() if _CROSS_KEYS_VALUES.search(name)]
        read = _flops([base.get_encoder(), *over_encoder])
        return {READ: read, ANSWERED: whole - read}
    head = base.get_output_embeddings() if "logits_to_keep" in learner.forward_parameters else None
    answered = _flops([] if head is None else [head])
    return {READ: whole - answered, ANSWERED: answered}


def train_costs(learner: Learner, rates: dict[str, Flops] | None) -> dict[str, int | None]:
    """What learning the current stage took so far.

    ``train_tokens`` are all positions that went through the model: padding, rows of strategies, and passes of their own
    included, of an encoder-decoder both sequences. ``train_flops`` is the sum over positions of ``rates``: forward and
    backward for passes with gradients, forward alone for others, such as those of teachers, and for what is written.
    Left out are products of attention between tokens, what is computed anew under gradient checkpointing, optimisers,
    and what strategies compute beside the model.

    Args:
        learner: after the stage, in every process.
        rates: as of ``flops_per_position`` while it was learned.
    """
    positions = positions_of_all(learner)
    sequences = (READ, ANSWERED) if learner.family.name == "seq2seq" else (READ,)
    tokens = sum(positions[f"{way} {where}"] for way in (TRAINED, PASSED) for where in sequences)
    if rates is None:
        return {"train_tokens": tokens, "train_flops": None}
    flops = sum(
        positions[f"{TRAINED} {where}"] * rate.training + positions[f"{PASSED} {where}"] * rate.forward
        for where, rate in rates.items()
    )
    return {"train_tokens": tokens, "train_flops": flops}


def _flops(modules: Iterable[nn.Module]) -> Flops | None:
    whole = nn.ModuleList(modules)
    if not any(isinstance(module, BaseTunerLayer) for module in whole.modules()):  # need not load what adapters need
        linears = [module for module in whole.modules() if isinstance(module, nn.Linear | Conv1D)]
        sizes = [
            2 * (one.nx * one.nf if isinstance(one, Conv1D) else one.in_features * one.out_features) for one in linears
        ]
        times = [3 if one.weight.requires_grad else 2 for one in linears]
        return Flops(sum(sizes), sum(map(operator.mul, sizes, times)))
    from lifelong.adapters.accounting import account

    cost = account(whole).trained
    return None if cost.training_flops is None else Flops(cost.forward_flops, cost.training_flops)
