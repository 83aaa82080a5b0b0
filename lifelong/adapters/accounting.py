"""What an adapter costs in parameters, bytes and floating-point operations, beside LoRA and full fine-tuning."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from peft import get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from lifelong.adapters.layer import Mixture, MixtureLayer, linear_features
from lifelong.adapters.targets import outer_modules


@dataclass(frozen=True)
class Cost:
    """What one way of training a model takes; see ``account`` for how it is counted.

    Attributes:
        rank: where the way is LoRA, and all of its layers have the same.
        parameters: trained.
        bytes: of the trained parameters, by their type, such as ``{"float32": 1024}``.
        saved_bytes: tensors of what is kept: the adapter, or the whole model.
        forward_flops: per token; ``None`` where the adapter is of a kind that is not known here.
        training_flops: per token, forward and backward pass; ``None`` as above.
    """

    rank: int | None
    parameters: int
    bytes: dict[str, int]
    saved_bytes: int
    forward_flops: int | None
    training_flops: int | None


@dataclass(frozen=True)
class Account:
    """What training a model takes, as it is and in other ways.

    Attributes:
        method: name of the adapter's configuration; ``None`` without one.
        layers: linear layers with an adapter.
        base_flops: forward, per token, of the base's linear layers alone.
        adapter_flops: forward, per token, of what stands beside them, as it is computed; ``None`` where not known.
        answering_flops: of these, what the routers take and those experts that answer for a token.
        trained: the model as it is.
        lora_total_rank: LoRA on the same layers, of the rank that all experts have together; ``None`` where the adapter
            is no mixture of LoRA experts.
        lora_rank: LoRA on the same layers, of the rank of one expert; ``None`` as above.
        full: full fine-tuning of the base.
    """

    method: str | None
    layers: int
    base_flops: int
    adapter_flops: int | None
    answering_flops: int | None
    trained: Cost
    lora_total_rank: Cost | None
    lora_rank: Cost | None
    full: Cost


def account(model: nn.Module) -> Account:
    """Count what training ``model`` takes, by formula: nothing is run.

    FLOPs are those of products with the weights of linear layers, per token that passes through every layer (for an
    encoder-decoder: a token read and a token answered); a multiplication with its addition counts as 2. Left out are
    attention's products between tokens, normalisation, gating and softmax. For a layer of n inputs and m outputs:

    =================================  =============================================
    the layer itself                   ``2 n m``
    LoRA of rank r                     ``2 r (n + m)``
    E experts of rank r                ``2 (E r (n + m) + E n)``: A, B, and the router
    the k of them that answer          ``2 (k r (n + m) + E n)``
    E full-rank experts                ``2 (E n m + E n)``
    =================================  =============================================

    A mixture computes all experts in two products and scales those that do not answer by zero, so that dense and top-k
    routing cost the same. Backwards, each product is taken again for the gradient of its input, and for trained weights
    once more for their own: forward and backward pass together take twice the forward pass of a frozen layer, and three
    times that of a trained one. It is counted as if gradients went down to the model's input; below the first adapted
    layer none are needed, so that somewhat less is computed in fact. A layer that a model runs several times, as ALBERT
    does, is counted once.

    Full fine-tuning and LoRA are counted on the same base, LoRA in the type of the mixture's parameters, and quantised
    weights as what they stand for. What is trained beside an adapter (``modules_to_save``) is in LoRA's figures too.

    Args:
        model: with adapters of this package, with PEFT's LoRA, or without any; active adapters are the ones that count.
    """
    tuned = [module for module in model.modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    active = dict.fromkeys(name for layer in tuned for name in layer.active_adapters)
    configs = {name: config for name, config in getattr(model, "peft_config", {}).items() if name in active}
    linears = list(_linears(model, active))
    beside = [part for linear in linears for part in linear.beside]
    known = all(linear.known for linear in linears)
    flops = _Flops(
        forward=sum(linear.flops for linear in linears),
        training=sum((3 if linear.trained else 2) * linear.flops for linear in linears),
    )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    trained = Cost(
        rank=_only(part.rank for part in beside) if not any(part.router for part in beside) else None,
        parameters=sum(parameter.numel() for parameter in parameters),
        bytes=_bytes(parameters),
        saved_bytes=_saved_adapters(model, configs) if configs else _saved(model),
        forward_flops=flops.forward + _computed(beside) if known else None,
        training_flops=flops.training + 3 * _computed(beside) if known else None,
    )
    mixtures = [mixture for layer in tuned if isinstance(layer, MixtureLayer) for mixture in _active(layer, active)]
    comparable = known and mixtures and len(mixtures) == len(beside) and all(part.rank for part in beside)
    return Account(
        method=" and ".join(dict.fromkeys(type(config).__name__ for config in configs.values())) or None,
        layers=sum(bool(linear.beside) or not linear.known for linear in linears),
        base_flops=flops.forward,
        adapter_flops=_computed(beside) if known else None,
        answering_flops=_computed([part._replace(computed=part.answering) for part in beside]) if known else None,
        trained=trained,
        lora_total_rank=_lora(trained, flops, mixtures, [part.as_lora(part.computed) for part in beside])
        if comparable
        else None,
        lora_rank=_lora(trained, flops, mixtures, [part.as_lora(1) for part in beside]) if comparable else None,
        full=_full(model, flops.forward),
    )


class _Flops(NamedTuple):
    """Of the base's linear layers, per token."""

    forward: int
    training: int


