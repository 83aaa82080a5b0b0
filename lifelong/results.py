"""What the runs of a study came to, as they are at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lifelong.describe import plain
from lifelong.errors import RunError
from lifelong.folder import RunFolder
from lifelong.grid import PAIRS, Point, is_joint, methods
from lifelong.run import Run
from lifelong.summary import run_summary

if TYPE_CHECKING:
    from lifelong.comparison import Comparison

_OF_THE_JOINT_RUN = ("seed", "model", "adapter")  # the settings in which a run and its joint run agree


class Results:
    """The runs of a study, each read once, when it is first needed; ``Study.results()`` makes one.

    Args:
        folder: of the study.
        points: its grid.
    """

    def __init__(self, folder: Path, points: Sequence[Point]) -> None:
        self.folder = folder
        self.points = points

    @cached_property
    def runs(self) -> Mapping[str, Run]:
        """The runs begun so far, by the name of their folder."""
        return {point.folder.name: Run(point.folder) for point in self.points if RunFolder(point.folder).exists}

    @cached_property
    def states(self) -> Mapping[str, str]:
        """Of each run that has begun."""
        return {name: run.status.get("state", "unknown") for name, run in self.runs.items()}

    @cached_property
    def finished(self) -> Mapping[str, list[Run]]:
        """The runs of each method that are done; those that several points share once.

        Raises:
            RunError: none is.
        """
        found = {}
        for name, group in methods(self.points).items():
            folders = dict.fromkeys(point.folder.name for point in group)
            found[name] = [self.runs[folder] for folder in folders if self.states.get(folder) == "done"]
        found = {name: runs for name, runs in found.items() if runs}
        if not found:
            raise RunError(f"{self.folder} has no finished run yet")
        return found

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per run, see ``Study.table``."""
        summaries: dict[str, dict[str, Any]] = {}
        rows = []
        for point in self.points:
            name = point.folder.name
            if name in self.runs and name not in summaries:
                summaries[name] = run_summary(self.runs[name], self._joint_of(point))
            rows.append(dict(point.labels) | summaries.get(name, {"state": "not begun"}))
        return pd.DataFrame(rows)

    @cached_property
    def comparison(self) -> Comparison:
        """The methods side by side, see ``Study.comparison``."""
        from lifelong.comparison import Comparison, Entry, check_same_stream

        check_same_stream({name: run for name, run in self.runs.items() if self.states[name] == "done"})
        found = [
            Entry(point.method, {key: point.labels[key] for key in PAIRS if key in point.labels}, row)
            for point, row in zip(self.points, self.table.to_dict("records"), strict=True)
            if row["state"] == "done"
        ]
        if not found:
            raise RunError(f"{self.folder} has no finished run to compare")
        return Comparison(found)

    def _joint_of(self, point: Point) -> Run | None:
        """The finished joint run that a run is measured against."""
        if is_joint(point.config):
            return None
        for other in self.points:
            same = all(plain(other.config.get(key)) == plain(point.config.get(key)) for key in _OF_THE_JOINT_RUN)
            if same and is_joint(other.config) and self.states.get(other.folder.name) == "done":
                return self.runs[other.folder.name]
        return None
