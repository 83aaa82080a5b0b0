"""Step checkpoints: a stage that was broken off goes on from the last one, to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, Trainer

from lifelong.compute import positions_of_all
from lifelong.distributed import is_first
from lifelong.durable import damage, remove_folder, thrown_away, whole_folder
from lifelong.interruption import StopSign
from lifelong.strategies.weights import trained

if TYPE_CHECKING:
    from lifelong.learner import Learner

FOLDER = "steps"
FILE = "trainer.ckpt"
KEPT = 2  # of a stage: the last one, and the one before it, should the last be damaged
OWN = "lifelong"  # the key of what is ours in a checkpoint of Lightning's


class StopTraining(Exception):
    """Ends a fit after the run was asked to stop; Lightning would answer a KeyboardInterrupt by leaving Python."""


class StepCheckpoints(Callback):
    """Saves the state of training in ``steps/<stage>-<step>/`` of a run folder, as a checkpoint of Lightning's.

    It stands behind the strategies in the Trainer's list, so that they are done with a step when it is saved.

    Args:
        folder: of the run.
        every: optimiser steps; ``None`` saves only when the run is asked to stop.
        sign: says when that is.
    """

    def __init__(self, folder: Path, every: int | None, sign: StopSign) -> None:
        self.folder, self.every, self.sign = folder / FOLDER, every, sign

    def on_train_start(self, trainer: Trainer, learner: Learner) -> None:
        self.sign.listen()

    def on_train_batch_end(self, trainer: Trainer, learner: Learner, *batch: Any) -> None:
        if len(learner.losses) % trainer.num_training_batches:
            self._step_done(trainer, learner)

    def on_train_epoch_end(self, trainer: Trainer, learner: Learner) -> None:
        # an epoch's last step is saved here, where Lightning counts the epoch: in a checkpoint that is made before, it
        # forgets the epoch once it is resumed and saved again
        if len(learner.losses) < trainer.num_training_batches * trainer.max_epochs and not trainer.should_stop:
            self._step_done(trainer, learner)

    def on_train_end(self, trainer: Trainer, learner: Learner) -> None:
        if len(learner.losses) == trainer.num_training_batches * trainer.max_epochs:
            self._step_done(trainer, learner)

    def _step_done(self, trainer: Trainer, learner: Learner) -> None:
        step = len(learner.losses)
        stop = self.sign.agree()
        if stop or (self.every is not None and step % self.every == 0):
            self.save(trainer, learner.stage.index, step)
        if stop:
            raise StopTraining

    def save(self, trainer: Trainer, stage: int, step: int) -> None:
        """Write the checkpoint, and remove all but the last ones."""
        with whole_folder(self.folder / f"{stage}-{step}") if is_first() else thrown_away() as path:
            trainer.save_checkpoint(path / FILE, weights_only=False)  # in which the first process alone writes
        for _, old in checkpoints(self.folder, stage)[KEPT:] if is_first() else ():
            remove_folder(old)


def checkpoints(folder: Path, stage: int) -> list[tuple[int, Path]]:
    """The steps of a stage after which it was saved, with their folders, the last one first."""
    found = ((int(path.name.partition("-")[2]), path) for path in folder.glob(f"{stage}-[0-9]*"))
    return sorted(found, reverse=True)


def last_whole(folder: Path, stage: int) -> tuple[int, Path | None, dict[Path, str]]:
    """Where a stage goes on.

    Args:
        folder: of the run.
        stage: number of the stage.

    Returns:
        The number of steps that are done and the file to go on from, 0 and ``None`` for the stage's beginning; and by
        folder what is wrong with later checkpoints.
    """
    problems = {}
    for step, path in checkpoints(folder / FOLDER, stage):
        problem = damage(path)
        if problem is None:
            return step, path / FILE, problems
        problems[path] = problem
    return 0, None, problems


def pack(learner: Learner, checkpoint: dict[str, Any]) -> None:
    """Reduce a checkpoint to what changes while a stage is learned, and add what Lightning does not know of.

    Weights that are not trained stay out, and the strategies' state between stages, which the last stage has.
    """
    kept = {*trained(learner), *(name for name, _ in learner.named_buffers())}
    checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in kept}
    for strategy in learner.strategies:
        checkpoint["callbacks"].pop(strategy.state_key, None)
    checkpoint[OWN] = {
        "strategies": {strategy.state_key: strategy.step_state_dict() for strategy in learner.strategies},
        "losses": torch.stack(learner.losses),
        "auxiliary": learner.auxiliary,
        "run_step": learner.run_step,
        "counts": dict(learner.encoder.counts),
        "positions": dict(positions_of_all(learner)),
        "seconds": learner.watch.so_far(),
    }


def unpack(learner: Learner, checkpoint: dict[str, Any]) -> None:
    """Go on where ``pack`` was called; the strategies' ``before_stage`` has been called on the stage before."""
    own = checkpoint[OWN]
    for strategy in learner.strategies:
        strategy.load_step_state_dict(own["strategies"][strategy.state_key])
    learner.losses = list(own["losses"].to(learner.device).unbind())
    learner.auxiliary = {name: value.to(learner.device) for name, value in own["auxiliary"].items()}
    learner.run_step = own["run_step"]
    learner.encoder.counts.clear()
    learner.encoder.counts.update(own["counts"])
    learner.positions.clear()
    if is_first():  # they are those of all processes
        learner.positions.update(own["positions"])
    learner.watch.seconds.update(own["seconds"])
