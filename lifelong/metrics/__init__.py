"""What a run has learned and forgotten: the accuracy matrix, the figures derived from it, and scores of single answers.

The pure functions are in :mod:`lifelong.metrics.functional` and :mod:`lifelong.metrics.anytime`, the scores of one
answer in :mod:`lifelong.metrics.answers`, and what compares runs in :mod:`lifelong.metrics.statistics` and
:mod:`lifelong.metrics.pareto`. The package loads its modules on first use, so that scoring answers needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifelong.metrics.accuracy_matrix import AccuracyMatrix
    from lifelong.metrics.figures import Figure

__all__ = ["AccuracyMatrix", "Figure"]

_HOMES = {"AccuracyMatrix": "lifelong.metrics.accuracy_matrix", "Figure": "lifelong.metrics.figures"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
