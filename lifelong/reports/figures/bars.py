"""What belongs to a task, or to a method, as bars."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lifelong.reports.figures.style import current, grid, legend, listed, literal, marked, panel, say, shortened

_HATCHES = ("", "///", "...", "xxx", "\\\\\\")


def bars(frame: pd.DataFrame, value: str, ax: Axes | None = None) -> Axes:
    """One horizontal bar per label, with an interval where there is one.

    Args:
        frame: indexed by label, from top to bottom: ``value``, and perhaps ``low`` and ``high``; NaN where nothing is
            known.
        value: what the bars are, for the axis.
        ax: axes to draw on; without them a new figure is made.

    Returns:
        The axes.
    """
    ax = ax or panel(6.2, 1.1 + 0.3 * len(frame))
    look, places = current(), np.arange(len(frame))
    ax.barh(places, frame.value, color=look.colours[0], height=0.66)
    if "low" in frame:
        known = frame.low.notna()
        ax.errorbar(
            frame.value[known], places[known],
            xerr=np.abs([frame.value[known] - frame.low[known], frame.high[known] - frame.value[known]]),
            fmt="none", ecolor=look.ink, capsize=3, linewidth=1.2,
        )  # fmt: skip
    for place in places[frame.value.isna()]:
        ax.annotate(
            "undefined",
            (0, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=look.faint,
        )
    ax.axvline(0, color=look.faint, linewidth=0.8)
    ax.set_yticks(places, [shortened(label) for label in frame.index])
    ax.set_ylim(len(frame) - 0.4, -0.6)
    ax.set_xlabel(literal(value))
    grid(ax, "x")
    shown = [f"{label} {number:.2f}" for label, number in frame.value.items() if not np.isnan(number)]
    return say(ax, f"{value}: {listed(shown)}.")


def books(frame: pd.DataFrame, value: str, ax: Axes | None = None) -> Axes:
    """For each task a bar per pass after the last stage, and a line across it at the height of the untrained model.

    Args:
        frame: a row per task and pass: ``task``, ``pass``, ``before`` and ``after``.
        value: what the bars are, for the axis.
        ax: axes to draw on; without them a new figure is made.

    Returns:
        The axes.
    """
    tasks, passes = list(dict.fromkeys(frame.task)), list(dict.fromkeys(frame["pass"]))
    ax = ax or panel(min(16.0, 2.4 + 0.28 * len(tasks) * (len(passes) + 1)), 3.4)
    look, width = current(), 0.8 / len(passes)
    found = frame.set_index(["task", "pass"])
    for number, book in enumerate(passes):
        places = np.arange(len(tasks)) + (number - (len(passes) - 1) / 2) * width
        after, before = ([found[which].get((task, book), np.nan) for task in tasks] for which in ("after", "before"))
        ax.bar(
            places, after, width * 0.92, color=marked(number)["color"], edgecolor=look.ground, linewidth=0,
            hatch=_HATCHES[number % len(_HATCHES)], label=literal(book),
        )  # fmt: skip
        ax.hlines(before, places - width * 0.46, places + width * 0.46, color=look.ink, linewidth=2)
    ax.set_xticks(np.arange(len(tasks)), [shortened(task) for task in tasks], rotation=30, ha="right")
    ax.set_ylabel(literal(value))
    grid(ax, "y")
    legend(ax)
    made = ax.get_legend()
    line = Line2D([], [], color=look.ink, linewidth=2, label="untrained")
    names = [text.get_text() for text in made.get_texts()]
    handles = [*made.legend_handles, line]
    ax.legend(
        handles, [*names, "untrained"], loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9,
        labelcolor=look.ink, borderaxespad=0.0,
    )  # fmt: skip
    means = frame.groupby("pass", sort=False)[["before", "after"]].mean()
    told = [f"{book} from {row.before:.2f} to {row.after:.2f}" for book, row in means.iterrows()]
    return say(ax, f"{value} of {len(tasks)} tasks by pass, untrained and in the end; means: {listed(told)}.")
