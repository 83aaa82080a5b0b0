"""A run on several processes: which of them this one is, which part of the work it does, and how parts come together.

Every process goes through the whole run with the same draws and the same weights, and takes its share of what is dear:
of the rows of each micro-batch, of the questions, of the rows of a Fisher information. With one process nothing here
does anything. How the processes begin and end is in ``lifelong.processes``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import distributed

IDLE = "idle"  # source of the row of a process that has none of a micro-batch: it has no part in any sum

Item = TypeVar("Item")
_working_together = False


@contextmanager
def working_together() -> Iterator[None]:
    """The processes of torch's group divide the work of a run inside.

    Not told by the group alone: who evaluates a learner in a program of his own may do so in one of its processes.
    """
    global _working_together
    _working_together = True
    try:
        yield
    finally:
        _working_together = False


def world_size() -> int:
    """How many processes divide the work."""
    return distributed.get_world_size() if _working_together else 1


def rank() -> int:
    """The number of this process, from 0; during a run and after it."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that writes and speaks; the only one, where there is one."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        gathered([None])  # a barrier of torch's own would have to be told the device


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This process's part: every n-th item of n processes, so that parts are alike where neighbours are."""
    return items[rank() :: world_size()] if world_size() > 1 else items


def gathered(own: Sequence[Item]) -> list[Item]:
    """What all processes have made of their ``share``, an item each, in the order of the whole; on every process."""
    if world_size() == 1:
        return list(own)
    parts: list[Any] = [None] * world_size()
    distributed.all_gather_object(parts, list(own))
    whole: list[Any] = [None] * sum(map(len, parts))
    for number, part in enumerate(parts):
        whole[number :: len(parts)] = part
    return whole


def from_all(value: Item) -> list[Item]:
    """The values of all processes, by their numbers; on every process."""
    return gathered([value])


def add_up(tensors: Iterable[torch.Tensor]) -> None:
    """Put into each tensor the sum over all processes, which must call this with the same shapes in the same order."""
    if world_size() > 1:
        for tensor in tensors:
            distributed.all_reduce(tensor)


def any_of(flag: bool) -> bool:
    """Whether it is so in any process."""
    if world_size() == 1:
        return flag
    # NCCL knows tensors on a GPU alone
    asked = torch.tensor(float(flag), device="cuda" if distributed.get_backend() == "nccl" else "cpu")
    add_up([asked])
    return bool(asked)


def means(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The means of 0-dim tensors over all processes, which must have the same names."""
    if world_size() == 1 or not values:
        return dict(values)
    row = torch.stack([value.float() for value in values.values()])
    add_up([row])
    return dict(zip(values, row / world_size(), strict=True))


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes, as a term of a loss.

    Its gradient is that of this process's part times the number of processes, so that the mean over processes, which
    DDP takes, is the gradient of the sum. What is made of several totals must not go into a further one.
    """
    if world_size() == 1:
        return value
    own, whole = world_size() * value, value.detach().clone()
    distributed.all_reduce(whole)
    return own + (whole - own.detach())


def shard(batch: dict[str, Any]) -> dict[str, Any]:
    """This process's rows of a batch, as wide as the batch.

    Where there are fewer rows than processes, who has none takes one of weight 0 and source ``IDLE``: every process
    goes through the model, since all of them add up their gradients.
    """
    if world_size() == 1:
        return batch
    rows = list(share(range(len(batch["task"]))))
    part = {
        key: value[rows or [0]] if isinstance(value, torch.Tensor) else [value[number] for number in rows or [0]]
        for key, value in batch.items()
    }
    return part if rows else part | {"weight": torch.zeros_like(part["weight"]), "source": [IDLE]}
