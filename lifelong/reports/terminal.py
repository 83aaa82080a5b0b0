"""Runs, studies and streams as tables in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # a list of streams must not wait for torch
    import pandas as pd

    from lifelong.metrics.accuracy_matrix import AccuracyMatrix
    from lifelong.run import Run
    from lifelong.study import Study
    from lifelong.task_stream import TaskStream
    from lifelong.tasks import Task

SAMPLED_TASKS, SAMPLED_ROWS = 3, 2
SHOWN_CHARACTERS = 320


def matrix_table(matrix: AccuracyMatrix, title: str) -> Table:
    """Scores per stage and task; a task's own stage in bold, ``-`` where nothing was measured, ``~`` for a sample.

    Held-out tasks stand behind an empty column.
    """
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    table.add_column("")
    for task in matrix.tasks:
        table.add_column(Text(task, overflow="fold"), justify="right")
    apart = bool(matrix.tasks and matrix.held_out)
    if apart:
        table.add_column("", width=0)
    for task in matrix.held_out:
        table.add_column(Text(f"held out:\n{task}", overflow="fold"), justify="right")
    per_stage = matrix.stages == len(matrix.tasks)
    for stage, (label, scores) in enumerate(zip(matrix.stage_labels(), matrix.scores.tolist(), strict=True)):
        cells = []
        for column, score in enumerate(scores):
            text = "-" if math.isnan(score) else f"{'~' if matrix.sampled[stage, column] else ''}{score:.3f}"
            cells.append(Text(text, "bold" if per_stage and column == stage - 1 else ""))
        if apart:
            cells.insert(len(matrix.tasks), Text())
        table.add_row(Text(label, overflow="fold"), *cells)
    return table


def show_run(run: Run, console: Console) -> None:
    """The state of a run, what its adapter does, a matrix for each split and pass, and every figure."""
    status = {"state": "begun", "stage": 0, "stages": run.environment.get("stages", "?")} | run.status
    where = f"[bold]{escape(str(run.path))}[/bold]"
    console.print(f"{where}: {escape('{state}, stage {stage} of {stages}'.format(**status))}")
    if status.get("reason"):
        console.print(Text(str(status["reason"]), "red"))
    if status["state"] != "done":
        console.print(f"Go on with: lifelong resume {escape(str(run.path))}")
    if run.folder.committed() < 0:
        return
    console.print(f"model: {run.config['model']}, {run.family}", highlight=False, markup=False)
    _show_totals(status, console)
    if "adapter" in run.environment:
        show_adapter(run.environment["adapter"], console)
    _show_auxiliary(run, console)
    for message in run.routing_warnings:
        console.print(Text(f"routing {message}", "yellow"))
    _show_groups(run, console)
    _show_task_inference(run, console)
    _show_retrieval(run, console)
    _show_five_l(run, console)
    for split, book, metric in dict.fromkeys((f["split"], f["pass"], f["metric"]) for f in run.figures()):
        kind = "perplexity" if metric == "perplexity" else "score"
        matrix = run.matrix_of(split, book, kind)
        console.print(matrix_table(matrix, f"{metric}, {split} questions, {book} book"), "")
        figures = Table(title=escape(f"figures of {split}, {book} book"), title_justify="left", header_style="bold")
        figures.add_column("figure", no_wrap=True)
        figures.add_column("value", justify="right")
        figures.add_column("definition")
        for figure in run.figures():
            if (figure["split"], figure["pass"], figure["metric"]) != (split, book, metric):
                continue
            undefined = Text(f"undefined: {figure['reason']}", "yellow") if figure["reason"] else Text("")
            value = "-" if figure["value"] is None else f"{figure['value']:.4f}"
            definition = Group(Text(figure["definition"]), *([undefined] if figure["reason"] else []))
            figures.add_row(figure["name"], value, definition)
        console.print(figures, "")


def _show_totals(status: Mapping[str, Any], console: Console) -> None:
    """What was read, asked and spent, and how often the run was begun, extended and rolled back."""
    for kind, unit in (("rows", ""), ("questions", ""), ("seconds", " s")):
        if status.get(kind):
            parts = (f"{name} {value:,.0f}{unit}" for name, value in status[kind].items())
            console.print(f"{'time' if kind == 'seconds' else kind}: {', '.join(parts)}", highlight=False)
    counts = [
        f"{status[name]} {name}" for name in ("attempts", "extensions", "refused", "rollbacks") if status.get(name)
    ]
    if counts:
        console.print(f"history: {', '.join(counts)}", highlight=False)


def show_adapter(account: Mapping[str, Any], console: Console) -> None:
    """What an adapter takes, beside LoRA on the same layers and full fine-tuning.

    Args:
        account: the values of an ``Account`` of ``lifelong.adapters.accounting``.
        console: to write to.
    """
    ways = [
        (account["method"], account["trained"]),
        ("LoRA", account["lora_total_rank"]),
        ("LoRA", account["lora_rank"]),
        ("full fine-tuning", account["full"]),
    ]
    table = Table(title="the adapter beside other ways to train", title_justify="left", header_style="bold")
    table.add_column("", no_wrap=True)
    for name in ("parameters", "share", "MB", "MFLOPs a token", "in training"):
        table.add_column(name, justify="right")
    for name, cost in ways:
        if cost is None:
            continue
        rank = "" if cost["rank"] is None else f", rank {cost['rank']}"
        flops = (cost[f"{way}_flops"] for way in ("forward", "training"))
        table.add_row(
            Text(name + rank),
            f"{cost['parameters']:,}",
            f"{cost['parameters'] / account['full']['parameters']:.2%}",
            f"{sum(cost['bytes'].values()) / 1e6:,.2f}",
            *("-" if count is None else f"{count / 1e6:,.2f}" for count in flops),
        )
    console.print(table)
    computed, answering = account["adapter_flops"], account["answering_flops"]
    if computed != answering:
        text = f"the adapter alone: {computed / 1e6:,.2f} MFLOPs a token, all experts being computed"
        console.print(f"{text}; {answering / 1e6:,.2f} of it are the router's and those of experts that answer")
    console.print()


def _show_auxiliary(run: Run, console: Console) -> None:
    """A row for each stage, and a column for each auxiliary loss, if there are any."""
    means = [cost.get("auxiliary", {}) for cost in run.costs]  # older stages kept none
    names = list(dict.fromkeys(name for some in means for name in some))
    if not names:
        return
    table = Table(title="auxiliary losses, mean over a stage's steps", title_justify="left", header_style="bold")
    for name in ("stage", *names):
        table.add_column(Text(name), justify="right")
    for stage, some in enumerate(means):
        if some:
            table.add_row(str(stage), *(f"{some[name]:.4g}" if name in some else "-" for name in names))
    console.print(table, "")


def show_retrieval_trial(quality: pd.DataFrame, missed: pd.DataFrame, k: int, shown: int, console: Console) -> None:
    """What ``retrieval_trial`` gave, with some of the questions whose passage was not found."""
    console.print(_quality_table(quality, f"passages found, k = {k}, all in the index"), "")
    if len(missed):
        console.print(f"{len(missed)} questions without their passage; {min(shown, len(missed))} of them:")
    for row in missed[:shown].to_dict("records"):
        labels = ("question", "gold", "found")
        console.print(_labelled([("task", f"{row['task']}, {row['split']}"), *((name, row[name]) for name in labels)]))


def _quality_table(quality: pd.DataFrame, title: str) -> Table:
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    names = {"first": "recall@1", "recall": "recall@k", "mrr": "MRR", "ndcg": "nDCG"}
    figures = [name for name in names if name in quality]
    for name in ("task", "split", "questions", *figures):
        table.add_column(names.get(name, name), justify="left" if name in ("task", "split") else "right")
    for row in quality.to_dict("records"):
        cells = ("-" if math.isnan(row[name]) else f"{row[name]:.3f}" for name in figures)
        table.add_row(Text(row["task"], overflow="fold"), Text(row["split"]), str(row["questions"]), *cells)
    return table


def _show_task_inference(run: Run, console: Console) -> None:
    """How often the part of the model answered, after the last stage, that belongs to the question's task."""
    inferred = run.task_inference
    for (split, book), some in inferred[inferred["stage"] == inferred["stage"].max()].groupby(["split", "pass"]):
        shares = ", ".join(f"{row['task']} {row['right']:.3f}" for row in some.to_dict("records"))
        console.print(Text(f"task inferred rightly, {split} questions, {book} book: {shares}"))


