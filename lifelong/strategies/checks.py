"""Settings that several strategies check alike."""

from __future__ import annotations

import math

from lifelong.errors import ConfigError
from lifelong.strategies.base import Strategy


def check_number(strategy: Strategy, name: str, most: float = math.inf, positive: bool = False) -> None:
    """Refuse a setting that is no finite number, is negative (or 0, where it must be positive), or above ``most``.

    Raises:
        ConfigError: naming class and setting.
    """
    value = getattr(strategy, name)
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0 or value > most or (positive and value == 0):
        least = "above 0" if positive else "of at least 0"
        limit = f" and at most {most:g}" if math.isfinite(most) else ""
        raise ConfigError(f"{type(strategy).__name__}: {name} must be a finite number {least}{limit}, got {value!r}")


def check_samples(strategy: Strategy, samples: int | None) -> None:
    """Refuse a number of rows that is none.

    Raises:
        ConfigError: naming the class.
    """
    whole = isinstance(samples, int) and not isinstance(samples, bool) and samples >= 1
    if samples is not None and not whole:
        name = type(strategy).__name__
        raise ConfigError(
            f"{name}: samples must be a whole number of at least 1, or None for all rows; got {samples!r}"
        )
