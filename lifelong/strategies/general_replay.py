"""Replay of general data, which belongs to no task of the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset, concatenate_datasets
from pyarrow import compute

from lifelong.data import concatenate
from lifelong.errors import ConfigError, RunError
from lifelong.losses import answer_weight
from lifelong.registry import UNSAVED_STREAM, resolve_stream
from lifelong.strategies.base import Stage, Strategy, labelled
from lifelong.strategies.checks import check_count, check_number
from lifelong.strategies.replay import rows_beside
from lifelong.strategies.traits import Traits
from lifelong.task_stream import TaskStream
from lifelong.tasks import Task

if TYPE_CHECKING:
    from lifelong.learner import Learner


class GeneralReplay(Strategy):
    """A share of general text, or of another dataset, in every batch, from the first stage on.

    It guards abilities that the stream does not teach: ordinary text, older instructions. Mixing some of what a model
    was trained on before into what it is trained on next is common practice; the form here is ours.

    Added rows make up ``share`` of a batch in number, and, being weighed by their length, in the loss too: a piece of
    text has a hundred tokens to learn where an answer has three. In each stage every row is drawn once before any comes
    again.

    Args:
        source: where the rows are: a stream's training rows, named as ``Experiment`` takes one (``"my_stream.py:f"``,
            or ``class_path`` and ``init_args``); or a file of plain text that ends in ``.txt`` or ``.md``; or a
            ``TaskStream`` or ``Task``, which no file of settings can hold: such a run is gone on with from Python.
        share: part of each batch that is general, in (0, 1). The rows come on top of the batch, and of those that
            strategies before this one in the list have added.
        characters: into pieces of at most so many characters a text is cut; see ``Task.from_text``.
        name: see ``Strategy``.

    The defaults are ours.

    Cost: of the rows nothing is kept, but for a hash of all of them. A step takes at least 1 / (1 - share) times as
    long, and more where the rows are longer than the task's, since a batch is as wide as its longest row.

    Raises:
        ConfigError: naming the setting.
    """

    traits = Traits(
        stores_data="nothing: the rows stay where they are",
        several_devices=True,
        step="at least 1 / (1 - share) times as long",
    )
    TEXT = (".txt", ".md")

    def __init__(
        self,
        source: str | Mapping[str, Any],
        share: float = 0.1,
        characters: int = 500,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.share, self.characters = share, characters
        check_number(self, "share", "(0, 1)")
        check_count(self, "characters")
        self._stream: TaskStream | None = None
        if isinstance(source, Task):
            source = TaskStream(source.name, [source])
        if isinstance(source, TaskStream):
            self._stream = source
            source = {"class_path": UNSAVED_STREAM, "init_args": {"fingerprint": source.fingerprint()[-1]}}
        elif _in_memory(source):
            raise ConfigError(
                "GeneralReplay: source: was made in Python, and is in no file; go on from Python, or save it with "
                "TaskStream.save and name lifelong.TaskStream.load"
            )
        elif not isinstance(source, str | Mapping):
            raise ConfigError(f"GeneralReplay: source must be a stream, a task or the name of a file, got {source!r}")
        self.source = source
        self._rows: Dataset | None = None
        self._draw: torch.Generator | None = None
        self._queue = torch.zeros(0, dtype=torch.int64)

    @property
    def stream_reference(self) -> str | Mapping[str, Any] | None:
        """The reference to a stream, which may name code; ``None`` for a file of text and for what is in memory."""
        return None if _in_memory(self.source) or self._is_text() else self.source

    def check(self, learner: Learner, stages: Sequence[Stage]) -> None:
        learner.family.check(self._tasks())
        if learner.family.name == "classifier" and learner.family.settings.train_labels == "own":
            raise ConfigError(
                "GeneralReplay: in a classification where the labels of a row's own task compete, rows of no task have "
                "nothing to learn; use another scenario"
            )
        counts = learner.encoder.counts.copy()
        for task in self._tasks():
            # the one that is likeliest not to fit
            lengths = compute.utf8_length(compute.list_element(task.train.with_format("arrow")[:]["answers"], 0))
            longest = compute.index(lengths, compute.max(lengths)).as_py()
            (row,) = labelled(task, task.train.select([longest]))
            learner.encoder.encode(row, learner.train_book)
        learner.encoder.counts.clear()
        learner.encoder.counts.update(counts)

    def rows_added(self, rows: int) -> int:
        return rows_beside(rows, self.share)

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        self._draw = stage.generator(f"{self.state_key}/draw")
        self._queue = torch.zeros(0, dtype=torch.int64)

    def extend_batch(self, learner: Learner, batch: dict[str, Any]) -> dict[str, Any]:
        size = self.rows_added(len(batch["task"]))
        while len(self._queue) < size:
            self._queue = torch.cat([self._queue, torch.randperm(len(self.rows), generator=self._draw)])
        picked, self._queue = self._queue[:size].tolist(), self._queue[size:]
        added = learner.batch_of([self.rows[number] for number in picked], source=self.state_key)
        added["weight"] *= self.share / (1 - self.share) * answer_weight(batch) / answer_weight(added)
        return concatenate(batch, added, learner.pad_id)

    def state_dict(self) -> dict[str, Any]:
        return {"fingerprint": self._fingerprint()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["fingerprint"] != self._fingerprint():
            raise RunError(f"{self.state_key}: source: its rows are others than those that the run was begun with")

    def step_state_dict(self) -> dict[str, Any]:
        return super().step_state_dict() | {"queue": self._queue}

    def load_step_state_dict(self, state: dict[str, Any]) -> None:
        super().load_step_state_dict(state)
        self._queue = state["queue"]

    @property
    def rows(self) -> Dataset:
        """All rows that are drawn from, each with its ``kind`` and a ``task`` that no stream has."""
        if self._rows is None:
            tasks = [replace(task, name=f"{self.state_key} {task.name}") for task in self._tasks()]
            self._rows = concatenate_datasets([labelled(task, task.train) for task in tasks])
        return self._rows

    def _fingerprint(self) -> str:
        return TaskStream("general", self._tasks()).fingerprint()[-1]

    def _is_text(self) -> bool:
        return isinstance(self.source, str) and Path(self.source).suffix in self.TEXT

    def _tasks(self) -> tuple[Task, ...]:
        """The tasks whose training rows are drawn from."""
        if self._stream is None:
            self._stream = (
                TaskStream("general", [Task.from_text("text", self.source, self.source, self.characters)])
                if self._is_text()
                else resolve_stream(self.source, "GeneralReplay: source")
            )
        if not self._stream.learned:
            raise ConfigError(f"GeneralReplay: source: {self._stream.name!r} has no rows to train on")
        return self._stream.learned


def _in_memory(source: Any) -> bool:
    return isinstance(source, Mapping) and source.get("class_path") == UNSAVED_STREAM
