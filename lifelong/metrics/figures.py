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
_KOH = "Koh et al. 2022, https://arxiv.org/abs/2110.10031, along stages in place of steps"
_DE_LANGE = "De Lange et al. 2023, https://arxiv.org/abs/2205.13452, after stages in place of steps"
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
    # From the terms of its tasks to the figure.
    reduce: Callable[[Tensor], Tensor] = torch.mean


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
            "Score on each task right after its own stage, which is plasticity: mean_j R[j,j].",
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

_ACCURACY |= {
    name: _Definition(name, compute, definition, source, needs=name, reduce=reduce)
    for name, compute, reduce, definition, source in (
        (
            "accuracy_area",
            functional.accuracy_area,
            functional.area,
            "Area under the curve of the score over the tasks seen so far, per stage, by trapezia: "
            "sum_{i<T} (A_i + A_{i+1}) / 2 / (T-1) with A_i = mean_{j<=i} R[i,j].",
            _KOH,
        ),
        (
            "stability",
            functional.stability,
            torch.mean,
            "Score over all tasks but the last after the last stage: mean_{j<T} R[T,j].",
            _OURS,
        ),
        (
            "min_accuracy",
            functional.min_accuracy,
            torch.mean,
            "Lowest score of each task but the last in the stages after its own: mean_{j<T} min_{j<i<=T} R[i,j].",
            _DE_LANGE,
        ),
        (
            "worst_dip",
            functional.worst_dip,
            torch.max,
            "Deepest fall of any task but the last from its own stage on, lower is better: "
            "max_{j<T} max_{j<=l<i<=T} (R[l,j] - R[i,j]).",
            _OURS,
        ),
    )
}

