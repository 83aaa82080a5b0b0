"""A run goes on with a task that nobody knew of when it began, and keeps it only if it is worth its price."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from lifelong.config import make_experiment, read_config
from lifelong.describe import task_entries
from lifelong.durable import remove_folder, whole_folder
from lifelong.errors import ConfigError, DataError, DivergedError, RunError
from lifelong.evaluation import Answers, evaluate_task
from lifelong.experiment import Experiment
from lifelong.folder import EXTENSION, EXTENSION_FILE, RunFolder
from lifelong.loop import Loop
from lifelong.progress import Reporter
from lifelong.session import Work, working_on
from lifelong.task_stream import TaskStream
from lifelong.tasks import Task

if TYPE_CHECKING:
    from lifelong.run import Run

_DEVICES = ("devices", "num_nodes", "strategy")  # settings of the Trainer for several
STREAM = "stream"  # a folder beside EXTENSION_FILE, with the task


@dataclass(frozen=True)
class Limits:
    """What a further stage may cost, and must bring, in points of the tasks' scores on their validation questions.

    Args:
        max_forgetting: by how much the mean score over the earlier tasks may fall; ``None`` for any amount.
        min_gain: by how much the new task's score must rise; ``None`` where it need not.

    Raises:
        ConfigError: a limit is no number in [-1, 1].
    """

    max_forgetting: float | None = None
    min_gain: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not (isinstance(value, int | float) and -1 <= value <= 1):
                raise ConfigError(f"{name}: is a difference of scores, in -1..1, got {value!r}")

    @property
    def set(self) -> bool:
        """Whether there is any."""
        return (self.max_forgetting, self.min_gain) != (None, None)

    def check(self, earlier: Sequence[Task], new: Task) -> None:
        """See that what is limited can be measured.

        Raises:
            DataError: a task has no validation questions, or is measured in perplexity.
        """
        measured = [*earlier] * (self.max_forgetting is not None) + [new] * (self.min_gain is not None)
        lacking = [task.name for task in measured if task.validation is None or not len(task.validation)]
        if lacking:
            raise DataError(
                f"max_forgetting, min_gain: are measured on validation questions, and these tasks have none: "
                f"{', '.join(lacking)}. Test questions decide nothing, so that what they measure can be believed"
            )
        if texts := [task.name for task in measured if task.is_text]:
            raise DataError(f"max_forgetting, min_gain: are differences of scores, and {texts[0]!r} has a perplexity")


@dataclass(frozen=True)
class Attempt:
    """What became of an extension.

    Args:
        task: its name.
        stage: that it is, or would have been.
        accepted: whether the stage was kept.
        limits: that it had to keep.
        before: by task, the score on the validation questions before the stage; empty without limits.
        after: the same after it.
        new_labels: by how many labels a classifier's head has grown.
    """

    task: str
    stage: int
    accepted: bool
    limits: Limits
    before: Mapping[str, float]
    after: Mapping[str, float]
    new_labels: int = 0

    @property
    def forgetting(self) -> float | None:
        """By how much the mean score of the earlier tasks fell; negative where it rose."""
        falls = [self.before[task] - self.after[task] for task in self.before if task != self.task]
        return fmean(falls) if falls else None

    @property
    def gain(self) -> float | None:
        """By how much the new task's score rose."""
        return self.after[self.task] - self.before[self.task] if self.task in self.before else None

    @property
    def reasons(self) -> list[str]:
        """Which limits were broken, in words."""
        broken = []
        if self.limits.max_forgetting is not None and self.forgetting > self.limits.max_forgetting:
            broken.append(f"forgetting {self.forgetting:.4f}, allowed {self.limits.max_forgetting:g}")
        if self.limits.min_gain is not None and self.gain < self.limits.min_gain:
            broken.append(f"gain {self.gain:.4f}, asked {self.limits.min_gain:g}")
        return broken


class _Refused(Exception):
    """Takes a stage back that was tried."""


def experiment_in(folder: RunFolder, trust: bool, pending: bool = True, **instead: Any) -> Experiment:
    """The experiment of a run folder, with all tasks by which it was extended.

    Args:
        folder: of the run.
        trust: allow code from outside of lifelong, which its configuration names.
        pending: with the task that the run is just being extended by.
        **instead: settings in place of those of the configuration.
    """
    folder.config()  # is it there, and as it was?
    experiment = make_experiment(
        read_config(folder.config_file) | {"folder": str(folder.path)} | instead, trust, folder.path
    )
    places = folder.extensions()
    if pending and folder.pending:
        places.append(folder.pending)
    return extended(experiment, places)


def extended(experiment: Experiment, extensions: Sequence[Path]) -> Experiment:
    """An experiment whose stream goes on with the tasks in these folders; these are learned on one device."""
    if not extensions:
        return experiment
    single = {name: value for name, value in experiment.trainer.items() if name not in _DEVICES}
    learned = list(experiment.tasks.learned)
    for place in extensions:
        (task,) = TaskStream.load(place / STREAM)
        learned = [*learned[: _record(place)["after"]], task]
    tasks = TaskStream(experiment.tasks.name, [*learned, *experiment.tasks.held_out])
    return replace(experiment, stream=tasks, order=None, held_out=None, trainer=single)


def resume(path: str | Path, trust: bool, quiet: bool = False, reporter: Reporter | None = None) -> Run:
    """Go on with a run that was broken off, in whatever it was doing.

    Args:
        path: of the run folder.
        trust: as for ``experiment_in``.
        quiet, reporter: as for ``Experiment.run``.
    """
    from lifelong.run import Run

    folder, reporter = RunFolder(path), reporter or Reporter(quiet)
    experiment = experiment_in(folder, trust)
    if not folder.pending and not folder.extensions():
        return experiment.run(reporter=reporter)
    if folder.pending:
        with working_on(folder, reporter, "run") as work:
            _try(experiment, folder, reporter, work)
    run = Run(folder.path)
    run.write_views()
    return run


