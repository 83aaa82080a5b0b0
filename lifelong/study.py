"""Many runs side by side: a grid over the fields of an experiment."""

from __future__ import annotations

import copy
import itertools
import json
import multiprocessing
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields
from pathlib import Path
from pickle import PicklingError
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
import yaml
from rich.markup import escape

from lifelong.config import make_experiment, override, read_config
from lifelong.describe import plain, plain_stream
from lifelong.durable import write_text
from lifelong.errors import ConfigError, LifelongError, RunError, suggestion
from lifelong.experiment import Experiment
from lifelong.folder import RunFolder
from lifelong.processes import said_devices
from lifelong.progress import Reporter
from lifelong.registry import SAVED_STREAM, STREAMS, resolve_stream, saved_stream
from lifelong.run import Run
from lifelong.task_stream import TaskStream
from lifelong.trust import made_here, sign

if TYPE_CHECKING:
    from lifelong.pictures import Picture

FIGURES = (
    "average_accuracy",
    "learning_accuracy",
    "forgetting",
    "backward_transfer",
    "forward_transfer",
    "average_incremental_accuracy",
    "general_ability",
    "general_ability_delta",
    "general_perplexity",
    "general_perplexity_increase",
)
_PICTURES_IN_A_ROW = 3


@dataclass(frozen=True)
class Point:
    """One run of a study: what it varies, as labels, and where it is kept."""

    labels: Mapping[str, str]
    config: Mapping[str, Any]
    folder: Path

    def experiment(self, trust: bool) -> Experiment:
        """The experiment of this point; without trust its rows are in the study's folder."""
        return make_experiment({**_fresh(self.config), "folder": str(self.folder)}, trust, self.folder.parent)


