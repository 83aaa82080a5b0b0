"""Short runs on toys: whole, or interrupted and resumed; and what two of them differ in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft import LoKrConfig, LoraConfig, PeftConfig
from safetensors.torch import load_file

from lifelong.adapters import MoralConfig
from lifelong.experiment import Experiment
from lifelong.run import Run
from lifelong.strategies.base import Stage, Strategy
from lifelong.strategies.naive import Naive
from lifelong.task_stream import TaskStream
from lifelong.testing.errors import ContractError
from lifelong.testing.toys import labelled_stream, toy_model, toy_stream

Toy = Callable[[str, Path], Path]
STAGES = 3
BATCH_SIZE = 2


class ToyRuns:
    """Runs of one toy stream per family, of two or three steps a stage, each in a folder of its own.

    Args:
        folder: for models and runs.
        toy: makes the model of a family in a folder, and returns the folder.
        precision: of the Trainer.
    """

    def __init__(self, folder: Path, toy: Toy = toy_model, precision: str = "32-true") -> None:
        self.folder, self.toy, self.precision = folder, toy, precision
        self.models: dict[str, Path] = {}
        self._without: dict[tuple[str, str], Run] = {}

    def experiment(self, strategies: Sequence[Strategy], family: str, adapter: str, name: str) -> Experiment:
        """An experiment in the folder that is called ``name``."""
        if family not in self.models:
            self.models[family] = self.toy(family, self.folder / family)
        return Experiment(
            _stream(labelled_stream if family == "classifier" else toy_stream),
            str(self.models[family]),
            adapter=toy_adapter(adapter),
            strategies=strategies,
            epochs=1,
            batch_size=BATCH_SIZE,
            accumulate=2 if adapter == "LoRA" else 1,
            learning_rate=3e-3,
            check_resources=False,
            evaluate={"probes": False, "max_new_tokens": 2},
            folder=self.folder / "runs" / name / family / adapter,
            trainer={"accelerator": "cpu", "precision": self.precision},
        )

    def run(self, strategies: Sequence[Strategy], family: str, adapter: str, name: str) -> Run:
        """A whole run."""
        return self.experiment(strategies, family, adapter, name).run(quiet=True)

    def without(self, family: str, adapter: str) -> Run:
        """A whole run without any strategy that does something."""
        if (family, adapter) not in self._without:
            self._without[family, adapter] = self.run([Naive()], family, adapter, "naive")
        return self._without[family, adapter]

    def resumed(self, strategy: Strategy, family: str, adapter: str) -> Run:
        """A run that is interrupted in the second step of its last stage, and resumed behind the first.

        Every stage is prepared twice.

        Raises:
            ContractError: it was not to be interrupted, since ``extend_batch`` of other strategies is not called.
        """
        experiment = replace(self.experiment([strategy, _Stopper()], family, adapter, "parts"), checkpoint_every=1)
        with _Stopper.at(STAGES):
            try:
                experiment.run(quiet=True)
            except _Stop:
                pass
            else:
                name = type(strategy).__name__
                raise ContractError(f"{name}: extend_batch of strategies behind it was never called in stage {STAGES}")
        return experiment.run(quiet=True)


@cache
def _stream(make: Callable[[], TaskStream]) -> TaskStream:
    """A toy stream with fewer rows, the same object each time."""
    return make().limit(train=6, test=2)


def toy_adapter(kind: str) -> PeftConfig | None:
    """A small adapter of one of the kinds that ``Traits.adapters`` names, with dropout where the kind has it."""
    made: dict[str, PeftConfig | None] = {
        "none": None,
        "LoRA": LoraConfig(r=2, lora_alpha=4, lora_dropout=0.1, target_modules="all-linear"),
        "mixture": MoralConfig(num_experts=3, top_k=2, r=2),
        "other": LoKrConfig(r=2, target_modules="all-linear"),
    }
    return made[kind]


class _Stop(Exception):
    """What interrupts a run."""


class _Stopper(Strategy):
    """Stands behind the strategy that is looked at: prepares stages twice, and stops a run in a stage's second step.

    What to do is the class's, since a run works on copies, and one that is resumed must have the same settings.
    """

    stage: ClassVar[int | None] = None

    @classmethod
    @contextmanager
    def at(cls, stage: int) -> Iterator[None]:
        """Runs stop in this stage inside, and go on outside."""
        cls.stage = stage
        try:
            yield
        finally:
            cls.stage = None

    def before_stage(self, learner: Any, stage: Stage) -> None:
        for strategy in learner.strategies:
            if strategy is not self:
                strategy.before_stage(learner, stage)

    def extend_batch(self, learner: Any, batch: dict[str, Any]) -> dict[str, Any]:
        if learner.stage.index == self.stage and learner.losses:
            raise _Stop
        return batch


def difference(first: Run, second: Run) -> str | None:
    """What is not the same to the last bit, every answer and every weight of every stage; ``None`` if all is."""
    for stage in range(1, STAGES + 1):
        one, other = (_weights(run, stage) for run in (first, second))
        if one.keys() != other.keys():
            return f"stage {stage} keeps other weights"
        for name, value in one.items():
            if not torch.equal(value, other[name]):
                return f"after stage {stage} the weights {name} differ"
    rows = [run.rows.drop(columns="seconds") for run in (first, second)]
    same = rows[0].equals(rows[1]) and first.predictions.equals(second.predictions)
    return None if same else "other answers"


def _weights(run: Run, stage: int) -> dict[str, torch.Tensor]:
    folder = run.folder.stage(stage)
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{file.relative_to(folder)}:{name}": value for file in files for name, value in load_file(file).items()}
