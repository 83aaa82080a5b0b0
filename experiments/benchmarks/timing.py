"""How the benchmarks compare: contenders in turn, in one process, warmed up, as medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def median_seconds(ways: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, float]:
    """The median of each way's seconds over the rounds, each of which runs every way once; earlier ones warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(warm_up + rounds):
        for name, way in ways.items():
            _finish()
            started = time.perf_counter()
            way()
            _finish()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(some) for name, some in seconds.items()}


def _finish() -> None:
    """Wait for what a GPU, if there is one in use, still has to do."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