def _show_retrieval(run: Run, console: Console) -> None:
    """How well passages were found after the last stage, and whose fault wrong answers are."""
    quality = run.retrieval
    if not len(quality):
        return
    last, k = quality[quality["stage"] == quality["stage"].max()], run.config["retrieval"]["k"]
    console.print(_quality_table(last, f"passages found, of the last stage, k = {k}"), "")
    for message in run.retrieval_warnings:
        console.print(Text(message, "yellow"))


def _show_five_l(run: Run, console: Console) -> None:
    """The figures of 5L-bench after the last stage, where a pass shows passages, with their definitions."""
    if run.books == ["closed"]:
        return
    from lifelong.metrics.five_l import DEFINITIONS

    rows = run.five_l()
    shown = [name for name in rows.columns[3:] if rows[name].notna().any()]
    table = Table(title="5L, of the last stage, judged by matching", title_justify="left", header_style="bold")
    for name in ("task", "pass", *shown):
        table.add_column(name, justify="left" if name in ("task", "pass") else "right")
    for row in rows[rows["stage"] == rows["stage"].max()].to_dict("records"):
        cells = ("-" if math.isnan(row[name]) else f"{row[name]:.3f}" for name in shown)
        table.add_row(Text(row["task"], overflow="fold"), Text(row["pass"]), *cells)
    console.print(table)
    for name in shown:
        if name in DEFINITIONS:
            console.print(Text(f"  {name}: {DEFINITIONS[name]}", "dim"))
    if "gap" in shown:
        console.print(Text("  gap: RA less RA on the probes, the same questions in other words", "dim"))
    console.print()


