"""Figures of what a model can do at any time, and not at the end alone, as pure functions of a matrix of scores.

``R``, its rules and its symbols are those of :mod:`lifelong.metrics.functional`. A run is measured after each stage,
and "at any time" means then: a dip in the middle of a stage that is over at its end is not seen.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lifelong.metrics.functional import per_task


def area_under_accuracy_curve(R: Any) -> Tensor:
    """Return the area under a_i = mean_j R[i,j], the average accuracy over all tasks, from the untrained model on.

    Straight lines join the stages, and the whole stream is 1 wide: sum_i (a_{i-1} + a_i) / 2S for S stages. That is the
    mean score of one who asks at some moment of the stream, about any of its tasks. After A_AUC of Koh et al. 2022
    (https://arxiv.org/abs/2110.10031), with stages in the place of training samples.

    Args:
        R: (stages + 1, tasks), any number of stages: all cells count.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> area_under_accuracy_curve(R)
    tensor(0.4703, dtype=torch.float64)
    """
    return per_task("area_under_accuracy_curve", R).mean()


def min_accuracy(R: Any) -> Tensor:
    """Return mean_{j<T} min_{j<i<=T} R[i,j], the lowest that each task but the last falls to after its own stage.

    This is min-ACC of De Lange et al. 2023 (https://arxiv.org/abs/2205.13452), measured once a stage.

    Args:
        R: (tasks + 1, tasks), one stage per task, two tasks or more.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> min_accuracy(R)
    tensor(0.7400, dtype=torch.float64)
    """
    return per_task("min_accuracy", R)[:-1].mean()


def worst_case_accuracy(R: Any) -> Tensor:
    """Return R[T,T] / T + (1 - 1/T) min-ACC, the last task as it is and each other one at its lowest.

    This is WC-ACC of De Lange et al. 2023 (https://arxiv.org/abs/2205.13452) at the end of the stream,
    measured once a stage: what is left of plasticity and stability together. min-ACC is :func:`min_accuracy`.

    Args:
        R: (tasks + 1, tasks), one stage per task.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> worst_case_accuracy(R)
    tensor(0.7750, dtype=torch.float64)
    """
    return per_task("worst_case_accuracy", R).mean()


def worst_dip(R: Any) -> Tensor:
    """Return max_{j<T} max_{j<=l<i<=T} (R[l,j] - R[i,j]), the deepest fall of any task from an earlier score.

    A task falls from when its own stage is over, and what it regains later takes nothing away. Negative where every
    task only improves. Windowed forgetting of De Lange et al. 2023 (https://arxiv.org/abs/2205.13452), over the whole
    stream, has the mean over tasks in the place of the maximum: ``per_task("worst_dip", R)`` has its terms.

    Args:
        R: (tasks + 1, tasks), one stage per task, two tasks or more.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> worst_dip(R)
    tensor(0.3000, dtype=torch.float64)
    """
    terms = per_task("worst_dip", R)
    return terms[: max(1, len(terms) - 1)].amax()  # of one task there is but NaN


def plasticity(R: Any) -> Tensor:
    """Return mean_j (R[j,j] - R[j-1,j]), what a stage adds to the score on its own task (our definition).

    Unlike ``learning_accuracy`` it counts only what was learned in that stage, and not what was there before. A model
    that learns nothing has 0.

    Args:
        R: (tasks + 1, tasks), one stage per task.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> plasticity(R)
    tensor(0.7525, dtype=torch.float64)
    """
    return per_task("plasticity", R).mean()


def stability(R: Any) -> Tensor:
    """Return mean_{j<T} (R[T,j] - R[j,j]) / (T - j), what a stage adds to an earlier task's score (our definition).

    The mean of R[i,j] - R[i-1,j] over the stages i after a task's own, and then over tasks. Negative where stages take
    away; a model that learns nothing has 0. Unlike ``backward_transfer`` it is no sum over stages, and does not grow
    with their number.

    Args:
        R: (tasks + 1, tasks), one stage per task, two tasks or more.

    >>> R = [[.10, .09, .11, .10], [.80, .10, .05, .08], [.90, .95, .12, .10],
    ...      [.85, .70, .90, .20], [.60, .75, .92, .88]]
    >>> stability(R)
    tensor(-0.0489, dtype=torch.float64)
    """
    return per_task("stability", R)[:-1].mean()
