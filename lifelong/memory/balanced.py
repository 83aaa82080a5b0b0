"""A uniform sample of every group."""

from __future__ import annotations

from typing import Literal

import torch

from lifelong.memory.grouped import Group, GroupedBuffer


class BalancedBuffer(GroupedBuffer):
    """Capacity shared equally over groups, and within each group a uniform sample of its rows.

    A group is sampled as by a reservoir of the size that it has; where it shrinks for another, each of its rows leaves
    with the same probability. Of n rows of a group that keeps m, each is kept with probability m / n, whatever came in
    between. How the capacity is shared: see ``GroupedBuffer``.

    Args:
        capacity, generator: see ``Buffer``.
        by: what makes a group, a row's ``"task"`` or its first ``"answer"``.
    """

    def __init__(self, capacity: int, generator: torch.Generator, by: Literal["task", "answer"] = "task") -> None:
        super().__init__(capacity, generator, by)

    def leaving(self, group: Group) -> int:
        return int(torch.randint(len(group.slots), (), generator=self.generator))

    def replaced(self, group: Group) -> int | None:
        place = int(torch.randint(group.seen, (), generator=self.generator))
        return place if place < len(group.slots) else None
