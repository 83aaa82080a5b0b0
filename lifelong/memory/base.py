"""What every replay buffer does; a subclass decides only which slot a row takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch

Row = Mapping[str, Any]


class Buffer(ABC):
    """At most ``capacity`` rows of a stream, each offered once by ``add``.

    Args:
        capacity: rows kept at most; at least 1.
        generator: the source of every random choice about what is kept; the global random state is never used.

    Raises:
        ValueError: the capacity is below 1.
    """

    def __init__(self, capacity: int, generator: torch.Generator) -> None:
        if capacity < 1:
            raise ValueError(f"a buffer's capacity must be at least 1, got {capacity}")
        self.capacity, self.generator = capacity, generator
        self.rows: list[Row] = []
        self.seen = 0

    @abstractmethod
    def slot(self) -> int | None:
        """The slot that the row offered after ``seen`` others takes in a full buffer; ``None`` to let it pass."""

    def add(self, row: Row) -> None:
        """Offer one row."""
        if len(self.rows) < self.capacity:
            self.rows.append(row)
        elif (slot := self.slot()) is not None:
            self.rows[slot] = row
        self.seen += 1

    def extend(self, rows: Iterable[Row]) -> None:
        """Offer rows one by one."""
        for row in rows:
            self.add(row)

    def __len__(self) -> int:
        return len(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """Rows, count and random state, as JSON values and one tensor."""
        return {"rows": [dict(row) for row in self.rows], "seen": self.seen, "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.rows, self.seen = list(state["rows"]), state["seen"]
        self.generator.set_state(state["generator"])
