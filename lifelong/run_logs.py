"""A run in the loggers of Lightning: training as it goes, and after each stage every cell, figure and cost."""

from __future__ import annotations

import copy
import csv
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger

from lifelong.distributed import is_first
from lifelong.durable import write_text
from lifelong.errors import ConfigError, suggestion
from lifelong.run import Run

FOLDER = "logs"  # in a run's
SENT = ("wandb", "mlflow")  # what is measured may leave the machine


class RunLogs:
    """The loggers of one run; each is opened when there is something to say, and goes on in its log after a resume.

    All steps are optimiser steps of the run, from 0 for the untrained model. Names are made for the trees in which they
    are shown::

        train/2-capitals/loss                      of each stage and task
        test/closed/elements/exact_match           a cell of the matrix: split, pass, task, metric
        figures/forgetting                         of the tasks that were learned so far, in the first pass
        costs/train_seconds                        of the stage that has just ended

    Args:
        loggers: Lightning's, of which copies are taken, or names of :data:`NAMES`.
        folder: of the run.
    """

    def __init__(self, loggers: Sequence[Logger | str], folder: Path) -> None:
        self.folder = folder
        self._wanted = list(loggers)
        self._open: list[Logger] | None = None

    def open(self, step: int) -> list[Logger]:
        """The loggers, which forget what they know of later steps, as far as they can.

        Args:
            step: of the run, from which it goes on.
        """
        if self._open is None:
            self._open = [self._opened(one, step) for one in self._wanted]
        return self._open

    def _opened(self, wanted: Logger | str, step: int) -> Logger:
        if not isinstance(wanted, str):
            return copy.deepcopy(wanted)
        if not is_first():  # of several processes one writes
            return DummyLogger()
        logger = NAMES[wanted](self.folder, step)
        if step == 0:
            logger.log_hyperparams(Run(self.folder).config)
        return logger

    def stage_ended(self, index: int, step: int) -> None:
        """Log what is known after a stage.

        Args:
            index: of the stage, 0 for the untrained model.
            step: of the run.
        """
        if not self._wanted:
            return
        run = Run(self.folder)
        values = dict(_cells(run, index)) | dict(_figures(run, index)) | dict(_costs(run, index))
        for logger in self.open(step):
            logger.log_metrics(values, step=step)
            logger.finalize("success")  # what was logged is there; it can be gone on with


def is_name(logger: Any) -> bool:
    """Whether a setting is the name of a logger, and no other thing."""
    return isinstance(logger, str) and logger in NAMES


def check_loggers(loggers: Sequence[Any]) -> None:
    """Raise a ConfigError for what is no logger, and for one whose package is not installed."""
    for number, logger in enumerate(loggers):
        if not isinstance(logger, str | Logger):
            raise ConfigError(f"loggers.{number}: expected one of Lightning's, or a name, got {logger!r}")
        if isinstance(logger, str) and not is_name(logger):
            raise ConfigError(f"loggers.{number}: there is no {logger!r}{suggestion(logger, NAMES)}")
        if is_name(logger) and logger != "csv" and find_spec(logger) is None:
            raise ConfigError(f"loggers.{number}: {logger!r} needs the extra loggers: pip install 'lifelong[loggers]'")


def _cells(run: Run, index: int) -> Iterator[tuple[str, float]]:
    rows = run.rows
    for row in rows[rows["stage"] == index].to_dict("records"):
        yield f"{row['split']}/{row['pass']}/{row['task']}/{row['metric']}", row["score"]


def _figures(run: Run, index: int) -> Iterator[tuple[str, float]]:
    """The figures of the stream as far as it was learned; in the end those of all of it."""
    from lifelong.metrics.figures import derive_figures

    matrix = run.matrix
    if index == 0 or matrix.stages != len(matrix.tasks):
        figures = matrix.figures() if index == matrix.stages else []
    else:
        held_out = matrix.held_out_matrix[: index + 1] if matrix.held_out else None
        figures = derive_figures(
            matrix.matrix[: index + 1, :index],
            matrix.tasks[:index],
            None,
            matrix.name,
            matrix.higher_is_better,
            held_out,
            matrix.held_out,
        )
    for figure in figures:
        if figure.value is not None and " over measured tasks" not in figure.name:
            yield f"figures/{figure.name}", figure.value


def _costs(run: Run, index: int) -> Iterator[tuple[str, float]]:
    for name, value in run.costs[index].items():
        if isinstance(value, int | float):
            yield f"costs/{name}", value


def _csv(folder: Path, step: int) -> Logger:
    """``logs/csv/metrics.csv``."""
    file = folder / FOLDER / "csv" / "metrics.csv"
    before: list[Mapping[str, str]] = []
    if file.is_file():  # which a new logger would remove
        with file.open(encoding="utf-8", newline="") as lines:
            before = [row for row in csv.DictReader(lines) if int(row["step"]) <= step]
        file.unlink()
        for other in file.parent.iterdir():  # it would warn of a folder that is not empty
            other.unlink()
    logger = CSVLogger(folder, FOLDER, "csv")
    for row in before:
        values = {name: float(value) for name, value in row.items() if value and name != "step"}
        logger.log_metrics(values, step=int(row["step"]))
    logger.save()
    return logger


def _tensorboard(folder: Path, step: int) -> Logger:
    """``logs/tensorboard``, for ``tensorboard --logdir``."""
    # one more step, since those that are purged begin with it
    purge = {"purge_step": step + 1} if (folder / FOLDER / "tensorboard").is_dir() else {}
    return TensorBoardLogger(folder, FOLDER, "tensorboard", default_hp_metric=False, **purge)


def _wandb(folder: Path, step: int) -> Logger:
    """A run of the project ``lifelong``, or of the one in ``WANDB_PROJECT``, with its files in ``logs/wandb``."""
    number = _kept(folder, "wandb", lambda: uuid.uuid4().hex[:8])
    project = os.environ.get("WANDB_PROJECT", "lifelong")
    return WandbLogger(folder.name, str(folder / FOLDER), number, project=project, resume="allow")


def _mlflow(folder: Path, step: int) -> Logger:
    """A run of the experiment ``lifelong`` on the server in ``MLFLOW_TRACKING_URI``, or else in ``logs/mlflow.db``."""
    (folder / FOLDER).mkdir(exist_ok=True)
    address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / FOLDER / 'mlflow.db').resolve()}"
    number = folder / FOLDER / "mlflow.id"
    known = number.read_text(encoding="utf-8") if number.is_file() else None
    logger = MLFlowLogger("lifelong", folder.name, address, run_id=known)
    _kept(folder, "mlflow", lambda: str(logger.run_id))
    return logger


def _kept(folder: Path, name: str, make: Callable[[], str]) -> str:
    """By which a service knows the run."""
    file = folder / FOLDER / f"{name}.id"
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        write_text(file, make())
    return file.read_text(encoding="utf-8")


NAMES: dict[str, Callable[[Path, int], Logger]] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
