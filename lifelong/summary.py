"""What a run came to, in one row: figures to compare, and what they cost."""

from __future__ import annotations

from typing import Any

from lifelong.run import Run

FIGURES = (
    "average_accuracy",
    "learning_accuracy",
    "forgetting",
    "backward_transfer",
    "forward_transfer",
    "average_incremental_accuracy",
    "area_under_accuracy_curve",
    "min_accuracy",
    "worst_case_accuracy",
    "worst_dip",
    "plasticity",
    "stability",
    "general_ability",
    "general_ability_delta",
    "general_perplexity",
    "general_perplexity_increase",
)
_FURTHER = (("intransigence", "test", "intransigence"), ("probe_accuracy", "probe", "average_accuracy"))
# of a summary, what the columns are that are no figures of a matrix
DEFINITIONS = {
    "probe_accuracy": "average_accuracy on the probes: the same facts, asked in other words.",
    "seconds": "Of training and evaluation, in all.",
    "train_seconds": "Of training, with all that strategies do in it.",
    "train_flops": "Floating-point operations of training, estimated from the positions that went through the model.",
    "strategy_bytes": "What the strategies keep after the last stage.",
    "trainable_parameters": "Parameters that are trained, after the last stage.",
}
# the columns that say most
COMPARED = (
    "average_accuracy",
    "learning_accuracy",
    "forgetting",
    "intransigence",
    "general_ability_delta",
    "probe_accuracy",
    "train_seconds",
)
COLUMNS = tuple(dict.fromkeys((*COMPARED, *FIGURES, *DEFINITIONS)))  # all that hold numbers, in the order of a report


def run_summary(run: Run, joint: Run | None = None) -> dict[str, Any]:
    """State, figures of the first pass, and costs of a run; see ``Study.table``.

    Args:
        run: finished or not.
        joint: a run of the same stream with ``Joint``, the reference of intransigence.

    Returns:
        ``state``; where a stage was finished, figures by name, ``None`` or missing where they are not defined, and
        costs; ``reason``, where it failed.
    """
    status = run.status
    row: dict[str, Any] = {"state": status.get("state", "unknown")}
    if run.folder.committed() >= 0:
        values = run.metrics
        row |= {name: values[name] for name in FIGURES if name in values}
        figures = [figure for figure in run.figures(joint) if figure["pass"] == run.books[0]]
        row |= {
            column: next((f["value"] for f in figures if (f["split"], f["name"]) == (split, name)), None)
            for column, split, name in _FURTHER
        }
        costs = run.costs
        row["seconds"] = round(sum(cost["train_seconds"] + cost["evaluate_seconds"] for cost in costs), 1)
        row["train_seconds"] = round(sum(cost["train_seconds"] for cost in costs), 1)
        flops = [cost.get("train_flops") for cost in costs]  # runs of before have none
        row["train_flops"] = None if None in flops else sum(flops)
        row["strategy_bytes"] = costs[-1]["strategy_bytes"]
        row["trainable_parameters"] = costs[-1]["trainable_parameters"]
    return row | {"reason": status.get("reason")}
