"""What a person sees while a run is going on."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lifelong.console import Console

PROGRESS = "progress.json"  # in a run's folder, while something is being done to it
_EVERY = 1.0  # seconds between two writings of it
_LOSSES = 60  # the last ones, that it holds


class Reporter:
    """A progress bar and a line after each stage; on a stream that is no terminal the lines alone.

    Others can follow, too: see :meth:`followed`.

    Args:
        quiet: show nothing at all.
        console: where to write.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self.quiet = quiet
        self.console = console or Console()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        show = not quiet and (self.console.is_terminal or self.console.is_jupyter)
        self._progress = Progress(*columns, console=self.console, transient=True, disable=not show)
        self._current: Any = None
        self._file: Path | None = None
        self._written = 0.0
        self._doing: dict[str, Any] = {}

    def __enter__(self) -> Reporter:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def begin(self, description: str, total: int) -> None:
        """Show a new piece of work with ``total`` steps."""
        if self._current is not None:
            self._progress.remove_task(self._current)
        self._current = self._progress.add_task(description, total=total)
        losses = deque(maxlen=_LOSSES)
        self._doing = {"doing": description, "done": 0, "total": total, "since": time.time(), "losses": losses}
        self._write()

    def advance(self, steps: int = 1, loss: Any = None) -> None:
        """So many steps were done, the last with this loss; it is read, which waits for the device, once a second."""
        self._progress.advance(self._current, steps)
        self._doing["done"] += steps
        if self._file is not None and time.time() - self._written >= _EVERY:
            if loss is not None:
                self._doing["losses"].append(round(float(loss), 6))
            self._write()

    @contextmanager
    def followed(self, folder: Path) -> Iterator[None]:
        """A context in which ``progress.json`` in a folder says, once a second, what is being done.

        It has ``doing``; ``done`` and ``total`` steps of it; ``since``, when it began, and ``at``, when this was
        written, in seconds since 1970; and the last ``losses``.
        """
        self._file = folder / PROGRESS
        try:
            yield
        finally:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)
            self._file = None

    def _write(self) -> None:
        """Without waiting for the disk: it is of no use after a crash, and must not be the cause of one."""
        self._written = time.time()
        if self._file is None:
            return
        content = self._doing | {"at": self._written, "losses": list(self._doing["losses"])}
        with suppress(OSError):
            temporary = self._file.with_name(f".{PROGRESS}.tmp")
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(self._file)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if not self.quiet:
            self.console.print(text, highlight=False, soft_wrap=True)


class StepProgress(Callback):
    """Moves the reporter's bar at every optimiser step."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def on_train_batch_end(self, trainer: Trainer, learner: LightningModule, *batch: Any) -> None:
        self.reporter.advance(loss=learner.losses[-1] if learner.losses else None)
