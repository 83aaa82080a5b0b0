"""Three ways in which a router fails, told by how the experts were used. All thresholds are ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lifelong.adapters.routing import RoutingTable, RoutingUse, pooled

UNIFORM = 0.98  # of ln E: the router's mean entropy from which on it does not choose
COLLAPSED = 0.95  # of the tokens of every task that select the same experts; in dense routing, of one expert's gate
UNUSED = 0.01  # of an equal share: what an expert that is never used has at most
ENOUGH_TOKENS = 100  # of a layer over all tasks; with fewer nothing is said
NAMED_LAYERS = 3  # of those that a message is about


def routing_warnings(table: RoutingTable) -> list[str]:
    """A message for each adapter and symptom that some layer has, with the layers' names and what to try.

    - *Gates close to uniform*: the mean entropy of the router's probabilities is at least ``UNIFORM`` of its maximum.
    - *The same experts always*: in every task each of the same ``top_k`` experts is selected by at least ``COLLAPSED``
      of the tokens. In dense routing, where all are selected, one expert has so much of the mean gates.
    - *Experts never used*: over all tasks an expert is selected by less than ``UNUSED`` of what it would be if all were
      selected equally. In dense routing the mean gates are asked. Not said of layers that always use the same experts.

    A layer with one expert has nothing to choose, and is left out. What is advised goes by the adapter's settings, as
    far as the table knows them.
    """
    adapters = list(dict.fromkeys(use.adapter for use in table))
    messages = []
    for adapter in adapters:
        layers = [
            uses
            for (_, name), uses in table.by_layer().items()
            if name == adapter and uses[0].experts > 1 and pooled(uses).tokens >= ENOUGH_TOKENS
        ]
        place = f" of adapter {adapter}" if len(adapters) > 1 else ""
        messages += _of_adapter(layers, place, table.settings_of(adapter).balance_weight)
    return messages


def _of_adapter(layers: Sequence[Sequence[RoutingUse]], place: str, balance_weight: float | None) -> list[str]:
    collapsed = [uses for uses in layers if always_the_same(uses)]
    unused = {id(uses): never_used(uses) for uses in layers if uses not in collapsed}
    balance = [] if balance_weight is None else [f"raise balance_weight from {balance_weight:g}"]
    free = [f"lower balance_weight from {balance_weight:g}"] if balance_weight else []
    choose = [] if all(_dense(uses[0]) for uses in layers) else ["raise top_k"]
    messages = [
        _message(
            [uses for uses in layers if close_to_uniform(uses)],
            len(layers),
            lambda uses: place,
            "the router does not choose: its probabilities are close to uniform",
            ["train longer or with a higher learning rate", *free, "set a larger router_init_std"],
        ),
        _message(
            collapsed,
            len(layers),
            lambda uses: f"{place} (expert {_numbers(always_the_same(uses))})",
            "the router has collapsed: nearly all tokens of all tasks use the same experts",
            [*balance, "lower the learning rate", "use fewer experts"],
        ),
        _message(
            [uses for uses in layers if unused.get(id(uses))],
            len(layers),
            lambda uses: f"{place} (expert {_numbers(unused[id(uses)])} of {uses[0].experts})",
            "experts are never used",
            [*balance, *choose, "use fewer experts: these add nothing"],
        ),
    ]
    return [message for message in messages if message]


def close_to_uniform(uses: Sequence[RoutingUse]) -> bool:
    """Whether a layer's router hardly prefers any expert for any token, over the tasks given."""
    return pooled(uses).router_entropy >= UNIFORM * math.log(uses[0].experts)


def always_the_same(uses: Sequence[RoutingUse]) -> list[int]:
    """The experts that a layer uses for nearly all tokens of each of the tasks given; empty where it has a choice."""
    whole = pooled(uses)
    count = 1 if _dense(whole) else whole.top_k
    most = np.argsort(_use_of(whole))[::-1][:count]
    same = all(_use_of(use)[most].min() >= COLLAPSED for use in uses)
    return sorted(most.tolist()) if same else []


def never_used(uses: Sequence[RoutingUse]) -> list[int]:
    """The experts that hardly any token of the tasks given uses."""
    use = _use_of(pooled(uses))
    return np.flatnonzero(use < UNUSED * use.sum() / len(use)).tolist()


def _dense(use: RoutingUse) -> bool:
    return use.top_k == use.experts


def _use_of(use: RoutingUse) -> np.ndarray:
    """What tells how much experts are used: the selections, or the gates where all are selected."""
    return np.asarray(use.gates) / sum(use.gates) if _dense(use) else np.asarray(use.frequency)


def _message(
    layers: Sequence[Sequence[RoutingUse]],
    of: int,
    detail: Callable[[Sequence[RoutingUse]], str],
    what: str,
    advice: Sequence[str],
) -> str:
    """One symptom in words; empty where no layer has it."""
    if not layers:
        return ""
    names = [f"{uses[0].layer}{detail(uses)}" for uses in layers[:NAMED_LAYERS]]
    more = f" and {len(layers) - len(names)} more" if len(layers) > len(names) else ""
    *others, last = advice
    try_this = f"{', '.join(others)}, or {last}" if others else last
    return f"{what}, in {len(layers)} of {of} layers: {', '.join(names)}{more}. What to try: {try_this}"


def _numbers(experts: Sequence[int]) -> str:
    return " and ".join(map(str, experts)) if len(experts) < 3 else ", ".join(map(str, experts))
