"""What changes from stage to stage, or from step to step, as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lifelong.reports.figures.style import current, grid, legend, listed, literal, marked, panel, say, shortened

_MANY = 12  # lines; beyond them each is faint, and their mean is drawn
_BANDS = 6  # lines; beyond them intervals would cover one another


def curves(frame: pd.DataFrame, value: str, ax: Axes | None = None, along: str = "stage") -> Axes:
    """Lines over stages, one per label, with a band where there are intervals.

    Args:
        frame: a row per point: ``label``, ``stage``, ``value``, and perhaps ``low`` and ``high``; NaN where nothing is
            known, which interrupts the line.
        value: what the points are, for the axis.
        ax: axes to draw on; without them a new figure is made.
        along: what the points stand at, for the axis.

    Returns:
        The axes.
    """
    ax = ax or panel(6.8, 3.6)
    labels = list(dict.fromkeys(frame.label))
    many = len(labels) > _MANY and "low" not in frame
    last = {}
    for number, label in enumerate(labels):
        part = frame[frame.label == label].sort_values("stage")
        known = part.value.dropna()
        last[label] = float(known.iloc[-1]) if len(known) else float("nan")
        if many:
            ax.plot(part.stage, part.value, color=current().faint, alpha=0.5, linewidth=0.8)
            continue
        look = marked(number)
        dense = len(part) > 40
        ax.plot(
            part.stage, part.value, **look | ({"marker": ""} if dense else {}), linewidth=1.6, markersize=4.5,
            label=shortened(label),
        )  # fmt: skip
        if "low" in part and len(labels) <= _BANDS:
            ax.fill_between(part.stage, part.low, part.high, color=look["color"], alpha=0.15, linewidth=0)
    if many:
        mean = frame.groupby("stage").value.mean()
        ax.plot(
            mean.index, mean.to_numpy(), **marked(0) | {"marker": ""}, linewidth=2.2, label=f"mean of {len(labels)}"
        )
    _whole_numbers(ax, frame.stage)
    ax.set_xlabel(along)
    ax.set_ylabel(literal(value))
    grid(ax, "y")
    legend(ax)
    ordered = sorted((label for label in labels if not np.isnan(last[label])), key=lambda label: -last[label])
    ends = listed([f"{label} {last[label]:.2f}" for label in ordered])
    return say(ax, f"{value} over {frame.stage.nunique()} points of {along}, a line each.", f"In the end: {ends}.")


def losses(runs: Mapping[str, Sequence[Sequence[float]]], stages: Sequence[str], ax: Axes | None = None) -> Axes:
    """Training losses over the optimiser steps of a run, smoothed, with the stages' boundaries.

    Args:
        runs: for each label the losses of its stages, from the first one on.
        stages: names, shown where the first run's stages begin.
        ax: axes to draw on; without them a new figure is made.

    Returns:
        The axes.
    """
    ax = ax or panel(6.8, 3.4)
    said = []
    for number, (label, parts) in enumerate(runs.items()):
        look = marked(number) | {"marker": ""}
        values = np.concatenate([np.asarray(part, dtype=float) for part in parts]) if len(parts) else np.zeros(0)
        steps = np.arange(1, len(values) + 1)
        if len(runs) == 1:
            ax.plot(steps, values, color=look["color"], alpha=0.3, linewidth=0.7)
        smooth = np.concatenate([_smoothed(np.asarray(part, dtype=float)) for part in parts]) if len(parts) else values
        ax.plot(steps, smooth, **look, linewidth=1.5, label=shortened(label) if len(runs) > 1 else None)
        if len(parts):
            said.append(f"{label} ends at {smooth[-1]:.3g}")
    first = next(iter(runs.values()), ())
    begins = np.cumsum([0, *map(len, first)])[:-1]
    for number, begin in enumerate(begins):
        if number:
            ax.axvline(begin + 0.5, color=current().faint, linewidth=0.8, alpha=0.7)
        if len(begins) <= _MANY and number < len(stages):
            ax.annotate(
                shortened(stages[number], 16), (begin + 0.5, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -2),
                textcoords="offset points", va="top", rotation=90, fontsize=7, color=current().faint,
            )  # fmt: skip
    ax.set_xlabel("optimiser step")
    ax.set_ylabel("training loss")
    ax.set_ylim(bottom=0)
    grid(ax, "y")
    legend(ax)
    return say(ax, f"Training loss over {len(begins)} stages.", f"{listed(said)}." if said else "")


def _smoothed(values: np.ndarray) -> np.ndarray:
    """The mean over a window of a twentieth of a stage, narrower at its ends."""
    window = max(1, len(values) // 20)
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")


def _whole_numbers(ax: Axes, stages: pd.Series) -> None:
    there = sorted(int(stage) for stage in stages.unique())
    ax.set_xticks(there[:: -(-len(there) // 12)])
