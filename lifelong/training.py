"""The settings of training: how a stage is learned."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from lifelong.errors import ConfigError, suggestion

SCHEDULES = ("linear", "cosine", "constant")


@dataclass(frozen=True)
class Training:
    """How a stage is trained.

    Args:
        epochs: passes over a stage's rows.
        batch_size: rows of a micro-batch, on all devices together.
        accumulate: micro-batches of an optimiser step.
        learning_rate: the highest of the schedule.
        optimizer: name of a class in ``torch.optim``.
        schedule: ``"linear"`` and ``"cosine"`` fall to zero at the end of the stage; ``"constant"`` stays.
        warmup: share of the steps in which the learning rate rises from zero.
        weight_decay: as in the optimiser.
        gradient_clip: largest norm of the whole gradient; ``None`` leaves it as it is.
        per_task: ``{task: {"epochs": ..., "learning_rate": ...}}`` for stages that differ.

    Raises:
        ConfigError: naming the setting.
    """

    epochs: int = 10
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 1e-3
    optimizer: str = "AdamW"
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.0
    weight_decay: float = 0.0
    gradient_clip: float | None = 1.0
    per_task: Mapping[str, Mapping[str, int | float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}: must be a whole number of at least 1, got {value!r}")
        for name, least in (("learning_rate", "above 0"), ("gradient_clip", "above 0"), ("weight_decay", "at least 0")):
            value = getattr(self, name)
            if value is None and name == "gradient_clip":
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0 or (value == 0 and least == "above 0"):
                raise ConfigError(f"{name}: must be a finite number {least}, got {value!r}")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule: unknown {self.schedule!r}{suggestion(self.schedule, SCHEDULES)}")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup: is a share of the steps, in [0, 1), got {self.warmup!r}")
        optimizers = [name for name in dir(torch.optim) if inspect.isclass(getattr(torch.optim, name))]
        if self.optimizer not in optimizers:
            raise ConfigError(f"optimizer: unknown {self.optimizer!r}{suggestion(self.optimizer, optimizers)}")
        try:
            getattr(torch.optim, self.optimizer)([torch.nn.Parameter(torch.zeros(1))], lr=0.1, weight_decay=0.0)
        except TypeError as error:
            raise ConfigError(f"optimizer: {self.optimizer!r} cannot be used with weight_decay: {error}") from None
        for task, settings in self.per_task.items():
            for key in settings:
                if key not in ("epochs", "learning_rate"):
                    raise ConfigError(f"per_task, {task!r}: epochs and learning_rate can differ, not {key!r}")
            try:
                self.of_task(task)
            except ConfigError as error:
                raise ConfigError(f"per_task, {task!r}, {error}") from None

    def of_task(self, name: str) -> Training:
        """The settings for the stage of one task."""
        return replace(self, **self.per_task.get(name, {}), per_task={})
