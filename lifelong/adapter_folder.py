"""All adapters of a model in one folder, and which of them answer and are trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from safetensors.torch import load_file

from lifelong.errors import ModelError, RunError
from lifelong.inside import inside

DEFAULT = "default"  # the adapter that a run begins with
ROLES = "roles.json"  # in the folder of several


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
    """Write every adapter: the first of those that answer into the folder itself, others into folders of their names.

    PEFT and transformers load the adapter in the folder itself, and pass the others over. A strategy whose model
    answers with several puts that first which holds what was learned.
    """
    model.save_pretrained(folder, save_embedding_layers=False)
    if len(model.peft_config) > 1:
        active, trains = list(model.active_adapters), model.get_model_status().requires_grad
        roles = {"active": active, "trained": [name for name in active if trains[name]]}
        (folder / ROLES).write_text(json.dumps(roles), encoding="utf-8")
        if active[0] != DEFAULT:  # which PEFT has put there
            (folder / DEFAULT).mkdir()
            for name in (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME):
                (folder / name).rename(folder / DEFAULT / name)
                (folder / active[0] / name).rename(folder / name)
            (folder / active[0]).rmdir()


def check_alone(folder: Path) -> None:
    """Whether the adapter in a folder itself, which is all that PEFT loads of it, answers as all of them do.

    Raises:
        ModelError: another one is active, and is no LoRA whose B is zero.
    """
    for name in (_roles(folder) or {"active": []})["active"][1:]:
        weights = load_file(_files(folder)[name])
        B = [weight for key, weight in weights.items() if "lora_B" in key]
        if not B or any(weight.any() for weight in B):
            raise ModelError(
                f"{folder} holds several adapters that answer together, and only the first would be loaded: load them "
                "with lifelong.adapter_folder.restore_adapters, merge them into the model, and begin with a fresh one"
            )


def leave_alone(folder: Path) -> None:
    """Remove from a folder of several adapters those that answer beside the first one and add nothing.

    Raises:
        ModelError: see ``check_alone``.
    """
    check_alone(folder)
    beside = (_roles(folder) or {"active": []})["active"][1:]
    for name in beside:
        shutil.rmtree(folder / name)
    if beside:
        (folder / ROLES).unlink()


def added_weights(folder: Path) -> list[Path]:
    """The files of what ``save_adapters`` has written beside the default adapter; none where there is no folder."""
    return [file for name, file in _files(folder).items() if name != DEFAULT]


def _files(folder: Path) -> dict[str, Path]:
    """The files of weights by the names of the adapters."""
    files = {file.parent.name: file for file in folder.glob(f"*/{SAFETENSORS_WEIGHTS_NAME}")}
    if (first := folder / SAFETENSORS_WEIGHTS_NAME).is_file():
        roles = _roles(folder)
        files[DEFAULT if roles is None else roles["active"][0]] = first
    return files


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
    files = _files(folder)
    if DEFAULT not in files:
        raise RunError(
            f"{folder} has no {SAFETENSORS_WEIGHTS_NAME} of the adapter {DEFAULT!r}, and other kinds of files, such as "
            f"{WEIGHTS_NAME}, are never read: remove the stage's folder to run it again"
        )
    _restore(model, files.pop(DEFAULT).parent, DEFAULT)
    for name, file in sorted(files.items()):
        config = type(model.peft_config[DEFAULT]).from_pretrained(str(file.parent))
        config.inference_mode = False  # so it is in a file, always
        add_adapter(model, name, config)
        _restore(model, file.parent, name)
    if (roles := _roles(folder)) is not None:
        activate(model, **roles)


def _roles(folder: Path) -> dict[str, list[str]] | None:
    """Which adapters are active, and of these trained; ``None`` where there is only the default one.

    Raises:
        RunError: the file is damaged, or a name in it is none of a folder in this one.
    """
    file = folder / ROLES
    if not file.is_file():
        return None
    try:
        roles = json.loads(file.read_text(encoding="utf-8"))
        names = [*roles["active"], *roles["trained"]]
        if set(roles) != {"active", "trained"} or not roles["active"]:
            raise ValueError("needs adapters that are active, and those of them that are trained")
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{file} is damaged ({error}): remove the stage's folder to run it again") from error
    for name in names:  # the folder that this adapter is saved in with the next stage
        inside(folder, name, file)
    return roles


def _restore(model: PeftModel, folder: Path, name: str) -> None:
    weights = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    wanted = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    missing = set(wanted) - set(weights)
    if missing:
        raise RunError(f"{folder} lacks weights, the first is {sorted(missing)[0]}")
    set_peft_model_state_dict(model, weights, adapter_name=name)
