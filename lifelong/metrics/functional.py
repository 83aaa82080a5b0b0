"""Figures of continual learning, as pure functions of a matrix of scores.

``R`` has the shape (stages + 1, tasks): row 0 is the untrained model, row i the model after stage i, column j the test
of the j-th task, in the order of the stages; NaN is a cell that was not measured. In the formulas stages and tasks
count from 1, ``T`` is the number of tasks and ``b`` is row 0.

A figure is never computed from a matrix with holes: if any cell that its definition needs is NaN, or the figure is
undefined (``forgetting`` of a single task, ``learning_accuracy`` of a joint run), the result is NaN, and
:func:`lifelong.metrics.cells.undefined_reason` says why. Cells that the definition does not need may be NaN.

``H`` has the same rows, and a column per held-out task: one that is measured at every stage and never learned, so that
it has no stage of its own. The figures of general ability are functions of it alone.

Every function takes a tensor, an array or nested lists, returns a float64 tensor without dimensions on the CPU, and
raises ``ValueError`` if the shape is wrong or a cell is no real number.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from lifelong.metrics.cells import is_defined
from lifelong.metrics.checks import as_joint, as_matrix


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
    if not is_defined("average_incremental_accuracy", R):
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
        name: a function of this module other than ``"average_incremental_accuracy"``, which averages over stages, or of
            :mod:`lifelong.metrics.anytime` (``"worst_dip"`` takes the largest term), or ``"forgetting_first"``.
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
    if not is_defined(name, R):
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
        case "area_under_accuracy_curve":
            terms = torch.trapezoid(R, dim=0) / (len(R) - 1)
        case "min_accuracy" | "worst_case_accuracy":
            for task in range(R.shape[1] - 1):
                terms[task] = R[task + 2 :, task].amin()
            if name == "worst_case_accuracy":
                terms[-1] = last[-1]
        case "worst_dip":
            for task in range(R.shape[1] - 1):
                column = R[task + 1 :, task]
                terms[task] = (column.cummax(0).values[:-1] - column[1:]).amax()
        case "plasticity":
            terms = own - before
        case "stability":
            terms[:-1] = (last - own)[:-1] / torch.arange(R.shape[1] - 1, 0, -1)
        case _:
            raise ValueError(f"{name} averages over stages and has no terms per task")
    return terms
