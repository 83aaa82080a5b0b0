"""Methods compared over the runs that repeat them: means with intervals, paired tests, ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lifelong.errors import ConfigError, RunError, suggestion
from lifelong.metrics.statistics import (
    Interval,
    PairedComparison,
    Ranking,
    average_ranks,
    compare_paired,
    mean_interval,
)
from lifelong.run import Run

# of the columns of a study's table, those of which less is better
LOWER_IS_BETTER = (
    "forgetting",
    "intransigence",
    "worst_dip",
    "general_perplexity",
    "general_perplexity_increase",
    "seconds",
    "train_seconds",
    "train_flops",
    "strategy_bytes",
    "trainable_parameters",
)
_LEVEL = 0.95


@dataclass(frozen=True)
class Entry:
    """One run of a comparison.

    Args:
        method: what it is compared as.
        pair: seed and order, as labels by what is varied; runs of several methods with the same pair belong together.
        figures: numbers by name; undefined ones are ``None`` or NaN.
    """

    method: str
    pair: Mapping[str, str]
    figures: Mapping[str, Any]


class Comparison:
    """Finished runs of one stream, by method and pair of seed and order.

    Args:
        entries: the runs, in the order in which methods are shown.

    Raises:
        ConfigError: two runs have the same method and pair.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = list(entries)
        self.methods = list(dict.fromkeys(entry.method for entry in self.entries))
        self.pairs = list(dict.fromkeys(_called(entry.pair) for entry in self.entries))
        places = [(entry.method, _called(entry.pair)) for entry in self.entries]
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice is not None:
            raise ConfigError(f"two runs of {twice[0]!r} have the same {twice[1]}")

    def has(self, figure: str) -> bool:
        """Whether a figure is defined for some run."""
        return any(not pd.isna(entry.figures.get(figure)) for entry in self.entries)

    def scores(self, figure: str = "average_accuracy") -> pd.DataFrame:
        """One row per pair, one column per method; NaN where a run is missing or the figure undefined.

        Raises:
            ConfigError: no run has such a figure.
        """
        known = list(dict.fromkeys(name for entry in self.entries for name in entry.figures))
        if figure not in known:
            raise ConfigError(f"no run has a figure {figure!r}{suggestion(figure, known)}")
        frame = pd.DataFrame(index=pd.Index(self.pairs, name="pair"), columns=self.methods, dtype=float)
        for entry in self.entries:
            value = entry.figures.get(figure)
            frame.loc[_called(entry.pair), entry.method] = float("nan") if value is None else float(value)
        return frame

    def summary(self, figure: str = "average_accuracy") -> dict[str, Interval]:
        """The mean of each method over its pairs, with a bootstrap interval."""
        return {name: mean_interval(column.dropna(), _LEVEL) for name, column in self.scores(figure).items()}

    def against(self, reference: str, figure: str = "average_accuracy") -> list[PairedComparison]:
        """Every other method against one of them, over the pairs that both have.

        Raises:
            ConfigError: there is no such method or figure.
        """
        if reference not in self.methods:
            raise ConfigError(f"reference: there is no method {reference!r}{suggestion(reference, self.methods)}")
        return compare_paired(self.scores(figure), reference, figure not in LOWER_IS_BETTER, _LEVEL)

    def ranking(self, figure: str = "average_accuracy") -> Ranking:
        """Average ranks of the methods, for a critical-difference diagram.

        Raises:
            ConfigError: there is but one method, or no such figure.
        """
        if len(self.methods) == 1:
            raise ConfigError(f"{self.methods[0]} is the only method, so there is no rank to give")
        return average_ranks(self.scores(figure), figure not in LOWER_IS_BETTER, _LEVEL)


def check_same_stream(runs: Mapping[str, Run]) -> None:
    """Runs that are compared were taught the same tasks, in whatever order.

    Args:
        runs: by the name that messages have.

    Raises:
        RunError: two of them were not, naming what differs.
    """
    first: tuple[str, dict[str, Any]] | None = None
    for name, run in runs.items():
        tasks = {task["name"]: task for task in run.environment["tasks"]}
        if first is None:
            first = name, tasks
            continue
        for task in dict.fromkeys((*first[1], *tasks)):
            one, other = first[1].get(task), tasks.get(task)
            # runs of before do not know the fingerprints of their tasks
            if one is None or other is None or any(one[key] != other[key] for key in one.keys() & other.keys()):
                reason = "have not both" if one is None or other is None else "differ in the task"
                raise RunError(f"{first[0]} and {name} {reason} {task!r}: only runs of the same stream are compared")


def _called(pair: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {label}" for key, label in pair.items()) or "run"
