"""What the untrained model answers, asked once for all runs of a study that begin as the same function."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import PeftModel

from lifelong._version import __version__
from lifelong.data import collate
from lifelong.evaluation import Answers
from lifelong.mixtures import has_mixtures
from lifelong.strategies.base import Strategy, labelled
from lifelong.tasks import Task

if TYPE_CHECKING:
    from lifelong.experiment import Experiment
    from lifelong.learner import Learner

SHARED = "shared"  # of a study's folder
# settings that the answers of an untrained model depend on, beside its questions
_DECISIVE = (
    "model", "revision", "family", "template", "max_length", "dtype", "quantization", "device_map", "trainer",
    "trust_remote_code", "evaluate",
)  # fmt: skip


class UntrainedAnswers:
    """Answers of the untrained model, kept by task in a folder.

    Args:
        folder: that runs share; it is made when something is kept.
        experiment: whose model is asked.
        learner: of it, before any training.
    """

    def __init__(self, folder: Path, experiment: Experiment, learner: Learner) -> None:
        self.folder, self.counts = folder / "untrained", learner.encoder.counts
        config = experiment.config()
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
        versions = {"lifelong": __version__, "torch": torch.__version__, "device": device}
        self.about = versions | {name: config[name] for name in _DECISIVE}

    def of(self, task: Task, ask: Callable[[], list[Answers]]) -> list[Answers]:
        """The answers to a task's questions: those that are kept, or those that ``ask`` gets."""
        key = hashlib.sha256(json.dumps(self.about | {"task": task.fingerprint()}, sort_keys=True).encode()).hexdigest()
        file = self.folder / f"{key}.json"
        if file.is_file():
            kept = json.loads(file.read_text(encoding="utf-8"))
            self.counts.update(kept["counts"])
            return [Answers(**answers) for answers in kept["answers"]]
        before = Counter(self.counts)
        found = ask()
        kept = {"answers": [dataclasses.asdict(answers) for answers in found], "counts": self.counts - before}
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f"{uuid.uuid4().hex}.tmp"  # another process may be asking the same
        unfinished.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
        os.replace(unfinished, file)
        return found


def is_shared(experiment: Experiment, learner: Learner) -> bool:
    """Whether a fresh learner answers as its base model does, whatever the seed and the order of tasks.

    It does where an adapter adds exactly nothing as long as it is untrained, which is tried on one row; where no
    strategy has a hand in answering; where nothing of the adapter is recorded meanwhile, as routing is; and where no
    passages are drawn or looked for.

    Args:
        experiment: that is run.
        learner: of it, before any training, on its device.
    """
    model = learner.model
    if learner.head is not None or experiment.uses_library or has_mixtures(model):
        return False
    hooks = ((type(strategy).answering, type(strategy).routes) for strategy in learner.strategies)
    if any(own != (Strategy.answering, Strategy.routes) for own in hooks):
        return False
    if not isinstance(model, PeftModel):
        return True
    task = experiment.tasks.learned[0]
    row = labelled(task, task.train.select([0]))[0]
    counts, training = Counter(learner.encoder.counts), learner.training
    batch = collate(learner.encoder.encode_rows([row], "closed"), learner.pad_id)
    learner.encoder.counts.clear()
    learner.encoder.counts.update(counts)
    batch = {key: value.to(learner.device) if torch.is_tensor(value) else value for key, value in batch.items()}
    learner.eval()
    with torch.no_grad():
        adapted = learner.answer_logits(batch)[0].logits
        with model.disable_adapter():
            bare = learner.answer_logits(batch)[0].logits
    learner.train(training)
    return torch.equal(adapted, bare)
