"""From the name of a class or function in a configuration to the thing itself."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from lifelong.errors import ConfigError, LifelongError, suggestion
from lifelong.named_code import is_reference, named_code
from lifelong.task_stream import STREAM_FILE, TaskStream

# packages that are imported for a configuration that was not allowed to: lifelong imports them anyway. What may be used
# of them then is only what they offer for the key, since every module leads to others (lifelong.trust.os.system)
TRUSTED = ("lifelong", "streams", "peft")
STREAM_ENTRY_POINTS = "lifelong.streams"
STREAMS = ("stream", "held_out")  # the settings that name a stream; one made in Python is saved in a folder so called
SAVED_STREAM = "lifelong.TaskStream.load"
UNSAVED_STREAM = "in memory"  # made in Python, with a metric that is a function
_PARSER_KEY = re.compile(r'Parser key "([^"]+)": ')  # jsonargparse's, before what is wrong with a value
_FILES: dict[str, str] = {}  # name of a module made from a file -> the file as it was written


def find(reference: str, where: str, packages: tuple[str, ...] = (), trust: bool = True) -> Any:
    """The class or function that a configuration names.

    Args:
        reference: ``"package.module.Name"``, ``"path/to/file.py:Name"``, or the bare name of something that one of
            ``packages`` exports.
        where: the key, for messages.
        packages: searched for bare names, and for the nearest name when nothing is found.
        trust: allow more than what ``packages`` export and the loader of saved streams.

    Raises:
        ConfigError: there is no such thing, or it must not be imported.
    """
    if ".py:" in reference:
        file, _, name = reference.rpartition(":")
        _allow(trust, where, reference)
        return _attribute(_module_of_file(file, where), name, where, reference, ())
    module, _, name = reference.rpartition(".")
    if not module:
        module = next((one for one in packages if hasattr(importlib.import_module(one), name)), "")
    if not module:
        raise ConfigError(f"{where}: there is no {name!r}{suggestion(name, _exported(packages))}")
    if module == "__main__" and not hasattr(sys.modules["__main__"], name):
        raise ConfigError(
            f"{where}: {name!r} was defined in a script or notebook: put it into a file, and name it file.py:{name}"
        )
    if module.split(".")[0] not in TRUSTED and module not in _FILES:
        _allow(trust, where, reference)
    owner = _import_longest(module, where, reference, packages)
    found = _attribute(owner, name, where, reference, packages)
    if reference != SAVED_STREAM and not any(found is offered for offered in _offered(packages)):
        _allow(trust, where, reference)
    return found


def call(
    target: Callable[..., Any], arguments: Mapping[str, Any], where: str, keep: tuple[str, ...] = (), trust: bool = True
) -> Any:
    """Call a class or function with arguments from a configuration, checked against its types by jsonargparse.

    Args:
        target: what to call.
        arguments: by name; plain values are checked and converted, objects are passed as they are.
        where: the key, for messages.
        keep: arguments to pass as they are, also when they are plain.
        trust: allow arguments that name classes, which jsonargparse would import.

    Raises:
        ConfigError: an argument is unknown, missing, of another type, or not allowed.
    """
    if not callable(target):
        raise ConfigError(f"{where}: {target!r} is neither a class nor a function")
    names = [
        name
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    takes_more = any(each.kind is each.VAR_KEYWORD for each in inspect.signature(target).parameters.values())
    prefix = f"{where}." if where else ""
    for name in arguments:
        if name not in names and not takes_more:
            raise ConfigError(f"{prefix}{name}: there is no such setting{suggestion(name, names)}")
    if not trust:
        types = {name: _annotation(target, name) for name in names}
        for name in [name for name in arguments if name not in keep]:
            if (code := named_code(arguments[name], types.get(name, ""))) is not None:
                _allow(trust, prefix + name, code)
            keep = (*keep, name) if is_reference(arguments[name], types.get(name, "")) else keep
    checked_here = [name for name in arguments if name in names and name not in keep]
    plain = {name: arguments[name] for name in checked_here if _is_plain(arguments[name])}
    objects = {name: value for name, value in arguments.items() if name not in plain}
    parser = ArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if inspect.isclass(target) else parser.add_function_arguments
    add(target, skip=set(objects) | _passed_on(target, names), fail_untyped=False)
    try:
        checked = parser.instantiate(parser.parse_object(plain))
    except LifelongError:
        raise
    except (ArgumentError, TypeError, ValueError) as error:
        message = " ".join(str(error).split())
        name = found[1] if (found := _PARSER_KEY.match(message)) else None
        # of an object with settings of its own, jsonargparse says which of them is wrong
        if name in plain and not (isinstance(plain[name], Mapping) and "class_path" in plain[name]):
            message = f"expected {_expected(target, name)}, got {plain[name]!r}"
            raise ConfigError(f"{prefix}{name}: {message}") from None
        raise ConfigError(f"{where + ': ' if where else ''}{message}") from None
    given = {name: value for name, value in vars(checked).items() if name in plain}
    try:
        return target(**given, **objects)
    except LifelongError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def _expected(target: Callable[..., Any], name: str) -> str:
    """The type of an argument, as it is written."""
    return re.sub(r"Literal\[(.*?)\]", r"one of \1", _annotation(target, name)).replace(" | ", " or ")


def _annotation(target: Callable[..., Any], name: str) -> str:
    annotation = inspect.signature(target).parameters[name].annotation
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text.replace("typing.", "")


def _passed_on(target: Callable[..., Any], names: list[str]) -> set[str]:
    """Arguments that jsonargparse finds where ``**settings`` lead to; they are given on as they are, unchecked."""
    parser = ArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if inspect.isclass(target) else parser.add_function_arguments
    return {key.split(".")[0] for key in add(target, fail_untyped=False)} - set(names)


def build(
    specification: Any, where: str, packages: tuple[str, ...], trust: bool = True, kind: type | None = None
) -> Any:
    """An object from ``{class_path: ..., init_args: {...}}`` or the bare class path; anything else stays as it is.

    Args:
        specification: what to build.
        where: the key, for messages.
        packages, trust: as for ``find``.
        kind: the class that it must be an instance of.

    Raises:
        ConfigError: there is no such class, its arguments do not fit, or it is of another kind.
    """
    if isinstance(specification, str):
        specification = {"class_path": specification}
    if not isinstance(specification, Mapping):
        if kind is not None and not isinstance(specification, kind):
            raise ConfigError(f"{where}: expected a {kind.__name__}, got {specification!r}")
        return specification
    unknown = [key for key in specification if key not in ("class_path", "init_args")]
    if unknown or "class_path" not in specification:
        raise ConfigError(f"{where}: needs class_path and, where wanted, init_args; got {sorted(specification)}")
    target = find(specification["class_path"], f"{where}.class_path", packages, trust)
    if kind is not None and not (inspect.isclass(target) and issubclass(target, kind)):
        raise ConfigError(f"{where}.class_path: {specification['class_path']!r} is not a {kind.__name__}")
    return call(target, specification.get("init_args") or {}, f"{where}.init_args", trust=trust)


def saved_stream(stream: Any, folders: tuple[Path, ...] = (Path(),)) -> Any:
    """The name of a saved stream's folder as ``class_path`` and ``init_args``; anything else as it is.

    Args:
        stream: a setting that names a stream.
        folders: from which its path is meant; the first where it is there.
    """
    name = stream.get("class_path") if isinstance(stream, Mapping) and not stream.get("init_args") else stream
    if not isinstance(name, str):
        return stream
    paths = (folder / Path(name).expanduser() for folder in folders)
    found = next((path for path in paths if (path / STREAM_FILE).is_file()), None)
    return stream if found is None else {"class_path": SAVED_STREAM, "init_args": {"folder": str(found)}}


def find_stream(
    stream: TaskStream | str | Mapping[str, Any], trust: bool = True, where: str = "stream"
) -> Callable[..., TaskStream]:
    """The function that makes a stream, without calling it.

    Args:
        stream: a stream, ``"streams.world_facts"`` or bare ``"world_facts"``, ``"path/to/my_stream.py:my_function"``, a
            name that another package registered, or one of these as ``class_path`` beside its ``init_args``; or the
            folder of a saved stream.
        trust: as for ``find``.
        where: the key, for messages.

    Raises:
        ConfigError: there is no such stream.
    """
    if isinstance(stream, TaskStream):
        return lambda: stream
    stream = saved_stream(stream)
    if not isinstance(stream, str | Mapping):
        raise ConfigError(f"{where}: expected a name, such as streams.world_facts, got {stream!r}")
    unknown = [key for key in stream if key not in ("class_path", "init_args")] if isinstance(stream, Mapping) else []
    if unknown:
        raise ConfigError(f"{where}.{unknown[0]}: there is no such setting, only class_path and init_args")
    reference = stream if isinstance(stream, str) else stream.get("class_path", "")
    if reference == UNSAVED_STREAM:
        raise ConfigError(
            f"{where}: was made in Python with a metric that is a function, which no file can hold; go on from Python"
        )
    registered = {point.name: point.value for point in entry_points(group=STREAM_ENTRY_POINTS)}
    reference = registered.get(reference, reference).replace(":", ".") if reference in registered else reference
    found = find(reference, where, ("streams",), trust)
    if isinstance(stream, Mapping) and (code := named_code(stream.get("init_args"))) is not None:
        _allow(trust, f"{where}.init_args", code)
    return found


def resolve_stream(stream: TaskStream | str | Mapping[str, Any], where: str = "stream") -> TaskStream:
    """The stream itself, whatever way it was named; as ``find_stream``.

    Raises:
        ConfigError: there is no such stream, its arguments do not fit, or what was named made something else.
    """
    stream = saved_stream(stream)
    arguments = stream.get("init_args") or {} if isinstance(stream, Mapping) else {}
    built = call(find_stream(stream, where=where), arguments, f"{where}.init_args")
    if not isinstance(built, TaskStream):
        raise ConfigError(f"{where}: {stream!r} made a {type(built).__name__}, not a TaskStream")
    return built


def stream_catalogue() -> dict[str, Callable[..., TaskStream]]:
    """The functions of all known streams by the name that a configuration uses."""
    streams = importlib.import_module("streams")
    own = {f"streams.{name}": getattr(streams, name) for name in streams.__all__}
    return own | {point.name: point.load() for point in entry_points(group=STREAM_ENTRY_POINTS)}


def reference_to(thing: type | Callable[..., Any]) -> str:
    """The shortest name under which ``find`` gives ``thing``."""
    module, name = thing.__module__, thing.__qualname__
    if module in _FILES:
        return f"{_FILES[module]}:{name}"
    parts = module.split(".")
    for size in range(1, len(parts) + 1):
        package = ".".join(parts[:size])
        if getattr(sys.modules.get(package), name, None) is thing:
            return f"{package}.{name}"
    return f"{module}.{name}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def _allow(trust: bool, where: str, reference: str) -> None:
    if not trust:
        raise ConfigError(
            f"{where}: {reference!r} is code from outside of lifelong. Look at it, and use --trust to let it run"
        )


def _module_of_file(file: str, where: str) -> ModuleType:
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"{where}: there is no file {file!r}")
    name = f"lifelong_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module  # before it runs, so that dataclasses in it find their module
        try:
            specification.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        _FILES[name] = file
    return sys.modules[name]


def _import_longest(module: str, where: str, reference: str, packages: tuple[str, ...]) -> Any:
    """Import ``module``, whose last parts may be attributes such as a class."""
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        name = ".".join(parts[:size])
        try:
            owner: Any = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and not (name + ".").startswith(error.name + "."):
                raise  # the module is there, and something that it needs is not
            continue
        for part in parts[size:]:
            owner = _attribute(owner, part, where, reference, packages)
        return owner
    raise ConfigError(f"{where}: there is no {reference!r}{suggestion(reference, _qualified(packages))}")


def _attribute(owner: Any, name: str, where: str, reference: str, packages: tuple[str, ...]) -> Any:
    if not hasattr(owner, name):
        options = _qualified(packages) if packages else [key for key in vars(owner) if not key.startswith("_")]
        raise ConfigError(f"{where}: there is no {reference!r}{suggestion(reference if packages else name, options)}")
    return getattr(owner, name)


def _offered(packages: tuple[str, ...]) -> list[Any]:
    modules = [importlib.import_module(package) for package in packages]
    return [getattr(module, name, None) for module in modules for name in getattr(module, "__all__", ())]


def _exported(packages: tuple[str, ...]) -> list[str]:
    return [name for package in packages for name in getattr(importlib.import_module(package), "__all__", ())]


def _qualified(packages: tuple[str, ...]) -> list[str]:
    return [
        f"{package}.{name}" for package in packages for name in getattr(importlib.import_module(package), "__all__", ())
    ]
