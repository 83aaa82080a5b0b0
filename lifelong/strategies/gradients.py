"""Gradients of each sample by itself, of which importances are means."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from lifelong.distributed import add_up, share, world_size
from lifelong.losses import row_losses
from lifelong.strategies.weights import Weights

Outputs = tuple[torch.Tensor, torch.Tensor]
Forward = Callable[[Sequence[Any]], Outputs]
Terms = Iterable[tuple[torch.Tensor, torch.Tensor]]

AT_ONCE = 2**20  # elements of the gradients that are taken at a time, if more than one row has: 4 MB, quicker than more


def mean_over_samples(
    module: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    rows: Sequence[Any],
    forward: Forward,
    terms: Callable[[torch.Tensor, torch.Tensor], Terms],
    measure: Callable[[torch.Tensor], torch.Tensor] = torch.square,
    batch_size: int = 16,
    divided: bool = True,
) -> Weights:
    """The mean over N samples of what their gradients measure: ``1/N sum_n sum_k w_nk measure(d v_nk / d theta)``.

    Samples are taken a batch at a time where each of their gradients follows from what the layers read and from the
    gradients of what they said, which is tried on two rows first; where it does not, such as for mixtures of experts,
    they are taken one by one. Beside the result and one sample's gradients, those of a batch are held for one parameter
    at a time. The module must treat rows alone: evaluation mode, and no statistics over a batch.

    Args:
        module: that ``forward`` runs.
        parameters: some of the module's, by any names.
        rows: the samples.
        forward: from B rows to logits (B, K, V) and targets (B, K), with gradients.
        terms: from these to the pairs of values v_k and weights w_k, each (B,) with a row's own at its place.
        measure: elementwise; the square or the absolute value.
        batch_size: B at most, on all devices together.
        divided: whether each of several devices takes some of the rows; each takes all where what is drawn for a row
            follows from the rows before it.

    Returns:
        By name, in float32, of the parameters' shapes; no parameter's ``grad`` is touched.
    """
    totals = {name: torch.zeros_like(one, dtype=torch.float32) for name, one in parameters.items()}

    def add(some: Sequence[Any]) -> None:
        if len(some) == 1:
            for values, weights in terms(*forward(some)):
                for name, gradient in _alone(values, parameters):
                    totals[name] += weights[0].to(gradient.device) * measure(gradient)
            return
        with Recorder(module, parameters, len(some)) as recorder:
            outputs = forward(some)
        if not recorder.complete:
            for row in some:
                add([row])
            return
        for values, weights in terms(*outputs):
            for name, part, gradients in recorder.gradients(values):
                totals[name] += torch.einsum("n,n...->...", weights[part].to(gradients), measure(gradients))

    if batch_size > 1 and not separable(module, parameters, rows[:2], forward):
        batch_size = 1
    own = share(rows) if divided else rows
    batch_size = -(-batch_size // (world_size() if divided else 1))
    for start in range(0, len(own), batch_size):
        add(own[start : start + batch_size])
    if divided:
        add_up(totals.values())
    return {name: total / len(rows) for name, total in totals.items()}


def separable(module: nn.Module, parameters: Mapping[str, nn.Parameter], rows: Sequence[Any], forward: Forward) -> bool:
    """Whether the first row's gradients come out of a batch of rows as they are for that row alone."""
    if len(rows) < 2:
        return False
    with Recorder(module, parameters, len(rows)) as recorder:
        outputs = forward(rows)
    if not (recorder.complete and recorder.uses):
        return False
    alone = dict(_alone(row_losses(*forward(rows[:1])), parameters))
    sizes = {name: float(gradient.norm()) for name, gradient in alone.items()}
    differences = sizes | {
        name: float((alone[name] - gradients[0]).norm())
        for name, part, gradients in recorder.gradients(row_losses(*outputs))
        if part.start == 0
    }
    step, whole = _precision(module), math.hypot(*sizes.values())
    return not any(differences[name] > step**0.5 * size + 10 * step * whole for name, size in sizes.items())


def _precision(module: nn.Module) -> float:
    """The relative step between two numbers of the coarsest type that a module computes in; losses are in float32."""
    types = {one.dtype if one.is_floating_point() else torch.bfloat16 for one in module.parameters()}  # packed ones
    return max(torch.finfo(dtype).eps for dtype in {*types, torch.float32})