def extend(
    path: str | Path,
    task: Task,
    limits: Limits | None = None,
    trust: bool = False,
    quiet: bool = False,
    reporter: Reporter | None = None,
) -> Attempt:
    """Let a finished run learn a further task; see ``Run.extend``."""
    folder, reporter, limits = RunFolder(path), reporter or Reporter(quiet), limits or Limits()
    before = experiment_in(folder, trust)
    if len(before.stages()) != len(before.tasks.learned):
        raise ConfigError(f"{folder.path} has one stage for all tasks, and cannot be extended: begin a run of them all")
    with working_on(folder, reporter, "extend", task=task.name, **_given(limits)) as work:
        _check_finished(folder)
        after = folder.committed()
        known = list(before.tasks.learned)[:after]
        limits.check(known, task)
        tasks = TaskStream(before.tasks.name, [*known, task, *before.tasks.held_out])
        remove_folder(folder.path / EXTENSION)  # of one that has its stage, and whose process was killed then
        with whole_folder(folder.path / EXTENSION) as place:
            TaskStream(task.name, [task]).save(place / STREAM)
            about = {"stages": after + 1, "tasks": task_entries(tasks), "fingerprint": list(tasks.fingerprint())}
            record = {"task": task.name, "after": after, "limits": asdict(limits), "environment": about}
            (place / EXTENSION_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")
            extended(before, [place]).write_passages(place, [task.name])
        try:
            attempt = _try(experiment_in(folder, trust), folder, reporter, work)
        except (ConfigError, DataError):
            remove_folder(folder.path / EXTENSION)  # the run cannot learn this task, however often it is tried
            raise
        if attempt.accepted:
            from lifelong.run import Run

            Run(folder.path).write_views()
    return attempt


def _try(experiment: Experiment, folder: RunFolder, reporter: Reporter, work: Work) -> Attempt:
    """Learn the pending task; keep the stage, or let everything be as it was."""
    place = folder.pending
    record = _record(place)
    limits, stages, done = Limits(**record["limits"]), experiment.stages(), record["after"]
    loop = Loop(experiment, folder, stages, reporter, work.sign)
    task = stages[-1].task
    new_labels = _new_labels(loop, task)
    earlier = []
    for index in range(done + 1):
        loop.restore(index)
        earlier += [(index, answers) for answers in loop.ask([task], index)]
    known = [*experiment.tasks.learned] if limits.set else []
    before = _validated(loop, known)

    def accept(path: Path) -> list[tuple[int, Answers]]:
        nonlocal attempt
        attempt = replace(attempt, after=_validated(loop, known))
        if attempt.reasons:
            raise _Refused
        shutil.copytree(place, path / EXTENSION)
        return earlier

    attempt = Attempt(task.name, done + 1, True, limits, before, {}, new_labels)
    try:
        loop.learn(stages[-1], accept)
    except _Refused:
        attempt = replace(attempt, accepted=False)
        work.outcome = "refused"
        loop.forget_steps()
    except DivergedError:
        loop.forget_steps()
        remove_folder(place)  # it would diverge again
        raise
    remove_folder(place)
    work.about = {"task": task.name, **_report(attempt)}
    return attempt


def _check_finished(folder: RunFolder) -> None:
    """See that a run can be extended.

    Raises:
        RunError: it has stages to come.
    """
    if folder.pending:
        task = _record(folder.pending)["task"]
        raise RunError(
            f"{folder.path} is being extended by {task!r}: finish that with `lifelong resume {folder.path}`, or give "
            f"it up with `lifelong rollback {folder.path} --to {folder.committed()}`"
        )
    rolled_back = folder.committed() >= 0 and folder.status().get("state") == "rolled back"
    if not folder.complete and not rolled_back:
        raise RunError(f"{folder.path} has stages to come: finish it with `lifelong resume {folder.path}` first")


def _record(place: Path) -> dict[str, Any]:
    """What is known of an extension: ``task``, ``after`` how many stages, ``limits`` and ``environment``."""
    return json.loads((place / EXTENSION_FILE).read_text(encoding="utf-8"))


def _validated(loop: Loop, tasks: Sequence[Task]) -> dict[str, float]:
    """Scores by task on the validation questions, where there are any, in the first pass."""
    settings = loop.experiment.evaluate
    asked = [task for task in tasks if task.validation is not None and len(task.validation) and not task.is_text]
    with loop.learner.encoder.uncounted():
        answers = [evaluate_task(loop.learner, task, settings, "validation", settings.books[0]) for task in asked]
    return {one.task: one.score for one in answers if one is not None}


def _new_labels(loop: Loop, task: Task) -> int:
    """By how many labels a classifier's head is larger than without a task."""
    head = loop.learner.head
    if head is None:
        return 0
    known = {label for name, labels in loop.learner.family.task_labels.items() if name != task.name for label in labels}
    return len(set(head.labels) - known)


def _report(attempt: Attempt) -> dict[str, Any]:
    """An attempt as the history has it."""
    measured = {"forgetting": attempt.forgetting, "gain": attempt.gain} if attempt.limits.set else {}
    scores = {"before": dict(attempt.before), "after": dict(attempt.after)} if attempt.limits.set else {}
    why = {} if attempt.accepted else {"why": "; ".join(attempt.reasons)}
    return {**measured, **scores, **({"new_labels": attempt.new_labels} if attempt.new_labels else {}), **why}


def _given(limits: Limits) -> dict[str, float]:
    return {name: value for name, value in asdict(limits).items() if value is not None}
