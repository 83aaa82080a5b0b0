"""One pass through the stages of a run."""

from __future__ import annotations

import copy
import dataclasses
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from peft import PeftModel
from rich.markup import escape

from lifelong import models
from lifelong.adapter_folder import added_weights
from lifelong.assembly import load_learner, make_trainer
from lifelong.distributed import is_first, world_size
from lifelong.evaluation import Answers, evaluate_task
from lifelong.folder import RunFolder, write_rows
from lifelong.libraries import enough_memory, interruptible
from lifelong.mixtures import adapter_notes, routing_kept
from lifelong.progress import Reporter, StepProgress
from lifelong.stage_state import restore_stage, save_stage
from lifelong.strategies.base import Stage
from lifelong.strategies.traits import adapter_kind, check_fit

if TYPE_CHECKING:
    from lifelong.experiment import Experiment


class Loop:
    """One pass through the stages that a folder lacks."""

    def __init__(self, experiment: Experiment, folder: RunFolder, stages: list[Stage], reporter: Reporter) -> None:
        self.experiment, self.folder, self.stages, self.reporter = experiment, folder, stages, reporter
        # what strategies remember belongs to one run, and an experiment may be run again
        self.strategies = copy.deepcopy(tuple(experiment.strategies))
        self.learner = load_learner(experiment, self.strategies)
        model = self.learner.model
        self.learner.family.check(experiment.tasks)
        adapted = next(iter(model.peft_config.values())) if isinstance(model, PeftModel) else None
        check_fit(self.strategies, adapter_kind(adapted), self.learner.family.name)
        for strategy in self.strategies:
            strategy.check(self.learner, stages)
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
        elif done > 0:
            for stage in self.stages[:done]:
                self.learner.family.follow(stage)
            restore_stage(self.learner, self.folder.stage(done))
        for stage in self.stages[max(done, 0) :]:
            with enough_memory(f"stage {stage.index} ({self._name(stage.index)})"):
                self._stage(stage)

    def _stage_zero(self) -> None:
        self.learner.to(self.trainer(epochs=1, log=False).strategy.root_device)
        with self.folder.commit(0) as path:
            self._evaluate(0, path, {"train_seconds": 0.0, "steps": 0, "train_rows": 0, "auxiliary": {}})
        self._report(0)

    def _stage(self, stage: Stage) -> None:
        learner = self.learner
        learner.encoder.counts.clear()
        loader = learner.begin_stage(stage)
        epochs = learner.settings.epochs
        self.reporter.begin(self._title(stage.index, "learning"), len(loader) * epochs)
        trainer = self.trainer(epochs)
        device = trainer.strategy.root_device
        # Hugging Face models load in eval mode, Lightning keeps the mode, and evaluation has just left it
        learner.to(device).train()
        # as the fit will: when a run begins, or is resumed, the weights are of the type that they were read in
        trainer.precision_plugin.convert_module(learner)
        for strategy in self.strategies:
            strategy.before_stage(learner, stage)
        started = time.perf_counter()
        with interruptible(trainer):
            trainer.fit(learner, loader)
        costs = {
            "train_seconds": round(time.perf_counter() - started, 3),
            "steps": len(learner.losses),
            "train_rows": len(stage.train),
            "auxiliary": {name: float(total) / len(learner.losses) for name, total in learner.auxiliary.items()},
        }
        learner.to(device)  # the Trainer's teardown left it on the CPU
        for strategy in self.strategies:
            strategy.after_stage(learner, stage)
        with self.folder.commit(stage.index) as path:
            if is_first():
                save_stage(self.learner, path)
            losses = torch.stack(learner.losses).tolist()
            (path / "losses.json").write_text(json.dumps([round(loss, 6) for loss in losses]), encoding="utf-8")
            self._evaluate(stage.index, path, costs)
        self._report(stage.index)

    def trainer(self, epochs: int, log: bool = True) -> Trainer:
        """A fresh Trainer: a used one would train nothing, and a used EarlyStopping would stop every later stage."""
        experiment = self.experiment
        return make_trainer(
            experiment,
            max_epochs=epochs,
            callbacks=[*self.strategies, StepProgress(self.reporter), *copy.deepcopy(list(experiment.callbacks))],
            logger=copy.deepcopy(list(experiment.loggers)) if log and experiment.loggers else False,
        )

    # ------------------------------------------------------------------ measuring

    def _evaluate(self, index: int, path: Path, costs: dict[str, Any]) -> None:
        """Ask what is to be asked after stage ``index``, and write answers and costs."""
        settings, learner = self.experiment.evaluate, self.learner
        started = time.perf_counter()
        asked = [
            (task, policy)
            for number, task in enumerate(self.experiment.tasks, start=1)  # held-out tasks come last
            if (policy := settings.asks(None if task.measure_only else number, index, len(self.stages))) != "none"
        ]
        splits = ("test", "probe") if settings.probes else ("test",)
        total = sum(
            len(task.test) + (sum(map(len, task.test["probes"])) if settings.probes else 0) for task, _ in asked
        )
        self.reporter.begin(self._title(index, "asking"), total * len(settings.books))
        results = []
        passes = [(task, policy, book, split) for task, policy in asked for book in settings.books for split in splits]
        with routing_kept(learner.model, path) as of_task:
            for task, policy, book, split in passes:
                with of_task(task.name):
                    answers = evaluate_task(learner, task, settings, split, book, policy == "sample", self._advance)
                if answers is not None:
                    results.append(answers)
        _write_answers(path, index, results)
        trainable, total_parameters = models.count_parameters(learner)
        costs |= {
            "evaluate_seconds": round(time.perf_counter() - started, 3),
            "trainable_parameters": trainable,
            "total_parameters": total_parameters,
            "strategy_bytes": _strategy_bytes(path),
            "peak_memory_bytes": _peak_memory(learner.device),
            "shortened": dict(learner.encoder.counts),
        }
        if learner.encoder.library is not None and learner.encoder.library.split:
            costs["shortened"]["passages in parts for the encoder"] = learner.encoder.library.split
        (path / "costs.json").write_text(json.dumps(costs, indent=1), encoding="utf-8")

    def _advance(self, asked: int) -> None:
        """So many questions were asked in this process, and about as many in each other one."""
        self.reporter.advance(asked * world_size())

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
        self._write_status("running", index)
        costs = self.folder.costs()[index]
        title = "untrained" if index == 0 else f"after {index}/{len(self.stages)} {self._name(index)}"
        book = self.experiment.evaluate.books[0]
        rows = [row for row in self.folder.rows() if row["stage"] == index and row["pass"] == book]
        scores = "  ".join(f"{row['task']} {row['score']:.2f}" for row in rows if row["split"] == "test")
        seconds = costs["train_seconds"] + costs["evaluate_seconds"]
        self.reporter.line(f"[bold]{title}[/bold]  {scores}  [dim]({seconds:.0f} s)[/dim]")
        if costs["shortened"]:
            counts = ", ".join(f"{count} {what}" for what, count in costs["shortened"].items())
            limit = self.learner.encoder.max_length
            self.reporter.line(f"  [yellow]missing, or shortened to fit {limit} tokens: {counts}[/yellow]")

    def _write_status(self, state: str, index: int) -> None:
        self.folder.write_json("status.json", {"state": state, "stage": index, "stages": len(self.stages)})


def _write_answers(path: Path, stage: int, results: Sequence[Answers]) -> None:
    (path / "predictions").mkdir()
    rows = []
    for answers in results:
        place = {"stage": stage, "task": answers.task, "split": answers.split, "pass": answers.book}
        measured = {name: getattr(answers, name) for name in ("metric", "score", "count", "sampled", "seconds")}
        rows.append(place | measured)
        file = path / "predictions" / f"{answers.task}.{answers.split}.{answers.book}.jsonl"
        lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in answers.predictions)
        file.write_text(lines, encoding="utf-8")
    write_rows(path / "rows.csv", rows)


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
