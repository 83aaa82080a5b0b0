"""Reservoir sampling."""

from __future__ import annotations

import torch

from lifelong.memory.base import Buffer
from lifelong.memory.references import Row


class ReservoirBuffer(Buffer):
    """A uniform sample of everything offered: after n rows each of them is kept with probability capacity / n.

    Vitter, "Random sampling with a reservoir" (1985), algorithm R.
    """

    def slot(self, row: Row) -> int | None:
        if len(self) < self.capacity:
            return len(self)
        # `seen` rows came before, so this is number seen + 1, and the draw is from as many places
        place = int(torch.randint(self.seen + 1, (), generator=self.generator))
        return place if place < self.capacity else None