class _Beside(NamedTuple):
    """What stands beside a linear layer: experts of a rank (``None``: whole matrices), or LoRA as the only one."""

    inputs: int
    outputs: int
    rank: int | None
    computed: int = 1
    answering: int = 1
    router: int = 0  # experts that it weighs

    @property
    def multiplications(self) -> int:
        """Per token; the parameters are as many."""
        one = self.inputs * self.outputs if self.rank is None else self.rank * (self.inputs + self.outputs)
        return self.computed * one + self.router * self.inputs

    def as_lora(self, experts: int) -> _Beside:
        """LoRA of the rank that so many of the experts have together."""
        return _Beside(self.inputs, self.outputs, experts * self.rank)


class _Linear(NamedTuple):
    """A linear layer of the base."""

    flops: int
    trained: bool
    beside: tuple[_Beside, ...] = ()
    known: bool = True


def _computed(beside: Iterable[_Beside]) -> int:
    return 2 * sum(part.multiplications for part in beside)


def _linears(model: nn.Module, active: Iterable[str]) -> Iterator[_Linear]:
    for name, module in outer_modules(model):
        parts = name.split(".")
        if isinstance(module, AuxiliaryTrainingWrapper) or "original_module" in parts:  # a trained copy is in its place
            continue
        if "modules_to_save" in parts[:-1] and parts[parts.index("modules_to_save") + 1] not in active:
            continue
        base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        features = linear_features(base)
        if features is None:
            if isinstance(module, BaseTunerLayer):  # LoRA of an embedding, say
                yield _Linear(0, False, known=False)
            continue
        flops, trained = 2 * math.prod(features), base.weight.requires_grad
        if isinstance(module, MixtureLayer):
            yield _Linear(flops, trained, tuple(_mixture(each, features) for each in _active(module, active)))
        elif isinstance(module, LoraLayer):
            ranks = [len(A.weight) for name, A in module.lora_A.items() if name in active]
            plain = not module.lora_magnitude_vector  # DoRA computes more
            yield _Linear(flops, trained, tuple(_Beside(*features, rank) for rank in ranks), plain)
        else:
            yield _Linear(flops, trained, known=not isinstance(module, BaseTunerLayer))


def _mixture(mixture: Mixture, features: tuple[int, int]) -> _Beside:
    config, experts = mixture.config, mixture.experts
    return _Beside(*features, config.hidden, experts, config.top_k or experts, experts)


def _active(layer: MixtureLayer, active: Iterable[str]) -> list[Mixture]:
    return [mixture for name, mixture in layer.mixtures.items() if name in active]


def _lora(trained: Cost, flops: _Flops, mixtures: Sequence[Mixture], beside: Sequence[_Beside]) -> Cost:
    """What is trained, with LoRA in the place of the mixtures."""
    count, computed = sum(part.multiplications for part in beside), _computed(beside)
    kind = mixtures[0].B.dtype
    replaced = [parameter for mixture in mixtures for parameter in mixture.parameters()]
    sizes = Counter(trained.bytes)
    sizes.subtract(_bytes(parameter for parameter in replaced if parameter.requires_grad))
    sizes[_name(kind)] += count * kind.itemsize
    return Cost(
        rank=_only(part.rank for part in beside),
        parameters=trained.parameters - sum(each.numel() for each in replaced if each.requires_grad) + count,
        bytes={name: size for name, size in sizes.items() if size},
        saved_bytes=trained.saved_bytes - sum(_bytes(replaced).values()) + count * kind.itemsize,
        forward_flops=flops.forward + computed,
        training_flops=flops.training + 3 * computed,
    )


def _full(model: nn.Module, forward: int) -> Cost:
    """Training all that the model had before it got adapters."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    added = {
        id(parameter)
        for module in base.modules()
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
        for name, parameter in module.named_parameters()
        if not name.startswith(("base_layer.", "original_module."))
    }
    parameters = [parameter for parameter in base.parameters() if id(parameter) not in added]
    own = next((parameter.dtype for parameter in parameters if parameter.is_floating_point()), torch.float32)
    sizes, count = Counter(), 0
    for parameter in parameters:
        number = _weights(parameter)
        kind = parameter.dtype if parameter.is_floating_point() else own
        sizes[_name(kind)] += number * kind.itemsize
        count += number
    return Cost(None, count, dict(sizes), sum(sizes.values()) + _buffers(base), forward, 3 * forward)


def _weights(parameter: nn.Parameter) -> int:
    """How many a tensor stands for: bitsandbytes packs two of four bits into a byte."""
    packed = getattr(parameter, "quant_state", None)
    return parameter.numel() if packed is None else math.prod(packed.shape)


def _bytes(parameters: Iterable[nn.Parameter]) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for parameter in parameters:
        sizes[_name(parameter.dtype)] += parameter.nbytes
    return dict(sizes)


def _saved(model: nn.Module) -> int:
    return sum(_bytes(model.parameters()).values()) + _buffers(model)


def _saved_adapters(model: nn.Module, names: Iterable[str]) -> int:
    states = (get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False) for name in names)
    return sum(tensor.nbytes for state in states for tensor in state.values())


def _buffers(model: nn.Module) -> int:
    """Bytes of the buffers that are saved."""
    return sum(
        buffer.nbytes
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and name not in module._non_persistent_buffers_set
    )


def _only(values: Iterable[int | None]) -> int | None:
    """The value that all have."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")
