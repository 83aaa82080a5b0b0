"""What a report is about: a run, a study, or the runs of one stream in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from lifelong.comparison import Comparison, check_same_stream
from lifelong.errors import RunError
from lifelong.folder import RunFolder
from lifelong.run import Run
from lifelong.selection import FILE as SELECTION_FILE
from lifelong.study import Study
from lifelong.summary import COLUMNS, DEFINITIONS, run_summary

_NAMED = 3  # runs in one warning; beyond them their number
_CUT = (
    ("rows", "read", "truncated", "rows were cut to what the model can read"),
    ("questions", "answered", "cut", "answers were cut at the longest length allowed"),
)


@dataclass(frozen=True)
class Subject:
    """What is reported.

    Args:
        folder: where it is.
        kind: ``"run"``, ``"study"``, or ``"runs"`` side by side.
        runs: those that were begun, by name.
        table: a row per run, begun or not: what tells it from others, then state, figures, costs, and a reason.
        labels: the table's columns that tell runs apart.
        comparison: of a study's methods, where a run is finished.
        plot: draws a picture of a kind, as ``Run.plot`` does.
        settings: what was run, as its configuration file has it.
        selection: a study's trials, see ``Study.selection``.
    """

    folder: Path
    kind: str
    runs: Mapping[str, Run]
    table: pd.DataFrame
    labels: Sequence[str]
    plot: Callable[..., Axes]
    settings: str
    comparison: Comparison | None = None
    selection: pd.DataFrame | None = None

    @property
    def title(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def definitions(self) -> dict[str, tuple[str, str]]:
        """Definition and source of every figure and column, by name."""
        found: dict[str, tuple[str, str]] = {}
        for figure in (figure for run in self.measured.values() for figure in run.figures()):
            if " over measured tasks" not in figure["name"]:  # defined as that over all
                found.setdefault(figure["name"], (figure["definition"], figure["source"]))
        columns = {name: (text, "lifelong") for name, text in DEFINITIONS.items() if name in self.table}
        return found | columns

    @property
    def measured(self) -> dict[str, Run]:
        """The runs with a finished stage, if only the untrained model's."""
        return {name: run for name, run in self.runs.items() if run.folder.committed() >= 0}

    @cached_property
    def sentences(self) -> list[str]:
        """How the methods of a study compare in average accuracy with the first; none where there is but one."""
        if self.comparison is None or len(self.comparison.methods) == 1:
            return []
        differences = self.comparison.against(self.comparison.methods[0])
        return [*(one.sentence for one in differences), self.comparison.ranking().sentence]

    @cached_property
    def warnings(self) -> list[str]:
        """What a reader should know before believing a number."""
        said: dict[str, list[str]] = {}
        for name, run in self.runs.items():
            for message in _warnings_of(run):
                said.setdefault(message, []).append(name)
        begun = len(self.table) - int((self.table["state"] == "not begun").sum())
        found = [] if begun == len(self.table) else [f"{len(self.table) - begun} of {len(self.table)} runs not begun"]
        for message, names in said.items():
            who = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} of {len(self.runs)} runs"
            found.append(message if self.kind == "run" else f"{who}: {message}")
        return [*found, *_counted(list(self.runs.values()))]


def subject_of(target: Run | Study | str | Path) -> Subject:
    """What there is to report on.

    Args:
        target: a run, a study, or the folder of either, or one with run folders in it. Nothing in it is imported or
            executed.

    Raises:
        RunError: it holds no run, or runs of different streams.
    """
    if isinstance(target, Study):
        return _of_study(target)
    if isinstance(target, Run):
        return _of_run(target)
    folder = Path(target)
    if (folder / "study.json").is_file():
        return _of_study(Study.load(folder))
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}")
    if RunFolder(folder).exists:
        return _of_run(Run(folder))
    return _of_folder(folder)


def _of_run(run: Run) -> Subject:
    table = pd.DataFrame([{"run": run.path.name} | run_summary(run)])
    settings = run.folder.config_file.read_text(encoding="utf-8")
    return Subject(run.path, "run", {run.path.name: run}, table, ["run"], run.plot, settings)


def _of_study(study: Study) -> Subject:
    results = study.results()
    if not results.runs:
        raise RunError(f"{study.folder}: no run of this study has begun")
    check_same_stream(results.runs)

    def plot(kind: str, **options: Any) -> Axes:
        from lifelong.reports.figures.of_study import draw

        return draw(results, kind, **options)

    return Subject(
        folder=study.folder,
        kind="study",
        runs=results.runs,
        table=results.table,
        labels=list(study.vary),
        plot=plot,
        settings=(study.folder / "config.yaml").read_text(encoding="utf-8"),
        comparison=results.comparison if "done" in results.states.values() else None,
        selection=study.selection if (study.folder / SELECTION_FILE).is_file() else None,
    )


def _of_folder(folder: Path) -> Subject:
    inner = sorted(path for path in folder.iterdir() if path.is_dir())
    studies = [path.name for path in inner if (path / "study.json").is_file()]
    runs = {path.name: Run(path) for path in inner if path.name not in studies and RunFolder(path).exists}
    if not runs:
        hint = f"; the studies {', '.join(studies)} are in it: report on one of them" if studies else ""
        raise RunError(f"{folder} holds no run{hint}")
    check_same_stream(runs)
    table = pd.DataFrame([{"run": name} | run_summary(run) for name, run in runs.items()])
    settings = "\n".join(
        f"# {name}\n{run.folder.config_file.read_text(encoding='utf-8')}" for name, run in runs.items()
    )

    def plot(kind: str) -> Axes:
        from lifelong.reports.figures import bars

        values = table.set_index("run")
        if kind not in values or not values[kind].notna().any():
            raise RunError(f"{folder}: no run has {kind!r}")
        return bars(values[[kind]].astype(float).set_axis(["value"], axis=1), kind.replace("_", " "))

    return Subject(folder, "runs", runs, table, ["run"], plot, settings)


def repeated(comparison: Comparison) -> str:
    """What the means of a comparison are over."""
    pairs = len(comparison.pairs)
    measured = next(name for name in COLUMNS if comparison.has(name))
    known = any(interval.low is not None for interval in comparison.summary(measured).values())
    intervals = "with 95 % intervals" if known else "too few for intervals"
    return f"means over {pairs} pair{'s' if pairs != 1 else ''} of seed and order, {intervals}"


def _warnings_of(run: Run) -> list[str]:
    status = {"state": "begun", "stage": 0, "stages": run.environment.get("stages", "?")} | run.status
    found = []
    if status["state"] != "done":
        reason = f": {status['reason']}" if status.get("reason") else ""
        found.append("{state}, stage {stage} of {stages}".format(**status) + reason)
    found += [f"routing {message}" for message in run.routing_warnings]
    return found + (run.retrieval_warnings if "retrieved" in run.books else [])


def _counted(runs: Sequence[Run]) -> Iterator[str]:
    """What was cut, over all runs."""
    for part, whole, kind, text in _CUT:
        counts = [status[part] for status in (run.status for run in runs) if status.get(part)]
        cut = [found[kind] for found in counts if found.get(kind)]
        if cut:
            where = f", in {len(cut)} of {len(runs)} runs" if len(runs) > 1 else ""
            yield f"{sum(cut):,} of {sum(found[whole] for found in counts):,} {text}{where}"
