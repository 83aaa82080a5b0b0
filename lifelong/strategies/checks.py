"""Settings that many strategies check alike."""

from __future__ import annotations

import math

from lifelong.errors import ConfigError
from lifelong.strategies.base import Strategy


def check_number(strategy: Strategy, name: str, within: str = "[0, inf)") -> None:
    """Refuse a setting that is no number of an interval.

    Args:
        strategy: with the setting as an attribute.
        name: of the setting.
        within: as in mathematics: a square bracket includes its end, a round one does not.

    Raises:
        ConfigError: naming class and setting.
    """
    value = getattr(strategy, name)
    low, high = map(float, within[1:-1].split(","))
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    above = number and (value > low or (within[0] == "[" and value == low))
    below = number and (value < high or (within[-1] == "]" and value == high))
    if not (above and below):
        raise ConfigError(f"{type(strategy).__name__}: {name} must be a number in {within}, got {value!r}")


def check_count(strategy: Strategy, name: str, optional: bool = False) -> None:
    """Refuse a setting that is no whole number of at least 1, nor ``None`` where it is optional.

    Raises:
        ConfigError: naming class and setting.
    """
    value = getattr(strategy, name)
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        what = "a whole number of at least 1" + (", or None" if optional else "")
        raise ConfigError(f"{type(strategy).__name__}: {name} must be {what}, got {value!r}")
