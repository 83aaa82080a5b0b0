"""Recording of what routers do while a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from lifelong.adapters.batch import RoutingContext
from lifelong.adapters.config import LoraMoeConfig, MixtureConfig
from lifelong.adapters.layer import MixtureLayer
from lifelong.adapters.router import Routing
from lifelong.adapters.routing import RoutingSettings, RoutingTable, RoutingUse
from lifelong.errors import ModelError

WITHOUT_TASK = "all"  # the name of what is run outside of any task


class RoutingRecord:
    """Sums over the tokens that were run, by layer, adapter and task; nothing is kept of a single token.

    The sums stay on the device until ``table`` is called.
    """

    def __init__(self) -> None:
        self._task = WITHOUT_TASK
        self._sums: dict[tuple[str, str, str], torch.Tensor] = {}
        self._settings: dict[str, RoutingSettings] = {}
        self._read: dict[tuple[str, str], RoutingContext] = {}  # of one token a row, by layer and adapter

    @contextmanager
    def task(self, name: str) -> Iterator[None]:
        """What runs inside is recorded under this name, beside what was recorded under it before."""
        before, self._task = self._task, name
        try:
            yield
        finally:
            self._task = before

    def table(self) -> RoutingTable:
        """The means so far; without layers, adapters and tasks of which no token counted."""
        uses = []
        for (layer, adapter, task), sums in self._sums.items():
            *values, tokens = sums.tolist()
            if tokens:
                *means, router_entropy, token_entropy = (value / tokens for value in values)
                experts = len(means) // 2
                gates, frequency = tuple(means[:experts]), tuple(means[experts:])
                uses.append(
                    RoutingUse(layer, adapter, task, int(tokens), gates, frequency, router_entropy, token_entropy)
                )
        return RoutingTable(uses, self._settings)

    def _add(
        self, name: str, layer: MixtureLayer, adapter: str, routing: Routing, counted: torch.Tensor | None
    ) -> None:
        """As ``MixtureLayer.recorder`` is called."""
        if self._is_written((name, adapter), layer.context, counted):
            return
        with torch.no_grad():
            sums = _sums(routing, counted)
            key = (name, adapter, self._task)
            # a new tensor each time: one made in inference mode could not be changed outside of it
            self._sums[key] = self._sums[key] + sums if key in self._sums else sums
            self._settings[adapter] = _settings(layer.mixtures[adapter].config)

    def _is_written(self, place: tuple[str, str], context: RoutingContext | None, counted: torch.Tensor | None) -> bool:
        """Whether a layer sees other tokens than those of the batch, such as written ones, whose padding is unknown.

        A step of generation has the shape of a prompt of one token: of such a mask, the first pass counts.
        """
        if context is None or context.mask is None:
            return False
        if counted is None:
            return True
        if context.mask.shape[1] > 1 or context.decodes:
            return False
        before, self._read[place] = self._read.get(place), context
        return before is context


def _settings(config: MixtureConfig) -> RoutingSettings:
    types = tuple(config.types) if isinstance(config, LoraMoeConfig) else ()
    return RoutingSettings(
        balance_weight=config.balance_weight if config.balances else None,
        expert_types=types if len(set(types)) > 1 else (),
    )


def _sums(routing: Routing, counted: torch.Tensor | None) -> torch.Tensor:
    """Of T tokens (2 * E + 3,): gates, selections, the router's entropy, that of the gates, number of tokens."""
    gates = routing.gates
    ones = torch.ones_like(gates[:, :1])
    columns = torch.cat(
        [
            gates,
            ones.expand_as(gates) if routing.selected is None else routing.selected.to(gates.dtype),
            torch.special.entr(routing.probabilities).sum(-1, keepdim=True),
            torch.special.entr(gates / gates.sum(-1, keepdim=True)).sum(-1, keepdim=True),
            ones,
        ],
        dim=-1,
    )
    if counted is not None:
        columns = torch.where(counted.bool()[:, None], columns, 0)  # a product would keep NaN, which padding may give
    sums = columns.sum(0)
    return sums if sums.device.type == "mps" else sums.double()  # which has no such type


@contextmanager
def record_routing(model: nn.Module) -> Iterator[RoutingRecord]:
    """Record what the routers in ``model`` do, in evaluation or in training, while the context is open::

        with record_routing(model) as record:
            for task, batches in dataset.items():
                with record.task(task):
                    for batch in batches:
                        with routing_context(model, attention_mask=batch["attention_mask"]):
                            model(**batch)
        record.table().summary()

    Padding is left out where ``routing_context`` says what it is; passes over other tokens than those of its mask are
    left out as a whole, such as the steps of generation after the prompt. (Of rows of one token the first pass in a
    ``routing_context`` counts: give each batch its own.) Without it all tokens count. What is run several times counts
    as often, which leaves the means as they are: a checkpointed block in training, a prompt for each of its beams. Of
    two records of one model, one inside of the other, the inner one is told.

    Args:
        model: with adapters of this package; those that are active when it runs are recorded.

    Raises:
        ModelError: the model has no mixture of experts.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = {name: module for name, module in base.named_modules() if isinstance(module, MixtureLayer)}
    if not layers:
        raise ModelError(
            f"{type(base).__name__} has no mixture of experts whose routing could be recorded: give it an adapter of "
            "lifelong.adapters first"
        )
    record = RoutingRecord()
    before = {name: layer.recorder for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.recorder = partial(record._add, name, layer)
    try:
        yield record
    finally:
        for name, layer in layers.items():
            layer.recorder = before[name]
