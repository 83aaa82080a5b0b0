"""Which auxiliary losses an adapter has."""

from __future__ import annotations

import torch

from lifelong.adapters.batch import RoutingContext
from lifelong.adapters.config import LoraMoeConfig, MixtureConfig, MoeLoraConfig
from lifelong.adapters.losses import evenly_spaced, expert_contrast, localized_balance, switch_balance
from lifelong.adapters.router import Routing
from lifelong.errors import ConfigError


def auxiliary_losses(
    config: MixtureConfig,
    routing: Routing,
    inside: torch.Tensor,
    B: torch.Tensor,
    shape: torch.Size,
    context: RoutingContext | None,
) -> dict[str, torch.Tensor]:
    """The losses of one layer by name, times their weights; none without gradient where the batch is not known.

    Args:
        config: of the adapter.
        routing: of T tokens and E experts.
        inside: (T, E * r), the experts' insides before gating.
        B: (out, E * r).
        shape: of the batch, whose product is T.
        context: of the batch.

    Raises:
        ConfigError: there is a gradient to be had, and the mask is of another batch; or the localised constraint has a
            weight, and the samples' types are not known.
    """
    problem = _mask_problem(context, shape) or _types_problem(config, context, shape)
    if problem and torch.is_grad_enabled():
        raise ConfigError(problem)
    if problem:  # nothing would be attached, as in generation while the model is in training mode
        return {}
    tokens = len(inside)
    counted = None if config.count_padding or context is None else context.tokens_that_count(shape)
    losses = {}
    if config.balance_weight and isinstance(config, LoraMoeConfig):
        losses["localized_balance"] = config.balance_weight * _localized(config, routing.gates, counted, context)
    elif config.balance_weight:
        total = {} if context is None or context.total is None else {"total": context.total}
        balance = switch_balance(routing.probabilities, routing.selected, counted, **total)
        losses["balance"] = config.balance_weight * balance
    if isinstance(config, MoeLoraConfig) and config.contrast_weight:
        places, valid = evenly_spaced(config.contrast_tokens, tokens, counted, inside.device)
        few = inside[places].unflatten(-1, (-1, config.r))
        outputs = torch.einsum("ter,oer->teo", few, B.unflatten(-1, (-1, config.r))) * config.scaling
        precise = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        with torch.autocast(precise.device.type, enabled=False):  # which would round similarities
            losses["contrast"] = config.contrast_weight * expert_contrast(precise, config.temperature, valid)
    return losses


def _mask_problem(context: RoutingContext | None, shape: torch.Size) -> str:
    """Padding that cannot be told would count without anyone noticing."""
    mask = None if context is None else context.mask
    if mask is None or (mask.numel() == shape.numel() and (len(shape) != 2 or mask.shape == shape)):
        return ""
    return f"attention_mask: has the shape {tuple(mask.shape)}, and a layer's tokens {tuple(shape)}"


def _types_problem(config: MixtureConfig, context: RoutingContext | None, shape: torch.Size) -> str:
    if not (config.balance_weight and isinstance(config, LoraMoeConfig)):
        return ""
    if context is None or context.downstream is None:
        return (
            "balance_weight: the localised balancing constraint needs the type of each sample; put forward and "
            "backward pass into routing_context(model, sample_types=[...]), or set balance_weight to 0"
        )
    samples = len(context.downstream)
    if not samples or shape.numel() % samples or (len(shape) > 1 and shape[0] != samples):
        return f"sample_types: {samples} types for a batch of shape {tuple(shape)}"
    return ""


def _localized(
    config: LoraMoeConfig, gates: torch.Tensor, counted: torch.Tensor | None, context: RoutingContext
) -> torch.Tensor:
    samples = len(context.downstream)
    downstream = torch.tensor([kind == "downstream" for kind in config.types], device=gates.device)
    same_type = downstream[:, None] == context.downstream
    mask = None if counted is None else counted.view(samples, -1)
    gates = gates.view(samples, -1, config.num_experts)
    return localized_balance(gates, same_type, config.delta, config.form, mask, context.total)
