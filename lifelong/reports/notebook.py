"""How streams, runs, studies and matrices show themselves in a notebook: as small tables, with all data as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lifelong.reports.html import matrix_values, render
from lifelong.summary import COMPARED

if TYPE_CHECKING:
    from lifelong.metrics.accuracy_matrix import AccuracyMatrix
    from lifelong.run import Run
    from lifelong.study import Study
    from lifelong.task_stream import TaskStream

_MOST = 30  # rows; of longer tables the first ones are shown


def matrix_html(matrix: AccuracyMatrix) -> str:
    """Scores by stage and task, in the colours of the heat map."""
    return render("notebook.html", title=None, matrix=matrix_values(matrix), caption=matrix.name, shown_tables=[])


def run_html(run: Run) -> str:
    """State, matrix and figures of a run."""
    status = {"state": "begun", "stage": 0, "stages": run.environment["stages"]} | run.status
    title = "{state}, stage {stage} of {stages}".format(**status)
    if run.folder.committed() < 0:
        return render("notebook.html", title=f"{run.path}: {title}", matrix=None, caption="", shown_tables=[])
    matrix = run.matrix
    rows = [(name.replace("_", " "), value) for name, value in run.metrics.items() if value is not None]
    return render(
        "notebook.html",
        title=f"{run.path}: {title}",
        matrix=matrix_values(matrix),
        caption=f"{matrix.name.replace('_', ' ')}, test questions, {run.books[0]} book",
        shown_tables=[(["figure", "value"], rows, "figures", 0)],
    )


def study_html(study: Study) -> str:
    """A row per run: what it varies, its state, and the figures that say most."""
    frame = study.table()
    heads = [*study.vary, "state", *(name for name in COMPARED if name in frame and frame[name].notna().any())]
    rows = frame.reindex(columns=heads).to_numpy().tolist()
    return _shown(str(study.folder), heads, rows, f"{len(rows)} runs")


def stream_html(stream: TaskStream) -> str:
    """A row per task: its kind, its metric, and how many rows it has to learn and to ask."""
    heads = ["task", "kind", "metric", "train", "validation", "test", "probes"]
    rows = [
        [
            f"{task.name} (held out)" if task.measure_only else task.name,
            task.kind,
            task.metric_name,
            len(task.train or ()),
            len(task.validation or ()),
            len(task.test),
            sum(map(len, task.test["probes"])),
        ]
        for task in stream[:_MOST]
    ]
    return _shown(stream.name, heads, rows, f"{len(stream)} tasks", len(stream))


def _shown(title: str, heads: list[str], rows: list[list[object]], caption: str, count: int | None = None) -> str:
    more = (len(rows) if count is None else count) - _MOST
    table = (heads, rows[:_MOST], caption, max(more, 0))
    return render("notebook.html", title=title, matrix=None, caption="", shown_tables=[table])
