"""YAML files and command-line overrides become experiments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from peft import PeftConfig

from lifelong.errors import ConfigError, suggestion
from lifelong.experiment import Experiment
from lifelong.inside import inside
from lifelong.registry import SAVED_STREAM, STREAMS, build, call, find_stream, saved_stream
from lifelong.run_logs import SENT, is_name
from lifelong.strategies import Strategy

# fields that hold objects, where the bare names of their classes are looked up, and what they must be
_OBJECTS: dict[str, tuple[tuple[str, ...], type]] = {
    "adapter": (("peft", "lifelong.adapters"), PeftConfig),
    "strategies": (("lifelong.strategies",), Strategy),
    "callbacks": (("lightning.pytorch.callbacks",), Callback),
    "loggers": (("lightning.pytorch.loggers",), Logger),
}


def read_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings in a YAML file, with some of them replaced.

    Args:
        path: the file.
        overrides: values by dotted key, such as ``{"evaluate.books": ["closed", "gold"]}``; a number in a key
            is a place in a list.

    Raises:
        ConfigError: the file is missing or not a YAML mapping, or a key leads nowhere.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: malformed YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected settings as key: value, got {type(config).__name__}")
    for key, value in (overrides or {}).items():
        override(config, key, value, f"--{key}")
    config = _anchored(config, path.parent)
    for key in STREAMS:
        named = saved_stream(config.get(key), (Path(), path.parent))
        if named is not config.get(key):
            config[key] = named
            continue
        saved = config.get(key)
        if isinstance(saved, dict) and saved.get("class_path") == SAVED_STREAM:
            arguments = saved.get("init_args") or {}
            saved["init_args"] = arguments | {"folder": str(path.parent / str(arguments.get("folder", key)))}
    return config


def _anchored(value: Any, folder: Path) -> Any:
    """References to code in files, made absolute: they are meant from here, or else from the configuration's folder."""
    if isinstance(value, dict):
        return {key: _anchored(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [_anchored(item, folder) for item in value]
    if isinstance(value, str) and ".py:" in value:
        file, _, name = value.rpartition(":")
        for base in (Path(), folder):
            if (base / file).is_file():
                return f"{(base / file).resolve()}:{name}"
    return value


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """``["--epochs", "3", "--evaluate.books=[closed]"]`` as values by dotted key; values are read as YAML.

    Raises:
        ConfigError: something is no option, or an option lacks its value.
    """
    overrides: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if not option.startswith("--"):
            raise ConfigError(f"expected an option such as --epochs 3, got {option!r}")
        key, equals, text = option[2:].partition("=")
        if not equals:
            if not rest:
                raise ConfigError(f"the option {option} needs a value")
            text = rest.pop(0)
        try:
            overrides[key] = yaml.load(text, _Loader)
        except yaml.YAMLError as error:
            raise ConfigError(f"{option}: malformed YAML: {' '.join(str(error).split())}") from None
    return overrides


def make_experiment(config: Mapping[str, Any], trust: bool = True, home: str | Path = ".") -> Experiment:
    """The experiment that a configuration describes.

    Args:
        config: plain values, as in a YAML file; objects that are there already (a stream, a strategy) are used.
        trust: allow code from outside of lifelong to be imported, and rows to be read wherever they are.
        home: the folder of a configuration that is not trusted; the rows that it names by their place are in there.

    Raises:
        ConfigError: naming the key, with the nearest one where a name is unknown.
        RunError: it is not trusted, and reads or writes outside of its folder.
    """
    names = [field.name for field in fields(Experiment)]
    for name in config:
        if name not in names:
            raise ConfigError(f"{name}: there is no such setting{suggestion(str(name), names)}")
    if config.get("stream") is None:
        raise ConfigError("stream: is needed, such as streams.world_facts")
    if config.get("trust_remote_code") and not trust:
        raise ConfigError("trust_remote_code: lets code run that comes with the model; use --trust to allow it")
    config = dict(config)
    for key, (packages, kind) in _OBJECTS.items():
        value = config.get(key)
        if key == "adapter":
            if isinstance(value, Mapping):
                try:
                    config[key] = build(value, key, packages, trust, kind)
                except ConfigError as error:  # a configuration of lifelong.adapters names its own field alone
                    message = str(error)
                    raise ConfigError(message if message.startswith(key) else f"{key}.init_args.{message}") from None
        elif value is not None:
            if not isinstance(value, list | tuple):
                raise ConfigError(f"{key}: expected a list, got {type(value).__name__}")
            config[key] = [
                item if key == "loggers" and is_name(item) else build(item, f"{key}.{number}", packages, trust, kind)
                for number, item in enumerate(value)
            ]
    for name in SENT:
        if not trust and name in (config.get("loggers") or ()):
            raise ConfigError(f"loggers: {name!r} may send what is measured elsewhere; use --trust to allow it")
    for number, strategy in enumerate(config.get("strategies") or ()):
        reference = getattr(strategy, "stream_reference", None)  # rows from elsewhere, which code may make
        where = f"strategies.{number}.init_args.source"
        if reference is not None:
            find_stream(reference, trust, where)
        if not trust:
            source = getattr(strategy, "source", None)
            _check_place(source if reference is None and isinstance(source, str) else _place(reference), where, home)
    for key in STREAMS:
        if config.get(key) is not None:
            find_stream(config[key], trust, key)  # only checked: the experiment keeps the reference, and builds it
            if not trust:
                _check_place(_place(config[key]), key, home)
    if not trust and isinstance(config.get("trainer"), Mapping):
        _check_place(config["trainer"].get("default_root_dir"), "trainer.default_root_dir", home)
    keep = (*STREAMS, "evaluate", "retrieval", "template", "classification")
    # of a text jsonargparse would ask whether it is a class
    keep = (*keep, "adapter") if isinstance(config.get("adapter"), str) else keep
    return call(Experiment, config, "", keep, trust)


def _place(stream: Any) -> Any:
    """The folder of a saved stream; ``None`` for other streams."""
    stream = saved_stream(stream)
    saved = isinstance(stream, Mapping) and stream.get("class_path") == SAVED_STREAM
    return (stream.get("init_args") or {}).get("folder") if saved else None


def _check_place(place: Any, where: str, home: str | Path) -> None:
    if place is not None:
        inside(home, Path(str(place)).expanduser().absolute(), where)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text, and lets the last of two equal keys win; this reads a number, and refuses."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def override(config: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set the value at a dotted key in place.

    Args:
        config: settings, with mappings and lists inside.
        key: the way to the value; a number is a place in a list.
        value: what to put there.
        where: how the user calls this key, for messages.

    Raises:
        ConfigError: the key leads nowhere.
    """
    place: Any = config
    *path, last = key.split(".")
    for number, part in enumerate([*path, last]):
        if isinstance(place, list):
            if not part.isdigit() or int(part) >= len(place):
                raise ConfigError(f"{where}: {'.'.join(path[:number])} has {len(place)} entries, counted from 0")
            part = int(part)
        elif not isinstance(place, dict):
            raise ConfigError(f"{where}: {'.'.join(path[:number])} is {place!r}, which has no settings of its own")
        if number < len(path):
            inner = place[part] if isinstance(place, list) else place.setdefault(part, {})
            if isinstance(inner, str) and [*path, last][number + 1] in ("class_path", "init_args"):
                inner = place[part] = {"class_path": inner}  # a bare class path, which has arguments from now on
            place = inner
        else:
            place[part] = value
