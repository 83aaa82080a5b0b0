"""The contract of a continual-learning method, and the stage that it is told about."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from datasets import Dataset, concatenate_datasets
from lightning.pytorch import Callback

from lifelong.errors import ConfigError
from lifelong.randomness import derived_generator
from lifelong.strategies.traits import Traits
from lifelong.tasks import Task

if TYPE_CHECKING:
    from lifelong.learner import Learner


@dataclass(frozen=True, eq=False)
class Stage:
    """Where a run stands: one task about to be learned, being learned, or just learned.

    Args:
        index: 1 for the first stage, as in the rows of the accuracy matrix (0 is the untrained model).
        task: the task of this stage.
        train: rows to train on: the task's own unless a strategy planned otherwise. Beside an example's fields each
            row has ``task`` and ``kind``.
        validation: rows for decisions during training, in the same form, or ``None``.
        earlier: the tasks learned before, oldest first.
        seed: the run's seed.
    """

    index: int
    task: Task
    train: Dataset
    validation: Dataset | None = None
    earlier: tuple[Task, ...] = ()
    seed: int = 0

    @classmethod
    def of(cls, task: Task, index: int, earlier: Sequence[Task] = (), seed: int = 0) -> Stage:
        """The stage that trains on one task's own rows."""
        validation = None if task.validation is None else labelled(task, task.validation)
        return cls(index, task, labelled(task, task.train), validation, tuple(earlier), seed)

    def with_rows_of(self, stages: Sequence[Stage]) -> Stage:
        """This stage, training on the rows of all the given stages."""
        validation = [stage.validation for stage in stages if stage.validation is not None]
        return replace(
            self,
            train=concatenate_datasets([stage.train for stage in stages]),
            validation=concatenate_datasets(validation) if validation else None,
        )

    def generator(self, name: str) -> torch.Generator:
        """A fresh generator for the component called ``name`` in this stage; the same one whenever it is asked for."""
        return derived_generator(self.seed, "stage", self.index, name)


def labelled(task: Task, rows: Dataset) -> Dataset:
    """The rows of one task, each saying which task it belongs to and of what kind that is."""
    return rows.add_column("task", [task.name] * len(rows)).add_column("kind", [task.kind] * len(rows))


