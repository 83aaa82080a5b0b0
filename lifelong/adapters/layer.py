"""A linear layer with a mixture of experts beside it: two matrix products, whatever the number of experts."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn.functional import linear

from lifelong.adapters.auxiliary import auxiliary_losses
from lifelong.adapters.batch import RoutingContext
from lifelong.adapters.config import MixtureConfig
from lifelong.adapters.dropped import DroppedLinear
from lifelong.adapters.losses import attach_loss
from lifelong.adapters.router import Routing, route
from lifelong.errors import ConfigError

Recorder = Callable[[Routing, "torch.Tensor | None"], None]


class Mixture(nn.Module):
    """The experts of one adapter for one linear layer, and their router.

    With all experts' A stacked to (E * r, in) and all B to (out, E * r), ``h = x A^T``, each block of r scaled by its
    expert's gate, and ``h B^T`` is what the experts add. Full-rank experts have no A: their h is x itself.

    Args:
        config: of the adapter.
        in_features, out_features: of the linear layer.
    """

    def __init__(self, config: MixtureConfig, in_features: int, out_features: int) -> None:
        super().__init__()
        self.config = config
        self.experts, self.hidden = config.num_experts, config.hidden or in_features
        if config.low_rank:
            self.A = nn.Parameter(torch.empty(self.experts * self.hidden, in_features))
            nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.B = nn.Parameter(torch.zeros(out_features, self.experts * self.hidden))
        self.router = nn.Parameter(torch.empty(self.experts, in_features))
        if config.router_init_std is None:
            nn.init.kaiming_uniform_(self.router, a=math.sqrt(5))
        else:
            nn.init.normal_(self.router, std=config.router_init_std)

    def forward(
        self, x: torch.Tensor, context: RoutingContext | None, recorder: Recorder | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The experts' insides, scaled by their gates, and the values of the auxiliary losses.

        Args:
            x: (..., in).
            context: of the batch.
            recorder: is told of the routing and of the tokens that count.

        Returns:
            (T, E * r), to be multiplied with B; and the losses that have a weight, without gradient, as they are added
            to the objective.
        """
        shape, x = x.shape[:-1], x.reshape(-1, x.shape[-1])
        inside, logits = self._products(x)
        routing = route(logits, self.config.top_k, self.config.renormalize)
        gates = (routing.gates * self.config.scaling).to(inside.dtype)
        mixed = (inside.unflatten(-1, (-1, self.hidden)) * gates[..., None]).flatten(-2)
        if recorder is not None:
            recorder(routing, None if context is None else context.tokens_that_count(shape))
        silent = context is not None and context.silent
        if silent or not (self.training and self.config.auxiliary() and self._trains()):
            return mixed, {}
        losses = auxiliary_losses(self.config, routing, inside, self.B, shape, context)
        scale = 1.0 if context is None else context.scale
        if torch.is_grad_enabled() and losses:
            mixed = attach_loss(mixed, sum(losses.values()), scale)
        return mixed, {name: loss.detach() for name, loss in losses.items()}

    def _trains(self) -> bool:
        """A frozen adapter has nothing to balance, and its losses would pull at the adapters of layers before it."""
        return self.router.requires_grad or self.B.requires_grad

    def _products(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The experts' insides before gating, (T, E * r) or (T, in), and the router's logits (T, E)."""
        if not self.config.low_rank:
            return x, linear(x, self.router)
        rate = self.config.lora_dropout if self.training else 0.0
        if rate:
            return DroppedLinear.apply(x, self.A, rate), linear(x, self.router)
        # x is wide, and read once
        return linear(x, torch.cat([self.A, self.router])).split([len(self.A), self.experts], -1)


class MixtureLayer(nn.Module, BaseTunerLayer):
    """What stands in a linear layer's place: the layer, frozen, and the mixtures of the active adapters beside it.

    Args:
        base_layer: anything that maps (..., in) to (..., out): linear, GPT-2's Conv1D, or a quantised linear.
        prefix: of the names of the parameters.
    """

    def __init__(self, base_layer: nn.Module, prefix: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.features = linear_features(self.get_base_layer())
        self.experts_name = f"{prefix}experts"
        self.adapter_layer_names = (self.experts_name,)
        setattr(self, self.experts_name, nn.ModuleDict())
        self.train(base_layer.training)
        self.context: RoutingContext | None = None
        self.last_context: RoutingContext | None = None
        self.recorder: Callable[[str, Routing, torch.Tensor | None], None] | None = None  # the first: the adapter
        self.auxiliary: dict[str, torch.Tensor] = {}

    @property
    def mixtures(self) -> nn.ModuleDict:
        """By name of the adapter."""
        return getattr(self, self.experts_name)

    @property
    def device(self) -> torch.device:
        """Where the experts are; the layer's own weights may be packed under another name, or elsewhere."""
        return next((weight.device for weight in self.mixtures.parameters()), torch.device("cpu"))

    def add_mixture(self, adapter_name: str, config: MixtureConfig) -> None:
        """Put a fresh mixture beside the layer, and make it trainable if its adapter is active."""
        self.mixtures[adapter_name] = Mixture(config, *self.features).train(self.training)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        result = self.base_layer(x, *args, **kwargs)
        if self.training or self.disable_adapters:
            self.auxiliary = {}
        if self.disable_adapters:
            return result
        if self.training and not torch.compiler.is_compiling():  # a compiled backward pass does not come here again
            self._check_repeated()
        for name in self.active_adapters:
            if name not in self.mixtures:
                continue
            mixture = self.mixtures[name]
            autocasts = torch.is_autocast_enabled(x.device.type)
            recorder = None if self.recorder is None else partial(self.recorder, name)
            mixed, losses = mixture(
                x if autocasts else self._cast_input_dtype(x, mixture.B.dtype), self.context, recorder
            )
            if losses:
                self._note(losses)
            result = _added(result, mixed, mixture.B)
        return result

    @torch.compiler.disable
    def _note(self, losses: dict[str, torch.Tensor]) -> None:
        """Not compiled: torch fails where values leave a compiled block that checkpointing runs again."""
        for name, value in losses.items():
            self.auxiliary[name] = self.auxiliary[name] + value if name in self.auxiliary else value

    def _check_repeated(self) -> None:
        """Whether a block that is run again in the backward pass, as checkpointing does, is told of the same batch."""
        if torch._C._current_graph_task_id() == -1:  # not in a backward pass
            self.last_context = self.context
        elif self.context is not self.last_context and any(
            name in self.mixtures and self.mixtures[name].config.auxiliary() for name in self.active_adapters
        ):
            raise ConfigError(
                "routing_context: gradient checkpointing runs a layer again in the backward pass, and the auxiliary "
                "losses then need what they knew in the forward pass; put both passes into one routing_context, and "
                "let backward() follow each forward pass"
            )

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Raises NotImplementedError: which experts answer depends on the token, so that no single matrix does it."""
        raise NotImplementedError(CANNOT_MERGE)


CANNOT_MERGE = (
    "a mixture of experts cannot be merged into the base weights: which experts answer depends on the token, and a "
    "matrix is the same for all of them. Keep the adapter beside the model, or remove it with unload()"
)


def linear_features(layer: nn.Module) -> tuple[int, int] | None:
    """Inputs and outputs of what behaves like a linear layer; ``None`` for anything else."""
    if isinstance(getattr(layer, "in_features", None), int) and isinstance(getattr(layer, "out_features", None), int):
        return layer.in_features, layer.out_features
    if type(layer).__name__ == "Conv1D" and getattr(layer, "weight", None) is not None and layer.weight.dim() == 2:
        return tuple(layer.weight.shape)  # transformers', which keeps its weight the other way round
    return None


def _added(result: torch.Tensor, mixed: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """The layer's result and the experts', in one pass where the types allow it."""
    device = result.device.type
    if torch.is_autocast_enabled(device):
        fits = result.dtype == torch.get_autocast_dtype(device)
    else:
        fits = result.dtype == mixed.dtype == B.dtype
    if fits:
        return torch.addmm(result.reshape(-1, result.shape[-1]), mixed, B.t()).view(result.shape)
    return result + linear(mixed, B).view(result.shape).to(result.dtype)
