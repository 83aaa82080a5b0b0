"""Many runs side by side: a grid over the fields of an experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml
from rich.markup import escape

from lifelong.backends import Backend, InProcess, LocalProcesses
from lifelong.config import read_config
from lifelong.describe import plain, plain_stream
from lifelong.durable import write_text
from lifelong.errors import ConfigError, RunError
from lifelong.experiment import Experiment
from lifelong.grid import Point, differences, labelled, points
from lifelong.processes import said_devices
from lifelong.progress import Reporter
from lifelong.registry import SAVED_STREAM, STREAMS, call, resolve_stream, saved_stream
from lifelong.results import Results
from lifelong.run import Run
from lifelong.selection import Selection, trials
from lifelong.selection import apply as with_choice
from lifelong.selection import read as read_selection
from lifelong.selection import write as write_selection
from lifelong.task_stream import TaskStream
from lifelong.trust import made_here, sign
from lifelong.untrained import SHARED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lifelong.comparison import Comparison

SELECTION_STREAM = "selection_stream"  # the folder of its rows, where they are in no file


class Study:
    """A grid of experiments, one run folder each.

    Finished runs never run again, unfinished ones go on where they stopped, and a run that fails is kept and shown
    while the others go on. What runs share is done once: the questions to the untrained model; the joint run, which
    knows no order, for all orders; rows as tokens, and embeddings of passages.

    Args:
        base: an experiment, or the settings of one; what all runs share.
        vary: for each field (``strategies``, ``adapter``, ``order``, ``seed``, ..., or a dotted key such as
            ``adapter.init_args.r``) the values to try: a list, or a mapping from labels to values. ``method`` varies
            several fields together: a mapping from labels to settings. ``seed`` and ``order`` repeat a comparison, all
            the rest is what is compared.
        folder: where the runs are kept.
        trust: allow code from outside of lifelong that the settings name.
        select: how hyper-parameters are chosen before the runs: a ``Selection``, or its settings.

    Raises:
        ConfigError: a field is unknown, or a list of values is no such thing.
    """

    def __init__(
        self,
        base: Experiment | Mapping[str, Any],
        vary: Mapping[str, Sequence[Any] | Mapping[str, Any]],
        folder: str | Path | None = None,
        trust: bool = True,
        select: Selection | Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(base, Experiment):
            base = {field.name: getattr(base, field.name) for field in fields(base)}
        self.base = {key: value for key, value in base.items() if key != "folder"}
        self.vary = dict(vary)
        self.trust = trust
        kept = ("stream", "common", "grids")  # whose values are those of many settings
        self.select = call(Selection, dict(select), "select", kept) if isinstance(select, Mapping) else select
        if not self.vary:
            raise ConfigError("vary: names no field to vary")
        self.folder = Path(folder or base.get("folder") or "runs/study")
        self.points = list(points(self.base, self.vary, self.folder))

    def experiments(self) -> dict[str, Experiment]:
        """The experiments of the grid by name, to look at: ``run`` makes its own."""
        return {point.folder.name: point.experiment(self.trust) for point in self.points}

    def run(self, jobs: int = 1, quiet: bool = False, backend: Backend | None = None) -> Study:
        """Run what is not finished yet.

        Args:
            jobs: processes at a time; they share the processor's cores evenly.
            quiet: no progress bars.
            backend: where the runs are worked on instead, such as ``lifelong.backends.Ray()``.

        Raises:
            ConfigError: a run of the grid cannot be built (none has begun then), or several processes are asked for and
                a class exists in this one only.
            RunError: the folder holds another study; the message has every difference.
        """
        made = trials(self.select, self.points, self.folder, self.trust) if self.select else []
        self._check([*self.points, *(trial.point for trial in made)])
        self._write()
        if backend is None:
            backend = LocalProcesses(jobs) if jobs > 1 else InProcess()
        reporter = Reporter(quiet)
        todo = self.points
        if self.select:
            self._work(backend, [trial.point for trial in made], "trial", reporter, quiet)
            chosen = write_selection(self.select, made, self.folder)
            todo = [point for point in (with_choice(chosen, point) for point in self.points) if point is not None]
            for method in dict.fromkeys(point.method for point in self.points):
                if method not in {point.method for point in todo}:
                    reporter.line(f"[red]{escape(method)}: no trial came to an end, so it has no runs[/red]")
        self._work(backend, todo, "run", reporter, quiet)
        write_text(self.folder / "table.csv", self.table().to_csv(index=False))
        if any(run.folder.committed() >= 0 for run in self.runs.values()):
            self.plot("matrix").get_figure(root=True).savefig(self.folder / "matrix.png", dpi=110, bbox_inches="tight")
        return self

    def _check(self, found: Sequence[Point]) -> None:
        """Find all mistakes before the first run, not after hours."""
        met: dict[tuple[str, int, str], Point] = {}
        for point in found:
            experiment = point.experiment(self.trust)
            if said_devices(experiment.trainer) > 1:
                raise ConfigError(
                    "trainer.devices: the runs of a study take one device each; start a run on several by itself, with "
                    "`lifelong run`"
                )
            names = ", ".join(task.name for task in experiment.tasks.learned)
            other = met.setdefault((point.method, experiment.seed, names), point)
            if other.folder != point.folder:
                raise ConfigError(
                    f"vary: {self._name(other)} and {self._name(point)} are the same run, of seed {experiment.seed} in "
                    f"the order {names}, and would count twice: take orders that differ"
                )

    def _work(self, backend: Backend, todo: Sequence[Point], what: str, reporter: Reporter, quiet: bool) -> None:
        """Run points, each folder once, and say how each ended."""
        todo = list({point.folder: point for point in todo}.values())
        ended = backend.run(todo, self.trust, quiet, self.folder / SHARED)
        for number, expected in enumerate(todo, start=1):
            if backend.in_turn:
                reporter.line(f"[bold cyan]{what} {number}/{len(todo)}: {escape(self._name(expected))}[/bold cyan]")
            point, reason = next(ended)
            outcome = "done" if reason is None else f"[red]failed: {escape(reason)}[/red]"
            if not backend.in_turn:
                reporter.line(f"{what} {number}/{len(todo)}: {escape(self._name(point))}: {outcome}")
            elif reason is not None:
                reporter.line(f"  {outcome}")

    def _name(self, point: Point) -> str:
        return point.folder.relative_to(self.folder).as_posix()

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
        file = self.folder / "config.yaml"
        described = {**plain(base), "vary": plain(self.vary)}
        if self.select is not None:
            described["select"] = self._described_selection(self.select)
        text = yaml.safe_dump(described, sort_keys=False, allow_unicode=True)
        if file.is_file() and file.read_text(encoding="utf-8") != text:
            self._check_goes_on(described, yaml.safe_load(file.read_text(encoding="utf-8")))
        sign(self.folder, text)
        write_text(file, text)
        index = [{"folder": point.folder.name, "labels": dict(point.labels)} for point in self.points]
        write_text(self.folder / "study.json", json.dumps(index, indent=1))

    def _described_selection(self, select: Selection) -> dict[str, Any]:
        about = {
            field.name: plain(getattr(select, field.name)) for field in fields(Selection) if field.name != "stream"
        }
        if select.stream is not None:
            about["stream"] = plain_stream(select.stream, SELECTION_STREAM)
            if about["stream"]["class_path"] == SAVED_STREAM:
                resolve_stream(select.stream, "select.stream").save(self.folder / SELECTION_STREAM)
        return about

    def _check_goes_on(self, now: Mapping[str, Any], there: Mapping[str, Any]) -> None:
        """The folder's study is this one, or a part of it.

        Raises:
            RunError: with every difference.
        """
        before, after = labelled(there.get("vary") or {}), labelled(now["vary"])
        added = {key: [label for label in values if label not in before.get(key, {})] for key, values in after.items()}
        same = {key: {name: value for name, value in after[key].items() if name not in added[key]} for key in after}
        found = [
            *differences({**there, "vary": None}, {**now, "vary": None}),
            *differences(before, same, "vary"),
        ]
        if found or before.keys() != after.keys():
            lines = "".join(f"\n  {line}" for line in found)
            raise RunError(f"{self.folder} holds another study: choose another folder. What differs:{lines}")

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
        select = config.pop("select", None)
        if isinstance(select, Mapping):
            select = {**select, "stream": saved_stream(select.get("stream"), (folder,))}
        return cls(config, config.pop("vary"), folder, made_here(folder) if trust is None else trust, select)

    @property
    def runs(self) -> dict[str, Run]:
        """The runs begun so far, by the name of their folder."""
        return dict(self.results().runs)

    @property
    def selection(self) -> pd.DataFrame:
        """One row per trial by which hyper-parameters were chosen.

        ``method``; ``settings`` as a mapping; ``folder`` of the trial in the study's; ``state``; ``value`` of the
        figure that decides, NaN for a trial that came to no end; ``seconds``; ``chosen``, true for the best of its
        method.

        Raises:
            RunError: no hyper-parameters were chosen so far.
        """
        return read_selection(self.folder)

    def table(self) -> pd.DataFrame:
        """One row per run: what it varies, its state, its figures, and its cost.

        Figures are those of the first pass; ``probe_accuracy`` is the average accuracy on the probes, and those of
        general ability are there where tasks are held out. ``intransigence`` is measured against the joint run of the
        same seed, model and adapter, where the study has one. An undefined figure is NaN. Costs are ``seconds`` in all,
        ``train_seconds``, ``train_flops``, ``strategy_bytes`` that are kept after the last stage, and
        ``trainable_parameters``. ``reason`` says why a run failed.
        """
        return self.results().table

    def comparison(self) -> Comparison:
        """The methods side by side, over the runs that are done.

        Raises:
            RunError: none is done, or they were taught different streams.
        """
        return self.results().comparison

    def results(self) -> Results:
        """The runs as they are now: what is asked for several times is read once."""
        return Results(self.folder, self.points)

    def _repr_html_(self) -> str:
        from lifelong.reports.notebook import study_html

        return study_html(self)

    def plot(self, kind: str = "matrix", ax: Axes | None = None, **options: Any) -> Axes:
        """Draw the methods beside each other; at the end of a notebook's cell the axes show themselves.

        Args:
            kind: ``"matrix"``: the accuracy matrix of each run, of more than twelve the mean of each method.
                ``"curves"``: accuracy over the tasks seen so far, over the stages. ``"bars"``, ``"forgetting"``: a
                figure of each method. ``"pareto"``: a figure against a cost. ``"ranks"``: a critical-difference
                diagram. ``"losses"``: of training. Means are over seeds and orders, and have intervals.
            ax: axes to draw on; without them a new figure is made.
            **options: ``figure`` of bars and ranks, a column of ``table``; ``cost`` and ``score`` of pareto.

        Returns:
            The axes, of several the first; ``ax.alternative`` says in words what they show.

        Raises:
            ConfigError: the kind is unknown.
            RunError: no run is finished.
        """
        from lifelong.reports.figures.of_study import draw

        return draw(self.results(), kind, ax, **options)
