"""Which arguments of a configuration name code that jsonargparse would import, whatever comes of it then."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# words of annotations that nothing is imported for; any other one may be a class, or a callable
_PLAIN_TYPES = {
    *("str", "int", "float", "bool", "None", "NoneType", "Any", "Optional", "Union", "Sequence", "Mapping"),
    *("list", "List", "dict", "Dict", "tuple", "Tuple", "set", "Path", "pathlib", "collections", "abc"),
}
_LITERAL = re.compile(r"Literal\[.*?\]")
_DOTTED_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def is_reference(value: Any, annotation: str) -> bool:
    """Whether an argument is a ``class_path`` that its receiver, which takes mappings, looks up by itself."""
    return isinstance(value, Mapping) and "class_path" in value and "Mapping" in _words(annotation)


def named_code(value: Any, annotation: str = "Any") -> str | None:
    """The name of the code that an argument would import; ``None`` where it imports nothing.

    Args:
        value: of the argument, plain.
        annotation: the argument's type, as it is written; empty where it has none.
    """
    texts = not annotation or not _words(annotation) <= _PLAIN_TYPES
    return _named(value.get("init_args") if is_reference(value, annotation) else value, texts)


def _named(value: Any, texts: bool) -> str | None:
    if isinstance(value, Mapping):
        if "class_path" in value:
            return str(value["class_path"])
        value = list(value.values())
    if isinstance(value, list | tuple):
        return next((code for item in value if (code := _named(item, texts)) is not None), None)
    return value if texts and isinstance(value, str) and _DOTTED_NAME.fullmatch(value) else None


def _words(annotation: str) -> set[str]:
    return set(re.findall(r"\w+", _LITERAL.sub("", annotation)))
