"""What each figure is: its formula in words, and the paper that defines it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lifelong.metrics import anytime, functional

_GEM = "GEM, Lopez-Paz & Ranzato 2017, https://arxiv.org/abs/1706.08840"
_CHAUDHRY = "Chaudhry et al. 2018, https://arxiv.org/abs/1801.10112"
_ICARL = "iCaRL, Rebuffi et al. 2017, https://arxiv.org/abs/1611.07725"
_MER = "Riemer et al. 2019, https://arxiv.org/abs/1810.11910"
_KOH = "after A_AUC of Koh et al. 2022, https://arxiv.org/abs/2110.10031"
_DE_LANGE = "De Lange et al. 2023, https://arxiv.org/abs/2205.13452"
_OURS = "lifelong"


@dataclass(frozen=True)
class Definition:
    """One figure.

    Args:
        name: as it is shown.
        compute: from R, or H, to a 0-dim tensor.
        definition, source: as of ``Figure``.
        needs: the figure of ``functional`` or ``anytime`` that needs the same cells.
        pool: what makes the figure of its terms per task.
    """

    name: str
    compute: Callable[[Tensor], Tensor]
    definition: str
    source: str
    needs: str
    pool: Callable[[Tensor], Tensor] = torch.mean


def _first(R: Tensor) -> Tensor:
    return functional.forgetting(R, reference="first")


_POOLS = {"worst_dip": torch.amax}  # all others are means

ACCURACY = {
    name: Definition(name, compute, definition, source, needs=name, pool=_POOLS.get(name, torch.mean))
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
        (
            "area_under_accuracy_curve",
            anytime.area_under_accuracy_curve,
            "Area under a_i = mean_j R[i,j], the score over all tasks, from the untrained model (i = 0) to the last of "
            "S stages: sum_i (a_{i-1} + a_i) / 2S.",
            _KOH,
        ),
        (
            "min_accuracy",
            anytime.min_accuracy,
            "Lowest score on each task but the last after any stage behind its own (min-ACC): "
            "mean_{j<T} min_{j<i<=T} R[i,j].",
            _DE_LANGE,
        ),
        (
            "worst_case_accuracy",
            anytime.worst_case_accuracy,
            "Score on the last task after its own stage, and the lowest on each other one behind its own (WC-ACC): "
            "R[T,T] / T + (1 - 1/T) mean_{j<T} min_{j<i<=T} R[i,j].",
            _DE_LANGE,
        ),
        (
            "worst_dip",
            anytime.worst_dip,
            "Deepest fall of any task but the last, once learned, from an earlier score: "
            "max_{j<T} max_{j<=l<i<=T} (R[l,j] - R[i,j]).",
            f"windowed forgetting of {_DE_LANGE}, with the maximum over tasks in place of the mean",
        ),
        (
            "plasticity",
            anytime.plasticity,
            "What a stage adds to the score on its own task: mean_j (R[j,j] - R[j-1,j]).",
            _OURS,
        ),
        (
            "stability",
            anytime.stability,
            "What a stage adds to the score on an earlier task, negative where it takes away: "
            "mean_{j<T} (R[T,j] - R[j,j]) / (T - j).",
            _OURS,
        ),
    )
}

GENERAL = {
    "general_ability": Definition(
        "general_ability",
        functional.general_ability,
        "Score over the held-out tasks after the last stage: mean_h H[T,h].",
        _OURS,
        needs="general_ability",
    ),
    "general_ability_delta": Definition(
        "general_ability_delta",
        functional.general_ability_delta,
        "Change on the held-out tasks from the untrained model to the end: mean_h (H[T,h] - H[0,h]).",
        _OURS,
        needs="general_ability_delta",
    ),
}


def _lower_is_better(score: str) -> dict[str, Definition]:
    average, increase = f"average_{score}", f"{score}_increase"
    return {
        average: Definition(
            average,
            functional.average_accuracy,
            f"The {score} over all tasks after the last stage, lower is better: mean_j R[T,j].",
            _OURS,
            needs="average_accuracy",
        ),
        increase: Definition(
            increase,
            functional.backward_transfer,
            f"Rise of the {score} on each task but the last from its own stage to the end, lower is better: "
            "mean_{j<T} (R[T,j] - R[j,j]).",
            _OURS,
            needs="backward_transfer",
        ),
    }


def _general_lower_is_better(score: str) -> dict[str, Definition]:
    level, increase = f"general_{score}", f"general_{score}_increase"
    return {
        level: Definition(
            level,
            functional.general_ability,
            f"The {score} over the held-out tasks after the last stage, lower is better: mean_h H[T,h].",
            _OURS,
            needs="general_ability",
        ),
        increase: Definition(
            increase,
            functional.general_ability_delta,
            f"Rise of the {score} on the held-out tasks from the untrained model to the end, lower is better: "
            "mean_h (H[T,h] - H[0,h]).",
            _OURS,
            needs="general_ability_delta",
        ),
    }


def definitions(score: str, higher_is_better: bool) -> tuple[dict[str, Definition], dict[str, Definition]]:
    """The figures that a score has on the tasks that are learned, and on the held-out ones."""
    if higher_is_better:
        return ACCURACY, GENERAL
    return _lower_is_better(score), _general_lower_is_better(score)
