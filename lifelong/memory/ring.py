"""The latest rows."""

from __future__ import annotations

from typing import Literal

import torch

from lifelong.memory.grouped import Group, GroupedBuffer


class RingBuffer(GroupedBuffer):
    """The latest ``capacity`` rows, or the latest of each group; nothing is drawn.

    With groups, the ring buffer of Chaudhry et al., "On tiny episodic memories" (2019). Theirs sets aside the share of
    every group that is to come; here the groups met so far share the whole capacity, see ``GroupedBuffer``.

    Args:
        capacity, generator: see ``Buffer``.
        by: what makes a group: a row's ``"task"``, its first ``"answer"``, or ``None`` for all rows together.
    """

    def __init__(self, capacity: int, generator: torch.Generator, by: Literal["task", "answer"] | None = None) -> None:
        super().__init__(capacity, generator, by)

    def leaving(self, group: Group) -> int:
        return 0

    def replaced(self, group: Group) -> int | None:
        return 0
