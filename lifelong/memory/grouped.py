"""What buffers have in common that share their capacity over groups of rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from lifelong.errors import ConfigError, DataError, suggestion
from lifelong.memory.base import Buffer
from lifelong.memory.references import Row


@dataclass
class Group:
    """Rows that belong together.

    Args:
        number: of groups that were met before this one.
        seen: rows of it that were offered so far.
        slots: of its rows that are kept, oldest first.
    """

    number: int
    seen: int = 0
    slots: list[int] = field(default_factory=list)


class GroupedBuffer(Buffer):
    """Capacity shared equally over the groups met so far; a subclass decides which rows of a group stay.

    With G groups each may claim ``capacity // G`` rows, the first ``capacity % G`` of them one more. What a group has
    not claimed yet, others keep: a row that claims a slot of its group's share takes it from the group that is furthest
    above its own. So the buffer is as full as it can be, and a group that has lost a row never grows again, which is
    what leaves a uniform sample uniform. Of more groups than the capacity, the last get nothing.

    Args:
        capacity: rows kept at most; at least 1.
        generator: see ``Buffer``.
        by: what makes a group: a row's ``"task"``, its first ``"answer"`` (the label, in a classification), or ``None``
            for one group of all rows.

    Raises:
        ConfigError: the capacity is below 1, or ``by`` is unknown.
    """

    GROUPINGS: ClassVar[tuple[str, ...]] = ("task", "answer")

    def __init__(self, capacity: int, generator: torch.Generator, by: str | None) -> None:
        super().__init__(capacity, generator)
        if by not in (None, *self.GROUPINGS):
            raise ConfigError(f"a buffer's grouping: unknown {by!r}{suggestion(str(by), self.GROUPINGS)}")
        self.by = by
        self.groups: dict[str, Group] = {}

    @abstractmethod
    def leaving(self, group: Group) -> int:
        """The place in ``group.slots`` of the row that leaves when the group shrinks."""

    @abstractmethod
    def replaced(self, group: Group) -> int | None:
        """The place in ``group.slots``, of which there is at least one, of the row that one of its own group replaces.

        The row that is offered is counted in ``group.seen`` already; ``None`` to let it pass.
        """

    def slot(self, row: Row) -> int | None:
        group = self.groups.setdefault(self._group_of(row), Group(len(self.groups)))
        group.seen += 1
        if len(self) < self.capacity:
            slot = len(self)
        elif len(group.slots) < self._share(group):
            largest = max(self.groups.values(), key=lambda other: len(other.slots) - self._share(other))
            slot = largest.slots.pop(self.leaving(largest))
        else:
            place = self.replaced(group) if group.slots else None
            if place is None:
                return None
            slot = group.slots.pop(place)
        group.slots.append(slot)
        return slot

    def state_dict(self) -> dict[str, Any]:
        groups = list(self.groups.values())
        return super().state_dict() | {
            "groups": list(self.groups),
            "group_seen": torch.tensor([group.seen for group in groups], dtype=torch.int64),
            "group_sizes": torch.tensor([len(group.slots) for group in groups], dtype=torch.int32),
            "group_slots": torch.tensor([slot for group in groups for slot in group.slots], dtype=torch.int32),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        slots = state["group_slots"].split(state["group_sizes"].tolist()) if state["groups"] else ()
        numbers = zip(state["groups"], state["group_seen"].tolist(), slots, strict=True)
        self.groups = {name: Group(number, seen, some.tolist()) for number, (name, seen, some) in enumerate(numbers)}

    def _share(self, group: Group) -> int:
        whole, rest = divmod(self.capacity, len(self.groups))
        return whole + (group.number < rest)

    def _group_of(self, row: Row) -> str:
        if self.by is None:
            return ""
        if not row.get({"task": "task", "answer": "answers"}[self.by]):
            raise DataError(f"a row without {self.by} cannot be put into a buffer that is grouped by it: {dict(row)}")
        return row["task"] if self.by == "task" else row["answers"][0]
