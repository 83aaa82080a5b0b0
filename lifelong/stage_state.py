"""What a stage leaves behind, in its folder: weights, the strategies' state, and where the run stands."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from lifelong.adapter_folder import restore_adapters, save_adapters
from lifelong.errors import RunError
from lifelong.learner import Learner
from lifelong.models import check_model_folder, without_pooler


def save_stage(learner: Learner, path: Path) -> None:
    """Write the state of a learner into an empty folder, after a stage and before its evaluation."""
    if isinstance(learner.model, PeftModel):
        save_adapters(learner.model, path / "adapter")
    else:
        learner.model.save_pretrained(path / "model")
    if learner.head is not None:
        save_file(learner.head.state(), path / "head.safetensors")
    (path / "strategies").mkdir()
    for strategy in learner.strategies:
        torch.save(strategy.state_dict(), path / "strategies" / f"{strategy.state_key}.pt")
    (path / "position.json").write_text(json.dumps({"run_step": learner.run_step}))


def restore_stage(learner: Learner, path: Path) -> None:
    """Put a learner into the state that ``save_stage`` has written.

    Raises:
        ModelError, RunError: something is missing or damaged, or is a pickle, which could run code.
    """
    if isinstance(learner.model, PeftModel):
        restore_adapters(learner.model, path / "adapter")
    else:
        model = learner.model
        options = without_pooler(learner.family.name, model.config)
        check_model_folder(path / "model")
        kept = type(model).from_pretrained(path / "model", dtype=model.dtype, use_safetensors=True, **options)
        model.load_state_dict(kept.state_dict())
    if learner.head is not None:
        learner.head.load_state(load_file(path / "head.safetensors"))
    for strategy in learner.strategies:
        file = path / "strategies" / f"{strategy.state_key}.pt"
        strategy.load_state_dict(_state(file))
    learner.run_step = json.loads((path / "position.json").read_text())["run_step"]


def _state(file: Path) -> dict[str, Any]:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        reason = "names code, which is not run" if isinstance(error, pickle.UnpicklingError) else "cannot be read"
        raise RunError(
            f"{file} {reason}; a strategy's state is tensors and plain values: remove the folder {file.parent.parent} "
            "to run this stage again"
        ) from error