def _alone(values: torch.Tensor, parameters: Mapping[str, nn.Parameter]) -> Iterator[tuple[str, torch.Tensor]]:
    """Names of parameters, and the gradients of one row's value, in float32."""
    found = torch.autograd.grad(
        values.sum(), list(parameters.values()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return ((name, gradient.float()) for name, gradient in zip(parameters, found, strict=True))


@dataclass
class _Use:
    """One call of a layer: what it read, with a row of the batch at each place, and what it said."""

    layer: nn.Module
    inputs: tuple[torch.Tensor, ...]
    output: torch.Tensor

    def gradients(self, name: str, part: slice, gradient: torch.Tensor) -> torch.Tensor:
        """For n of the rows the gradient of ``sum(output * gradient)`` for a parameter of the layer: (n, ...)."""
        inputs, gradient = tuple(one[part] for one in self.inputs), gradient[part]
        if type(self.layer) is nn.Linear:
            said = gradient.float().reshape(len(gradient), -1, gradient.shape[-1])
            if name == "bias":
                return said.sum(1)
            return said.mT @ inputs[0].float().reshape(len(gradient), -1, inputs[0].shape[-1])

        module = _Unhooked(self.layer)
        others = {f"layer.{own}": one.detach() for own, one in self.layer.named_parameters(recurse=False)}

        def weighed(parameter: torch.Tensor, inputs: Sequence[torch.Tensor], gradient: torch.Tensor) -> torch.Tensor:
            own = others | {f"layer.{name}": parameter}
            return (functional_call(module, own, tuple(one.unsqueeze(0) for one in inputs)) * gradient).sum()

        return vmap(grad(weighed), (None, 0, 0))(others[f"layer.{name}"], inputs, gradient).float()


class _Unhooked(nn.Module):
    """A layer without its hooks, some of which write into what it said and cannot be transformed."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.layer.forward(*inputs)


@dataclass
class Recorder:
    """A context in which a forward pass is recorded, so that each row's gradients can be told apart.

    A layer's parameters have, for one row, the gradient of ``sum(layer(x) * g)``: x is what the layer read of that row,
    g the gradient of what it said. Position embeddings are read once for all rows, and said once for each here.

    Args:
        module: that is run.
        parameters: of the module.
        rows: of the batch that it is run on.

    Attributes:
        complete: whether every layer with such parameters could be recorded.
    """

    module: nn.Module
    parameters: Mapping[str, nn.Parameter]
    rows: int
    complete: bool = True
    uses: list[_Use] = field(default_factory=list)

    def __enter__(self) -> Recorder:
        self.names = {parameter: name for name, parameter in self.parameters.items()}
        self.hooks = []
        for layer in self.module.modules():
            if any(parameter in self.names for parameter in layer.parameters(recurse=False)):
                self.complete &= not any(True for child in layer.children() for _ in child.parameters())
                self.hooks.append(layer.register_forward_hook(self._record, with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _record(self, layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        tensors = [*inputs, output]
        if named or not all(torch.is_tensor(one) and one.dim() for one in tensors):
            self.complete = False
            return None
        shared = isinstance(layer, nn.Embedding) and all(len(one) == 1 for one in tensors)
        if shared:
            *inputs, output = (one.expand(self.rows, *one.shape[1:]) for one in tensors)
        elif any(len(one) != self.rows for one in tensors):
            self.complete = False
            return None
        if output.requires_grad:
            self.uses.append(_Use(layer, tuple(one.detach() for one in inputs), output))
        return output if shared else None

    def gradients(self, values: torch.Tensor) -> Iterator[tuple[str, slice, torch.Tensor]]:
        """The gradients of each row's value, for one parameter and some rows at a time.

        Args:
            values: (B,), computed from the outputs of the recorded pass.

        Yields:
            A parameter's name, which n rows, and the gradients of their values, of shape (n, ...), in float32. Of a
            parameter that took no part there are none.
        """
        outputs = [use.output for use in self.uses]
        found = torch.autograd.grad(values.sum(), outputs, retain_graph=True, allow_unused=True)
        # by parameter, since one may be shared by several layers, and all gradients together are B times the model
        parts: dict[nn.Parameter, list[tuple[_Use, str, torch.Tensor]]] = defaultdict(list)
        for use, gradient in zip(self.uses, found, strict=True):
            if gradient is not None:
                for own, parameter in use.layer.named_parameters(recurse=False):
                    if parameter in self.names:
                        parts[parameter].append((use, own, gradient))
        for parameter, some in parts.items():
            size = max(1, AT_ONCE // parameter.numel())
            for start in range(0, self.rows, size):
                part = slice(start, start + size)
                each = (use.gradients(own, part, gradient) for use, own, gradient in some)
                yield self.names[parameter], part, reduce(torch.add, each)
