"""What a run will take, found out without training: rows and tokens, steps, memory, disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lifelong import models
from lifelong.assembly import make_trainer
from lifelong.classification import labels_of
from lifelong.data import StepSampler
from lifelong.encoding import IGNORED, EncodedRow
from lifelong.errors import ConfigError
from lifelong.families import make_family
from lifelong.footprint import MemoryEstimate, NotEstimable, Workload, check_fits, estimate, trained_adapter
from lifelong.hardware import available_memory
from lifelong.mixtures import adapter_notes
from lifelong.model_config import context_in, row_length
from lifelong.preparation import lengths, prepare, take
from lifelong.quantization import quantization_config
from lifelong.strategies.base import labelled
from lifelong.strategies.traits import adapter_kind, check_fit
from lifelong.strategy_preview import Kept, check_strategies, extended_rows, kept
from lifelong.tasks import Task

if TYPE_CHECKING:
    from lifelong.experiment import Experiment
    from lifelong.strategies.base import Stage

BATCHES_LOOKED_AT = 300  # of a stage, for the number of positions at which some row answers


@dataclass(frozen=True)
class StagePreview:
    """What one stage trains on.

    Args:
        name: of the stage's task.
        rows: to train on, without those that strategies add.
        tokens: of all rows, read in one epoch.
        learned: of these, tokens that are learned (for a classifier, rows).
        longest: tokens of the longest row.
        steps: optimiser steps, over all epochs.
        shortened: what does not fit, and how often.
    """

    name: str
    rows: int
    tokens: int
    learned: int
    longest: int
    steps: int
    shortened: dict[str, int]


@dataclass(frozen=True)
class Preview:
    """What a run will take.

    Args:
        family: of the model, in words.
        stages: in their order.
        questions: asked over the whole run.
        memory: at the highest point of training; ``None`` where it cannot be said.
        no_memory: why it cannot.
        device: where training takes place.
        available: bytes of memory that are free there, where that is known.
        disk: bytes that the run's folder will hold: weights of all stages, predictions, and what strategies keep, as
            far as it is known.
        kept: of these, by strategy, what it keeps; without those that keep nothing.
        free_disk: bytes that are free where the folder will be.
        notes: what is odd about the adapter and this stream, and what could not be checked, in words.
    """

    family: str
    stages: tuple[StagePreview, ...]
    questions: int
    memory: MemoryEstimate | None
    no_memory: str | None
    device: str
    available: int | None
    disk: int
    kept: dict[str, Kept]
    free_disk: int
    notes: tuple[str, ...]

    def check(self) -> None:
        """Refuse a run that cannot end well.

        Raises:
            ConfigError: memory or disk will not do; says what is needed, and what would help.
        """
        if self.memory is not None:
            check_fits(self.memory, self.available)
        if self.disk > self.free_disk:
            raise ConfigError(
                f"folder: the run will need about {self.disk / 1e9:.1f} GB of disk, and {self.free_disk / 1e9:.1f} GB "
                "are free; put the folder elsewhere, or train an adapter, which keeps little per stage"
            )


def preview(experiment: Experiment, planned: Sequence[Stage], thorough: bool = True) -> Preview:
    """Check everything short of training: tokenizer, rows, labels, adapter, memory and disk. No weights are read.

    Args:
        experiment: what is to be run.
        planned: its stages.
        thorough: look at every question too, and estimate memory, which takes seconds, also where there is surely
            several times enough.

    Raises:
        ConfigError, DataError, ModelError: what would end the run later.
    """
    config, tokenizer, family_name = models.read_model(
        experiment.model, experiment.family, experiment.revision, experiment.trust_remote_code
    )
    quantization_config(experiment.quantization, trains_all=experiment.adapter is None)
    adapter = trained_adapter(experiment.adapter)
    check_fit(experiment.strategies, adapter_kind(adapter), family_name)
    if adapter is not None:
        models.check_adapter(adapter, family_name)
    labels = labels_of(experiment.tasks) if family_name == "classifier" else None
    family = make_family(
        family_name,
        tokenizer,
        experiment.template,
        row_length(context_in(config), experiment.max_length),
        labels,
        experiment.classification,
    )
    family.check(experiment.tasks)
    family.encoder.library, family.encoder.seed = experiment.library(), experiment.seed
    if thorough:  # every question too, whose answers must leave room for it
        for task in experiment.tasks:
            prepare(family.encoder, labelled(task, task.test), experiment.train_book)
    stages, length, answers = [], 1, 0
    batch = extended_rows(experiment.strategies, experiment.batch_size)
    for stage in planned:
        family.begin_stage(stage)
        settings = experiment.training.of_task(stage.task.name)
        family.encoder.counts.clear()
        rows = prepare(family.encoder, stage.train, experiment.train_book)
        sizes = torch.as_tensor(lengths(rows))
        sampler = StepSampler(sizes, settings.batch_size, settings.accumulate, experiment.seed, stage.index)
        learned, places = _looked_at(rows, sampler)
        length = max(length, int(sizes.max()))
        # replayed rows answer at places of their own
        replays = batch > experiment.batch_size and stage.index > 1
        answers = places + answers if replays else max(places, answers)
        stages.append(
            StagePreview(
                stage.task.name,
                len(rows),
                int(sizes.sum()),
                learned,
                int(sizes.max()),
                len(sampler) * settings.epochs,
                dict(family.encoder.counts),
            )
        )
    trainer = make_trainer(experiment)
    device = str(trainer.strategy.root_device)
    available = available_memory(device)
    if device == "cpu" and available is not None:
        available //= trainer.num_devices  # each of which is a process with a model of its own
    workload = _workload(
        experiment,
        config,
        family_name,
        rows=-(-batch // trainer.world_size),  # each device has a part of them
        length=length,
        answer_length=min(answers, length) if family_name == "causal" else answers,
        labels=len(family.labels) if family_name == "classifier" else 0,
        device=device,
    )
    notes = adapter_notes([] if adapter is None else [adapter], (task.kind for task in experiment.tasks.learned))
    if thorough:
        notes = [*notes, *check_strategies(experiment, planned, workload, tokenizer)]
    if not thorough and available is not None and _far_too_much(config, batch, length) < available:
        memory, reason = None, "there is surely enough"
    else:
        memory, reason = _memory(workload)
    parameters = memory and memory.trainable_parameters
    further = kept(
        experiment.strategies, [stage.rows for stage in stages], [stage.learned for stage in stages], parameters
    )
    state = sum(each.bytes or 0 for each in further.values())
    questions, written = _asked(experiment, len(stages))
    folder = Path(experiment.folder or "runs").expanduser().absolute()
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    return Preview(
        family.describe(),
        tuple(stages),
        questions,
        memory,
        reason,
        device,
        available,
        written + state + len(stages) * (memory.disk_per_stage if memory else 0),
        further,
        shutil.disk_usage(there).free,
        tuple(notes),
    )


def _looked_at(rows: Sequence[EncodedRow], sampler: StepSampler) -> tuple[int, int]:
    """How many tokens are learned, and at how many positions of one batch some row answers, at most.

    Of a long stage some batches are looked at, and the count is scaled.
    """
    learned = places = seen = 0
    batches = [batch for step in sampler for batch in step]
    for batch in batches[:: -(-len(batches) // BATCHES_LOOKED_AT)]:
        encoded = take(rows, batch)
        marks = [{place for place, label in enumerate(row.labels) if label != IGNORED} for row in encoded]
        places = max(places, len(set().union(*marks)))
        learned += sum(map(len, marks))
        seen += len(encoded)
    return round(learned * len(rows) / seen), places


def _workload(
    experiment: Experiment,
    config: Any,
    family: str,
    rows: int,
    length: int,
    answer_length: int,
    labels: int,
    device: str,
) -> Workload:
    return Workload(
        config,
        experiment.adapter,
        family,
        batch_size=rows,
        accumulate=experiment.accumulate,
        length=length,
        answer_length=answer_length,
        optimizer=experiment.optimizer,
        dtype=experiment.dtype,
        precision=experiment.trainer.get("precision"),
        gradient_checkpointing=experiment.gradient_checkpointing,
        quantization=experiment.quantization,
        head_labels=labels,
        device=device,
        trust_remote_code=experiment.trust_remote_code,
    )


def _memory(workload: Workload) -> tuple[MemoryEstimate | None, str | None]:
    try:
        return estimate(workload), None
    except NotEstimable as error:
        return None, str(error)


def _far_too_much(config: Any, rows: int, length: int) -> float:
    """Bytes that training never needs, going by the model's sizes alone: a few times what it does."""
    text = config.get_text_config()
    try:
        layers, hidden, vocabulary = text.num_hidden_layers, text.hidden_size, text.vocab_size
    except AttributeError:
        return float("inf")
    wide = 16 * hidden  # of all activations that one token leaves in one layer, and of a layer's weights beside its own
    parameters = 2 * vocabulary * hidden + 2 * layers * hidden * wide
    activations = rows * length * (4 * vocabulary + layers * (4 * wide + 4 * length * 16))
    return 4 * (16 * parameters + 4 * activations)


def _asked(experiment: Experiment, stages: int) -> tuple[int, int]:
    """Questions asked over the whole run, and the bytes that their predictions take."""
    settings, questions, written = experiment.evaluate, 0, 0
    learned = experiment.tasks.learned
    for number, task in enumerate(experiment.tasks, start=1):
        place = number if number <= len(learned) else None
        probes = sum(map(len, task.test["probes"])) if settings.probes else 0
        share = (len(task.test) + probes) / len(task.test)
        for stage in range(stages + 1):
            policy = settings.asks(place, stage, stages)
            size = {"all": len(task.test), "sample": min(settings.sample or 0, len(task.test)), "none": 0}[policy]
            questions += round(size * share) * len(settings.books)
            written += round(size * share) * len(settings.books) * _prediction_bytes(task)
    return questions, written


def _prediction_bytes(task: Task) -> int:
    """Of one prediction, going by the first rows."""
    rows = task.test.select(range(min(20, len(task.test))))
    fields = ("id", "question", "answers")
    return 40 + sum(len(json.dumps([row[field] for field in fields])) for row in rows) // len(rows)