_GENERAL = {
    "general_ability": _Definition(
        "general_ability",
        functional.general_ability,
        "Score over the held-out tasks after the last stage: mean_h H[T,h].",
        _OURS,
        needs="general_ability",
    ),
    "general_ability_delta": _Definition(
        "general_ability_delta",
        functional.general_ability_delta,
        "Change on the held-out tasks from the untrained model to the end: mean_h (H[T,h] - H[0,h]).",
        _OURS,
        needs="general_ability_delta",
    ),
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


def _general_lower_is_better(score: str) -> dict[str, _Definition]:
    level, increase = f"general_{score}", f"general_{score}_increase"
    return {
        level: _Definition(
            level,
            functional.general_ability,
            f"The {score} over the held-out tasks after the last stage, lower is better: mean_h H[T,h].",
            _OURS,
            needs="general_ability",
        ),
        increase: _Definition(
            increase,
            functional.general_ability_delta,
            f"Rise of the {score} on the held-out tasks from the untrained model to the end, lower is better: "
            "mean_h (H[T,h] - H[0,h]).",
            _OURS,
            needs="general_ability_delta",
        ),
    }


def figure_values(
    R: Any, joint: Any = None, score: str = "exact_match", higher_is_better: bool = True, H: Any = None
) -> dict[str, Tensor]:
    """Return every figure's value by name, each a float64 tensor without dimensions, NaN where undefined.

    Arguments and errors are those of :func:`derive_figures`.
    """
    R, H = _as_matrices(R, H)
    learned, general = _definitions(score, higher_is_better)
    names = learned if R is None else {**_ACCURACY, **learned}
    values = {name: torch.tensor(torch.nan, dtype=torch.float64) for name in names}
    if R is not None:
        values |= {name: each.compute(R) for name, each in learned.items() if name != "intransigence"}
        if joint is not None and higher_is_better:
            values["intransigence"] = functional.intransigence(R, joint)
    if H is not None:
        values |= {name: each.compute(H) for name, each in general.items()}
    return values


def derive_figures(
    R: Any,
    tasks: Sequence[str],
    joint: Any = None,
    score: str = "exact_match",
    higher_is_better: bool = True,
    H: Any = None,
    held_out: Sequence[str] = (),
) -> list[Figure]:
    """Return every figure of a matrix; undefined ones carry None and the reason.

    Where only missing cells leave a figure undefined, and some of its tasks have all their cells, the figure over those
    tasks follows under a name that says so.

    Args:
        R: (stages + 1, tasks), row 0 the untrained model, NaN where nothing was measured; None where no task with this
            score is learned.
        tasks: the tasks' names.
        joint: (tasks,), the final scores of a joint run, for intransigence.
        score: what the cells hold, for instance ``"exact_match"`` or ``"perplexity"``.
        higher_is_better: if not, figures of accuracy are undefined, and others are given: ``"average_<score>"`` and
            ``"<score>_increase"``, and of held-out tasks ``"general_<score>"`` and ``"general_<score>_increase"``.
        H: (stages + 1, held-out tasks), NaN where nothing was measured; None where nothing is held out, and there are
            no figures of general ability then.
        held_out: the held-out tasks' names.

    Raises:
        ValueError: a matrix, the names or ``joint`` have the wrong shape or type.

    >>> nan = float("nan")
    >>> found = derive_figures([[.1, .1, .1], [.8, nan, nan], [nan, .9, nan], [.6, .7, .9]], ["a", "b", "c"])
    >>> [(each.name, round(each.value, 3)) for each in found if "incremental" in each.name and each.value]
    [('average_incremental_accuracy over measured tasks, 2 of 3', 0.85)]
    """
    R, H = _as_matrices(R, H)
    values = figure_values(R, joint, score, higher_is_better, H)
    learned, general = _definitions(score, higher_is_better)
    found = []
    if R is None:
        found += _undefined(learned, "every task with this score is held out")
    else:
        if not higher_is_better:
            found += _undefined(_ACCURACY, f"the score is a {score}: lower is better")
        found += _derived(learned, values, R, tasks, joint)
    if H is not None:
        found += _derived(general, values, H, held_out)
    return found


def _as_matrices(R: Any, H: Any) -> tuple[Tensor | None, Tensor | None]:
    R, H = (None if R is None else as_matrix(R)), (None if H is None else as_matrix(H, "H"))
    if R is None and H is None:
        raise ValueError("R and H cannot both be None: a matrix has at least one column")
    if R is not None and H is not None and len(R) != len(H):
        raise ValueError(f"R and H must have the same rows, got {len(R)} and {len(H)}")
    return R, H


def _definitions(score: str, higher_is_better: bool) -> tuple[dict[str, _Definition], dict[str, _Definition]]:
    """The figures that a score has on the tasks that are learned, and on the held-out ones."""
    if higher_is_better:
        return _ACCURACY, _GENERAL
    return _lower_is_better(score), _general_lower_is_better(score)


def _undefined(definitions: dict[str, _Definition], reason: str) -> list[Figure]:
    return [Figure(each.name, None, each.definition, each.source, reason) for each in definitions.values()]


def _derived(
    definitions: dict[str, _Definition],
    values: dict[str, Tensor],
    matrix: Tensor,
    tasks: Sequence[str],
    joint: Any = None,
) -> list[Figure]:
    found = []
    for name, each in definitions.items():
        reason = functional.undefined_reason(each.needs, matrix, tasks, joint)
        value = float(values[name]) if reason is None else None
        found.append(Figure(name, value, each.definition, each.source, reason))
        if reason is not None and (partial := _over_measured_tasks(each, matrix, joint)) is not None:
            found.append(partial)
    return found


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

    if figure.needs in ("average_incremental_accuracy", "accuracy_area"):
        # Stages before the first of the measured tasks have nothing to average and do not count.
        seen = [[task for task in measured if task < stage] for stage in range(1, len(R))]
        terms = torch.stack([R[stage, some].mean() for stage, some in enumerate(seen, start=1) if some])
    else:
        terms = functional.per_task(figure.needs, R, joint)[measured]
    value = figure.reduce(terms)
    return Figure(
        f"{figure.name} over measured tasks, {len(measured)} of {len(needed)}",
        float(value),
        f"{figure.definition} Only over the tasks whose needed cells were all measured.",
        figure.source,
    )
