"""Where the time of a stage goes: training, strategies, and waiting for batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from lightning.pytorch import Callback

FIT, STRATEGY, INPUT = "fit", "strategy", "input"  # the last two are parts of the first
AROUND = "around"  # before and after it, of strategies


class Stopwatch:
    """Wall-clock seconds by name; on an accelerator those in which work was handed to it.

    Attributes:
        seconds: by name, of what is over.
    """

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._since: dict[str, float] = {}

    def so_far(self) -> dict[str, float]:
        """Seconds by name, with what is going on now."""
        now = perf_counter()
        return dict(self.seconds + Counter({name: now - since for name, since in self._since.items()}))

    def split(self) -> dict[str, float]:
        """The seconds of a stage so far: in ``training``, in strategies, and waiting for ``input``."""
        spent = self.so_far()
        fit, strategy, waited, around = (spent.get(name, 0.0) for name in (FIT, STRATEGY, INPUT, AROUND))
        return {"training": fit - strategy - waited, "strategy": strategy + around, "input": waited}

    @contextmanager
    def measuring(self, name: str) -> Iterator[None]:
        self._since[name] = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += perf_counter() - self._since.pop(name)


class Lap(Callback):
    """Adds the time since another lap to a stopwatch.

    One stands before and one behind the strategies in the Trainer's list: what is between them is the strategies' own;
    what is between the last of a step and the first of the next one is the wait for a batch.
    """

    def __init__(self, watch: Stopwatch, behind: bool, shared: dict[str, float]) -> None:
        self.watch, self.behind, self.shared = watch, behind, shared

    def on_train_start(self, *_: Any) -> None:
        self.shared["since"] = perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        self._lap(STRATEGY if self.behind else INPUT)

    def on_before_optimizer_step(self, *_: Any) -> None:
        self._lap(STRATEGY if self.behind else None)

    def on_train_batch_end(self, *_: Any) -> None:
        self._lap(STRATEGY if self.behind else None)

    def _lap(self, name: str | None) -> None:
        now = perf_counter()
        if name is not None:
            self.watch.seconds[name] += now - self.shared["since"]
        self.shared["since"] = now


def timed(watch: Stopwatch, strategies: Sequence[Callback]) -> list[Callback]:
    """Strategies between two laps."""
    shared: dict[str, float] = {"since": perf_counter()}
    return [Lap(watch, False, shared), *strategies, Lap(watch, True, shared)]
