"""The figures of a study: its methods beside each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lifelong.errors import ConfigError, RunError, suggestion
from lifelong.metrics.heatmap import draw_heatmap
from lifelong.metrics.statistics import Interval, mean_interval
from lifelong.reports.figures.bars import bars
from lifelong.reports.figures.lines import curves, losses
from lifelong.reports.figures.methods import pareto, ranks
from lifelong.reports.figures.of_run import stage_losses
from lifelong.reports.figures.style import literal, panels, recolour, say
from lifelong.run import Run

if TYPE_CHECKING:
    from lifelong.results import Results

_IN_A_ROW = 3
_MOST = 12  # matrices of single runs in one picture; beyond them there is one for each method


def draw(results: Results, kind: str, ax: Axes | None = None, **options: Any) -> Axes:
    """One figure of a study, see ``Study.plot``."""
    if kind not in KINDS:
        raise ConfigError(f"unknown plot {kind!r}{suggestion(kind, KINDS)}")
    return KINDS[kind](results, ax, **options)


def _matrix(results: Results, ax: Axes | None) -> Axes:
    """A matrix for each run; of many runs one for each method, its mean over the pairs."""
    if ax is not None:
        raise ConfigError("ax: the matrices of a study have axes of their own")
    runs = {name: run for name, run in results.runs.items() if run.folder.committed() >= 0}
    if not runs:
        raise RunError(f"{results.folder} has no finished stage yet")
    if len(runs) > _MOST:
        shown = {name: _mean_matrix(group) for name, group in results.finished.items()}
    else:
        labels = {point.folder.name: point.labels for point in results.points}
        named = {
            name if len(labels[name]) > 1 else next(iter(labels[name].values())): run for name, run in runs.items()
        }
        shown = {name: _matrix_of(run) for name, run in named.items()}
    tasks = max(len(found["tasks"]) for found in shown.values())
    columns = min(len(shown), _IN_A_ROW)
    rows = -(-len(shown) // columns)
    made = panels(rows, columns, columns * (2.5 + 0.9 * tasks), rows * (1.5 + 0.6 * tasks))
    told = []
    for part, (name, found) in zip(made, shown.items(), strict=False):
        for spine in part.spines.values():
            spine.set_visible(True)
        draw_heatmap(**found, ax=part)
        part.set_title(literal(name), pad=20)  # above the legend, which takes a line
        measured = [row for row in found["R"] if not np.isnan(row).all()]
        told.append(f"{name} {np.nanmean(measured[-1]):.2f}")
    for part in made[len(shown) :]:
        part.remove()
    recolour(made[0].get_figure(root=True))
    return say(made[0], f"Accuracy matrices, {len(shown)} of them; mean of the last row measured: {', '.join(told)}.")


def _matrix_of(run: Run) -> dict[str, Any]:
    matrix = run.matrix
    return {
        "R": matrix.scores.cpu().numpy(),
        "tasks": matrix.columns,
        "stages": matrix.stage_labels(),
        "score": matrix.name,
        "sampled": matrix.sampled.cpu().numpy(),
        "higher_is_better": matrix.higher_is_better,
        "held_out": len(matrix.held_out),
    }


def _mean_matrix(runs: list[Run]) -> dict[str, Any]:
    found = [_matrix_of(run) for run in runs]
    first = found[0]
    if len({tuple(one["tasks"]) for one in found}) > 1:  # in several orders: by the place of the task
        learned = len(first["tasks"]) - first["held_out"]
        places = [*(f"task {number}" for number in range(1, learned + 1)), *first["tasks"][learned:]]
        stages = ["untrained", *(f"after {stage}" for stage in range(1, len(first["stages"])))]
        first = first | {"tasks": places, "stages": stages}
    # a mean over fewer runs than there are is no mean of them
    return first | {"R": np.mean([one["R"] for one in found], axis=0), "sampled": None}


def _curves(results: Results, ax: Axes | None, level: float = 0.95) -> Axes:
    """Accuracy over the tasks seen so far after each stage, with intervals over seeds and orders."""
    rows = []
    for name, runs in results.finished.items():
        curves_of = [_seen_so_far(run) for run in runs if run.matrix.stages == len(run.matrix.tasks)]
        for stage, values in enumerate(zip(*curves_of, strict=False), start=1):
            rows.append({"label": name, "stage": stage} | _ends(mean_interval(_defined(values), level)))
    if not rows:
        raise RunError(f"{results.folder} has no finished run with a stage for each task")
    return curves(pd.DataFrame(rows), "average accuracy so far", ax)


def _seen_so_far(run: Run) -> list[float]:
    scores = run.matrix.matrix.cpu().numpy()
    return [float(scores[stage, :stage].mean()) for stage in range(1, len(scores))]


def _defined(values: Any) -> list[float]:
    return [value for value in values if not np.isnan(value)]


def _bars(results: Results, ax: Axes | None, figure: str = "forgetting") -> Axes:
    """One figure by method, with intervals over seeds and orders."""
    summary = results.comparison.summary(figure)
    frame = pd.DataFrame([_ends(interval) for interval in summary.values()], index=list(summary))
    return bars(frame, figure.replace("_", " "), ax)


def _ends(interval: Interval) -> dict[str, float]:
    known = interval.low is not None and interval.high is not None
    low, high = (interval.low, interval.high) if known else (np.nan, np.nan)
    return {"value": interval.mean, "low": low, "high": high}


def _pareto(results: Results, ax: Axes | None, cost: str = "seconds", score: str = "average_accuracy") -> Axes:
    """The mean score of each method against its mean cost."""
    comparison = results.comparison
    points = pd.DataFrame({name: comparison.scores(name).mean() for name in (cost, score)})
    return pareto(points, cost, score, ax)


def _ranks(results: Results, ax: Axes | None, figure: str = "average_accuracy") -> Axes:
    """A critical-difference diagram."""
    return ranks(results.comparison.ranking(figure), ax)


def _losses(results: Results, ax: Axes | None) -> Axes:
    """Training losses by method, the mean over seeds and orders, as far as all runs of it go."""
    shown: dict[str, list[list[float]]] = {}
    names: list[str] = []
    for name, runs in results.finished.items():
        stages = zip(*(stage_losses(run) for run in runs), strict=False)
        shown[name] = [list(np.mean([one[: min(map(len, some))] for one in some], axis=0)) for some in stages]
        names = names or [f"stage {number}" for number in range(1, len(shown[name]) + 1)]
    return losses(shown, names, ax)


KINDS: dict[str, Callable[..., Axes]] = {
    "matrix": _matrix,
    "curves": _curves,
    "bars": _bars,
    "forgetting": _bars,
    "pareto": _pareto,
    "ranks": _ranks,
    "losses": _losses,
}