class Study:
    """A grid of experiments, one run folder each.

    Finished runs never run again, unfinished ones go on where they stopped, and a run that fails is kept and shown
    while the others go on.

    Args:
        base: an experiment, or the settings of one; what all runs share.
        vary: for each field (``strategies``, ``adapter``, ``order``, ``seed``, ..., or a dotted key such as
            ``adapter.init_args.r``) the values to try: a list, or a mapping from labels to values.
        folder: where the runs are kept.
        trust: allow code from outside of lifelong that the settings name.

    Raises:
        ConfigError: a field is unknown, or a list of values is no such thing.
    """

    def __init__(
        self,
        base: Experiment | Mapping[str, Any],
        vary: Mapping[str, Sequence[Any] | Mapping[str, Any]],
        folder: str | Path | None = None,
        trust: bool = True,
    ) -> None:
        if isinstance(base, Experiment):
            base = {field.name: getattr(base, field.name) for field in fields(base)}
        self.base = {key: value for key, value in base.items() if key != "folder"}
        self.vary = dict(vary)
        self.trust = trust
        if not self.vary:
            raise ConfigError("vary: names no field to vary")
        self.folder = Path(folder or base.get("folder") or "runs/study")
        self.points = list(self._points())

    def _points(self) -> Iterator[Point]:
        names = [field.name for field in fields(Experiment)]
        grid = []
        for key, values in self.vary.items():
            if key.partition(".")[0] not in names or key == "folder":
                raise ConfigError(f"vary.{key}: there is no such setting{suggestion(key, names)}")
            if not isinstance(values, Mapping) and (isinstance(values, str) or not isinstance(values, Sequence)):
                raise ConfigError(f"vary.{key}: expected a list of values, or a mapping from labels to values")
            choices = list(values.items()) if isinstance(values, Mapping) else [(_label(v), v) for v in values]
            if not choices or len({label for label, _ in choices}) < len(choices):
                raise ConfigError(f"vary.{key}: needs values that differ; give them labels, as a mapping")
            grid.append([(key, str(label), value) for label, value in choices])
        for combination in itertools.product(*grid):
            config = _fresh(self.base)
            for key, _, value in combination:
                override(config, key, value, f"vary.{key}")
            labels = {key: label for key, label, _ in combination}
            name = ",".join(f"{_slug(key.rpartition('.')[2])}={_slug(label)}" for key, label in labels.items())
            yield Point(labels, config, self.folder / name)

    def experiments(self) -> dict[str, Experiment]:
        """The experiments of the grid by name, to look at: ``run`` makes its own."""
        return {point.folder.name: point.experiment(self.trust) for point in self._points()}

    def run(self, jobs: int = 1, quiet: bool = False) -> Study:
        """Run what is not finished yet.

        Args:
            jobs: processes at a time; they share the processor's cores evenly.
            quiet: no progress bars.

        Raises:
            ConfigError: a run of the grid cannot be built (none has begun then), or several processes are asked for and
                a class exists in this one only.
        """
        for point in self.points:
            made = point.experiment(self.trust)  # all mistakes before the first run, not after hours
            if said_devices(made.trainer) > 1:
                raise ConfigError(
                    "trainer.devices: the runs of a study take one device each; start a run on several by itself, with "
                    "`lifelong run`"
                )
        self._write()
        if jobs > 1:
            self._run_in_processes(jobs, quiet)
        else:
            reporter = Reporter(quiet)
            for number, point in enumerate(self.points, start=1):
                reporter.line(f"[bold cyan]run {number}/{len(self.points)}: {point.folder.name}[/bold cyan]")
                reason = _run_point(point, self.trust, quiet)
                if reason:
                    reporter.line(f"  [red]failed: {escape(reason)}[/red]")
        write_text(self.folder / "table.csv", self.table().to_csv(index=False))
        if any(run.folder.committed() >= 0 for run in self.runs.values()):
            self.plot("matrix").savefig(self.folder / "matrix.png", dpi=110, bbox_inches="tight")
        return self

    def _run_in_processes(self, jobs: int, quiet: bool) -> None:
        reporter = Reporter(quiet)
        threads = max(1, (os.cpu_count() or 1) // jobs)
        context = multiprocessing.get_context("spawn")  # forked processes would share torch's thread pool
        try:
            with ProcessPoolExecutor(jobs, context, torch.set_num_threads, (threads,)) as pool:
                futures = {pool.submit(_run_point, point, self.trust, True): point for point in self.points}
                for number, future in enumerate(as_completed(futures), start=1):
                    outcome = future.result() or "done"
                    reporter.line(f"{number}/{len(futures)} {futures[future].folder.name}: {escape(outcome)}")
        except (BrokenProcessPool, PicklingError, AttributeError) as error:
            raise ConfigError(
                f"jobs: a run could not be handed to another process ({error}). Classes and functions of a notebook "
                "exist in its own process only: put them into a file, or use jobs=1"
            ) from error

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        base: dict[str, Any] = dict(self.base)
        for key in STREAMS:
            stream = saved_stream(base.get(key))
            saved = isinstance(stream, Mapping) and stream.get("class_path") == SAVED_STREAM
            if saved or isinstance(stream, TaskStream):
                base[key] = plain_stream(stream, key)
                if base[key]["class_path"] == SAVED_STREAM:
                    resolve_stream(stream, key).save(self.folder / key)
        text = yaml.safe_dump({**plain(base), "vary": plain(self.vary)}, sort_keys=False, allow_unicode=True)
        file = self.folder / "config.yaml"
        if file.is_file() and file.read_text(encoding="utf-8") != text:
            there = yaml.safe_load(file.read_text(encoding="utf-8"))
            if {key: there.get(key) for key in there if key != "vary"} != plain(base):
                raise RunError(f"{self.folder} holds a study of another experiment: choose another folder")
        sign(self.folder, text)
        write_text(file, text)
        index = [{"folder": point.folder.name, "labels": dict(point.labels)} for point in self.points]
        write_text(self.folder / "study.json", json.dumps(index, indent=1))

    @classmethod
    def load(cls, folder: str | Path, trust: bool | None = None) -> Study:
        """The study in a folder, finished or not.

        Args:
            folder: where it is.
            trust: allow code from outside of lifelong that its settings name; by default if it was made here.

        Raises:
            RunError, ConfigError: it is no folder of a study, or its settings cannot be used.
        """
        folder = Path(folder)
        if not (folder / "study.json").is_file():
            raise RunError(f"{folder} is not a study: it has no study.json")
        config = read_config(folder / "config.yaml")
        if not isinstance(config.get("vary"), Mapping):
            raise RunError(f"{folder} is not a study: the config.yaml there has no values to vary")
        return cls(config, config.pop("vary"), folder, made_here(folder) if trust is None else trust)

    @property
    def runs(self) -> dict[str, Run]:
        """The runs begun so far, by the name of their folder."""
        return {point.folder.name: Run(point.folder) for point in self.points if RunFolder(point.folder).exists}

    def table(self) -> pd.DataFrame:
        """One row per run: what it varies, its state, its figures, and its cost.

        Figures are those of the first pass; ``probe_accuracy`` is the average accuracy on the probes, and those of
        general ability are there where tasks are held out. An undefined figure is NaN. ``reason`` says why a run
        failed.
        """
        rows = []
        for point in self.points:
            row: dict[str, Any] = dict(point.labels)
            if RunFolder(point.folder).exists:
                row |= _summary(Run(point.folder))
            else:
                row |= {"state": "not begun"}
            rows.append(row)
        return pd.DataFrame(rows)

    def plot(self, kind: str = "matrix") -> Picture:
        """Draw all runs side by side.

        Args:
            kind: ``"matrix"``: the accuracy matrices.
        """
        from lifelong.pictures import Picture

        if kind != "matrix":
            raise ConfigError(f"unknown plot {kind!r}{suggestion(kind, ['matrix'])}")
        runs = {name: run for name, run in self.runs.items() if run.folder.committed() >= 0}
        if not runs:
            raise RunError(f"{self.folder} has no finished stage yet")
        tasks = max(len(run.matrix.columns) for run in runs.values())
        columns = min(len(runs), _PICTURES_IN_A_ROW)
        lines = -(-len(runs) // columns)
        size = (columns * (2.5 + 0.9 * tasks), lines * (1.5 + 0.6 * tasks))
        figure = Picture(figsize=size, layout="constrained")
        labels = {point.folder.name: point.labels for point in self.points}
        for number, (name, run) in enumerate(runs.items(), start=1):
            ax = figure.add_subplot(lines, columns, number)
            run.matrix.plot(ax)
            # above the legend, which takes a line
            ax.set_title(name if len(self.vary) > 1 else next(iter(labels[name].values())), pad=20)
        return figure


def _run_point(point: Point, trust: bool, quiet: bool) -> str | None:
    """Run one point. Returns why it failed, or ``None``; at module level, for processes."""
    try:
        point.experiment(trust).run(quiet)
    except LifelongError as error:
        return str(error)
    except Exception as error:  # one run's failure must not end the others; its folder has the reason
        return f"{type(error).__name__}: {error}"
    return None


def _summary(run: Run) -> dict[str, Any]:
    status = run.status
    row: dict[str, Any] = {"state": status.get("state", "unknown")}
    if run.folder.committed() >= 0:
        values = run.metrics
        row |= {name: values[name] for name in FIGURES if name in values}
        probes = [
            figure["value"]
            for figure in run.figures()
            if figure["split"] == "probe" and figure["name"] == "average_accuracy" and figure["pass"] == run.books[0]
        ]
        row["probe_accuracy"] = probes[0] if probes else None
        costs = run.costs
        row["seconds"] = round(sum(cost["train_seconds"] + cost["evaluate_seconds"] for cost in costs), 1)
        row["trainable_parameters"] = costs[-1]["trainable_parameters"]
    return row | {"reason": status.get("reason")}


def _fresh(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with objects of its own, so that no run sees another's strategies; only the stream is shared."""
    return {key: value if isinstance(value, TaskStream) else copy.deepcopy(value) for key, value in config.items()}


def _label(value: Any) -> str:
    described = plain(value)
    parts = described if isinstance(described, list) else [described]
    names = [
        part["class_path"].rpartition(".")[2] if isinstance(part, dict) and "class_path" in part else str(part)
        for part in parts
    ]
    return "+".join(names) or "none"


def _slug(label: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", label).strip("-") or "none"
