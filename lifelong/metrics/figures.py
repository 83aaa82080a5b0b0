"""The figures derived from a matrix of scores, each with its definition, its source, and why it may be undefined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lifelong.metrics import functional
from lifelong.metrics.cells import needed_cells, undefined_reason
from lifelong.metrics.checks import as_joint, as_matrix
from lifelong.metrics.definitions import ACCURACY, Definition, definitions


@dataclass(frozen=True)
class Figure:
    """One number derived from the matrix.

    Args:
        name: the name in ``functional`` or ``anytime``; a figure over fewer tasks than its definition asks has
            another name, ``"<name> over measured tasks, n of m"``, where m is the number of tasks that the definition
            averages over.
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


def figure_values(
    R: Any, joint: Any = None, score: str = "exact_match", higher_is_better: bool = True, H: Any = None
) -> dict[str, Tensor]:
    """Return every figure's value by name, each a float64 tensor without dimensions, NaN where undefined.

    Arguments and errors are those of :func:`derive_figures`.
    """
    R, H = _as_matrices(R, H)
    learned, general = definitions(score, higher_is_better)
    names = learned if R is None else {**ACCURACY, **learned}
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
    learned, general = definitions(score, higher_is_better)
    found = []
    if R is None:
        found += _undefined(learned, "every task with this score is held out")
    else:
        if not higher_is_better:
            found += _undefined(ACCURACY, f"the score is a {score}: lower is better")
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


def _undefined(definitions: dict[str, Definition], reason: str) -> list[Figure]:
    return [Figure(each.name, None, each.definition, each.source, reason) for each in definitions.values()]


def _derived(
    definitions: dict[str, Definition],
    values: dict[str, Tensor],
    matrix: Tensor,
    tasks: Sequence[str],
    joint: Any = None,
) -> list[Figure]:
    found = []
    for name, each in definitions.items():
        reason = undefined_reason(each.needs, matrix, tasks, joint)
        value = float(values[name]) if reason is None else None
        found.append(Figure(name, value, each.definition, each.source, reason))
        if reason is not None and (partial := _over_measured_tasks(each, matrix, joint)) is not None:
            found.append(partial)
    return found


def _over_measured_tasks(figure: Definition, R: Tensor, joint: Any) -> Figure | None:
    needed = needed_cells(figure.needs, R)
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
        value = figure.pool(functional.per_task(figure.needs, R, joint)[measured])
    return Figure(
        f"{figure.name} over measured tasks, {len(measured)} of {len(needed)}",
        float(value),
        f"{figure.definition} Only over the tasks whose needed cells were all measured.",
        figure.source,
    )
