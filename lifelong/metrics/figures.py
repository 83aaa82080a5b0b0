"""The figures derived from a matrix of scores, each with its definition, its source, and why it may be undefined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.metrics import functional
from lifelong.metrics.checks import as_joint, as_matrix

_GEM = "GEM, Lopez-Paz & Ranzato 2017, https://arxiv.org/abs/1706.08840"
_CHAUDHRY = "Chaudhry et al. 2018, https://arxiv.org/abs/1801.10112"
_ICARL = "iCaRL, Rebuffi et al. 2017, https://arxiv.org/abs/1611.07725"
_MER = "Riemer et al. 2019, https://arxiv.org/abs/1810.11910"
_OURS = "lifelong"


@dataclass(frozen=True)
class Figure:
    """One number derived from the matrix.

    Args:
        name: the name in ``functional``; a figure over fewer tasks than its definition asks has another name,
            ``"<name> over measured tasks, n of m"``, where m is the number of tasks that the definition averages over.
        value: None where undefined.
        definition: one sentence and the formula.
        source: the paper that defines it.
        reason: why the value is None, otherwise None.
    """

    name: str
    value: float | None
    definition: str
    source: str
    reason: str | None = None


@dataclass(frozen=True)
class _Definition:
    name: str
    compute: Callable[[Tensor], Tensor]
    definition: str
    source: str
    # The figure of ``functional`` that needs the same cells.
    needs: str


def _first(R: Tensor) -> Tensor:
    return functional.forgetting(R, reference="first")


_ACCURACY = {
    name: _Definition(name, compute, definition, source, needs=name)
    for name, compute, definition, source in (
        (
            "average_accuracy",
            functional.average_accuracy,
            "Score over all tasks after the last stage: mean_j R[T,j].",
            _GEM,
        ),
        (
            "average_incremental_accuracy",
            functional.average_incremental_accuracy,
            "Score over the tasks seen so far, averaged over the stages: mean_i mean_{j<=i} R[i,j].",
            _ICARL,
        ),
        (
            "learning_accuracy",
            functional.learning_accuracy,
            "Score on each task right after its own stage: mean_j R[j,j].",
            _MER,
        ),
        (
            "backward_transfer",
            functional.backward_transfer,
            "Change on each task but the last from its own stage to the end: mean_{j<T} (R[T,j] - R[j,j]).",
            _GEM,
        ),
        (
            "forward_transfer",
            functional.forward_transfer,
            "Lead on each task but the first right before its own stage, over the untrained model b: "
            "mean_{j>1} (R[j-1,j] - b_j).",
            _GEM,
        ),
        (
            "forgetting",
            functional.forgetting,
            "Fall on each task but the last from its best score before the last stage to the end: "
            "mean_{j<T} (max_{j<=l<T} R[l,j] - R[T,j]).",
            _CHAUDHRY,
        ),
        (
            "forgetting_first",
            _first,
            "Fall on each task but the last from its own stage to the end: mean_{j<T} (R[j,j] - R[T,j]).",
            _CHAUDHRY + ", with the task's own stage in place of the best",
        ),
        (
            "intransigence",
            functional.intransigence,
            "What each task lacks right after its own stage against a joint run: mean_j (joint_j - R[j,j]).",
            _CHAUDHRY,
        ),
    )
}


def _lower_is_better(score: str) -> dict[str, _Definition]:
    average, increase = f"average_{score}", f"{score}_increase"
    return {
        average: _Definition(
            average,
            functional.average_accuracy,
            f"The {score} over all tasks after the last stage, lower is better: mean_j R[T,j].",
            _OURS,
            needs="average_accuracy",
        ),
        increase: _Definition(
            increase,
            functional.backward_transfer,
            f"Rise of the {score} on each task but the last from its own stage to the end, lower is better: "
            "mean_{j<T} (R[T,j] - R[j,j]).",
            _OURS,
            needs="backward_transfer",
        ),
    }


def figure_values(R: Any, joint: Any = None, score: str = "exact_match", higher_is_better: bool = True) -> dict:
    """Return every figure's value by name, each a float64 tensor without dimensions, NaN where undefined.

    Arguments and errors are those of :func:`derive_figures`.
    """
    R = as_matrix(R)
    nan = torch.tensor(torch.nan, dtype=torch.float64)
    if not higher_is_better:
        others = {name: definition.compute(R) for name, definition in _lower_is_better(score).items()}
        return {**{name: nan.clone() for name in _ACCURACY}, **others}
    values = {name: each.compute(R) for name, each in _ACCURACY.items() if name != "intransigence"}
    return {**values, "intransigence": nan if joint is None else functional.intransigence(R, joint)}


def derive_figures(
    R: Any,
    tasks: Sequence[str],
    joint: Any = None,
    score: str = "exact_match",
    higher_is_better: bool = True,
) -> list[Figure]:
    """Return every figure of a matrix; undefined ones carry None and the reason.

    Where only missing cells leave a figure undefined, and some of its tasks have all their cells, the figure over those
    tasks follows under a name that says so.

    Args:
        R: (stages + 1, tasks), row 0 the untrained model, NaN where nothing was measured.
        tasks: the tasks' names.
        joint: (tasks,), the final scores of a joint run, for intransigence.
        score: what the cells hold, for instance ``"exact_match"`` or ``"perplexity"``.
        higher_is_better: if not, figures of accuracy are undefined, and two others are given:
            ``"average_<score>"`` and ``"<score>_increase"``.

    Raises:
        ValueError: the matrix, the names or ``joint`` have the wrong shape or type.

    >>> nan = float("nan")
    >>> found = derive_figures([[.1, .1, .1], [.8, nan, nan], [nan, .9, nan], [.6, .7, .9]], ["a", "b", "c"])
    >>> [(each.name, round(each.value, 3)) for each in found if "incremental" in each.name and each.value]
    [('average_incremental_accuracy over measured tasks, 2 of 3', 0.85)]
    """
    R = as_matrix(R)
    values = figure_values(R, joint, score, higher_is_better)
    if not higher_is_better:
        refused = f"the score is a {score}: lower is better"
        refusals = [Figure(each.name, None, each.definition, each.source, refused) for each in _ACCURACY.values()]
        definitions = _lower_is_better(score)
    else:
        refusals, definitions = [], _ACCURACY
    found = []
    for name, definition in definitions.items():
        reason = functional.undefined_reason(definition.needs, R, tasks, joint)
        value = float(values[name]) if reason is None else None
        found.append(Figure(name, value, definition.definition, definition.source, reason))
        if reason is not None and (partial := _over_measured_tasks(definition, R, joint)) is not None:
            found.append(partial)
    return refusals + found


def _over_measured_tasks(figure: _Definition, R: Tensor, joint: Any) -> Figure | None:
    needed = functional.needed_cells(figure.needs, R)
    measured = [task for task, cells in needed.items() if not any(R[cell].isnan() for cell in cells)]
    if figure.needs == "intransigence":
        if joint is None:
            return None
        missing = as_joint(joint, R).isnan()
        measured = [task for task in measured if not missing[task]]
    if not measured:
        return None

    if figure.needs == "average_incremental_accuracy":
        # Stages before the first of the measured tasks have nothing to average and do not count.
        seen = [[task for task in measured if task < stage] for stage in range(1, len(R))]
        value = torch.stack([R[stage, some].mean() for stage, some in enumerate(seen, start=1) if some]).mean()
    else:
        value = functional.per_task(figure.needs, R, joint)[measured].mean()
    return Figure(
        f"{figure.name} over measured tasks, {len(measured)} of {len(needed)}",
        float(value),
        f"{figure.definition} Only over the tasks whose needed cells were all measured.",
        figure.source,
    )
