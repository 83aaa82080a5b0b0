"""A report as one page of HTML that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from importlib.resources import files
from typing import Any

import pandas as pd
from markupsafe import Markup

from lifelong._version import __version__
from lifelong.comparison import Comparison
from lifelong.errors import LifelongError
from lifelong.reports.answers import pack
from lifelong.reports.html import matrix_values, render
from lifelong.reports.illustrations import Illustration, illustration
from lifelong.reports.numbers import interval, shown
from lifelong.reports.subject import Subject, repeated
from lifelong.run import Run
from lifelong.summary import COLUMNS

_PICTURES = {
    "run": {
        "curves": "Each task over the stages",
        "forgetting": "Forgetting of each task",
        "books": "With the book closed and open",
        "retrieval": "Passages found",
        "routing": "How the experts were used",
        "routing drift": "How far their use moved",
        "losses": "Training loss",
    },
    "study": {
        "curves": "Average accuracy over the tasks seen so far",
        "bars": "Average accuracy in the end",
        "forgetting": "Forgetting",
        "pareto": "Accuracy against training time",
        "ranks": "Average ranks",
        "losses": "Training loss",
    },
    "runs": {"average_accuracy": "Average accuracy", "forgetting": "Forgetting"},
}
_OPTIONS: dict[str, dict[str, Any]] = {"bars": {"figure": "average_accuracy"}, "pareto": {"cost": "train_seconds"}}
_COSTS = (
    "train_seconds", "evaluate_seconds", "steps", "train_rows", "train_tokens", "train_flops", "strategy_bytes",
    "trainable_parameters", "peak_memory_bytes",
)  # fmt: skip


def to_html(subject: Subject) -> str:
    """The page: summary, pictures, runs, answers, definitions, and what was run.

    Args:
        subject: what it is about; all that comes from data is shown as text.
    """
    script = _asset("page.js")
    comparison = subject.comparison
    pictures = list(_pictures(subject))
    sections = [("summary", "Summary"), ("pictures", "Pictures"), ("runs", "Runs"), ("browser", "Answers"),
                ("definitions", "Definitions"), ("settings", "What was run")]  # fmt: skip
    if subject.kind == "run":
        sections[2] = ("runs", "Stages")
    return render(
        "page.html",
        subject=subject,
        lead=_lead(subject),
        sections=[section for section in sections if pictures or section[0] != "pictures"],
        methods=_methods(comparison) if comparison is not None else None,
        reference=comparison.methods[0] if comparison is not None else None,
        table=_runs_table(subject),
        pictures=pictures,
        runs=[_run(name, run) for name, run in subject.runs.items()],
        packed=pack(subject.measured),
        made_with=list(_made_with(subject.runs)),
        selection=_selection(subject.selection),
        version=__version__,
        date=date.today().isoformat(),
        style=Markup(_asset("page.css")),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )


def _asset(name: str) -> str:
    return (files("lifelong") / "assets" / "page" / name).read_text(encoding="utf-8")


def _lead(subject: Subject) -> str:
    """What this is, in one line."""
    run = next(iter(subject.runs.values()))
    tasks = f"{len(run.tasks)} tasks" + (f", {len(run.held_out)} held out" if run.held_out else "")
    models = list(dict.fromkeys(str(one.config["model"]) for one in subject.runs.values()))
    parts = {
        "run": f"A run: {run.status.get('state')}, stage {run.status.get('stage')} of {run.environment['stages']}",
        "study": f"A study of {len(subject.table)} runs",
        "runs": f"{len(subject.runs)} runs of one stream",
    }
    return f"{parts[subject.kind]}; {tasks}; {'model' if len(models) == 1 else 'models'} {', '.join(models)}"


def _pictures(subject: Subject) -> Iterator[Illustration]:
    for kind, title in _PICTURES[subject.kind].items():
        options = _OPTIONS.get(kind, {})
        try:
            yield illustration(title, lambda kind=kind, options=options: subject.plot(kind, **options))
        except LifelongError:  # a run without a mixture has no routing, a single method no ranks
            continue


def _methods(comparison: Comparison) -> dict[str, Any]:
    names = [name for name in COLUMNS if comparison.has(name)]
    means = {name: comparison.summary(name) for name in names}
    counts = comparison.scores(names[0]).notna().sum() if names else {}
    rows = []
    for method in comparison.methods:
        numbers = [(int(counts[method]), shown(int(counts[method])), "")]
        for name in names:
            found = means[name][method]
            bounds = interval(found, name).partition(" [")[2]
            mean = None if found.count == 0 else found.mean
            numbers.append((mean, shown(mean, name), f"[{bounds}" if bounds else ""))
        rows.append({"labels": [method], "numbers": numbers})
    return {"heads": ["method", "runs", *names], "rows": rows, "caption": repeated(comparison)}


def _runs_table(subject: Subject) -> dict[str, Any]:
    """A row per run; columns of which nothing is known are left out."""
    frame = subject.table
    texts = [*subject.labels, "state", *(["reason"] if frame["reason"].notna().any() else [])]
    names = [name for name in COLUMNS if name in frame and frame[name].notna().any()]
    rows = []
    for row in frame.to_dict("records"):
        values = [None if pd.isna(row[name]) else row[name] for name in names]
        numbers = [(value, shown(value, name), "") for name, value in zip(names, values, strict=True)]
        rows.append({"labels": ["" if pd.isna(row[name]) else row[name] for name in texts], "numbers": numbers})
    caption = "this run" if subject.kind == "run" else "each run"
    return {"heads": [*texts, *names], "rows": rows, "caption": caption}


def _run(name: str, run: Run) -> dict[str, Any]:
    """Matrices, figures and costs of one run."""
    made: dict[str, Any] = {"name": name, "state": run.status.get("state", "unknown"), "matrices": [], "figures": []}
    made["costs"] = _costs(run)
    if run.folder.committed() < 0:
        return made
    figures = run.figures()
    places = list(dict.fromkeys((figure["split"], figure["pass"], figure["metric"]) for figure in figures))
    for split, book, metric in places:
        place = f"{metric.replace('_', ' ')}, {split} questions, {book} book"
        matrix = run.matrix_of(split, book, "perplexity" if metric == "perplexity" else "score")
        made["matrices"].append({"caption": place, **matrix_values(matrix)})
        own = [one for one in figures if (one["split"], one["pass"], one["metric"]) == (split, book, metric)]
        rows = [(one["name"].replace("_", " "), one["value"], one["reason"] or "") for one in own]
        made["figures"].append({"caption": f"figures of {place}", "rows": rows})
    made["state"] += f", average accuracy {shown(run.metrics.get('average_accuracy'))}"
    return made


def _costs(run: Run) -> dict[str, Any]:
    costs = run.costs
    names = [name for name in _COSTS if any(cost.get(name) for cost in costs)]
    rows = [(stage, *(cost.get(name) for name in names)) for stage, cost in enumerate(costs)]
    return {"heads": ["stage", *names], "rows": rows}


def _made_with(runs: Mapping[str, Run]) -> Iterator[tuple[str, str]]:
    """Versions and hardware; where runs differ, all values."""
    found: dict[str, dict[str, None]] = {}
    for run in runs.values():
        about = run.environment
        own = {"lifelong": about.get("lifelong"), "Python": about.get("python"), **about.get("packages", {})}
        own |= {key: about.get(key) for key in ("platform", "threads", "accelerator", "git_commit")}
        for name, value in own.items():
            if value is not None:
                found.setdefault(name.replace("_", " "), {})[str(value)] = None
    for name, values in found.items():
        yield name, " and ".join(values)


def _selection(trials: pd.DataFrame | None) -> dict[str, Any] | None:
    if trials is None:
        return None
    names = ["method", "settings", "state", "value", "seconds", "chosen"]
    rows: Sequence[Sequence[Any]] = [
        [str(row[name]) if name in ("settings", "chosen") else row[name] for name in names]
        for row in trials.to_dict("records")
    ]
    return {"heads": names, "rows": rows}
