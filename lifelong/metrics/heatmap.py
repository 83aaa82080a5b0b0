"""A matrix of scores as a picture that can be read without colour, in print and by the colour-blind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle

from lifelong.pictures import Panel, Picture, readable_on

_OWN_STAGE = "#d55e00"
_LONGEST_NAME = 28
_MANY = 40  # rows or columns; beyond them cells are too small for numbers, and not every one of them has a name
_LARGEST = (18.0, 16.0)  # width and height of a picture, in inches
_GAP = 0.4  # of a cell, before the held-out tasks


def draw_heatmap(
    R: np.ndarray,
    tasks: Sequence[str],
    stages: Sequence[str],
    score: str = "exact_match",
    sampled: np.ndarray | None = None,
    higher_is_better: bool = True,
    held_out: int = 0,
    ax: Axes | None = None,
) -> tuple[Figure, Axes]:
    """Draw scores as a heat map: values written in the cells, holes hatched, each task's own stage outlined.

    With more than 40 stages or tasks there are colours alone, and a name for some rows and columns.

    The colour map is cividis, made for colour-blind readers; bright is good. Scores between 0 and 1 are always drawn on
    the scale from 0 to 1, so that two pictures can be compared; a score of which lower is better on a logarithmic one.
    matplotlib's global state and back end stay untouched, so that no display is needed. Held-out tasks stand apart,
    behind a gap that says what they are.

    Args:
        R: (stages + 1, tasks), row 0 the untrained model, NaN where nothing was measured; the held-out tasks come last.
        tasks: (tasks,), the columns' names; long ones lose their middle.
        stages: (stages + 1,), the rows' names.
        score: what the cells hold, the name of the colour bar.
        sampled: (stages + 1, tasks), bool; such cells get an asterisk.
        higher_is_better: whether a larger score is a better one.
        held_out: how many of the columns are held-out tasks.
        ax: axes to draw on; without them a new figure is made, sized by the number of tasks.

    Returns:
        the figure and its axes.
    """
    rows, columns = R.shape
    learned = columns - held_out
    apart = bool(learned and held_out)
    places = np.arange(columns) + (_GAP if apart else 0) * (np.arange(columns) >= learned)
    if ax is None:
        longest = min(max(map(len, [*tasks, *stages])), _LONGEST_NAME) * 0.075
        size = (max(4.5, 0.62 * (places[-1] + 1) + longest + 1.7), max(3.0, 0.42 * rows + longest * 0.75 + 1.2))
        ax = Picture(figsize=tuple(map(min, size, _LARGEST)), layout="constrained").add_subplot(axes_class=Panel)
    many = max(rows, columns) > _MANY

    colours, scale = colouring(R, higher_is_better)
    for block in [range(learned), range(learned, columns)] if apart else [range(columns)]:
        sides = (places[block[0]] - 0.5, places[block[-1]] + 0.5, rows - 0.5, -0.5)
        cells = np.ma.masked_invalid(R[:, block])
        image = ax.imshow(cells, cmap=colours, norm=scale, aspect="auto", extent=sides)
    if many:
        ax.patch.set(facecolor="0.95", edgecolor="0.6", linewidth=0, hatch="////")  # seen where nothing was measured
    for row, column in () if many else np.ndindex(rows, columns):
        if np.isnan(R[row, column]):
            ax.add_patch(_cell(row, places[column], facecolor="0.95", edgecolor="0.6", linewidth=0, hatch="////"))
        else:
            mark = sampled is not None and bool(sampled[row, column])
            _write(ax, image, row, places[column], R[row, column], mark)
    own_stage = rows == learned + 1
    for task in range(learned if own_stage else 0):
        ax.add_patch(
            _cell(
                task + 1,
                task,
                fill=False,
                edgecolor=_OWN_STAGE,
                linewidth=0.6 if many else 2.2,
                zorder=3,
                clip_on=False,
            )
        )

    ax.set_xlim(-0.5, places[-1] + 0.5)
    across, down = (slice(None, None, -(-size // _MANY)) for size in (columns, rows))
    names = [_cut(task) for task in tasks][across]
    ax.set_xticks(places[across], names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(rows)[down], [_cut(stage) for stage in stages][down])
    if not many:
        ax.set_xticks(places[1:] - 0.5, minor=True)
        ax.set_yticks(np.arange(rows - 1) + 0.5, minor=True)
        ax.grid(which="minor", color="white", linewidth=1)
    ax.tick_params(which="both", length=0)
    ax.set_xlabel("task" if learned else "held-out task")
    ax.set_ylabel("after stage")
    if apart:
        _set_apart(ax, learned, places[-1] + 0.5, rows)
    figure = ax.get_figure()
    figure.colorbar(image, ax=ax, label=f"{score}{'' if higher_is_better else ' (lower is better)'}")
    _explain(ax, R, own_stage=own_stage, sampled=sampled is not None and bool(sampled.any()))
    return figure, ax


def _set_apart(ax: Axes, learned: int, right: float, rows: int) -> None:
    """Give the tasks that are learned and the held-out ones a frame each, and name the latter between the two."""
    ax.spines[:].set_visible(False)
    gap = learned - 0.5, learned - 0.5 + _GAP
    top, bottom = -0.5, rows - 0.5
    for left, end in ((-0.5, gap[0]), (gap[1], right)):
        sides = [left, end, end, left, left], [top, top, bottom, bottom, top]
        ax.plot(*sides, color="black", linewidth=0.8, zorder=2.5, clip_on=False, scalex=False, scaley=False)
    ax.text(sum(gap) / 2, rows / 2 - 0.5, "held out", rotation=90, ha="center", va="center", color="0.3", fontsize=8)


def colouring(R: np.ndarray, higher_is_better: bool = True) -> tuple[Colormap, Normalize]:
    """The colour map of scores and their scale, as :func:`draw_heatmap` takes them."""
    name = "cividis" if higher_is_better else "cividis_r"
    return colormaps[name], _scale(R[~np.isnan(R)], higher_is_better)


def _scale(measured: np.ndarray, higher_is_better: bool) -> Normalize:
    if not measured.size or (higher_is_better and measured.min() >= 0 and measured.max() <= 1):
        return Normalize(0, 1)
    low, high = measured.min(), measured.max()
    # An untrained model's perplexity is thousands of times a trained one's: on a linear scale all else looks alike.
    logarithmic = not higher_is_better and 0 < low < high
    return LogNorm(low, high) if logarithmic else Normalize(low, high)


def _write(ax: Axes, image: AxesImage, row: int, column: float, value: float, sampled: bool) -> None:
    colour = readable_on(image.cmap(image.norm(value)))
    ax.text(column, row, format_score(value) + "*" * sampled, ha="center", va="center", color=colour, fontsize=8)


def format_score(value: float) -> str:
    """Return a score in the few characters that fit a cell.

    >>> [format_score(value) for value in (0.8333, 41.25, 1234.5, 1234567.0)]
    ['0.83', '41.2', '1234', '1e+06']
    """
    size = abs(value)
    return (
        f"{value:.2f}"
        if size < 10
        else f"{value:.1f}"
        if size < 100
        else f"{value:.0f}"
        if size < 1e4
        else f"{value:.0e}"
    )


def _explain(ax: Axes, R: np.ndarray, own_stage: bool, sampled: bool) -> None:
    marks = []
    if own_stage:
        marks.append(Patch(facecolor="none", edgecolor=_OWN_STAGE, linewidth=2, label="own stage"))
    if np.isnan(R).any():
        marks.append(Patch(facecolor="0.95", edgecolor="0.6", hatch="////", label="not measured"))
    if sampled:
        marks.append(Patch(facecolor="none", edgecolor="none", label="* on a sample"))
    if marks:
        ax.legend(handles=marks, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8)


def _cell(row: int, column: float, **look: object) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, **look)


def _cut(name: str) -> str:
    name = name.replace("$", r"\$")  # which would begin a formula
    if len(name) <= _LONGEST_NAME:
        return name
    # The end stays, since that is where generated names differ: "... part 1", "... part 2".
    tail = _LONGEST_NAME // 3
    return f"{name[: _LONGEST_NAME - tail - 1].rstrip()}…{name[-tail:].lstrip()}"