def _show_groups(run: Run, console: Console) -> None:
    """How much of its gates each task has on the experts of each type, the mean of all layers."""
    last = max(run.routing_tables, default=0)
    if not last:  # of the untrained model nothing is said
        return
    groups = run.routing_groups
    groups = groups[groups.stage == last]
    if not len(groups):
        return
    kinds = {task["name"]: task["kind"] for task in run.environment["tasks"]}
    console.print(f"routing after stage {last}, mean of all layers:", markup=False, highlight=False)
    for (adapter, task), rows in groups.groupby(["adapter", "task"], sort=False):
        shares = rows.groupby("type", sort=False).share.mean()
        parts = ", ".join(f"{share:.0%} on {kind} experts" for kind, share in shares.items())
        of = f" of adapter {adapter}" if groups.adapter.nunique() > 1 else ""
        console.print(f"  {task} ({kinds[task]}): gates{of} {parts}", markup=False, highlight=False)
    if any(settings.balance_weight for settings in run.routing_tables[last].settings.values()):
        console.print("  (the localised constraint as published drives each kind to the other type's experts)")


def show_study(study: Study, console: Console) -> None:
    """One row per run, with the figures that are compared most."""
    frame = study.table()
    figures = (
        "average_accuracy",
        "learning_accuracy",
        "forgetting",
        "general_ability_delta",
        "general_perplexity_increase",
        "probe_accuracy",
        "seconds",
    )
    state = ["state"] if set(frame["state"]) != {"done"} else []
    shown = [*study.vary, *state, *(name for name in figures if name in frame)]
    table = Table(title=escape(str(study.folder)), title_justify="left", header_style="bold")
    for name in shown:
        label = name in (*study.vary, "state")
        words = name.split("_")
        table.add_column(
            Text(" ".join(words)),
            justify="left" if label else "right",
            no_wrap=label,
            min_width=max(map(len, words)),  # rich would rather cut a word than let a wider column go
        )
    for row in frame.to_dict("records"):
        table.add_row(*(Text(_cell(row.get(name))) for name in shown))
    console.print(table)
    for row in frame.to_dict("records"):
        if isinstance(row.get("reason"), str):
            label = ", ".join(f"{key} {row[key]}" for key in study.vary)
            console.print(Text(f"{label}: {row['reason']}", "red"))


