"""Rows of tasks at hand are kept as references, so that a buffer costs little, whatever its rows hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow
from datasets import Dataset
from pyarrow import compute

from lifelong.errors import RunError
from lifelong.tasks import Task

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reference:
    """A training row of a task.

    Args:
        task: its name.
        id: of the row.
        number: of the row among the task's training rows; ``None`` until the task is at hand.
    """

    task: str
    id: str
    number: int | None = None


class ReadLater(Mapping[str, Any]):
    """A row that is read when something beyond its task and id is asked of it, which for many it never is.

    Args:
        catalogue: to read it from.
        reference: to the row.
    """

    def __init__(self, catalogue: Catalogue, reference: Reference) -> None:
        self._catalogue, self._reference = catalogue, reference
        self._row: Row | None = None

    def __getitem__(self, field: str) -> Any:
        return getattr(self._reference, field) if field in ("task", "id") else self._read()[field]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> Row:
        if self._row is None:
            (self._row,) = self._catalogue.rows([self._reference])
        return self._row


class Catalogue:
    """The training rows of tasks, from which rows are read again when they are asked for.

    Args:
        fingerprints: of tasks that are to come, by name: as ``Task.fingerprint``.
    """

    def __init__(self, fingerprints: Mapping[str, str] | None = None) -> None:
        self._fingerprints = dict(fingerprints or {})
        self._tasks: dict[str, Task] = {}
        self._tables: dict[str, Dataset] = {}

    def __contains__(self, task: str) -> bool:
        return task in self._tasks

    def add(self, tasks: Iterable[Task]) -> None:
        """Have further tasks at hand.

        Raises:
            RunError: a task has the name of a known one, and other content.
        """
        for task in tasks:
            if self._tasks.get(task.name) is task:
                continue
            known = self._fingerprints.get(task.name)
            if known is not None and known != task.fingerprint():
                raise RunError(f"{_NO_CONTINUATION} task {task.name!r} has other content than when its rows were kept")
            self._tasks[task.name] = task
            self._tables.pop(task.name, None)

    def fingerprint(self, task: str) -> str:
        """Of the task of this name."""
        if task not in self._fingerprints:
            self._fingerprints[task] = self._tasks[task].fingerprint()
        return self._fingerprints[task]

    def refer(self, rows: Sequence[Row]) -> list[Reference | Row]:
        """References to those of the rows that tasks at hand have, word for word; the others stay what they are."""
        result: list[Reference | Row] = list(rows)
        places: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(rows):
            if row.get("task") in self and "id" in row:
                places[row["task"]].append(place)
        for task, some in places.items():
            found = self._numbers(task, [rows[place]["id"] for place in some])
            references = {place: Reference(task, rows[place]["id"], found.get(rows[place]["id"])) for place in some}
            there = [place for place in some if references[place].number is not None]
            for place, read in zip(there, self.rows([references[place] for place in there]), strict=True):
                if all(read.get(field) == value for field, value in rows[place].items()):
                    result[place] = references[place]
        return result

    def locate(self, references: Iterable[Reference]) -> list[Reference]:
        """The same references, with the numbers of their rows.

        Raises:
            RunError: a task is not at hand, or has no such row.
        """
        references = list(references)
        ids: dict[str, list[str]] = defaultdict(list)
        for reference in references:
            ids[reference.task].append(reference.id)
        found = {task: self._numbers(task, some) for task, some in ids.items()}
        for reference in references:
            if reference.id not in found[reference.task]:
                raise RunError(f"{_NO_CONTINUATION} task {reference.task!r} has no training row {reference.id!r}")
        return [Reference(each.task, each.id, found[each.task][each.id]) for each in references]

    def rows(self, references: Sequence[Reference]) -> list[Row]:
        """The rows themselves, in the order of the references, each with its ``task`` and ``kind``.

        Raises:
            RunError: a task is not at hand.
        """
        places: dict[str, list[int]] = defaultdict(list)
        for place, reference in enumerate(references):
            places[reference.task].append(place)
        result: list[Row] = [{}] * len(references)
        for task, some in places.items():
            table = self._table(task)
            about = {"task": task, "kind": self._tasks[task].kind}
            read = table[[references[place].number for place in some]].to_pylist()
            for place, row in zip(some, read, strict=True):
                result[place] = row | about
        return result

    def _numbers(self, task: str, ids: Sequence[str]) -> dict[str, int]:
        """Row numbers by id, of those of the ids that a task has."""
        column = self._table(task).select_columns("id")[:]["id"]
        wanted = list(dict.fromkeys(ids))
        # a look-up in the few ids that are wanted, and not in a table of all that there are
        which = compute.index_in(column, value_set=pyarrow.array(wanted, column.type))
        numbers = compute.indices_nonzero(compute.is_valid(which))
        pairs = zip(numbers.to_pylist(), compute.take(which, numbers).to_pylist(), strict=True)
        return {wanted[place]: number for number, place in pairs}

    def _table(self, task: str) -> Dataset:
        if task not in self._tasks:
            raise RunError(f"{_NO_CONTINUATION} task {task!r}, of which it holds rows, is not among the tasks so far")
        if task not in self._tables:
            self._tables[task] = self._tasks[task].train.with_format("arrow")
        return self._tables[task]


_NO_CONTINUATION = "the buffer was restored for a stream that is not a continuation of its own:"
