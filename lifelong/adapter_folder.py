"""All adapters of a model in one folder, as PEFT lays them out, and which of them answer and are trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file

from lifelong.errors import RunError

DEFAULT = "default"  # the adapter that a run begins with
ROLES = "roles.json"  # beside the first adapter


def activate(model: PeftModel, active: Sequence[str], trained: Sequence[str]) -> None:
    """Let some adapters answer together, and some of them learn.

    Args:
        model: with all of them.
        active: names of those that take part.
        trained: of these, those whose weights are trained; PEFT alone would train all.
    """
    model.base_model.set_adapter(list(active))
    model.base_model.set_requires_grad([name for name in active if name not in trained], False)


def add_adapter(model: PeftModel, name: str, config: PeftConfig) -> None:
    """Put a further adapter beside those of a model, neither active nor trained, without a trace in the random state.

    Args:
        model: of PEFT.
        name: of the adapter; one that has it already is replaced.
        config: of the same method as the others'.
    """
    if name in model.peft_config:
        model.delete_adapter(name)
    with torch.random.fork_rng(devices=[]):  # PEFT draws initial weights, on the CPU
        model.add_adapter(name, config)


def save_adapters(model: PeftModel, folder: Path) -> None:
    """Write every adapter: the default one into the folder itself, others into folders of their names."""
    model.save_pretrained(folder, save_embedding_layers=False)
    if len(model.peft_config) > 1:
        active, trains = list(model.active_adapters), model.get_model_status().requires_grad
        roles = {"active": active, "trained": [name for name in active if trains[name]]}
        (folder / ROLES).write_text(json.dumps(roles), encoding="utf-8")


def restore_adapters(model: PeftModel, folder: Path) -> None:
    """Put a model's adapters into the state that was saved: those that it lacks are added, further ones removed.

    Raises:
        RunError: the folder lacks weights.
    """
    others = [name for name in model.peft_config if name != DEFAULT]
    if others:
        activate(model, [DEFAULT], [DEFAULT])
    for name in others:
        model.delete_adapter(name)
    _restore(model, folder, DEFAULT)
    if not (folder / ROLES).is_file():
        return
    for path in sorted(file.parent for file in folder.glob(f"*/{SAFETENSORS_WEIGHTS_NAME}")):
        config = type(model.peft_config[DEFAULT]).from_pretrained(str(path))
        config.inference_mode = False  # so it is in a file, always
        add_adapter(model, path.name, config)
        _restore(model, path, path.name)
    activate(model, **json.loads((folder / ROLES).read_text(encoding="utf-8")))


def _restore(model: PeftModel, folder: Path, name: str) -> None:
    weights = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    wanted = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    missing = set(wanted) - set(weights)
    if missing:
        raise RunError(f"{folder} lacks weights, the first is {sorted(missing)[0]}")
    set_peft_model_state_dict(model, weights, adapter_name=name)
