"""What a person sees while a run is going on."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lifelong.console import Console


class Reporter:
    """A progress bar and a line after each stage; on a stream that is no terminal the lines alone.

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

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(self._current, steps)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if not self.quiet:
            self.console.print(text, highlight=False, soft_wrap=True)


class StepProgress(Callback):
    """Moves the reporter's bar at every optimiser step."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def on_train_batch_end(self, trainer: Trainer, learner: LightningModule, *batch: Any) -> None:
        self.reporter.advance()
