"""Hyper-parameters of the methods of a study, chosen before its runs: on validation questions, and at equal expense."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lifelong.describe import plain
from lifelong.durable import write_text
from lifelong.errors import ConfigError, RunError, suggestion
from lifelong.folder import RunFolder
from lifelong.grid import METHOD, PAIRS, Point, check_setting, fresh, methods, put, slug
from lifelong.randomness import derived_seed
from lifelong.registry import find_stream, resolve_stream
from lifelong.run import Run
from lifelong.task_stream import TaskStream

FOLDER = "selection"  # of a study's, with a folder for each method, and in it one for each trial
FILE = "selection.json"
FIGURES = ("average_accuracy", "average_incremental_accuracy", "learning_accuracy")


@dataclass(frozen=True)
class Selection:
    """How the hyper-parameters of each method are chosen.

    Every method gets the same number of trials: short runs on the first tasks of a stream. What scores best is what all
    runs of the method are done with, whatever their seed and order. The questions that decide are never those of the
    comparison: they are the validation questions of the study's own first tasks, or the test questions of another
    stream. The first tasks alone are looked at since a learner cannot try its settings on tasks that are yet to come
    (Chaudhry et al. 2019, https://arxiv.org/abs/1812.00420).

    Args:
        grids: for a label of what is varied, such as a strategy's, the values to try by setting.
        common: values to try for every method, by setting.
        budget: trials of each method. They are drawn from its grid, which must have as many combinations; by default
            all grids must have equally many, and all of them are tried.
        tasks: how many of the first tasks are learned in a trial.
        stream: another stream to try on, for studies whose tasks have no validation questions.
        figure: what is to be high: ``"average_accuracy"``, ``"average_incremental_accuracy"`` or
            ``"learning_accuracy"``.
        seed: of the trials, and of what is drawn from a grid.

    Raises:
        ConfigError: naming the setting.
    """

    grids: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=dict)
    common: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    budget: int | None = None
    tasks: int = 3
    stream: TaskStream | str | Mapping[str, Any] | None = None
    figure: str = "average_accuracy"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.figure not in FIGURES:
            raise ConfigError(f"select.figure: unknown {self.figure!r}{suggestion(self.figure, FIGURES)}")
        for name in ("budget", "tasks"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1) and not (name == "budget" and value is None):
                raise ConfigError(f"select.{name}: must be a whole number of at least 1, got {value!r}")
        for where, grid in {
            "common": self.common,
            **{f"grids.{key}": grid for key, grid in self.grids.items()},
        }.items():
            if not isinstance(grid, Mapping):
                raise ConfigError(f"select.{where}: expected settings with the values to try")
            for key, values in grid.items():
                check_setting(key, f"select.{where}.{key}")
                if key.partition(".")[0] in (*PAIRS, "stream", "held_out", "evaluate"):
                    raise ConfigError(f"select.{where}.{key}: is no hyper-parameter of a method")
                if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                    raise ConfigError(f"select.{where}.{key}: expected a list of values to try")


@dataclass(frozen=True)
class Trial:
    """One run that helps to choose.

    Args:
        method: whose.
        settings: the values that it tries.
        point: the run.
    """

    method: str
    settings: Mapping[str, Any]
    point: Point


def trials(selection: Selection, found: Sequence[Point], folder: Path, trust: bool) -> list[Trial]:
    """All trials of a study.

    Args:
        selection: how to choose.
        found: the points of the study.
        folder: of the study.
        trust: allow code from outside of lifelong that the settings name.

    Raises:
        ConfigError: a label belongs to no method, a grid is smaller than the budget, or nothing can be asked.
    """
    groups = methods(found)
    labels = {label for point in found for key, label in point.labels.items() if key not in PAIRS}
    for label in selection.grids:
        if label not in labels:
            raise ConfigError(f"select.grids: no method of the study is labelled {label!r}{suggestion(label, labels)}")
    grids = {name: _combinations(selection, group[0]) for name, group in groups.items()}
    sizes = {name: len(grid) for name, grid in grids.items()}
    if selection.budget is None and len(set(sizes.values())) > 1:
        raise ConfigError(
            "select: the grids have "
            + ", ".join(f"{size} ({name})" for name, size in sizes.items())
            + " combinations: give a budget that all methods can use up, or as many values to each"
        )
    budget = selection.budget or next(iter(sizes.values()))
    for name, size in sizes.items():
        if size < budget:
            raise ConfigError(
                f"select.grids: {name!r} has {size} combinations to try, and the budget is {budget} for all"
            )
    made = []
    for name, group in groups.items():
        draw = random.Random(derived_seed(selection.seed, "selection", name))
        chosen = grids[name] if len(grids[name]) == budget else draw.sample(grids[name], budget)
        config = _trial_config(selection, group[0], trust)
        for number, settings in enumerate(chosen):
            own = fresh(config)
            for key, value in settings.items():
                put(own, key, value, f"select.{key}")
            place = folder / FOLDER / slug(name) / str(number)
            made.append(Trial(name, settings, Point({METHOD: name, "trial": str(number)}, own, place)))
    return made


def _combinations(selection: Selection, point: Point) -> list[dict[str, Any]]:
    grid = dict(selection.common)
    for key, label in point.labels.items():
        if key not in PAIRS:
            grid |= selection.grids.get(label, {})
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _trial_config(selection: Selection, point: Point, trust: bool) -> dict[str, Any]:
    """The settings of a method's trials, but for the values that they try."""
    own = {key: value for key, value in point.config.items() if key not in ("per_task", "held_out", "order")}
    evaluate = own.get("evaluate") or {}
    books = list(evaluate.books if is_dataclass(evaluate) else evaluate.get("books", ["closed"]))[:1]
    asked = {"probes": False, "books": books}
    evaluate = replace(evaluate, **asked) if is_dataclass(evaluate) else {**evaluate, **asked}
    return own | {"stream": _first_tasks(selection, point, trust), "seed": selection.seed, "evaluate": evaluate}


def _first_tasks(selection: Selection, point: Point, trust: bool) -> TaskStream:
    """What trials learn, with the questions that decide as test questions."""
    if selection.stream is not None:
        find_stream(selection.stream, trust, "select.stream")
        stream = resolve_stream(selection.stream, "select.stream")
        return TaskStream(f"{stream.name}-selection", stream.learned[: selection.tasks])
    first = point.experiment(trust).tasks.learned[: selection.tasks]
    without = [task.name for task in first if not task.validation]
    if without:
        raise ConfigError(
            f"select: {', '.join(without)} of the stream has no validation questions to choose by: choose on another "
            "stream (select.stream), which is not the one that is reported"
        )
    tasks = [replace(task, test=task.validation, validation=None) for task in first]
    return TaskStream("selection", tasks)


def write(selection: Selection, made: Sequence[Trial], folder: Path) -> pd.DataFrame:
    """Choose, and keep what the trials came to in the study's folder, as ``selection.json``.

    Returns:
        As ``read``.
    """
    rows = []
    for trial in made:
        place = trial.point.folder
        row: dict[str, Any] = {"method": trial.method, "settings": plain(trial.settings)}
        row |= {"folder": place.relative_to(folder).as_posix(), "state": "not begun", "value": None, "seconds": 0.0}
        if RunFolder(place).exists:
            run = Run(place)
            row["state"] = run.status.get("state", "unknown")
            if row["state"] == "done":
                row["value"] = run.metrics[selection.figure]
                row["seconds"] = sum(cost["train_seconds"] + cost["evaluate_seconds"] for cost in run.costs)
        rows.append(row)
    for row in rows:
        values = [other["value"] for other in rows if other["method"] == row["method"]]
        best = max((value for value in values if value is not None), default=None)
        first = next(other for other in rows if (other["method"], other["value"]) == (row["method"], best))
        row["chosen"] = row is first and best is not None
    about = {
        "figure": selection.figure,
        "tasks": selection.tasks,
        "seed": selection.seed,
        "questions": "validation" if selection.stream is None else "test, of another stream",
        "trials": rows,
    }
    write_text(folder / FILE, json.dumps(about, indent=1, ensure_ascii=False))
    return read(folder)


def read(folder: Path) -> pd.DataFrame:
    """What trials came to, see ``Study.selection``.

    Raises:
        RunError: there was no selection.
    """
    if not (folder / FILE).is_file():
        raise RunError(f"{folder} has no {FILE}: no hyper-parameters were chosen there")
    frame = pd.DataFrame(json.loads((folder / FILE).read_text(encoding="utf-8"))["trials"])
    return frame.astype({"value": float, "seconds": float})


def apply(frame: pd.DataFrame, point: Point) -> Point | None:
    """A point with what was chosen for its method; ``None`` where no trial of it came to an end."""
    chosen = frame[frame.chosen & frame.method.eq(point.method)]
    if chosen.empty:
        return None
    config = fresh(point.config)
    for key, value in chosen.settings.iloc[0].items():
        put(config, key, value, f"select.{key}")
    return replace(point, config=config)
