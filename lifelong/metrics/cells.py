"""Which cells of a matrix of scores a figure needs, and why it is undefined where it lacks some.

``R`` is as for :mod:`lifelong.metrics.functional`: (stages + 1, tasks), row 0 the untrained model, NaN where nothing
was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from torch import Tensor

from lifelong.metrics.checks import as_joint, as_matrix

# Each figure in two facts: the fewest tasks it is defined for, and whether it needs one stage per task.
_NEEDS: dict[str, tuple[int, bool]] = {
    "average_accuracy": (1, False),
    "average_incremental_accuracy": (1, True),
    "learning_accuracy": (1, True),
    "backward_transfer": (2, True),
    "forward_transfer": (2, True),
    "forgetting": (2, True),
    "forgetting_first": (2, True),
    "intransigence": (1, True),
    "area_under_accuracy_curve": (1, False),
    "min_accuracy": (2, True),
    "worst_case_accuracy": (1, True),
    "worst_dip": (2, True),
    "plasticity": (1, True),
    "stability": (2, True),
    "general_ability": (1, False),
    "general_ability_delta": (1, False),
}


def undefined_reason(name: str, R: Any, tasks: Sequence[str] | None = None, joint: Any = None) -> str | None:
    """Say why a figure is undefined on this matrix, or return None if it is defined.

    Args:
        name: a function of :mod:`lifelong.metrics.functional` or :mod:`lifelong.metrics.anytime`, or
            ``"forgetting_first"``.
        R: (stages + 1, tasks); H for the figures of general ability.
        tasks: the tasks' names; without them tasks are numbered from 1.
        joint: (tasks,), for ``"intransigence"`` only.

    Raises:
        ValueError: the shape is wrong, a cell is no real number, no figure has that name, or ``tasks`` does not
            fit the columns.

    >>> undefined_reason("backward_transfer", [[.1, .1], [.8, float("nan")], [.7, .9]]) is None
    True
    >>> undefined_reason("backward_transfer", [[.1, .1], [.8, .2], [float("nan"), .9]], ["elements", "capitals"])
    "the cell after stage 2 on task 'elements' was not measured"
    """
    R = as_matrix(R)
    stages, count = R.shape[0] - 1, R.shape[1]
    if tasks is not None and len(tasks) != count:
        raise ValueError(f"the matrix has {count} columns, but {len(tasks)} task names were given")
    if (reason := _shape_reason(name, stages, count)) is not None:
        return reason
    if name == "intransigence" and joint is None:
        return "needs the final accuracies of a joint run"

    holes = [cell for cells in needed_cells(name, R).values() for cell in cells if R[cell].isnan()]
    where = [
        f"the cell {f'after stage {stage}' if stage else 'of the untrained model'} on {_called(task, tasks)}"
        for stage, task in holes
    ]
    if name == "intransigence":
        missing = as_joint(joint, R).isnan().nonzero().flatten().tolist()
        where += [f"the joint run's score on {_called(task, tasks)}" for task in missing]
    if not where:
        return None
    return f"{where[0]} was not measured" + (f" (nor were {len(where) - 1} more)" if len(where) > 1 else "")


def needed_cells(name: str, R: Any) -> dict[int, list[tuple[int, int]]]:
    """Return, for each column that the figure averages over, the cells (row, column) of R that it needs.

    Empty where the matrix's shape leaves the figure undefined. Arguments and errors are those of
    :func:`undefined_reason`.

    >>> needed_cells("forward_transfer", [[.1, .1, .1], [.8, .2, .1], [.7, .9, .2], [.6, .8, .9]])
    {1: [(1, 1), (0, 1)], 2: [(2, 2), (0, 2)]}
    """
    R = as_matrix(R)
    last, count = R.shape[0] - 1, R.shape[1]
    if _shape_reason(name, last, count) is not None:
        return {}
    before_last, everyone = range(count - 1), range(count)
    match name:
        case "average_accuracy" | "general_ability":
            return {task: [(last, task)] for task in everyone}
        case "general_ability_delta":
            return {task: [(last, task), (0, task)] for task in everyone}
        case "average_incremental_accuracy":
            return {task: [(stage, task) for stage in range(task + 1, last + 1)] for task in everyone}
        case "forward_transfer":
            return {task: [(task, task), (0, task)] for task in everyone[1:]}
        case "area_under_accuracy_curve":
            return {task: [(stage, task) for stage in range(last + 1)] for task in everyone}
        case "forgetting" | "worst_dip":
            return {task: [(stage, task) for stage in range(task + 1, last + 1)] for task in before_last}
        case "min_accuracy":
            return {task: [(stage, task) for stage in range(task + 2, last + 1)] for task in before_last}
        case "worst_case_accuracy":
            return {task: [(stage, task) for stage in range(min(task + 2, last), last + 1)] for task in everyone}
        case "plasticity":
            return {task: [(task + 1, task), (task, task)] for task in everyone}
        case "backward_transfer" | "forgetting_first" | "stability":
            return {task: [(task + 1, task), (last, task)] for task in before_last}
        case _:
            return {task: [(task + 1, task)] for task in everyone}


def _shape_reason(name: str, stages: int, tasks: int) -> str | None:
    if name not in _NEEDS:
        near = get_close_matches(name, _NEEDS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown figure {name!r}: {hint}known are {', '.join(_NEEDS)}")
    fewest, one_stage_per_task = _NEEDS[name]
    if tasks < fewest:
        return "needs at least two tasks"
    if one_stage_per_task and stages != tasks:
        joint = " (joint)" if stages == 1 else ""
        return (
            f"needs one stage per task: this run has {_counted(stages, 'stage')} and {_counted(tasks, 'task')}{joint}"
        )
    return None


def is_defined(name: str, R: Tensor) -> bool:
    """Whether the matrix's shape allows the figure; a name that is none raises ``ValueError``."""
    return _shape_reason(name, R.shape[0] - 1, R.shape[1]) is None


def _called(task: int, tasks: Sequence[str] | None) -> str:
    return f"task {task + 1}" if tasks is None else f"task {tasks[task]!r}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
