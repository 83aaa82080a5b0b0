"""One pass through the stages of a run."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from peft import PeftModel
from rich.markup import escape

from lifelong import models
from lifelong.adapter_folder import added_weights
from lifelong.assembly import load_learner, make_trainer
from lifelong.checkpoint import FOLDER as STEPS
from lifelong.checkpoint import StepCheckpoints, StopTraining, last_whole
from lifelong.compute import flops_per_position, train_costs
from lifelong.distributed import barrier, is_first, world_size
from lifelong.durable import remove_folder
from lifelong.errors import RunError
from lifelong.evaluation import Answers, evaluate_task
from lifelong.folder import EARLIER, RunFolder, write_rows
from lifelong.interruption import StopSign
from lifelong.libraries import enough_memory, interruptible
from lifelong.mixtures import adapter_notes, routing_kept
from lifelong.progress import Reporter, StepProgress
from lifelong.run_logs import RunLogs
from lifelong.stage_state import restore_stage, save_stage
from lifelong.stopwatch import AROUND, FIT, timed
from lifelong.strategies.base import Stage
from lifelong.strategies.traits import adapter_kind, check_fit
from lifelong.tasks import Task
from lifelong.untrained import UntrainedAnswers, is_shared

if TYPE_CHECKING:
    from lifelong.experiment import Experiment


class Loop:
    """One pass through the stages that a folder lacks.

    Args:
        experiment: that is run.
        folder: of the run.
        stages: all of them.
        reporter: shows progress.
        sign: says whether the run was asked to stop.
        shared: a folder for what several runs have in common; ``None`` where it is the only one.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        stages: list[Stage],
        reporter: Reporter,
        sign: StopSign,
        shared: Path | None = None,
    ) -> None:
        self.experiment, self.folder, self.stages, self.shared = experiment, folder, stages, shared
        self.reporter, self.sign = reporter, sign
        self.logs = RunLogs(experiment.loggers, folder.path)
        # what strategies remember belongs to one run, and an experiment may be run again
        self.strategies = copy.deepcopy(tuple(experiment.strategies))
        self.device = make_trainer(experiment).strategy.root_device
        self.learner = load_learner(experiment, self.strategies)
        model = self.learner.model
        self.learner.family.check(experiment.tasks)
        adapted = next(iter(model.peft_config.values())) if isinstance(model, PeftModel) else None
        check_fit(self.strategies, adapter_kind(adapted), self.learner.family.name)
        for strategy in self.strategies:
            strategy.check(self.learner, stages)
        if folder.committed() >= 0:
            return
        folder.write_json("model.json", {"family": self.learner.family.describe()})
        if isinstance(model, PeftModel):
            from lifelong.adapters import account

            environment = folder.read_json("environment.json")
            folder.write_json("environment.json", environment | {"adapter": dataclasses.asdict(account(model))})

    def run(self) -> None:
        configs = getattr(self.learner.model, "peft_config", {}).values()
        for note in adapter_notes(configs, (task.kind for task in self.experiment.tasks.learned)):
            self.reporter.line(f"[yellow]{escape(note)}[/yellow]")
        done = self.folder.committed()
        if done < 0:
            with enough_memory("untrained model"):
                self._stage_zero()
        else:
            self.restore(done)
        for stage in self.stages[max(done, 0) :]:
            with enough_memory(f"stage {stage.index} ({self._name(stage.index)})"):
                self.learn(stage)

    def restore(self, done: int) -> None:
        """Put the learner into the state that it had after a stage, and not before; what it begins as is stage 0."""
        for stage in self.stages[:done]:
            self.learner.family.follow(stage)
        if done:
            restore_stage(self.learner, self.folder.stage(done))

    def _stage_zero(self) -> None:
        with self.folder.commit(0) as path:
            nothing = {"rows": {"read": 0, "dropped": 0, "truncated": 0}, "seconds": self.learner.watch.split()}
            trained = {"train_seconds": 0.0, "steps": 0, "train_rows": 0, "train_tokens": 0, "train_flops": 0}
            self._evaluate(0, path, trained | {"auxiliary": {}} | nothing)
        self._report(0)

    def learn(self, stage: Stage, accept: Callable[[Path], Sequence[tuple[int, Answers]]] = lambda path: ()) -> None:
        """Learn a stage, measure it, and commit it.

        Args:
            stage: the next one.
            accept: called when it has been learned, with the folder that will be the stage's. An error that it raises
                lets the stage be as if it had not been; what it returns is kept as answers of earlier stages.
        """
        learner = self.learner
        learner.encoder.counts.clear()
        done, checkpoint = self._last_checkpoint(stage)
        loader = learner.begin_stage(stage, done, self.experiment.loader_workers)
        epochs = learner.settings.epochs
        self.reporter.begin(self._title(stage.index, "learning"), len(loader) * epochs)
        self.reporter.advance(done)
        trainer = self.trainer(epochs, self.logs.open(learner.run_step + done))
        # Hugging Face models load in eval mode, Lightning keeps the mode, and evaluation has just left it
        learner.to(self.device).train()
        # as the fit will: when a run begins, or is resumed, the weights are of the type that they were read in
        trainer.precision_plugin.convert_module(learner)
        with learner.watch.measuring(AROUND):
            for strategy in self.strategies:
                strategy.before_stage(learner, stage)
        try:
            with interruptible(trainer), learner.watch.measuring(FIT):
                trainer.fit(learner, loader, ckpt_path=checkpoint, weights_only=True)
        except StopTraining:
            self.sign.check(f"saved after step {len(learner.losses)} of stage {stage.index}, {self._how_to_go_on}")
        except pickle.UnpicklingError as error:
            raise RunError(f"{checkpoint} names code, which is not run: remove {checkpoint.parent}") from error
        learner.to(self.device)  # the Trainer's teardown left it on the CPU
        rates = flops_per_position(learner)  # strategies may put another adapter in its place
        with learner.watch.measuring(AROUND):
            for strategy in self.strategies:
                strategy.after_stage(learner, stage)
        costs = {
            "train_seconds": round(learner.watch.seconds[FIT], 3),
            "steps": len(learner.losses),
            "train_rows": len(stage.train),
            **train_costs(learner, rates),
            "auxiliary": {name: float(total) / len(learner.losses) for name, total in learner.auxiliary.items()},
            "rows": {"read": len(stage.train), "dropped": 0, "truncated": _truncations(learner.encoder.counts)},
            "seconds": {name: round(value, 3) for name, value in learner.watch.split().items()},
        }
        with self.folder.commit(stage.index) as path:
            earlier = accept(path)
            if is_first():
                save_stage(self.learner, path)
            losses = torch.stack(learner.losses).tolist()
            (path / "losses.json").write_text(json.dumps([round(loss, 6) for loss in losses]), encoding="utf-8")
            self._evaluate(stage.index, path, costs, earlier)
        self.forget_steps()
        self._report(stage.index)

    def forget_steps(self) -> None:
        """Remove the checkpoints of a stage that is over."""
        if is_first():
            remove_folder(self.folder.path / STEPS)

    def _last_checkpoint(self, stage: Stage) -> tuple[int, Path | None]:
        """Where a stage goes on, see ``last_whole``; checkpoints that are damaged are named, and removed."""
        done, checkpoint, problems = last_whole(self.folder.path, stage.index)
        barrier()  # all processes have seen them
        for folder, problem in problems.items():
            self.reporter.line(f"[yellow]{escape(problem)}: stage {stage.index} goes on after its step {done}[/yellow]")
            if is_first():
                remove_folder(folder)
        return done, checkpoint

    @property
    def _how_to_go_on(self) -> str:
        return f"`lifelong resume {self.folder.path}` goes on"

    def trainer(self, epochs: int, loggers: Sequence[Logger] = ()) -> Trainer:
        """A fresh Trainer: a used one would train nothing, and a used EarlyStopping would stop every later stage."""
        experiment = self.experiment
        return make_trainer(
            experiment,
            max_epochs=epochs,
            callbacks=[
                *timed(self.learner.watch, self.strategies),
                StepProgress(self.reporter),
                *copy.deepcopy(list(experiment.callbacks)),
                StepCheckpoints(self.folder.path, experiment.checkpoint_every, self.sign),
            ],
            logger=list(loggers) or False,
        )

    # ------------------------------------------------------------------ measuring

    def _evaluate(
        self, index: int, path: Path, costs: dict[str, Any], earlier: Sequence[tuple[int, Answers]] = ()
    ) -> None:
        """Ask what is to be asked after stage ``index``, and write answers and costs."""
        started = time.perf_counter()
        with routing_kept(self.learner.model, path) as of_task:
            results = self._ask_untrained(of_task) if index == 0 else self.ask(self.experiment.tasks, index, of_task)
        _write_answers(path, [*earlier, *((index, answers) for answers in results)])
        seconds = round(time.perf_counter() - started, 3)
        trainable, total_parameters = models.count_parameters(self.learner)
        costs |= {
            "evaluate_seconds": seconds,
            "seconds": costs["seconds"] | {"evaluation": seconds},
            "questions": _questions(results),
            "trainable_parameters": trainable,
            "total_parameters": total_parameters,
            "strategy_bytes": _strategy_bytes(path),
            "peak_memory_bytes": _peak_memory(self.device),
            "shortened": dict(self.learner.encoder.counts),
        }
        if self.learner.encoder.library is not None and self.learner.encoder.library.split:
            costs["shortened"]["passages in parts for the encoder"] = self.learner.encoder.library.split
        (path / "costs.json").write_text(json.dumps(costs, indent=1), encoding="utf-8")

    def _ask_untrained(self, around: Callable[[str], AbstractContextManager[None]]) -> list[Answers]:
        """The answers before the first stage; where another run has asked the very same, its answers."""
        self.learner.to(self.device)
        if self.shared is None or world_size() > 1 or not is_shared(self.experiment, self.learner):
            return self.ask(self.experiment.tasks, 0, around)
        kept = UntrainedAnswers(self.shared, self.experiment, self.learner)
        asked = (kept.of(task, lambda task=task: self.ask([task], 0)) for task in self.experiment.tasks)
        return [answers for found in asked for answers in found]

    def ask(
        self,
        tasks: Iterable[Task],
        index: int,
        around: Callable[[str], AbstractContextManager[None]] = lambda task: nullcontext(),
    ) -> list[Answers]:
        """The answers to what is to be asked of some of the experiment's tasks after a stage, with what was learned.

        Args:
            tasks: of the experiment.
            index: of the stage; 0 for the untrained model.
            around: a context for the questions of the task that it is given.
        """
        settings, learner = self.experiment.evaluate, self.learner
        learner.to(self.device)
        numbers = {task.name: None if task.measure_only else n for n, task in enumerate(self.experiment.tasks, start=1)}
        asked = [
            (task, policy)
            for task in tasks
            if (policy := settings.asks(numbers[task.name], index, len(self.stages))) != "none"
        ]
        splits = ("test", "probe") if settings.probes else ("test",)
        total = sum(
            len(task.test) + (sum(map(len, task.test["probes"])) if settings.probes else 0) for task, _ in asked
        )
        self.reporter.begin(self._title(index, "asking"), total * len(settings.books))
        results = []
        passes = [(task, policy, book, split) for task, policy in asked for book in settings.books for split in splits]
        for task, policy, book, split in passes:
            with around(task.name):
                answers = evaluate_task(learner, task, settings, split, book, policy == "sample", self._advance)
            self._stop_if_asked()
            if answers is not None:
                results.append(answers)
        return results

    def _advance(self, asked: int) -> None:
        """So many questions were asked in this process, and about as many in each other one."""
        self.reporter.advance(asked * world_size())
        if world_size() == 1:  # processes must agree on where they stop
            self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        self.sign.agree()
        self.sign.check(f"the questions were not all asked; {self._how_to_go_on} from the last checkpoint")

    def _title(self, index: int, doing: str) -> str:
        if index == 0:
            return f"untrained model: {doing}"
        return f"stage {index}/{len(self.stages)} {self._name(index)}: {doing}"

    def _name(self, index: int) -> str:
        one_each = len(self.stages) == len(self.experiment.tasks.learned)
        return self.stages[index - 1].task.name if one_each else "all tasks"

    def _report(self, index: int) -> None:
        """A line with what is known now, and one for what was shortened or missing."""
        if not is_first():
            return
        self.folder.write_status("running")
        self.logs.stage_ended(index, self.learner.run_step)
        costs = self.folder.costs([index])[0]
        title = "untrained" if index == 0 else f"after {index}/{len(self.stages)} {self._name(index)}"
        book = self.experiment.evaluate.books[0]
        rows = [row for row in self.folder.rows([index]) if row["stage"] == index and row["pass"] == book]
        scores = "  ".join(f"{row['task']} {row['score']:.2f}" for row in rows if row["split"] == "test")
        seconds = costs["train_seconds"] + costs["evaluate_seconds"]
        self.reporter.line(f"[bold]{title}[/bold]  {scores}  [dim]({seconds:.0f} s)[/dim]")
        if costs["shortened"]:
            counts = ", ".join(f"{count} {what}" for what, count in costs["shortened"].items())
            limit = self.learner.encoder.max_length
            self.reporter.line(f"  [yellow]missing, or shortened to fit {limit} tokens: {counts}[/yellow]")


