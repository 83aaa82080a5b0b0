"""Methods beside each other: what they cost, and how they rank."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lifelong.errors import ConfigError
from lifelong.metrics.pareto import pareto_front
from lifelong.metrics.statistics import Ranking
from lifelong.reports.figures.style import current, grid, legend, listed, literal, marked, panel, say, shortened


def pareto(points: pd.DataFrame, cost: str, score: str, ax: Axes | None = None) -> Axes:
    """A point per method, its score against its cost; those that no other beats in both are joined by a line.

    Args:
        points: indexed by method, with the columns ``cost`` and ``score``; NaN where one is unknown.
        cost: a column, lower is better; on a logarithmic scale where it spans more than a factor of 20.
        score: a column, higher is better.
        ax: axes to draw on; without them a new figure is made.

    Returns:
        The axes.
    """
    ax = ax or panel(7.2, max(3.6, 0.21 * len(points)))
    look = current()
    costs, scores = points[cost].to_numpy(float), points[score].to_numpy(float)
    front = pareto_front(costs[:, None], scores)
    known = costs[np.isfinite(costs)]
    if len(known) and known.min() > 0 and known.max() > 20 * known.min():
        ax.set_xscale("log")
    best = sorted(np.flatnonzero(front), key=lambda number: costs[number])
    ax.step(costs[best], scores[best], where="post", color=look.faint, linewidth=1.4, zorder=1)
    for number, name in enumerate(points.index):
        mark = marked(number)
        ax.plot(
            costs[number], scores[number], linestyle="none", marker=mark["marker"], color=mark["color"],
            markersize=9 if front[number] else 6, markeredgecolor=look.ink if front[number] else look.ground,
            markeredgewidth=1.4 if front[number] else 0.5, label=shortened(name) + (" *" if front[number] else ""),
        )  # fmt: skip
    ax.set_xlabel(literal(cost.replace("_", " ")))
    ax.set_ylabel(literal(score.replace("_", " ")))
    grid(ax, "both")
    legend(ax, "* beaten by none in both")
    names = [f"{points.index[number]} ({scores[number]:.2f} at {costs[number]:.3g})" for number in best]
    return say(ax, f"{score} against {cost} of {len(points)} methods. Beaten by none in both: {listed(names)}.")


def ranks(ranking: Ranking, ax: Axes | None = None) -> Axes:
    """A critical-difference diagram (Demsar 2006): methods on a line of average ranks, those that do not differ tied.

    Args:
        ranking: as ``average_ranks`` makes it.
        ax: axes to draw on; without them a new figure is made.

    Returns:
        The axes.

    Raises:
        ConfigError: there are too few pairs or methods to rank; the message says which.
    """
    if ranking.critical_difference is None:
        raise ConfigError(f"ranks: {ranking.sentence}")
    names, values = list(ranking.ranks), list(ranking.ranks.values())
    half = -(-len(names) // 2)
    tied = len(ranking.groups)
    top = 1.6 + 0.35 * tied
    ax = ax or panel(7.2, 0.8 + 0.27 * (half + top))
    look = current()
    worst = max(len(names), int(np.ceil(max(values))))
    margin = 0.32 * (worst - 1) + 0.01
    ax.set_xlim(1 - margin, worst + margin)
    ax.set_ylim(top + half + 0.2, -1.6)
    ax.plot([1, worst], [0, 0], color=look.ink, linewidth=1.2)
    for rank in range(1, worst + 1, -(-worst // 12)):
        ax.plot([rank, rank], [-0.18, 0], color=look.ink, linewidth=1)
        ax.text(rank, -0.3, str(rank), ha="center", va="bottom", fontsize=8, color=look.ink)
    ax.plot([1, 1 + ranking.critical_difference], [-1.25, -1.25], color=look.colours[1], linewidth=2.5)
    ax.text(
        1 + ranking.critical_difference, -1.25, f"  critical difference {ranking.critical_difference:.2f}",
        va="center", fontsize=8, color=look.ink,
    )  # fmt: skip
    for number, (name, rank) in enumerate(zip(names, values, strict=True)):
        left = number < half
        line = top + (number if left else len(names) - 1 - number)
        end = 1 - margin * 0.06 if left else worst + margin * 0.06
        ax.plot([rank, rank, end], [0, line, line], color=look.faint, linewidth=0.9)
        ax.text(
            end, line, f"{shortened(name, 22)} {rank:.2f} " if left else f" {rank:.2f} {shortened(name, 22)}",
            ha="right" if left else "left", va="center", fontsize=9, color=look.ink,
        )  # fmt: skip
    for number, group in enumerate(ranking.groups):
        first, last = ranking.ranks[group[0]], ranking.ranks[group[-1]]
        height = 0.55 + 0.35 * number
        ax.plot(
            [first - 0.03, last + 0.03], [height, height], color=look.colours[0], linewidth=3.2, solid_capstyle="round"
        )
    ax.set_axis_off()
    return say(ax, ranking.sentence)
