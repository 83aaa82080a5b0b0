"""Settings that say which layers are meant, checked before PEFT meets them."""

from __future__ import annotations

import re
from typing import Any

from lifelong.errors import ConfigError


def checked_names(setting: str, value: Any, *, may_be_empty: bool = False) -> set[str] | str | None:
    """Names of modules as a set; a regular expression, and ``None``, as they are.

    Args:
        setting: the field, for messages.
        value: what it is set to.
        may_be_empty: whether no names at all make sense.

    Raises:
        ConfigError: it is neither, or empty, or no regular expression.
    """
    if value is None:
        return None
    if isinstance(value, str):
        _check_expression(setting, value)
    elif not isinstance(value, list | tuple | set) or not all(isinstance(name, str) for name in value):
        raise ConfigError(f"{setting}: must be a list of names, or a text with a regular expression, got {value!r}")
    if not value and not may_be_empty:
        raise ConfigError(f"{setting}: is empty, so that no layer is meant; name some, or leave it out")
    return value if isinstance(value, str) else set(value)


def check_blocks(numbers: Any, pattern: Any) -> None:
    """Whether ``layers_to_transform`` and ``layers_pattern`` can say which blocks are meant.

    Raises:
        ConfigError: naming the field.
    """
    listed = list(numbers) if isinstance(numbers, list | tuple) else [numbers]
    if numbers is not None and not all(type(number) is int and number >= 0 for number in listed):
        raise ConfigError(
            f"layers_to_transform: must be a block's number, counted from 0, or a list of them, got {numbers!r}"
        )
    if not listed:
        raise ConfigError("layers_to_transform: is empty, so that no block is meant; name some, or leave it out")
    patterns = list(pattern) if isinstance(pattern, list | tuple) else [pattern]
    if pattern is not None and not all(isinstance(one, str) for one in patterns):
        raise ConfigError(f"layers_pattern: must be a name or a list of names, got {pattern!r}")
    for one in filter(None, patterns):
        _check_expression("layers_pattern", one)
    if pattern and numbers is None:
        raise ConfigError("layers_pattern: only says where layers_to_transform counts; set that too")


def _check_expression(setting: str, text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise ConfigError(f"{setting}: {text!r} is no regular expression: {error}") from None
