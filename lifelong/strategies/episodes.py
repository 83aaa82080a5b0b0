"""Episodic memory: rows of every task that has gone by, and the gradient of the loss on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from torch import nn

from lifelong.distributed import world_size
from lifelong.errors import RunError
from lifelong.examples import plain_rows
from lifelong.losses import answer_weight
from lifelong.memory import Buffer, ReservoirBuffer
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.checks import check_count
from lifelong.strategies.weights import teacher, trained

if TYPE_CHECKING:
    from lifelong.learner import Learner

Row = Mapping[str, Any]
Gradients = Sequence[torch.Tensor]  # one per trained parameter, of its shape, where it is, in float32 or wider


class Episodes:
    """A uniform sample of the rows of each stage.

    Args:
        rows_per_task: rows kept of each stage, at most.
    """

    def __init__(self, rows_per_task: int) -> None:
        self.rows_per_task = rows_per_task
        self.buffers: dict[str, ReservoirBuffer] = {}

    @property
    def tasks(self) -> list[Sequence[Row]]:
        """The rows of each stage, oldest first; each is read when more than its task and id is asked of it."""
        return [buffer.peek(range(len(buffer))) for buffer in self.buffers.values()]

    @property
    def rows(self) -> list[Row]:
        """The rows of all stages."""
        return [row for rows in self.tasks for row in rows]

    def attach(self, stage: Stage, owner: str) -> None:
        """Have the tasks so far at hand; see ``attach_tasks``."""
        for buffer in self.buffers.values():
            attach_tasks(buffer, stage, owner)

    def keep(self, stage: Stage, owner: str, suits: Callable[[Row], bool] = lambda row: True) -> None:
        """Keep a sample of those rows of a stage that suit, drawn by the stage's generator for ``owner``."""
        buffer = ReservoirBuffer(self.rows_per_task, stage.generator(f"{owner}/keep"))
        attach_tasks(buffer, stage, owner)
        buffer.extend(filter(suits, plain_rows(stage.train)))
        self.buffers[f"stage {stage.index}"] = buffer

    def state_dict(self) -> dict[str, Any]:
        return {name: buffer.state_dict() for name, buffer in self.buffers.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.buffers = {}
        for name, state in state_dict.items():
            self.buffers[name] = ReservoirBuffer(self.rows_per_task, torch.Generator())
            self.buffers[name].load_state_dict(state)


class Projection(Strategy, ABC):
    """What A-GEM and GEM share: rows of every task, and a step whose gradient g is projected: ``g + sum_t v_t r_t``.

    The references r_t are gradients on rows that are kept. g is that of the whole step, over all micro-batches and of
    all that other strategies and the adapters' auxiliary losses have added, before it is clipped. One that is not
    finite is left alone.
    """

    def __init__(self, rows_per_task: int, batch_size: int | None, name: str | None) -> None:
        super().__init__(name)
        self.rows_per_task, self.batch_size = rows_per_task, batch_size
        check_count(self, "rows_per_task")
        check_count(self, "batch_size", optional=True)
        self.episodes = Episodes(rows_per_task)
        self._draw: torch.Generator | None = None

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        self._draw = stage.generator(f"{self.state_key}/draw")
        self.episodes.attach(stage, self.state_key)

    @abstractmethod
    def references(self, learner: Learner) -> list[Gradients]:
        """The gradients that a step is not to go against: r_1 to r_T."""

    @abstractmethod
    def weights(self, gradient: Gradients, references: Sequence[Gradients]) -> list[float] | None:
        """v_1 to v_T; ``None`` where the gradient stays as it is, as where anything is not finite."""

    def drawn_gradient(self, learner: Learner, rows: Sequence[Row]) -> Gradients:
        """The gradient on ``batch_size`` of the given rows, or on all of them."""
        return memory_gradient(learner, drawn(rows, self.batch_size, self._draw))

    def on_before_optimizer_step(self, trainer: Trainer, learner: Learner, optimizer: torch.optim.Optimizer) -> None:
        if not self.episodes.buffers:
            return
        parameters = list(trained(learner).values())
        references = self.references(learner)
        weights = self.weights(own_gradient(parameters), references)
        if weights is not None:
            add_to_gradient(parameters, references, weights)

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        self.episodes.keep(stage, self.state_key)

    def state_dict(self) -> dict[str, Any]:
        return self.episodes.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.episodes.load_state_dict(state_dict)


def attach_tasks(buffer: Buffer, stage: Stage, owner: str) -> None:
    """Let a buffer have the tasks up to this stage's at hand.

    Args:
        buffer: of the strategy ``owner``.

    Raises:
        RunError: it was restored, and filled from other tasks.
    """
    try:
        buffer.attach((*stage.earlier, stage.task))
    except RunError as error:
        raise RunError(f"{owner}, before stage {stage.index}: {error}") from None


def drawn(rows: Sequence[Row], size: int | None, generator: torch.Generator) -> list[Row]:
    """``size`` of the rows, none twice, or all of them in their order where there are no more."""
    if size is None or size >= len(rows):
        return list(rows)
    return [rows[number] for number in torch.randperm(len(rows), generator=generator)[:size].tolist()]


def memory_gradient(learner: Learner, rows: Sequence[Row]) -> Gradients:
    """The gradient of the mean loss per answer token on rows, in the order of ``trained(learner)``.

    The model is in evaluation mode, so that nothing is drawn; mixed precision is off, so that nothing needs a scaler;
    auxiliary losses of adapters stay out; and the parameters' own ``grad`` is left alone. Rows are read as many at a
    time as in training; on several devices each reads all of them.

    Args:
        learner: whose trained weights.
        rows: at least one.

    Returns:
        0 where a parameter takes no part.
    """
    parameters = list(trained(learner).values())
    size = -(-learner.settings.batch_size // world_size())
    batches = [learner.batch_of(rows[start : start + size]) for start in range(0, len(rows), size)]
    tokens = sum(answer_weight(batch) for batch in batches)
    total: Gradients | None = None
    with teacher(learner, {}), torch.enable_grad(), torch.autocast(learner.device.type, enabled=False):
        for batch in batches:
            loss = learner.answer_losses(batch).sum() / tokens
            part = _widened(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
            total = part if total is None else torch._foreach_add(total, part)
    return total


def own_gradient(parameters: Sequence[nn.Parameter]) -> Gradients:
    """The gradients that parameters have; 0 where there is none."""
    return _widened([torch.zeros_like(one) if one.grad is None else one.grad for one in parameters])


def add_to_gradient(
    parameters: Sequence[nn.Parameter], references: Sequence[Gradients], weights: Sequence[float]
) -> None:
    """Add ``sum_t v_t r_t`` to parameters' gradients; one without a gradient stays so where its part is 0."""
    for parameter, *parts in zip(parameters, *references, strict=True):
        change = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        if parameter.grad is not None:
            parameter.grad.add_(change)
        elif change.any():
            parameter.grad = change.to(parameter.dtype)


def summed(values: Iterable[torch.Tensor]) -> torch.Tensor:
    """The sum of small tensors of one shape from any devices, on the CPU; each device is waited for once."""
    sums: dict[torch.device, torch.Tensor] = {}
    for value in values:
        sums[value.device] = sums[value.device] + value if value.device in sums else value
    return sum(one.cpu() for one in sums.values())


def _widened(gradients: Sequence[torch.Tensor]) -> Gradients:
    return [one.to(torch.promote_types(torch.float32, one.dtype)) for one in gradients]
