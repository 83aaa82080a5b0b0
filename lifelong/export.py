"""What a run has learned, as a folder that PEFT and transformers load by themselves."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft import PeftModel
from safetensors.torch import save_file

from lifelong.adapter_folder import leave_alone, save_adapters
from lifelong.errors import ConfigError, RunError
from lifelong.learned import committed_stage, load_learned
from lifelong.learner import Learner
from lifelong.libraries import quiet_libraries
from lifelong.merged_model import merged
from lifelong.model_card import HEAD, INDEX, LABELS, model_card, retrieves
from lifelong.run import Run


def export_run(run: Run, to: str | Path, stage: int | None = None, merge: bool = False, trust: bool = False) -> Path:
    """Write what a run had learned after a stage into a folder of its own, which is there whole or not at all::

        README.md                      the model card: how to load it, what it was measured to know, what was run
        adapter_config.json, ...       the adapter as PEFT writes it; of several the others in folders of their names
        config.json, ...               or the whole model, where all weights were trained or the adapter is merged
        tokenizer.json, ...            the tokenizer
        head.safetensors, labels.json  of a classifier: weight (labels, H) and bias (labels) of those that it has met
        retrieval/                     where the run retrieved: the index, as ``Retriever.load`` reads it

    Args:
        run: at least its first stage has been finished.
        to: a folder that is not there, or empty, and not in the run's.
        stage, trust: see ``lifelong.learned.load_learned``.
        merge: add the adapter to the weights beside it, so that one plain model is written.

    Returns:
        The folder.

    Raises:
        ConfigError: there is something in the folder, or it is in the run's; there is no such stage; or a classifier
            has met no label yet.
        ModelError: the adapter cannot be merged, see ``lifelong.merged_model``, or several answer together, which PEFT
            would not load so.
        RunError: the folder cannot be written, or as of ``load_learned``.
    """
    target = _free_folder(run, Path(to).expanduser().resolve())
    index = committed_stage(run, stage)
    learner = load_learned(run, index, trust)
    if merge:
        learner.model = merged(learner)
    with quiet_libraries(), _whole_or_not(target) as folder:
        _write_model(learner, run.config["revision"], folder)
        learner.tokenizer.save_pretrained(folder)
        if learner.head is not None:
            _write_head(learner, folder)
        if retrieves(run.config) and len(learner.encoder.library.retriever):
            learner.encoder.library.retriever.save(folder / INDEX)
        (folder / "README.md").write_text(model_card(run, index, learner, merge), encoding="utf-8")
    return target


def _free_folder(run: Run, target: Path) -> Path:
    if target.is_relative_to(run.path.resolve()):
        raise ConfigError(f"to: {target} is in the folder of the run; choose one outside of it")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(f"to: {target} is there, and not an empty folder; choose another one, or remove it")
    return target


@contextmanager
def _whole_or_not(target: Path) -> Iterator[Path]:
    """A folder beside the target to write into; it becomes the target when the block ends without an error."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_model(learner: Learner, revision: str | None, folder: Path) -> None:
    model = learner.model
    if not isinstance(model, PeftModel):
        model.save_pretrained(folder)
        return
    for config in model.peft_config.values():
        config.revision = revision  # of the base model, which is loaded by its name
        base = Path(config.base_model_name_or_path or "")
        if config.base_model_name_or_path and base.is_dir():
            config.base_model_name_or_path = str(base.resolve())  # meant from wherever the adapter will be loaded
    save_adapters(model, folder)
    leave_alone(folder)


def _write_head(learner: Learner, folder: Path) -> None:
    labels = list(learner.family.open_choices())
    places = [learner.head.labels.index(label) for label in labels]
    weights = {"weight": learner.head.weight, "bias": learner.head.bias}
    save_file({name: part.detach()[places].cpu().contiguous() for name, part in weights.items()}, folder / HEAD)
    (folder / LABELS).write_text(json.dumps(labels, ensure_ascii=False) + "\n", encoding="utf-8")