class Strategy(Callback):
    """One continual-learning method: a Lightning callback with hooks of its own, each of which does nothing by default.

    Any number of strategies run together, in the order in which they were given. Everything that a strategy must
    remember from stage to stage goes through ``state_dict`` and ``load_state_dict``, as tensors and JSON values.
    Constructor arguments are kept as attributes of the same names, from which the run's configuration is written.

    Of Lightning's hooks two are of use to many: ``on_before_optimizer_step`` sees the whole gradient of a step before
    it is clipped, and ``on_train_batch_end`` the weights after it.

    On several devices each is a process of its own, with the same weights and the same draws. All of them call
    ``extend_batch`` with the whole micro-batch, and must make the same of it; then each goes on with a part of its
    rows, so that ``loss`` sees a part. A sum over rows divided by ``learner.divisor`` and a term that is not by row,
    such as a penalty, are both right as they are, since the mean over devices is taken, as over micro-batches.
    ``on_before_optimizer_step`` sees the gradient of all rows, and the other hooks whatever they look at whole. What is
    read off a forward pass, such as activations, is that of a part: ``lifelong.distributed`` adds up. A strategy for
    which this is right says so in its ``traits``, and is refused on several devices otherwise.

    Args:
        name: tells two strategies of one class apart; given automatically where it is needed.

    Attributes:
        conflicts: names of strategies (``Replay``) that it cannot run with, and why; checked before training. Classes
            that are made from one that is named are meant too. A class with ``conflicts`` of its own has these alone:
            ``{**Replay.conflicts, ...}`` adds to its parent's.
        traits: what it needs, keeps and costs; adapters and families are checked before training.
    """

    conflicts: ClassVar[Mapping[str, str]] = {}
    traits: ClassVar[Traits] = Traits()

    def __init__(self, name: str | None = None) -> None:
        if name is not None and not (isinstance(name, str) and re.fullmatch(r"[\w .%+-]+", name)):
            raise ConfigError(
                f"{type(self).__name__}: name: becomes a file's, of letters, digits and .%+-, got {name!r}"
            )
        self.name = name

    @property
    def state_key(self) -> str:
        """Class plus name: where this strategy's state is kept."""
        return type(self).__name__ + (f"-{self.name}" if self.name else "")

    def plan(self, stages: Sequence[Stage]) -> Sequence[Stage]:
        """Once per run: what each stage trains on. Returns the stages to run."""
        return stages

    def check(self, learner: Learner, stages: Sequence[Stage]) -> None:
        """Once per run, before anything is trained or asked: whether this can work.

        Raises:
            ConfigError, DataError: why it cannot.
        """

    def rows_added(self, rows: int) -> int:
        """How many rows ``extend_batch`` adds to a batch of so many, at most: for the estimate of memory."""
        return 0

    def rows_kept(self, rows: Sequence[int]) -> int | None:
        """How many rows are in memory after stages of so many rows each, at most: for the estimate of disk.

        ``None``, the default, says nothing: of a strategy whose ``traits.kept`` counts rows it may be all of them.
        """
        return None

    def before_stage(self, learner: Learner, stage: Stage) -> None:
        """About to meet a task. Must be repeatable: a resumed run calls it again on the previous stage's state."""

    def extend_batch(self, learner: Learner, batch: dict[str, Any]) -> dict[str, Any]:
        """Before each forward pass: add rows to a batch (see ``Learner.extend``). Returns the batch to use.

        On several devices the batch is that of all of them, and is divided afterwards.
        """
        return batch

    def loss(self, learner: Learner, batch: dict[str, Any], outputs: Any, loss: torch.Tensor) -> torch.Tensor:
        """After each forward pass: add to the loss or replace it.

        Auxiliary losses of adapters have joined that pass; a further one that is run here brings none.

        Args:
            learner: what is being trained.
            batch: of B rows, as made by ``lifelong.data.collate`` (each with its ``task``, ``id`` and ``source``), with
                ``targets`` of shape (B, K): the token that each of the K positions of ``outputs.logits`` should
                predict, ``-100`` where none is asked for. The sum of the rows' losses, each times its ``weight``, is
                divided by ``learner.divisor``. On several devices B is this one's part; a row of weight 0 stands for
                none, and must change nothing.
            outputs: of the model; ``logits`` has the shape (B, K, vocabulary).
            loss: 0-dim; the mean over micro-batches and devices of what is returned here is the loss of the optimiser
                step.

        Returns:
            0-dim tensor; the difference to ``loss`` is logged under the strategy's ``state_key``.
        """
        return loss

    def after_stage(self, learner: Learner, stage: Stage) -> None:
        """The stage has been learned; evaluation is about to begin."""

    def step_state_dict(self) -> dict[str, Any]:
        """What changes from step to step of a stage, as tensors and JSON values: for a run that is resumed in its
        middle. By default the states of the random generators that are attributes."""
        return {name: value.get_state() for name, value in vars(self).items() if isinstance(value, torch.Generator)}

    def load_step_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``step_state_dict`` was taken; ``before_stage`` has been called on the previous stage's state."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Generator):
                value.set_state(state[name])

    def routes(self, learner: Learner, examples: Sequence[Mapping[str, Any]]) -> Sequence[str] | None:
        """Who answers each example, by name, where that is not the same for all; predictions keep it as ``route``.

        Args:
            learner: whose model is asked.
            examples: with the wording that is asked as their ``question``; those of a run have their ``task``.
        """
        return None

    def answering(self, learner: Learner, examples: Sequence[Mapping[str, Any]]) -> AbstractContextManager[None]:
        """A context in which the given examples, all of one route, are answered."""
        return nullcontext()


def conflict(first: Strategy, second: Strategy) -> str | None:
    """Why two strategies cannot run together; ``None`` where neither names a class that the other is made from."""
    for one, other in ((first, second), (second, first)):
        names = {kind.__name__ for kind in type(other).__mro__}
        for name, reason in one.conflicts.items():
            if name in names:
                return reason
    return None


def prepare(strategies: Sequence[Strategy]) -> tuple[Strategy, ...]:
    """Check that strategies can run together, and tell those of one class apart by name.

    Raises:
        ConfigError: something is no strategy, two declare a conflict, or two of a class were given the same name.
    """
    if not isinstance(strategies, Sequence):
        raise ConfigError(f"strategies: expected a list of strategies, got {strategies!r}")
    for strategy in strategies:
        if not isinstance(strategy, Strategy):
            raise ConfigError(f"strategies: expected objects such as Replay(), got {strategy!r}")
    for first, second in combinations(strategies, 2):
        reason = conflict(first, second)
        if reason is not None:
            raise ConfigError(
                f"strategies: {type(first).__name__} and {type(second).__name__} cannot run together: {reason}"
            )
    taken: set[str] = set()
    for strategy in strategies:
        if strategy.state_key in taken and strategy.name is not None:
            raise ConfigError(f"strategies: two are called {strategy.state_key!r}; give each a name of its own")
        number = 2
        while strategy.state_key in taken:
            strategy.name, number = str(number), number + 1
        taken.add(strategy.state_key)
    return tuple(strategies)
