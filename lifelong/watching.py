"""What a run or a study is doing now, as read from its folder; nothing in it is imported or executed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.errors import RunError
from lifelong.lock import is_locked
from lifelong.progress import PROGRESS
from lifelong.run import Run

if TYPE_CHECKING:
    from lifelong.metrics.accuracy_matrix import AccuracyMatrix

WAITING, RUNNING = "not begun", "running"


@dataclass(frozen=True)
class Progress:
    """What is being done.

    Args:
        doing: in words.
        done, total: steps.
        seconds: since it began.
        losses: the last ones of training.
    """

    doing: str
    done: int
    total: int
    seconds: float
    losses: tuple[float, ...]

    @property
    def left(self) -> float | None:
        """Seconds that it will take, if it goes on like this."""
        return self.seconds * (self.total - self.done) / self.done if self.done else None


@dataclass(frozen=True)
class Moment:
    """A run at one moment.

    Args:
        state: as ``Run.status`` has it, or ``"not begun"``.
        stage, stages: finished, and in all.
        reason: why it ended, where something went wrong.
        progress: what is being done, of a run that is going on.
        matrix: as far as it is known.
        seconds: of training and evaluation so far.
    """

    state: str
    stage: int = 0
    stages: int = 0
    reason: str | None = None
    progress: Progress | None = None
    matrix: AccuracyMatrix | None = None
    seconds: float = 0.0


class Watched:
    """A run folder that is looked at again and again; what is large is read when a stage has ended.

    Args:
        folder: perhaps not there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: tuple[Any, Run | None, AccuracyMatrix | None, float] = (None, None, None, 0.0)

    def look(self) -> Moment:
        """The run as it is now.

        Raises:
            RunError: the folder has been damaged.
        """
        if not (self.folder / "environment.json").is_file():
            return Moment(WAITING)
        working = is_locked(self.folder)
        stages = self.folder / "stages"
        there = sorted(path.name for path in stages.iterdir() if path.name.isdigit()) if stages.is_dir() else []
        if self._known[0] != there:
            try:
                self._read(there)
            except RunError:
                if working:  # it is being made
                    return Moment(RUNNING, progress=self._progress())
                raise
        _, run, matrix, seconds = self._known
        status = run.status
        return Moment(
            # that of an attempt before this one stands there until a stage has ended
            state=RUNNING if working else status.get("state", "killed"),
            stage=len(there) - 1 if there else 0,
            stages=run.environment["stages"],
            reason=None if working else status.get("reason"),
            progress=self._progress() if working else None,
            matrix=matrix,
            seconds=seconds,
        )

    def _read(self, there: list[str]) -> None:
        run = Run(self.folder)
        measured = run.folder.committed() >= 0
        seconds = sum(cost["train_seconds"] + cost["evaluate_seconds"] for cost in run.costs) if measured else 0.0
        self._known = (there, run, run.matrix if measured else None, seconds)

    def _progress(self) -> Progress | None:
        try:
            found = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
            losses = tuple(float(loss) for loss in found["losses"])
            seconds = max(0.0, time.time() - float(found["since"]))
            return Progress(str(found["doing"]), int(found["done"]), int(found["total"]), seconds, losses)
        except (OSError, ValueError, KeyError, TypeError):  # between two pieces of work there is none
            return None
