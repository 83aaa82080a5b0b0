"""Figures of continual learning, as pure functions of a matrix of scores.

``R`` has the shape (stages + 1, tasks): row 0 is the untrained model, row i the model after stage i, column j the test
of the j-th task, in the order of the stages; NaN is a cell that was not measured. In the formulas stages and tasks
count from 1, ``T`` is the number of tasks and ``b`` is row 0.

A figure is never computed from a matrix with holes: if any cell that its definition needs is NaN, or the figure is
undefined (``forgetting`` of a single task, ``learning_accuracy`` of a joint run), the result is NaN, and
:func:`undefined_reason` says why. Cells that the definition does not need may be NaN.

``H`` has the same rows, and a column per held-out task: one that is measured at every stage and never learned, so that
it has no stage of its own. The figures of general ability are functions of it alone.

Every function takes a tensor, an array or nested lists, returns a float64 tensor without dimensions on the CPU, and
raises ``ValueError`` if the shape is wrong or a cell is no real number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Literal

import torch
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
    "accuracy_area": (1, True),
    "stability": (2, True),
    "min_accuracy": (2, True),
    "worst_dip": (2, True),
    "general_ability": (1, False),
    "general_ability_delta": (1, False),
}


def average_accuracy(R: Any) -> Tensor:
    """Return mean_j R[T,j], the accuracy over all tasks after the last stage (GEM, Lopez-Paz & Ranzato 2017).

    Args:
        R: (stages + 1, tasks), any number of stages: the last row counts.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> average_accuracy(R)
    tensor(0.7875, dtype=torch.float64)
    """
    return per_task("average_accuracy", R).mean()


def average_incremental_accuracy(R: Any) -> Tensor:
    """Return mean_i mean_{j<=i} R[i,j], the accuracy over the tasks seen so far, averaged over the stages.

    The figure goes back to iCaRL (Rebuffi et al. 2017).

    Args:
        R: (tasks + 1, tasks), one stage per task.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> average_incremental_accuracy(R)
    tensor(0.8323, dtype=torch.float64)
    """
    R = as_matrix(R)
    if not _is_defined("average_incremental_accuracy", R):
        return torch.tensor(math.nan, dtype=torch.float64)
    return torch.stack([R[stage, :stage].mean() for stage in range(1, len(R))]).mean()


def learning_accuracy(R: Any) -> Tensor:
    """Return mean_j R[j,j], the accuracy on each task right after its own stage (Riemer et al. 2019).

    Args:
        R: (tasks + 1, tasks), one stage per task.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> learning_accuracy(R)
    tensor(0.8825, dtype=torch.float64)
    """
    return per_task("learning_accuracy", R).mean()


def backward_transfer(R: Any) -> Tensor:
    """Return mean_{j<T} (R[T,j] - R[j,j]), what later stages did to a task (GEM, Lopez-Paz & Ranzato 2017).

    Negative is forgetting. The last task has no later stage, so the mean is over T - 1 tasks.

    Args:
        R: (tasks + 1, tasks), one stage per task, two tasks or more.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> backward_transfer(R)
    tensor(-0.1267, dtype=torch.float64)
    """
    return per_task("backward_transfer", R)[:-1].mean()


def forward_transfer(R: Any) -> Tensor:
    """Return mean_{j>1} (R[j-1,j] - b_j), the head start on a task (GEM, Lopez-Paz & Ranzato 2017).

    Each task is measured right before its own stage and compared with the untrained model. The first task has no
    earlier stage, so the mean is over T - 1 tasks.

    Args:
        R: (tasks + 1, tasks), one stage per task, two tasks or more.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> forward_transfer(R)
    tensor(0.0400, dtype=torch.float64)
    """
    return per_task("forward_transfer", R)[1:].mean()


def forgetting(R: Any, reference: Literal["max", "first"] = "max") -> Tensor:
    """Return how far each task but the last has fallen by the end, on average.

    ``"max"``: mean_{j<T} (max_{j<=l<T} R[l,j] - R[T,j]), from the best score before the last stage (Chaudhry et al.
    2018, https://arxiv.org/abs/1801.10112). The last row is outside the maximum, so the figure is negative
    where the last stage improves on everything before. Stages before a task's own are outside too.

    ``"first"``: mean_{j<T} (R[j,j] - R[T,j]), from the score after the task's own stage: minus backward transfer.

    Args:
        R: (tasks + 1, tasks), one stage per task, two tasks or more.
        reference: ``"max"`` or ``"first"``.

    Raises:
        ValueError: as for all functions here, or ``reference`` is another word.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> forgetting(R)
    tensor(0.1600, dtype=torch.float64)
    >>> forgetting(R, reference="first")
    tensor(0.1267, dtype=torch.float64)
    """
    if reference not in ("max", "first"):
        raise ValueError(f"reference must be 'max' or 'first', got {reference!r}")
    return per_task("forgetting" if reference == "max" else "forgetting_first", R)[:-1].mean()


def intransigence(R: Any, joint: Any) -> Tensor:
    """Return mean_j (joint_j - R[j,j]), what learning in stages cost each task at its own stage.

    Chaudhry et al. 2018 (https://arxiv.org/abs/1801.10112), averaged over the tasks, against one joint run over all.

    Args:
        R: (tasks + 1, tasks), one stage per task.
        joint: (tasks,), the final accuracies of the joint run, in the same order.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> intransigence(R, joint=[.90, .92, .94, .90])
    tensor(0.0325, dtype=torch.float64)
    """
    return per_task("intransigence", R, as_joint(joint, as_matrix(R))).mean()


def accuracy_area(R: Any) -> Tensor:
    """Return the area under the curve of A_i = mean_{j<=i} R[i,j], by trapezia and per stage.

    The any-time accuracy over the tasks seen so far: (1 / (T-1)) sum_{i<T} (A_i + A_{i+1}) / 2; with one task it is
    A_1. It differs from :func:`average_incremental_accuracy` in giving the first and last stage half their weight
    (after Koh et al. 2022, https://arxiv.org/abs/2110.10031, who measure it along the steps).

    Args:
        R: (tasks + 1, tasks), one stage per task.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> accuracy_area(R)
    tensor(0.8451, dtype=torch.float64)
    """
    R = as_matrix(R)
    if not _is_defined("accuracy_area", R):
        return torch.tensor(math.nan, dtype=torch.float64)
    return area(torch.stack([R[stage, :stage].mean() for stage in range(1, len(R))]))


def area(curve: Tensor) -> Tensor:
    """Return the mean height of a curve of shape (N,) with straight lines between its points; of one point, itself."""
    return curve[0] if len(curve) == 1 else torch.trapezoid(curve) / (len(curve) - 1)


def stability(R: Any) -> Tensor:
    """Return mean_{j<T} R[T,j], the accuracy on old tasks in the end; plasticity is :func:`learning_accuracy`.

    Args:
        R: (tasks + 1, tasks), one stage per task, two tasks or more.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> stability(R)
    tensor(0.7567, dtype=torch.float64)
    """
    return per_task("stability", R)[:-1].mean()


def min_accuracy(R: Any) -> Tensor:
    """Return mean_{j<T} min_{j<i<=T} R[i,j], the lowest accuracy of each old task since it was learned.

    min-ACC of De Lange et al. 2023 (https://arxiv.org/abs/2205.13452), who look after every step; here it is after
    every stage.

    Args:
        R: (tasks + 1, tasks), one stage per task, two tasks or more.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> min_accuracy(R)
    tensor(0.7400, dtype=torch.float64)
    """
    return per_task("min_accuracy", R)[:-1].mean()


def worst_dip(R: Any) -> Tensor:
    """Return max_{j<T} max_{j<=l<i<=T} (R[l,j] - R[i,j]), the deepest fall of an old task at any time (our definition).

    Forgetting looks at the end; this sees a task that was lost and found again. Negative where every old task rose at
    every stage.

    Args:
        R: (tasks + 1, tasks), one stage per task, two tasks or more.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> worst_dip(R)
    tensor(0.3000, dtype=torch.float64)
    """
    terms = per_task("worst_dip", R)
    return terms[: max(1, len(terms) - 1)].max()


def general_ability(H: Any) -> Tensor:
    """Return mean_h H[T,h], the score on the held-out tasks after the last stage (our definition).

    Args:
        H: (stages + 1, held-out tasks), any number of stages: the last row counts.

    >>> H = [[.50, .40], [.48, .42], [.45, .39], [.46, .35], [.44, .38]]
    >>> general_ability(H)
    tensor(0.4100, dtype=torch.float64)
    """
    return per_task("general_ability", as_matrix(H, "H")).mean()


def general_ability_delta(H: Any) -> Tensor:
    """Return mean_h (H[T,h] - H[0,h]), what the whole stream did to the held-out tasks (our definition).

    Negative is a loss. The untrained model is the reference, before anything of the stream was learned.

    Args:
        H: (stages + 1, held-out tasks), any number of stages: the first and the last row count.

    >>> H = [[.50, .40], [.48, .42], [.45, .39], [.46, .35], [.44, .38]]
    >>> general_ability_delta(H)
    tensor(-0.0400, dtype=torch.float64)
    """
    return per_task("general_ability_delta", as_matrix(H, "H")).mean()


def per_task(name: str, R: Any, joint: Any = None) -> Tensor:
    """Return the terms that a figure averages, one per task: for instance how far each task was forgotten.

    Args:
        name: a function of this module other than ``"average_incremental_accuracy"`` and ``"accuracy_area"``, which
            average over stages, or ``"forgetting_first"``.
        R: (stages + 1, tasks); H for the figures of general ability.
        joint: (tasks,), for ``"intransigence"`` only.

    Returns:
        float64, (tasks,); NaN for a task that has no such term (the last one's forgetting, the first one's forward
        transfer) or has a cell missing, and everywhere if the matrix's shape leaves the figure undefined.

    Raises:
        ValueError: as for all functions here, no such figure has that name, or ``"intransigence"`` lacks ``joint``.

    >>> per_task("backward_transfer", [[.1, .1], [.8, .2], [.7, .9]])
    tensor([-0.1000,     nan], dtype=torch.float64)
    """
    R = as_matrix(R)
    terms = torch.full((R.shape[1],), math.nan, dtype=torch.float64)
    if not _is_defined(name, R):
        return terms
    # Row j (from 0) is the model after j stages: column j is met between row j, on the main diagonal, and row j + 1.
    before, own, last = R.diagonal(), R.diagonal(offset=-1), R[-1]
    match name:
        case "average_accuracy" | "general_ability":
            terms = last.clone()
        case "general_ability_delta":
            terms = last - R[0]
        case "learning_accuracy":
            terms = own.clone()
        case "backward_transfer":
            terms[:-1] = (last - own)[:-1]
        case "forward_transfer":
            terms[1:] = (before - R[0])[1:]
        case "forgetting":
            best = torch.stack([R[task + 1 : -1, task].amax() for task in range(R.shape[1] - 1)])
            terms[:-1] = best - last[:-1]
        case "forgetting_first":
            terms[:-1] = (own - last)[:-1]
        case "intransigence":
            terms = as_joint(joint, R) - own
        case "stability":
            terms[:-1] = last[:-1]
        case "min_accuracy":
            terms[:-1] = torch.stack([R[task + 2 :, task].amin() for task in range(R.shape[1] - 1)])
        case "worst_dip":
            terms[:-1] = torch.stack([_deepest_fall(R[task + 1 :, task]) for task in range(R.shape[1] - 1)])
        case _:
            raise ValueError(f"{name} averages over stages and has no terms per task")
    return terms


def undefined_reason(name: str, R: Any, tasks: Sequence[str] | None = None, joint: Any = None) -> str | None:
    """Say why a figure is undefined on this matrix, or return None if it is defined.

    Args:
        name: a function of this module, or ``"forgetting_first"``.
        R: (stages + 1, tasks); H for the figures of general ability.
        tasks: the tasks' names; without them tasks are numbered from 1.
        joint: (tasks,), for ``"intransigence"`` only.

    Raises:
        ValueError: as for all functions here, no figure has that name, or ``tasks`` does not fit the columns.

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
        case "average_incremental_accuracy" | "accuracy_area":
            return {task: [(stage, task) for stage in range(task + 1, last + 1)] for task in everyone}
        case "forward_transfer":
            return {task: [(task, task), (0, task)] for task in everyone[1:]}
        case "forgetting" | "worst_dip":
            return {task: [(stage, task) for stage in range(task + 1, last + 1)] for task in before_last}
        case "min_accuracy":
            return {task: [(stage, task) for stage in range(task + 2, last + 1)] for task in before_last}
        case "stability":
            return {task: [(last, task)] for task in before_last}
        case "backward_transfer" | "forgetting_first":
            return {task: [(task + 1, task), (last, task)] for task in before_last}
        case _:
            return {task: [(task + 1, task)] for task in everyone}


def _deepest_fall(scores: Tensor) -> Tensor:
    """Of one task's scores from its own stage on, two or more."""
    return (scores.cummax(0).values[:-1] - scores[1:]).max() if not scores.isnan().any() else scores.sum()


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


def _is_defined(name: str, R: Tensor) -> bool:
    return _shape_reason(name, R.shape[0] - 1, R.shape[1]) is None


def _called(task: int, tasks: Sequence[str] | None) -> str:
    return f"task {task + 1}" if tasks is None else f"task {tasks[task]!r}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
