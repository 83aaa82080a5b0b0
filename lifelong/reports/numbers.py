"""Numbers as people read them."""

from __future__ import annotations

import math
from typing import Any

from lifelong.metrics.statistics import Interval

_SECONDS = ("seconds", "train_seconds")


def shown(value: Any, name: str = "") -> str:
    """A value of a table's column: scores with three digits, counts with commas, bytes with their unit; ``-`` for none.

    >>> [shown(value, name) for name, value in (("forgetting", 0.25), ("seconds", 12.34), ("train_flops", 3.1e12))]
    ['0.250', '12', '3.10e+12']
    >>> shown(2_259_895, "strategy_bytes"), shown(276480, "trainable_parameters"), shown(None), shown("replay")
    ('2.26 MB', '276,480', '-', 'replay')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool | str) or not isinstance(value, int | float):
        return str(value)
    if name.endswith("_bytes"):
        return f"{value / 1e6:,.2f} MB"
    if name.endswith("_flops"):
        return f"{value:.2e}"
    if name in _SECONDS:
        return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
    if float(value).is_integer() and (isinstance(value, int) or abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def interval(found: Interval, name: str = "") -> str:
    """A mean with its interval, where it has one.

    >>> interval(Interval(0.5, 0.4, 0.62, 8, 0.95)), interval(Interval(0.5, None, None, 2, 0.95))
    ('0.500 [0.400, 0.620]', '0.500')
    """
    if found.count == 0:
        return "-"
    if found.low is None or found.high is None:
        return shown(found.mean, name)
    return f"{shown(found.mean, name)} [{shown(found.low, name)}, {shown(found.high, name)}]"
