"""The figures of one run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.axes import Axes

from lifelong.errors import ConfigError, suggestion
from lifelong.metrics.functional import per_task
from lifelong.reports.figures.bars import bars, books
from lifelong.reports.figures.lines import curves, losses
from lifelong.reports.figures.style import recolour, say

if TYPE_CHECKING:
    from lifelong.run import Run


def draw(run: Run, kind: str, ax: Axes | None = None, **options: Any) -> Axes:
    """One figure of a run, see ``Run.plot``."""
    if kind not in KINDS:
        raise ConfigError(f"unknown plot {kind!r}{suggestion(kind, KINDS)}")
    return KINDS[kind](run, ax, **options)


def _matrix(run: Run, ax: Axes | None, **options: Any) -> Axes:
    matrix = run.matrix_of(**options)
    own = ax is None
    figure, ax = matrix.plot(ax)
    if own:
        recolour(figure)
    scores = matrix.to_frame().dropna(how="all")
    told = ", ".join(f"{task} {value:.2f}" for task, value in scores.iloc[-1].dropna().items())
    return say(ax, f"Scores after each of {matrix.stages} stages on {len(scores.columns)} tasks. In the end: {told}.")


def _curves(run: Run, ax: Axes | None, **options: Any) -> Axes:
    matrix = run.matrix_of(**options)
    scores = matrix.scores.cpu().numpy()
    rows = [
        {"label": task, "stage": stage, "value": scores[stage, column]}
        for column, task in enumerate(matrix.columns)
        for stage in range(len(scores))
    ]
    return curves(pd.DataFrame(rows), matrix.name.replace("_", " "), ax)


def _forgetting(run: Run, ax: Axes | None, **options: Any) -> Axes:
    matrix = run.matrix_of(**options)
    terms = per_task("forgetting", matrix.matrix).numpy()[:-1]
    if not len(terms):
        raise ConfigError(f"{run.path}: forgetting needs at least two tasks")
    return bars(pd.DataFrame({"value": terms}, index=list(matrix.tasks)[:-1]), "forgetting", ax)


def _routing(run: Run, ax: Axes | None, stage: int | None = None, value: str = "gate") -> Axes:
    if ax is not None:
        raise ConfigError("ax: the routing of each task has axes of its own")
    tables = _routing_tables(run)
    stage = max(tables) if stage is None else stage
    if stage not in tables:
        raise ConfigError(f"stage: there is routing of the stages {', '.join(map(str, tables))}, not of {stage}")
    figure = tables[stage].plot(value)
    recolour(figure)
    found = run.routing.query("stage == @stage").groupby("task", sort=False)[value]
    told = ", ".join(f"{task} at most {top:.2f}" for task, top in found.max().items())
    return say(figure.axes[0], f"The {value} of each expert by layer and task, after stage {stage}: {told}.")


def _drift(run: Run, ax: Axes | None) -> Axes:
    _routing_tables(run)
    frame = run.routing_drift.groupby(["task", "stage"], sort=False).drift.mean().reset_index()
    if frame.empty:
        raise ConfigError(f"{run.path} has the routing of one stage alone, from which nothing drifts")
    return curves(frame.rename(columns={"task": "label", "drift": "value"}), "drift of the gates", ax)


def _routing_tables(run: Run) -> dict[int, Any]:
    if not run.routing_tables:
        raise ConfigError(f"{run.path} has no routing to draw: its model has no mixture of experts")
    return run.routing_tables


def _books(run: Run, ax: Axes | None, split: str = "test") -> Axes:
    rows = run.rows[run.rows.split == split]
    ends = rows[rows.stage.isin([0, rows.stage.max()])]
    if ends.empty:
        raise ConfigError(f"{run.path} has no answers of the split {split!r}")
    table = ends.pivot_table(index=["task", "pass"], columns="stage", values="score", sort=False)
    table.columns = ["before", "after"] if len(table.columns) == 2 else ["after"]
    return books(table.reindex(columns=["before", "after"]).reset_index(), "score", ax)


def _retrieval(run: Run, ax: Axes | None, figure: str = "recall", split: str = "test") -> Axes:
    frame = run.retrieval
    frame = frame[frame.split == split] if len(frame) else frame
    if frame.empty:
        raise ConfigError(f"{run.path} has no retrieved pass, so nothing was looked for")
    if figure not in ("recall", "mrr", "ndcg"):
        raise ConfigError(f"figure: there is no {figure!r}{suggestion(figure, ('recall', 'mrr', 'ndcg'))}")
    return curves(frame.rename(columns={"task": "label", figure: "value"}), figure, ax)


def _losses(run: Run, ax: Axes | None) -> Axes:
    return losses({run.path.name: stage_losses(run)}, run.tasks, ax)


def stage_losses(run: Run) -> list[list[float]]:
    """The training loss of each optimiser step, by stage from the first one on.

    Raises:
        ConfigError: no stage has been learned.
    """
    files = [run.folder.stage(stage) / "losses.json" for stage in range(1, run.folder.committed() + 1)]
    if not files:
        raise ConfigError(f"{run.path} has learned no stage yet")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


KINDS: dict[str, Callable[..., Axes]] = {
    "matrix": _matrix,
    "curves": _curves,
    "forgetting": _forgetting,
    "routing": _routing,
    "routing drift": _drift,
    "books": _books,
    "retrieval": _retrieval,
    "losses": _losses,
}
