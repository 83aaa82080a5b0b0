"""Teach a language model a stream of tasks, stage by stage, and measure after every stage what it still knows.

Importing this package is light: each public name loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lifelong._version import __version__

if TYPE_CHECKING:
    from lifelong.experiment import Experiment
    from lifelong.learner import Learner
    from lifelong.run import Run
    from lifelong.strategies.base import Stage
    from lifelong.study import Study
    from lifelong.task_stream import TaskStream
    from lifelong.tasks import Task

__all__ = ["Experiment", "Learner", "Run", "Stage", "Study", "Task", "TaskStream", "__version__"]

_HOMES = {
    "Experiment": "lifelong.experiment",
    "Learner": "lifelong.learner",
    "Run": "lifelong.run",
    "Stage": "lifelong.strategies.base",
    "Study": "lifelong.study",
    "Task": "lifelong.tasks",
    "TaskStream": "lifelong.task_stream",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lifelong' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
