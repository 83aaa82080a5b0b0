"""All adapters of a model in one folder, as PEFT lays them out, and which of them answer and are trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file

from lifelong.errors import RunError

WEIGHTS = "adapter_model.safetensors"
ROLES = "roles.json"  # beside the first adapter


def activate(model: PeftModel, active: Sequence[str], trained: Sequence[str]) -> None:
    """Let some adapters answer together, and some of them learn.

    Args:
        model: with all of them.
        active: names of those that take part.
        trained: of these, those whose weights are trained; PEFT alone would train all.
    """
    model.base_model.set_adapter(list(active))
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            for kind in module.adapter_layer_names:
                for name, part in getattr(module, kind).items():
                    part.requires_grad_(name in trained)


def save_adapters(model: PeftModel, folder: Path) -> None:
    """Write every adapter: the first into the folder itself, others into folders of their names."""
    model.save_pretrained(folder, save_embedding_layers=False)
    if len(model.peft_config) > 1:
        active, trains = list(model.active_adapters), model.get_model_status().requires_grad
        roles = {"active": active, "trained": [name for name in active if trains[name]]}
        (folder / ROLES).write_text(json.dumps(roles), encoding="utf-8")


def restore_adapters(model: PeftModel, folder: Path) -> None:
    """Put a model's adapters into the state that was saved; those that it lacks are added.

    Raises:
        RunError: the folder lacks weights.
    """
    _restore(model, folder, "default")
    if not (folder / ROLES).is_file():
        return
    for path in sorted(file.parent for file in folder.glob(f"*/{WEIGHTS}")):
        if path.name in model.peft_config:
            _restore(model, path, path.name)
        else:
            model.load_adapter(str(path), path.name)
    activate(model, **json.loads((folder / ROLES).read_text(encoding="utf-8")))


def _restore(model: PeftModel, folder: Path, name: str) -> None:
    weights = load_file(folder / WEIGHTS)
    wanted = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    missing = set(wanted) - set(weights)
    if missing:
        raise RunError(f"{folder} lacks weights, the first is {sorted(missing)[0]}")
    set_peft_model_state_dict(model, weights, adapter_name=name)
