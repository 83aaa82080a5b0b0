"""The runs of a study: every combination of the values that it varies."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lifelong.config import make_experiment, override
from lifelong.describe import plain
from lifelong.errors import ConfigError, suggestion
from lifelong.experiment import Experiment
from lifelong.task_stream import TaskStream

METHOD = "method"  # the key of what varies several settings together
PAIRS = ("seed", "order")  # what is varied to repeat a comparison; all else that is varied makes the method
_FIELDS = tuple(field.name for field in fields(Experiment) if field.name != "folder")
_ALL = "all"  # of a method where nothing but the pairs is varied


@dataclass(frozen=True)
class Point:
    """One run of a study.

    Args:
        labels: of the values that it has, by what is varied.
        config: the settings of its experiment.
        folder: where it is kept.
    """

    labels: Mapping[str, str]
    config: Mapping[str, Any]
    folder: Path

    @property
    def method(self) -> str:
        """What it has in common with the runs that repeat it."""
        return ", ".join(label for key, label in self.labels.items() if key not in PAIRS) or _ALL

    @property
    def pair(self) -> tuple[str, ...]:
        """Its seed and order, as labels, where these are varied."""
        return tuple(self.labels[key] for key in PAIRS if key in self.labels)

    def experiment(self, trust: bool) -> Experiment:
        """The experiment of this point; without trust its rows are in the study's folder."""
        return make_experiment({**fresh(self.config), "folder": str(self.folder)}, trust, self.folder.parent)


def choices(key: str, values: Any) -> list[tuple[str, Any]]:
    """The values of one key of a grid, with their labels.

    Args:
        key: a setting, or ``"method"`` for settings that change together.
        values: a list, or a mapping from labels to values.

    Raises:
        ConfigError: they are neither, or not told apart by their labels.
    """
    if not isinstance(values, Mapping) and (isinstance(values, str) or not isinstance(values, Sequence)):
        raise ConfigError(f"vary.{key}: expected a list of values, or a mapping from labels to values")
    if key == METHOD and not (
        isinstance(values, Mapping) and all(isinstance(value, Mapping) for value in values.values())
    ):
        raise ConfigError(f"vary.{key}: expected a mapping from labels to settings, each with its value")
    found = list(values.items()) if isinstance(values, Mapping) else [(_label(value), value) for value in values]
    found = [(str(label), value) for label, value in found]
    if not found or len({label for label, _ in found}) < len(found):
        raise ConfigError(f"vary.{key}: needs values that differ; give them labels, as a mapping")
    return found


def points(base: Mapping[str, Any], vary: Mapping[str, Any], folder: Path) -> Iterator[Point]:
    """Every combination of values.

    Args:
        base: the settings that all runs share.
        vary: values by setting, a dotted key leading into one; ``method`` has settings that change together.
        folder: that holds the folders of the runs.

    Raises:
        ConfigError: a key is no setting, or leads nowhere, or its values cannot be told apart.
    """
    grid = []
    for key, values in vary.items():
        if key != METHOD:
            check_setting(key, f"vary.{key}")
        grid.append([(key, label, value) for label, value in choices(key, values)])
    for combination in itertools.product(*grid):
        config = fresh(base)
        for key, label, value in combination:
            for name, own in value.items() if key == METHOD else [(key, value)]:
                where = f"vary.{key}.{label}.{name}" if key == METHOD else f"vary.{key}"
                check_setting(name, where)
                put(config, name, own, where)
        labels = {key: label for key, label, _ in combination}
        named = labels
        if "order" in vary and is_joint(config):  # which learns all tasks at once, in whatever order they are named
            config["order"] = copy.deepcopy(choices("order", vary["order"])[0][1])
            named = {key: label for key, label in labels.items() if key != "order"}
        name = ",".join(f"{slug(key.rpartition('.')[2])}={slug(label)}" for key, label in named.items())
        yield Point(labels, config, folder / (name or slug(_ALL)))


def is_joint(config: Mapping[str, Any]) -> bool:
    """Whether settings name the strategy ``Joint``."""
    strategies = plain(config.get("strategies") or ())
    names = (entry.get("class_path") if isinstance(entry, dict) else entry for entry in strategies)
    return any(str(name).rpartition(".")[2] == "Joint" for name in names)


def check_setting(key: str, where: str) -> None:
    """A key begins with the name of a setting.

    Raises:
        ConfigError: with the nearest name.
    """
    if key.partition(".")[0] not in _FIELDS:
        raise ConfigError(f"{where}: there is no such setting{suggestion(key, (*_FIELDS, METHOD))}")


def put(config: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a value at a dotted key; an object that the key leads into is described first, as in YAML."""
    first, dot, _ = key.partition(".")
    if dot and first in config and not isinstance(config[first], TaskStream):
        config[first] = plain(config[first])
    override(config, key, copy.deepcopy(value), where)


def fresh(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with objects of its own, so that no run sees another's strategies; only the stream is shared."""
    return {key: value if isinstance(value, TaskStream) else copy.deepcopy(value) for key, value in config.items()}


def differences(before: Any, now: Any, place: str = "") -> Iterator[str]:
    """What differs between two plain values, a line for each place.

    Args:
        before, now: mappings, lists and values, as ``plain`` gives them.
        place: the dotted way to them.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys((*before, *now)):
            yield from differences(before.get(key, _Missing), now.get(key, _Missing), f"{place}.{key}".lstrip("."))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from differences(one, other, f"{place}.{number}")
    elif before is not now and before != now:
        yield f"{place}: {_shown(before)} there, {_shown(now)} here"


class _Missing:
    """A value that is not there."""


def _shown(value: Any) -> str:
    return "nothing" if value is _Missing else repr(value)


def labelled(vary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The values of a grid by label, as plain values."""
    return {key: {label: plain(value) for label, value in choices(key, values)} for key, values in vary.items()}


def slug(label: str) -> str:
    """A label as part of a folder's name."""
    return re.sub(r"[^\w.+-]+", "-", label).strip("-") or "none"


def methods(found: Iterable[Point]) -> dict[str, list[Point]]:
    """Points by method, in their order."""
    groups: dict[str, list[Point]] = {}
    for point in found:
        groups.setdefault(point.method, []).append(point)
    return groups


def _label(value: Any) -> str:
    described = plain(value)
    parts = described if isinstance(described, list) else [described]
    names = [
        part["class_path"].rpartition(".")[2] if isinstance(part, dict) and "class_path" in part else str(part)
        for part in parts
    ]
    return "+".join(names) or "none"
