"""What the layers are told of a batch, and what they say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from lifelong.adapters.batch import RoutingContext
from lifelong.adapters.config import SAMPLE_TYPES
from lifelong.adapters.layer import MixtureLayer
from lifelong.errors import ConfigError, suggestion

CROSS_ATTENTION = ("EncDecAttention", "encoder_attn", "crossattention")


@contextmanager
def routing_context(
    model: torch.nn.Module,
    attention_mask: torch.Tensor | None = None,
    sample_types: Sequence[str] | None = None,
    decoder_attention_mask: torch.Tensor | None = None,
    scale: float = 1.0,
    total: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Iterator[None]:
    """Tell the mixtures in ``model`` about the batch. Forward and backward pass both belong inside.

    (A checkpointed block is run again in the backward pass, and needs the same then.)

    Args:
        model: with adapters of this package.
        attention_mask: (B, S), 1 at tokens and 0 at padding, which auxiliary losses and records leave out.
        sample_types: ``"knowledge"`` or ``"downstream"`` for each of B samples, as LoRAMoE's constraint needs.
        decoder_attention_mask: (B, S'), the same for the decoder's layers of an encoder-decoder.
        scale: factor of the auxiliary losses' gradient: 1 divided by the number of batches that are accumulated, times
            the factor of a gradient scaler, if there is one.
        total: where each of several processes has some of the batch's rows: what sums a tensor over all of them, with a
            gradient whose mean over processes is that of the sum. Balance is then that of the whole batch; contrast is
            that of each part.

    Raises:
        ConfigError: an unknown sample type, or a mask that is none.
    """
    for name, mask in {"attention_mask": attention_mask, "decoder_attention_mask": decoder_attention_mask}.items():
        if mask is not None and (not isinstance(mask, torch.Tensor) or mask.dim() != 2 or mask.is_complex()):
            raise ConfigError(f"{name}: must be a tensor of shape (B, S), 1 at tokens and 0 at padding")
        if mask is not None and mask.is_floating_point() and not ((mask == 0) | (mask == 1)).all():
            raise ConfigError(f"{name}: must be 1 at tokens and 0 at padding, and holds other numbers")
    if isinstance(sample_types, str):
        raise ConfigError(f"sample_types: must be a list with a type for each sample, got the text {sample_types!r}")
    downstream = None
    if sample_types is not None:
        for kind in sample_types:
            if kind not in SAMPLE_TYPES:
                raise ConfigError(f"sample_types: unknown type {kind!r}{suggestion(str(kind), SAMPLE_TYPES)}")
        downstream = torch.tensor([kind == SAMPLE_TYPES[1] for kind in sample_types])
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, MixtureLayer)]
    before = [layer.context for _, layer in layers]
    encoder_decoder = _is_encoder_decoder(model)
    made: dict[tuple[bool, torch.device], RoutingContext] = {}
    try:
        for name, layer in layers:
            decodes = encoder_decoder and _reads_decoder(name)
            mask = decoder_attention_mask if decodes else attention_mask
            key = (decodes, layer.device)
            if key not in made:
                made[key] = RoutingContext(
                    None if mask is None else mask.to(layer.device),
                    None if downstream is None else downstream.to(layer.device),
                    decodes,
                    scale,
                    total=total,
                )
            layer.context = made[key]
        yield
    finally:
        for (_, layer), old in zip(layers, before, strict=True):
            layer.context = old


@contextmanager
def without_auxiliary_losses(model: torch.nn.Module) -> Iterator[None]:
    """No auxiliary losses join passes inside, such as a second one in a step whose first one has brought them.

    Args:
        model: with adapters of this package. Where blocks are checkpointed, such passes must be without gradient.
    """
    layers = [module for module in model.modules() if isinstance(module, MixtureLayer)]
    before = [layer.context for layer in layers]
    try:
        for layer in layers:
            layer.context = replace(layer.context or RoutingContext(), silent=True)
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.context = old


def _is_encoder_decoder(model: torch.nn.Module) -> bool:
    """What the outermost settings say of it; ``model`` may be a wrapper that has none of its own."""
    settings = (getattr(module, "config", None) for module in model.modules())
    return next((config.is_encoder_decoder for config in settings if hasattr(config, "is_encoder_decoder")), False)


def _reads_decoder(name: str) -> bool:
    """Whether a layer of an encoder-decoder sees the decoder's tokens; keys and values of cross-attention do not."""
    parts = name.split(".")
    if "decoder" not in parts:
        return False
    crosses = any(part in CROSS_ATTENTION for part in parts)
    return not (crosses and (parts[-1][0] in "kv" or parts[-1] == "c_attn"))  # GPT-2's is key and value in one


def auxiliary_loss(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What each auxiliary loss added to the objective in the last forward pass in training, summed over layers.

    For logging: 0-dim tensors without gradient, weights included. The gradient has its own way, see
    ``losses.attach_loss``. Empty where no loss has a weight.
    """
    total: dict[str, torch.Tensor] = {}
    for layer in model.modules():
        if isinstance(layer, MixtureLayer):
            for name, value in layer.auxiliary.items():
                total[name] = total[name] + value.to(total[name].device) if name in total else value
    return total
