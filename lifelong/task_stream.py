"""Streams of tasks: what is taught in which order."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

from datasets import Dataset, concatenate_datasets

from lifelong import examples
from lifelong.errors import DataError, suggestion
from lifelong.examples import Located
from lifelong.inside import inside
from lifelong.tasks import SAVED_SETTINGS, Task, check_name

STREAM_FILE = "stream.json"  # the index of a saved stream, in its folder


@dataclass(frozen=True, eq=False, repr=False)
class TaskStream(Sequence[Task]):
    """An immutable sequence of tasks with unique names.

    ``len``, iteration, ``stream[0]``, ``stream["capitals"]`` and slices (again streams) work as expected. Tasks that
    are ``measure_only`` may stand anywhere among the others, and a stream may hold nothing else.

    Raises:
        DataError: no tasks, or two of one name.
    """

    name: str
    tasks: Iterable[Task]  # a tuple, once it has been made

    def __post_init__(self) -> None:
        object.__setattr__(self, "tasks", tuple(self.tasks))
        check_name("stream", self.name)
        if not self.tasks:
            raise DataError(f"stream {self.name!r} has no tasks")
        seen: set[str] = set()
        for task in self.tasks:
            # compared without case, since names become file names
            if task.name.casefold() in seen:
                raise DataError(f"stream {self.name!r}: two tasks are named {task.name!r}")
            seen.add(task.name.casefold())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.tasks)

    @property
    def learned(self) -> tuple[Task, ...]:
        """The tasks that are trained on, in order."""
        return tuple(task for task in self.tasks if not task.measure_only)

    @property
    def held_out(self) -> tuple[Task, ...]:
        """The tasks that are measured only."""
        return tuple(task for task in self.tasks if task.measure_only)

    def __len__(self) -> int:
        return len(self.tasks)

    @overload
    def __getitem__(self, index: int | str) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> TaskStream: ...
    def __getitem__(self, index: int | str | slice) -> Task | TaskStream:
        if isinstance(index, slice):
            return TaskStream(self.name, self.tasks[index])
        if isinstance(index, str):
            if index not in self.names:
                raise KeyError(f"stream {self.name!r} has no task {index!r}{suggestion(index, self.names)}")
            return self.tasks[self.names.index(index)]
        return self.tasks[index]

    def __repr__(self) -> str:
        return f"TaskStream({self.name!r}, {list(self.names)})"

    def _repr_html_(self) -> str:
        from lifelong.reports.notebook import stream_html

        return stream_html(self)

    def order(self, names: Sequence[str]) -> TaskStream:
        """The tasks named, in this order; tasks that are not named are left out."""
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise DataError(f"stream {self.name!r} has no task {unknown[0]!r}{suggestion(unknown[0], self.names)}")
        return TaskStream(self.name, [self[name] for name in names])

    def shuffle(self, seed: int) -> TaskStream:
        """The same tasks, those that are learned in an order decided by ``seed`` alone, the others where they are."""
        learned = list(self.learned)
        random.Random(seed).shuffle(learned)
        following = iter(learned)
        return TaskStream(self.name, [task if task.measure_only else next(following) for task in self])

    def limit(self, train: int | None = None, test: int | None = None, seed: int | None = None) -> TaskStream:
        """At most so many rows per task and split: the first ones, or with ``seed`` a random sample."""

        def cut(rows: Dataset, size: int | None) -> Dataset:
            if size is None or size >= len(rows):
                return rows
            if size < 1:
                raise DataError(f"a limit must be at least 1, got {size}")
            picked = range(size) if seed is None else sorted(random.Random(seed).sample(range(len(rows)), size))
            return rows.select(picked)

        return TaskStream(
            self.name, [replace(task, train=cut(task.train, train), test=cut(task.test, test)) for task in self]
        )

    def joint(self) -> TaskStream:
        """A stream of one task that holds the rows of all that are learned, and behind it those that are measured only.

        Row ids get their task's name in front.

        Raises:
            DataError: nothing is learned, or the tasks are measured in different ways, so that one task cannot stand
                for them.
        """
        learned = self.learned
        if not learned:
            raise DataError(f"stream {self.name!r}: all tasks are measure_only, so there is nothing to join")
        if any(task.metric != learned[0].metric for task in learned):
            raise DataError(f"stream {self.name!r}: tasks with different metrics cannot be joined into one")

        def join(split: str) -> Dataset | None:
            parts = [_with_task_in_ids(task, rows) for task in learned if (rows := getattr(task, split)) is not None]
            return concatenate_datasets(parts) if parts else None

        passages = [passage for task in learned for passage in task.passages]
        kind = learned[0].kind if len({task.kind for task in learned}) == 1 else "downstream"
        joint = Task("joint", join("train"), join("test"), join("validation"), passages, kind, learned[0].metric)
        return TaskStream(self.name, [joint, *self.held_out])

    def fingerprint(self) -> tuple[str, ...]:
        """One hash per task, chained: two streams with the same first k tasks share the first k hashes."""
        chain: list[str] = []
        for task in self:
            before = chain[-1] if chain else ""
            chain.append(hashlib.sha256((before + task.fingerprint()).encode()).hexdigest())
        return tuple(chain)

    @classmethod
    def group(
        cls,
        dataset: Dataset,
        by: str,
        test: Dataset | float = 0.2,
        name: str = "grouped",
        seed: int = 0,
        columns: Mapping[str, str] | None = None,
        choices: Sequence[str] = (),
        **settings: Any,
    ) -> TaskStream:
        """One task per value of a column, in the order in which the values first appear.

        Args:
            dataset: rows of all tasks together.
            by: the column whose values name the tasks.
            test: a dataset with the same column, or the share of each task's rows held out as its test (at least one
                row stays on either side).
            name: the stream's name.
            seed: decides which rows are held out.
            columns, choices, **settings: as for ``Task.from_dataset``.
        """
        groups, tasks = _by_value(dataset, by), []
        tested = _by_value(test, by) if isinstance(test, Dataset) else {}
        unknown = [value for value in tested if value not in groups]
        if unknown:
            raise DataError(f"the test set has rows of the group {unknown[0]!r}, which has nothing to train on")
        for value, rows in groups.items():
            train = dataset.select(rows)
            if isinstance(test, Dataset):
                held_out = test.select(tested.get(value, []))
            else:
                learned, asked = _split(value, len(rows), test, seed)
                train, held_out = train.select(learned), train.select(asked)
            tasks.append(Task.from_dataset(str(value), train, held_out, None, columns, choices, **settings))
        return cls(name, tasks)

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        by: str,
        test: str | Path | float | None = None,
        name: str | None = None,
        seed: int = 0,
        columns: Mapping[str, str] | None = None,
        choices: Sequence[str] = (),
        delimiter: str = ",",
        **settings: Any,
    ) -> TaskStream:
        """One task per value of a column of a CSV file, in the order in which the values first appear.

        Args:
            path: a file with a header line.
            by: the column whose values name the tasks: a topic, a month.
            test: ``None`` asks what was taught, in the same words (recall tasks); a number is the share of each task's
                rows that are held out as its test (at least one row stays on either side); a second file holds the
                tests, with the same columns.
            name: the stream's name; the file's by default.
            seed: decides which rows are held out.
            columns: ``{field: column}`` for fields whose column has another name.
            choices: choices shared by all rows (class names, for example).
            delimiter: between cells.
            **settings: ``passages``, ``kind``, ``metric`` and what follows it in ``Task``.

        Raises:
            DataError: naming file, line and field.
        """
        groups = _located_by_value(examples.read_csv(path, delimiter), by)
        from_file = isinstance(test, str | Path)
        tested = _located_by_value(examples.read_csv(test, delimiter), by) if from_file else {}
        tasks = []
        for value, rows in groups.items():
            learned = asked = rows
            if from_file:
                asked = tested.pop(value, [])
            elif test is not None:
                learned, asked = ([rows[number] for number in part] for part in _split(value, len(rows), test, seed))
            splits = {"train": learned, "test": asked}
            tasks.append(Task.read(value, iter, splits, columns, choices, **settings))
        if tested:
            raise DataError(f"{test}: has rows of {next(iter(tested))!r}, which has nothing to train on in {path}")
        return cls(name or Path(path).stem, tasks)

    def save(self, folder: str | Path) -> None:
        """Write the stream as JSON-lines files, one per task and split, with an index in ``stream.json``.

        Raises:
            DataError: a task's metric is a callable, which cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        index = []
        for number, task in enumerate(self):
            if not isinstance(task.metric, str):
                raise DataError(
                    f"task {task.name!r}: a metric that is a function cannot be saved; name the stream's "
                    "function in the configuration instead"
                )
            entry: dict[str, Any] = {setting: getattr(task, setting) for setting in SAVED_SETTINGS}
            for split in ("train", "validation", "test"):
                rows = getattr(task, split)
                if rows is not None and len(rows):
                    entry[split] = f"{number}.{split}.jsonl"
                    with (folder / entry[split]).open("w", encoding="utf-8") as file:
                        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in examples.plain_rows(rows))
                        file.writelines(lines)
            index.append(entry)
        text = json.dumps({"name": self.name, "tasks": index}, indent=2, ensure_ascii=False)
        (folder / STREAM_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> TaskStream:
        """Read what ``save`` wrote.

        Raises:
            DataError: there is no such stream, or its index or a row is damaged.
            RunError: its index names a file outside of the folder.
        """
        folder = Path(folder)
        file = folder / STREAM_FILE
        try:
            index = json.loads(file.read_text(encoding="utf-8"))
            tasks = []
            for entry in index["tasks"]:
                names = {split: entry.pop(split, None) for split in ("train", "test", "validation")}
                splits = {split: name and inside(folder, name, file) for split, name in names.items()}
                tasks.append(Task.from_jsonl(**splits, **entry))
            return cls(index["name"], tasks)
        except FileNotFoundError:
            raise DataError(f"there is no saved stream in {folder}") from None
        except DataError:
            raise
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise DataError(f"{file} is no index of a saved stream ({error}): save the stream again") from error


def _with_task_in_ids(task: Task, rows: Dataset) -> Dataset:
    ids = Dataset.from_dict({"id": [f"{task.name}/{name}" for name in rows["id"]]})
    return concatenate_datasets([ids, rows.remove_columns("id")], axis=1)


def _split(group: Any, size: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Row numbers to learn and to ask, at least one of either."""
    if size < 2:
        raise DataError(f"group {group!r} has one row: too few to hold out a test")
    if not 0 < share < 1:
        raise DataError(f"test: is a share of the rows, between 0 and 1, got {share!r}")
    asked = min(max(1, round(share * size)), size - 1)
    order = random.Random(f"{seed} {group}").sample(range(size), size)
    return sorted(order[asked:]), sorted(order[:asked])


def _located_by_value(rows: Iterator[Located], column: str) -> dict[str, list[Located]]:
    """Rows of a file per value of a column, in order of first appearance."""
    groups: dict[str, list[Located]] = {}
    for where, row in rows:
        if column not in row:
            raise DataError(f"{where}: there is no column {column!r} to group by{suggestion(column, map(str, row))}")
        if not row[column].strip():
            raise DataError(f"{where}, column {column!r}: is empty, and names the task")
        groups.setdefault(row[column].strip(), []).append((where, row))
    return groups


def _by_value(dataset: Dataset, column: str) -> dict[Any, list[int]]:
    """Row numbers per value of a column, in order of first appearance; class labels by name."""
    if column not in dataset.column_names:
        raise DataError(f"there is no column {column!r} to group by{suggestion(column, dataset.column_names)}")
    feature = dataset.features[column]
    rows: dict[Any, list[int]] = {}
    for number, value in enumerate(dataset[column]):
        rows.setdefault(feature.int2str(value) if hasattr(feature, "int2str") else value, []).append(number)
    return rows