def _write_answers(path: Path, results: Sequence[tuple[int, Answers]]) -> None:
    """Scores and predictions, with the stage after which each was given, the last one being the folder's own."""
    rows = []
    for stage, answers in results:
        place = {"stage": stage, "task": answers.task, "split": answers.split, "pass": answers.book}
        measured = {name: getattr(answers, name) for name in ("metric", "score", "count", "sampled", "seconds")}
        rows.append(place | measured)
        folder = path / "predictions" if stage == results[-1][0] else path / EARLIER / str(stage)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{answers.task}.{answers.split}.{answers.book}.jsonl"
        lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in answers.predictions)
        file.write_text(lines, encoding="utf-8")
    write_rows(path / "rows.csv", rows)


def _questions(results: Sequence[Answers]) -> dict[str, int]:
    """How many were answered; how many of the answers are empty, and how many were cut at the longest length."""
    entries = [entry for answers in results for entry in answers.predictions]
    spoken = [entry for answers in results if answers.metric != "perplexity" for entry in answers.predictions]
    empty = sum(not entry["prediction"] for entry in spoken)
    return {"answered": len(entries), "empty": empty, "cut": sum(entry.get("cut", False) for entry in spoken)}


def _truncations(counts: Mapping[str, int]) -> int:
    """How often something was left out of a row that is learned, so that it fits."""
    return sum(count for what, count in counts.items() if what.endswith((" cut", " dropped")))


def _strategy_bytes(stage: Path) -> int:
    """Of a stage's files: the states of strategies, and the weights of adapters that they have added."""
    files = [*(stage / "strategies").glob("*"), *added_weights(stage / "adapter")]
    return sum(file.stat().st_size for file in files)


def _peak_memory(device: torch.device) -> int:
    """Bytes: of the device where it counts them, else the largest resident size of this process so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
