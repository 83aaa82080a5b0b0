"""What every replay buffer does; a subclass decides only which slot a row takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from lifelong.errors import ConfigError, RunError
from lifelong.memory.references import Catalogue, ReadLater, Reference, Row
from lifelong.tasks import Task


class Buffer(ABC):
    """At most ``capacity`` rows of a stream, each offered once.

    Rows of tasks that are at hand (``attach``) are kept as references to them, all others as they were offered.

    Args:
        capacity: rows kept at most; at least 1.
        generator: the source of every random choice about what is kept; the global random state is never used.

    Attributes:
        seen: rows that were offered so far.

    Raises:
        ConfigError: the capacity is no whole number of at least 1.
    """

    def __init__(self, capacity: int, generator: torch.Generator) -> None:
        if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < 1:
            raise ConfigError(f"a buffer's capacity must be a whole number of at least 1, got {capacity!r}")
        self.capacity, self.generator = capacity, generator
        self.seen = 0
        self._kept: list[Reference | Row] = []
        self._catalogue = Catalogue()

    @abstractmethod
    def slot(self, row: Row) -> int | None:
        """The slot of the row that is offered after ``seen`` others.

        Returns:
            ``len(self)`` for a further slot while there are fewer than ``capacity``, a smaller number to take the
            place of a row that is there, or ``None`` to let this one pass.
        """

    def attach(self, tasks: Iterable[Task]) -> None:
        """Have tasks at hand, beside those that already are: rows of theirs are references from now on.

        Raises:
            RunError: the buffer was restored, and these are not the tasks that it was filled from.
        """
        self._catalogue.add(tasks)
        found = [slot for slot, kept in enumerate(self._kept) if isinstance(kept, Reference) and kept.number is None]
        for slot, reference in zip(found, self._catalogue.locate(self._kept[slot] for slot in found), strict=True):
            self._kept[slot] = reference
        self._refer(range(len(self)))

    def add(self, row: Row) -> None:
        """Offer one row; ``extend`` is quicker for many."""
        self.extend([row])

    def extend(self, rows: Iterable[Row]) -> None:
        """Offer rows one by one."""
        taken = set()
        for row in rows:
            slot = self.slot(row)
            if slot == len(self._kept):
                self._kept.append(row)
            elif slot is not None:
                self._kept[slot] = row
            taken.add(slot)
            self.seen += 1
        self._refer(sorted(taken - {None}))

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def rows(self) -> list[Row]:
        """All rows that are kept, by slot."""
        return self.take(range(len(self)))

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Task and id of all rows that are kept, by slot; nothing is read for it."""
        return [
            (kept.task, kept.id) if isinstance(kept, Reference) else (kept["task"], kept["id"]) for kept in self._kept
        ]

    def take(self, slots: Iterable[int]) -> list[Row]:
        """The rows in some slots.

        Raises:
            RunError: the buffer was restored, and a task that its rows belong to is not at hand.
        """
        kept = [self._kept[slot] for slot in slots]
        read = iter(self._catalogue.rows([each for each in kept if isinstance(each, Reference)]))
        return [next(read) if isinstance(each, Reference) else each for each in kept]

    def peek(self, slots: Iterable[int]) -> list[Row]:
        """As ``take``, but references are read only when more than their task and id is asked of them."""
        kept = [self._kept[slot] for slot in slots]
        return [ReadLater(self._catalogue, each) if isinstance(each, Reference) else each for each in kept]

    def state_dict(self) -> dict[str, Any]:
        """Capacity, count, random state and rows, as JSON values and tensors.

        A reference takes four bytes and its id, and there is a fingerprint for each task that references lead to.
        """
        references = [kept if isinstance(kept, Reference) else Reference("", "") for kept in self._kept]
        tasks = {task: self._catalogue.fingerprint(task) for task in self._referred()}
        places = {task: place for place, task in enumerate(tasks)}
        return {
            "kind": type(self).__name__,
            "capacity": self.capacity,
            "seen": self.seen,
            "generator": self.generator.get_state(),
            "tasks": tasks,
            "task": torch.tensor([places.get(reference.task, -1) for reference in references], dtype=torch.int32),
            "id": [reference.id for reference in references],
            "texts": {str(slot): dict(kept) for slot, kept in enumerate(self._kept) if not isinstance(kept, Reference)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; references need their tasks, see ``attach``.

        Raises:
            RunError: the state is of another kind of buffer, or of one with another capacity.
        """
        for what, own in (("kind", type(self).__name__), ("capacity", self.capacity)):
            if state[what] != own:
                raise RunError(f"a buffer's state has the {what} {state[what]!r}, and the buffer itself {own!r}")
        tasks = list(state["tasks"])
        self.seen = state["seen"]
        self.generator.set_state(state["generator"])
        self._catalogue = Catalogue(state["tasks"])
        self._kept = [
            state["texts"][str(slot)] if place < 0 else Reference(tasks[place], name)
            for slot, (place, name) in enumerate(zip(state["task"].tolist(), state["id"], strict=True))
        ]

    def _referred(self) -> list[str]:
        """Names of the tasks that references lead to."""
        return list(dict.fromkeys(kept.task for kept in self._kept if isinstance(kept, Reference)))

    def _refer(self, slots: Sequence[int]) -> None:
        """Keep the rows in these slots as references, where they are found."""
        texts = [slot for slot in slots if not isinstance(self._kept[slot], Reference)]
        for slot, kept in zip(texts, self._catalogue.refer([self._kept[slot] for slot in texts]), strict=True):
            self._kept[slot] = kept
