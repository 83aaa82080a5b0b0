"""The loop over the stages of one run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from peft import PeftConfig

from lifelong.classification import Classification
from lifelong.describe import describe, digest, environment
from lifelong.durable import write_text
from lifelong.errors import ConfigError, suggestion
from lifelong.evaluation import Evaluation
from lifelong.libraries import quiet_libraries
from lifelong.library import Library, Retrieval, book_name, book_shares, passage_id
from lifelong.loop import Loop
from lifelong.preview import Preview, preview
from lifelong.processes import Processes, check_devices, check_experiment, said_devices
from lifelong.progress import Reporter
from lifelong.prompts import PromptTemplate
from lifelong.quantization import parse, refuse_full_training
from lifelong.registry import SAVED_STREAM, STREAMS, call, resolve_stream
from lifelong.run import PASSAGES_FILE, Run
from lifelong.run_logs import check_loggers
from lifelong.session import working_on
from lifelong.strategies.base import Stage, Strategy, prepare
from lifelong.strategies.traits import adapter_kind, check_fit
from lifelong.task_stream import TaskStream
from lifelong.training import Training

# settings of the Trainer that a run decides itself, and what to use instead
TRAINER_SETTINGS_TAKEN = {
    "max_epochs": "epochs",
    "accumulate_grad_batches": "accumulate",
    "gradient_clip_val": "gradient_clip",
    "callbacks": "callbacks",
    "logger": "loggers",
    "use_distributed_sampler": None,
    "reload_dataloaders_every_n_epochs": None,
}

# settings that are groups of settings
_SETTINGS = {
    "evaluate": Evaluation,
    "retrieval": Retrieval,
    "template": PromptTemplate,
    "classification": Classification,
}


@dataclass
class Experiment:
    """One model learning one stream of tasks, stage by stage, measured after every stage.

    Args:
        stream: the tasks, or where they are: ``"streams.world_facts"``, ``"path/to/my_stream.py:my_function"``, or
            one of these as ``class_path`` beside its ``init_args``.
        model: ``"nano"``, a folder, or a name on the hub.
        adapter: ``None`` trains all weights; a PEFT configuration trains a fresh adapter; a folder or hub name goes on
            with the adapter found there.
        strategies: continual-learning methods, in the order in which they are called; each run works on copies.
        order: names of tasks to learn, in this order, or a seed that shuffles them.
        held_out: further tasks, named as ``stream`` is. They are never trained on, and measured at every stage: what
            learning does to abilities that it does not teach. Tasks of ``stream`` that are ``measure_only`` join them.
        epochs: passes over a stage's rows.
        batch_size: rows of a micro-batch, on all devices together.
        accumulate: micro-batches of an optimiser step.
        learning_rate: the highest of the schedule.
        optimizer: a class in torch.optim.
        schedule: course of the learning rate within a stage: linear, cosine or constant.
        warmup: share of a stage's steps in which the learning rate rises from zero.
        weight_decay: as in the optimiser.
        gradient_clip: largest norm of the gradient; ``None`` leaves it as it is.
        per_task: ``{task: {epochs: ..., learning_rate: ...}}`` for stages that differ.
        train_book: ``"closed"`` trains on the question alone, ``"gold"`` shows the row's passages, ``"retrieved"``
            those that are found for it. ``{closed: 0.5, retrieved: 0.5}`` is a mixture, by row.
        retrieval: how passages are found and shown, for books that need it.
        max_length: longest row in tokens; the model's context by default.
        template: the wording of prompts; by default that of the model's family, which for a classifier is the text
            alone.
        family: ``"causal"``, ``"seq2seq"`` or ``"classifier"``; ``"auto"`` goes by the model's configuration.
        classification: which labels compete in a classifier, and how its head reads the model.
        evaluate: what is asked after each stage.
        dtype: of the loaded weights.
        revision: version of a model on the hub.
        gradient_checkpointing: less memory, more time.
        quantization: frozen weights in four or eight bits beside an adapter: ``"4bit"``, ``"8bit"``, or arguments of
            transformers' ``BitsAndBytesConfig``; needs bitsandbytes.
        device_map: where transformers puts the weights, such as ``"auto"``; by default the Trainer's device.
        check_resources: estimate memory and disk before the run, and refuse one that does not fit.
        trust_remote_code: run code that comes with a model.
        seed: decides everything that is drawn.
        folder: where the run is kept; ``runs/<stream>-<digest of settings and rows>`` by default.
        checkpoint_every: optimiser steps between two checkpoints of a stage that is being learned, from which
            ``lifelong resume`` goes on; ``None`` for none.
        loader_workers: processes that make batches; 0 makes them in this one.
        trainer: further arguments of Lightning's ``Trainer``, such as ``accelerator`` or ``precision``. ``strategy`` in
            there is Lightning's device strategy, and has nothing to do with ``strategies``. With several ``devices``
            each is a process that runs the whole program; see ``lifelong.processes``.
        callbacks: further Lightning callbacks, copied afresh for every stage.
        loggers: ``"csv"``, ``"tensorboard"``, ``"wandb"`` and ``"mlflow"``, which keep their files in the folder's
            ``logs`` and go on there after a resume, or Lightning loggers of your own. Steps count through the run;
            names are told in ``lifelong.run_logs.RunLogs``.

    Raises:
        ConfigError, DataError: a setting or a row cannot be used.
    """

    stream: TaskStream | str | Mapping[str, Any]
    model: str = "nano"
    adapter: PeftConfig | str | None = None
    strategies: Sequence[Strategy] = ()
    order: Sequence[str] | int | None = None
    held_out: TaskStream | str | Mapping[str, Any] | None = None
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
    train_book: str | Mapping[str, float] = "closed"
    retrieval: Retrieval = field(default_factory=Retrieval)
    max_length: int | None = None
    template: PromptTemplate | None = None
    family: Literal["auto", "causal", "seq2seq", "classifier"] = "auto"
    classification: Classification = field(default_factory=Classification)
    evaluate: Evaluation = field(default_factory=Evaluation)
    dtype: str = "float32"
    revision: str | None = None
    gradient_checkpointing: bool = False
    quantization: str | Mapping[str, Any] | None = None
    device_map: str | Mapping[str, Any] | None = None
    check_resources: bool = True
    trust_remote_code: bool = False
    seed: int = 0
    folder: str | Path | None = None
    checkpoint_every: int | None = 200
    loader_workers: int = 0
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: Sequence[Callback] = ()
    loggers: Sequence[Logger | str] = ()

    def __post_init__(self) -> None:
        for name, kind in _SETTINGS.items():
            if isinstance(getattr(self, name), Mapping):
                setattr(self, name, call(kind, getattr(self, name), name))
            if not isinstance(getattr(self, name), kind) and not (name == "template" and self.template is None):
                raise ConfigError(f"{name}: expected {kind.__name__}, got {getattr(self, name)!r}")
        if self.adapter is None and self.quantization is not None:
            refuse_full_training()
        parse(self.quantization)
        self.training = Training(**{item.name: getattr(self, item.name) for item in fields(Training)})
        self.strategies = prepare(self.strategies)
        # of an adapter in a folder or on the hub it is seen once it is there
        check_fit(self.strategies, None if isinstance(self.adapter, str) else adapter_kind(self.adapter))
        for name, least in (("checkpoint_every", 1), ("loader_workers", 0)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not (whole and value >= least) and not (name == "checkpoint_every" and value is None):
                raise ConfigError(f"{name}: must be a whole number of at least {least}, got {value!r}")
        for name, instead in TRAINER_SETTINGS_TAKEN.items():
            if name in self.trainer:
                hint = f"; use the experiment's {instead!r}" if instead else ""
                raise ConfigError(f"trainer.{name}: is decided by the run{hint}")
        check_loggers(self.loggers)
        check_devices(self.trainer)
        if said_devices(self.trainer) > 1:
            check_experiment(self)
        self.tasks = self._measured_tasks()
        self._check_books()
        learned, held_out = ([task.name for task in tasks] for tasks in (self.tasks.learned, self.tasks.held_out))
        for name in self.per_task:
            if name in held_out:
                raise ConfigError(f"per_task: {name!r} is held out, and never trained on")
            if name not in learned:
                raise ConfigError(f"per_task: the stream has no task {name!r}{suggestion(name, learned)}")

    def _check_books(self) -> None:
        """Every book has something to show."""
        self.train_book = book_name(book_shares(self.train_book))
        books = {*book_shares(self.train_book), *self.evaluate.books}
        own = any(any(rows["passages"]) for task in self.tasks for rows in (task.train, task.test))
        if books & {"gold", "distracted"} and not own:
            name = "gold" if "gold" in books else "distracted"
            raise ConfigError(f"train_book, evaluate.books: {name!r} shows a row's passages, and no row has any")
        if books & {"retrieved", "absent"} and not own and not any(task.passages for task in self.tasks):
            raise ConfigError("train_book, evaluate.books: passages are to be shown, and the stream has none")
        self.uses_library = bool(books - {"closed", "gold"})

    def write_passages(self, folder: Path, tasks: Iterable[str]) -> None:
        """Write the texts of passages of some tasks, which predictions will name, where they are not there yet."""
        file = folder / PASSAGES_FILE
        if file.exists() or set(self.evaluate.books) == {"closed"}:
            return
        library = Library(self.retrieval, self.tasks, self.seed)
        texts = dict.fromkeys(text for task in tasks for text in library.pool(task))
        lines = (json.dumps({"id": passage_id(text), "text": text}, ensure_ascii=False) for text in texts)
        write_text(file, "".join(f"{line}\n" for line in lines))

    def library(self) -> Library | None:
        """The passages of the stream, where a book needs to look for them."""
        return Library(self.retrieval, self.tasks, self.seed) if self.uses_library else None

    def _measured_tasks(self) -> TaskStream:
        """The tasks to learn in the order of their stages, and behind them the held-out ones."""
        stream = resolve_stream(self.stream)
        learned, held_out = self._learned(stream), list(stream.held_out)
        if self.held_out is not None:
            further = resolve_stream(self.held_out, "held_out")
            held_out += [task if task.measure_only else replace(task, measure_only=True) for task in further]
        taken = {task.name.casefold() for task in learned}
        for task in held_out:
            # compared without case, since names become file names
            if task.name.casefold() in taken:
                raise ConfigError(f"held_out: another task is named {task.name!r} too; rename one of them")
            taken.add(task.name.casefold())
        return TaskStream(stream.name, [*learned, *held_out])

    def _learned(self, stream: TaskStream) -> TaskStream:
        if not stream.learned:
            raise ConfigError(f"stream: {stream.name!r} has nothing to learn, all of its tasks are measure_only")
        learned = TaskStream(stream.name, stream.learned)
        if self.order is None:
            return learned
        if isinstance(self.order, int):
            return learned.shuffle(self.order)
        for task in stream.held_out:
            if task.name in self.order:
                raise ConfigError(f"order: {task.name!r} is held out, and has no stage; name the tasks to learn")
        return learned.order(self.order)

    def config(self) -> dict[str, Any]:
        """The fully resolved configuration, as plain values; ``lifelong run`` on it repeats the run."""
        return describe(self)

    def run(self, quiet: bool = False, reporter: Reporter | None = None, shared: Path | None = None) -> Run:
        """Run all stages, or those that are still to do when the folder holds the beginning of this very run.

        Args:
            quiet: no progress bars.
            reporter: shows progress in some other way.
            shared: a folder in which the runs of a study keep what they have in common.

        Raises:
            RunError: the folder holds another run, or is damaged.
            DivergedError: the loss became NaN or infinite; finished stages are kept.
            ProcessError: another process of the run failed.
        """
        config = self.config()
        rows = self.tasks.fingerprint()[-1]  # two streams in memory have the same configuration
        with quiet_libraries():
            processes = Processes(self)
        folder = processes.folder(self.folder or Path("runs") / f"{self.tasks.name}-{digest(config | {'rows': rows})}")
        reporter = reporter or Reporter(quiet or not processes.first)
        with working_on(folder, reporter, alone=processes.first) as work, processes:
            stages = self.stages()
            folder.create(config, environment(self.tasks, len(stages)))
            if processes.first:
                for key in STREAMS:
                    if config[key] and config[key]["class_path"] == SAVED_STREAM and folder.committed() < 0:
                        resolve_stream(getattr(self, key), key).save(folder.path / key)
                self.write_passages(folder.path, [task.name for task in self.tasks])
            folder.check_not_extended()
            if folder.committed() < len(stages):
                if self.check_resources and processes.first:
                    preview(self, stages, thorough=False).check()
                Loop(self, folder, stages, reporter, work.sign, shared).run()
            run = Run(folder.path)
            if processes.first:
                run.write_views()
        processes.meet()  # the status, too, has been written
        return run

    def preview(self) -> Preview:
        """What the run will take, without training and without reading weights; see ``lifelong.preview``.

        Raises:
            ConfigError, DataError, ModelError: what would end the run later, but for memory and disk.
        """
        with quiet_libraries():
            return preview(self, self.stages())

    def stages(self) -> list[Stage]:
        """What each stage trains on, as the strategies planned it."""
        stages: Sequence[Stage] = [
            Stage.of(task, index, self.tasks.learned[: index - 1], self.seed)
            for index, task in enumerate(self.tasks.learned, start=1)
        ]
        for strategy in self.strategies:
            stages = strategy.plan(stages)
        return list(stages)
