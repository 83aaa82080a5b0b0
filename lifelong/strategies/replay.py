"""Experience replay."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from lifelong.errors import ConfigError, suggestion
from lifelong.examples import plain_rows
from lifelong.memory import BalancedBuffer, Buffer, GroupedBuffer, ReservoirBuffer, RingBuffer
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.checks import check_number
from lifelong.strategies.episodes import attach_tasks
from lifelong.strategies.traits import Traits

if TYPE_CHECKING:
    from lifelong.learner import Learner

BUFFERS: Mapping[str, type[Buffer]] = {
    "reservoir": ReservoirBuffer,
    "balanced": BalancedBuffer,
    "ring": RingBuffer,
}


class Replay(Strategy):
    """Mix rows of earlier tasks into every batch (Chaudhry et al., "On tiny episodic memories", 2019,
    https://arxiv.org/abs/1902.10486).

    What is kept is decided when a stage has been learned, by a generator of its own. A replayed row keeps its task and
    kind.

    Args:
        capacity: an integer keeps so many rows of all earlier tasks together; a fraction in (0, 1], such as .02, keeps
            this share of each stage's rows, in a buffer of its own.
        share: part of each batch that is replayed, in (0, 1). The rows come on top of the batch: with .5 a step on 16
            new rows replays 16 old ones, and takes about twice as long. Rows that a strategy before this one in the
            list has added are rows of the batch too: the last one has its share of what is trained on.
        buffer: which rows are kept: ``"reservoir"`` a uniform sample, ``"balanced"`` as many of each group, a uniform
            sample within it, ``"ring"`` the latest of each group.
        by: what makes a group of a balanced or ring buffer: the ``"task"``, which is the default, or the first
            ``"answer"``, in a classification the label.
        name: see ``Strategy``.

    The defaults are ours: a buffer of a tenth of each task, and equal shares as in the paper.

    Cost: a reference for each row that is kept, some 20 bytes where ids are short, and the random state of each buffer
    (5 KB), of which there is one, or with a fraction one for each stage; a row that is in no task of the stream is kept
    as text. A step takes 1 / (1 - share) times as long, whatever the number of tasks.

    A buffer that was restored is refused before a stage whose earlier tasks are not those that it was filled from.

    Raises:
        ConfigError: naming the setting.
    """

    conflicts = {"Joint": "a joint run has no earlier tasks to replay"}
    traits = Traits(
        boundary=True,
        stores_data="references to some rows of each task",
        kept="24 * R + 6500 * S",
        grows=True,
        several_devices=True,
        step="1 / (1 - share) times as long",
        stage="a look at each of its rows",
    )

    def __init__(
        self,
        capacity: int | float = 0.1,
        share: float = 0.5,
        buffer: str = "reservoir",
        by: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        kind = type(self).__name__
        whole = isinstance(capacity, int) and not isinstance(capacity, bool) and capacity >= 1
        if not (whole or (isinstance(capacity, float) and 0 < capacity <= 1)):
            raise ConfigError(f"{kind}: capacity must be a positive integer or a fraction in (0, 1], got {capacity!r}")
        if buffer not in tuple(BUFFERS):  # a tuple, since what is given may have no hash
            raise ConfigError(f"{kind}: buffer: unknown {buffer!r}{suggestion(str(buffer), BUFFERS)}")
        if by is not None and buffer == "reservoir":
            raise ConfigError(f"{kind}: by: a reservoir has no groups; use buffer='balanced' or 'ring'")
        if by not in (None, *GroupedBuffer.GROUPINGS):
            raise ConfigError(f"{kind}: by: unknown {by!r}{suggestion(str(by), GroupedBuffer.GROUPINGS)}")
        self.capacity, self.share, self.buffer, self.by = capacity, share, buffer, by
        check_number(self, "share", "(0, 1)")
        self.buffers: dict[str, Buffer] = {}
        self._draw: torch.Generator | None = None

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        """All rows that are kept."""
        return [row for buffer in self.buffers.values() for row in buffer.rows]

    def check(self, learner: Learner, stages: Sequence[Stage]) -> None:
        grouped_by_task = self.buffer != "reservoir" and self.by in (None, "task")
        tasks = {stage.task.name for stage in stages}
        if grouped_by_task and isinstance(self.capacity, int) and self.capacity < len(tasks):
            raise ConfigError(
                f"{type(self).__name__}: capacity: {self.capacity} rows are fewer than one for each of the "
                f"{len(tasks)} tasks"
            )

    def rows_added(self, rows: int) -> int:
        return rows_beside(rows, self.share)

    def rows_kept(self, rows: Sequence[int]) -> int:
        if isinstance(self.capacity, int):
            return min(self.capacity, sum(rows))
        return sum(self._part_of(size) for size in rows)

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        self._draw = stage.generator(f"{self.state_key}/draw")
        for buffer in self.buffers.values():
            attach_tasks(buffer, stage, self.state_key)

    def extend_batch(self, learner: Learner, batch: dict[str, Any]) -> dict[str, Any]:
        rows = self.drawn(rows_beside(len(batch["task"]), self.share))
        return learner.extend(batch, rows, source=self.state_key) if rows else batch

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        if isinstance(self.capacity, int):
            key, capacity = "all tasks", self.capacity
        else:
            key, capacity = f"stage {stage.index}", self._part_of(len(stage.train))
        if key not in self.buffers:
            self.buffers[key] = self._empty(capacity, stage.generator(f"{self.state_key}/keep"))
        attach_tasks(self.buffers[key], stage, self.state_key)
        self.buffers[key].extend(plain_rows(stage.train))

    def state_dict(self) -> dict[str, Any]:
        return {key: buffer.state_dict() for key, buffer in self.buffers.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.buffers = {}
        for key, state in state_dict.items():
            self.buffers[key] = self._empty(state["capacity"], torch.Generator())
            self.buffers[key].load_state_dict(state)

    def drawn(self, size: int) -> list[Mapping[str, Any]]:
        """So many of the rows that are kept, each at most once where there are enough; none where none are kept."""
        buffers = list(self.buffers.values())
        starts = [0, *accumulate(map(len, buffers))]
        if not starts[-1]:
            return []
        if size <= starts[-1]:
            picked = torch.randperm(starts[-1], generator=self._draw)[:size]
        else:
            picked = torch.randint(starts[-1], (size,), generator=self._draw)
        rows = []
        for number in picked.tolist():
            which = bisect_right(starts, number) - 1
            rows += buffers[which].peek([number - starts[which]])
        return rows

    def _part_of(self, rows: int) -> int:
        return max(1, round(self.capacity * rows))

    def _empty(self, capacity: int, generator: torch.Generator) -> Buffer:
        options = {} if self.buffer == "reservoir" else {"by": self.by or "task"}
        return BUFFERS[self.buffer](capacity, generator, **options)


def rows_beside(rows: int, share: float) -> int:
    """How many rows beside so many others make up this share of all; at least one."""
    return max(1, round(rows * share / (1 - share)))
