"""From the objects of an experiment to plain values: what a run folder remembers."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import inspect
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftConfig

from lifelong._version import __version__
from lifelong.registry import SAVED_STREAM, STREAMS, UNSAVED_STREAM, reference_to, saved_stream
from lifelong.task_stream import TaskStream

if TYPE_CHECKING:
    from lifelong.experiment import Experiment

# what PEFT fills in by itself
_PEFT_OWN = ("peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "inference_mode", "task_type")
_PACKAGES = (
    "torch", "transformers", "lightning", "peft", "datasets", "torchmetrics", "safetensors", "tokenizers", "numpy",
)  # fmt: skip


def describe(experiment: Experiment) -> dict[str, Any]:
    """The fully resolved configuration of an experiment, without the folder."""
    config = {field.name: getattr(experiment, field.name) for field in dataclasses.fields(experiment)}
    del config["folder"]
    for key in STREAMS:
        if config[key] is not None:
            config[key] = plain_stream(config[key], key)
    return {key: plain(value) for key, value in config.items()}


def digest(config: Mapping[str, Any]) -> str:
    """Eight characters that differ when the configuration does."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]


def environment(tasks: TaskStream, stages: int) -> dict[str, Any]:
    """Where a run is made, and on what."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "lifelong": __version__,
        "python": platform.python_version(),
        "packages": versions,
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git_commit": _git_commit(),
        "stages": stages,
        "tasks": task_entries(tasks),
        "fingerprint": list(tasks.fingerprint()),
    }


def task_entries(tasks: TaskStream) -> list[dict[str, Any]]:
    """What a run remembers of its tasks."""
    return [
        {
            "name": task.name,
            "metric": task.metric_name,
            "kind": task.kind,
            "held_out": task.measure_only,
            "train": len(task.train),
            "test": len(task.test),
            "fingerprint": task.fingerprint(),
        }
        for task in tasks
    ]


def plain_stream(stream: TaskStream | str | Mapping[str, Any], folder: str) -> dict[str, Any]:
    """A stream as ``class_path`` and ``init_args``.

    Args:
        stream: what it is set to.
        folder: where it is saved, in the folder of the run, if it was made in Python.
    """
    stream = saved_stream(stream)
    if isinstance(stream, str):
        return {"class_path": stream, "init_args": {}}
    if isinstance(stream, Mapping) and stream.get("class_path") != SAVED_STREAM:
        return {"init_args": {}} | dict(stream)
    # kept in the run folder, wherever that is
    if isinstance(stream, Mapping) or all(isinstance(task.metric, str) for task in stream):
        return {"class_path": SAVED_STREAM, "init_args": {"folder": folder}}
    return {"class_path": UNSAVED_STREAM, "init_args": {}}


def plain(value: Any) -> Any:
    """Any setting as JSON values; objects become ``class_path`` and ``init_args``."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(item) for item in value)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if isinstance(value, PeftConfig):
        return {"class_path": reference_to(type(value)), "init_args": _changed(value)}
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    arguments = inspect.signature(type(value)).parameters
    known = {name: plain(getattr(value, name)) for name in arguments if hasattr(value, name)}
    return {"class_path": reference_to(type(value)), "init_args": known}


def _changed(config: PeftConfig) -> dict[str, Any]:
    """What differs from the class's defaults: many of the fields do not take their own defaults back."""
    defaults = type(config)()
    return {
        field.name: plain(getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.name not in _PEFT_OWN and getattr(config, field.name) != getattr(defaults, field.name)
    }


def _git_commit() -> str | None:
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except OSError:
        return None
    return result.stdout.strip() or None