def show_stream(stream: TaskStream, console: Console) -> None:
    """Sizes of all tasks, two sample rows of the first three, and where the rows come from.

    What is the same for all tasks is said once, below the table.
    """
    table, shared = _stream_table(stream)
    console.print(table)
    console.print(Text(", ".join(f"{name}: {value}" for name, value in shared.items())))
    console.print()
    for task in stream[:SAMPLED_TASKS]:
        _show_samples(task, console)
    origins = dict.fromkeys((task.source, task.licence) for task in stream)
    lines = []
    for source, licence in origins:
        if len(origins) > 1:
            tasks = [task.name for task in stream if (task.source, task.licence) == (source, licence)]
            lines.append(("tasks", ", ".join(tasks)))
        lines += [("source", source or "not stated"), ("licence", licence or "not stated")]
    console.print(_labelled([*lines, ("fingerprint", stream.fingerprint()[-1][:12])]))


def _stream_table(stream: TaskStream) -> tuple[Table, dict[str, str]]:
    """One line per task, and one for their sum; settings that are the same for all are given apart."""
    settings = {
        "kind": [task.kind for task in stream],
        "metric": [task.metric_name for task in stream],
        "held out": ["yes" if task.measure_only else "no" for task in stream],
    }
    shared = {name: values[0] for name, values in settings.items() if len(set(values)) == 1}
    differing = {name: values for name, values in settings.items() if name not in shared}
    counts = {
        "train": [len(task.train or ()) for task in stream],
        "validation": [len(task.validation or ()) for task in stream],
        "test": [len(task.test) for task in stream],
        "probes": [sum(map(len, task.test["probes"])) for task in stream],
    }
    if not any(counts["validation"]):
        del counts["validation"]
    several = len(stream) > 1
    table = Table(title=escape(stream.name), title_justify="left", header_style="bold", show_footer=several)
    table.add_column("task", "in all", overflow="fold")
    for name, values in counts.items():
        table.add_column(name, f"{sum(values):,}", justify="right", no_wrap=True)
    for name in differing:
        table.add_column(name)
    for number, task in enumerate(stream):
        sizes = [f"{values[number]:,}" for values in counts.values()]
        table.add_row(Text(task.name), *sizes, *(Text(values[number]) for values in differing.values()))
    return table, shared


def _show_samples(task: Task, console: Console) -> None:
    split = "test" if task.measure_only else "train"
    rows = getattr(task, split)
    console.print(Text(f"{task.name}, the first rows of {split}", "bold"))
    for row in rows.select(range(min(SAMPLED_ROWS, len(rows)))):
        lines = [("question", row["question"] or "(raw text)"), ("answer", " | ".join(row["answers"]))]
        lines += [("choices", " | ".join(row["choices"]))] if row["choices"] else []
        lines += [("probe", row["probes"][0])] if row["probes"] else []
        console.print(_labelled(lines), "")


def _labelled(lines: Iterable[tuple[str, str]]) -> Table:
    """Texts beside their labels, cut to a readable length; what stands in brackets is no markup."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for label, text in lines:
        text = " ".join(text.split())
        if len(text) > SHOWN_CHARACTERS:
            beginning = text[:SHOWN_CHARACTERS]
            text = f"{beginning.rpartition(' ')[0] or beginning} ..."
        grid.add_row(label, Text(text))
    return grid


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.{0 if value >= 10 else 3}f}" if isinstance(value, float) else str(value)
