"""A strategy under watch: what its hooks draw, add to batches, and leave behind."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lifelong.strategies.base import Strategy
from lifelong.testing.errors import ContractError

if TYPE_CHECKING:
    from lifelong.learner import Learner

HOOKS = tuple(
    name for name in dir(Strategy) if not name.startswith("_") and inspect.isfunction(getattr(Strategy, name))
)


class Watch:
    """Looks at every hook that a strategy has of its own, whenever it is called on it or on a copy of it.

    Args:
        strategy: goes on as before, but that its hooks raise a ``ContractError`` where they

            - change the global random state of torch, NumPy or Python,
            - add more rows to a batch than ``rows_added`` says, or
            - leave other weights or modes behind when the context of ``answering`` is closed.

    Attributes:
        strategy: the same object.
        added: rows that were added to batches so far.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy, self.added = strategy, 0
        kind = type(strategy)
        own = [name for name in HOOKS if getattr(kind, name) is not getattr(Strategy, name)]
        special = {"extend_batch": self._extending, "answering": _answering}
        hooks = {name: special[name](kind) if name in special else _undrawn(kind, name) for name in own}
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
        strategy.__class__ = type(kind.__name__, (kind,), hooks | names)

    def _extending(self, kind: type[Strategy]) -> Callable[..., dict[str, Any]]:
        undrawn = _undrawn(kind, "extend_batch")

        def extend_batch(strategy: Strategy, learner: Learner, batch: dict[str, Any]) -> dict[str, Any]:
            rows = len(batch["task"])
            extended = undrawn(strategy, learner, batch)
            added, most = len(extended["task"]) - rows, strategy.rows_added(rows)
            if added > most:
                raise ContractError(f"{kind.__name__}.extend_batch adds {added} rows to {rows}; rows_added says {most}")
            self.added += added
            return extended

        return extend_batch


def _undrawn(kind: type[Strategy], name: str) -> Callable[..., Any]:
    """A hook that must not draw."""

    def hook(strategy: Strategy, *arguments: Any, **named: Any) -> Any:
        before = _random_states()
        result = getattr(kind, name)(strategy, *arguments, **named)
        _check_undrawn(kind, name, before)
        return result

    return hook


def _answering(kind: type[Strategy]) -> Callable[..., Any]:
    """A hook whose context must neither draw nor leave anything behind."""

    @contextmanager
    def answering(strategy: Strategy, learner: Learner, examples: Sequence[Mapping[str, Any]]) -> Iterator[None]:
        weights, modes, states = _weights(learner), _modes(learner), _random_states()
        with kind.answering(strategy, learner, examples):
            _check_undrawn(kind, "answering", states)
            yield
            asked_in, states = _modes(learner), _random_states()
        _check_undrawn(kind, "answering", states)
        for name, mode in _modes(learner).items():
            # whoever asks puts the modes back into order too, and maybe into another one
            if mode not in (modes.get(name), asked_in.get(name)):
                raise ContractError(f"{kind.__name__}.answering leaves {name or 'the learner'} in another mode")
        left = _weights(learner)
        if left.keys() != weights.keys():
            raise ContractError(f"{kind.__name__}.answering leaves other weights behind")
        for name, (value, trains) in left.items():
            if not torch.equal(value, weights[name][0]) or trains != weights[name][1]:
                raise ContractError(f"{kind.__name__}.answering leaves {name} behind as it was not before")

    return answering


def _check_undrawn(kind: type[Strategy], name: str, before: Mapping[str, Any]) -> None:
    for source, state in _random_states().items():
        if state != before[source]:
            raise ContractError(f"{kind.__name__}.{name} draws from the global random state of {source}")


def _random_states() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "NumPy": (kind, keys.tobytes(), *rest),
        "Python": random.getstate(),
    }


def _weights(learner: Learner) -> dict[str, tuple[torch.Tensor, bool]]:
    """Of each parameter and buffer a copy, and whether it is trained."""
    found = chain(learner.named_parameters(), learner.named_buffers())
    return {name: (value.detach().clone(), value.requires_grad) for name, value in found}


def _modes(learner: Learner) -> dict[str, bool]:
    return {name: module.training for name, module in learner.named_modules()}
