"""How experts are used, as a picture that can be read without colour, in print and by the colour-blind."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from lifelong.adapters.routing import RoutingTable, RoutingUse
from lifelong.errors import ConfigError, suggestion
from lifelong.pictures import Panel, Picture, readable_on

VALUES = {"gate": "mean gate", "frequency": "share of tokens that select the expert"}
_WIDE, _NARROW, _HIGH = 0.36, 0.16, 0.25  # inches of a cell, with its value and without
_WRITTEN = 16  # experts up to which values are written
_LABEL = 0.12  # inches between two names of layers at least
_WIDTH, _HEIGHT, _BAR = 14.0, 40.0, 4.0  # inches of a row of panels, of all rows, and of the colour bar at most


def draw_routing(table: RoutingTable, value: str = "gate") -> Figure:
    """Draw a panel for each task (and adapter, if there are several): layers from top to bottom, experts side by side.

    All panels have one scale from 0 to the largest value, on which the colour bar marks the equal share. The colour map
    is cividis, made for colour-blind readers, and up to 16 experts have their values written, unless there are so many
    panels that rows must be thinner. matplotlib's global state stays untouched.

    Args:
        table: with at least one entry.
        value: ``"gate"`` for mean gates, ``"frequency"`` for the share of tokens that select an expert.

    Raises:
        ConfigError: the value is unknown, or the table is empty.
    """
    if value not in VALUES:
        raise ConfigError(f"value: unknown {value!r}{suggestion(value, list(VALUES))}")
    if not len(table):
        raise ConfigError("there is no routing to draw: nothing was recorded")
    several = len({use.adapter for use in table}) > 1
    panels: dict[str, dict[str, RoutingUse]] = {}
    for use in table:
        panels.setdefault(f"{use.task}, {use.adapter}" if several else use.task, {})[use.layer] = use
    layers = list(dict.fromkeys(use.layer for use in table))
    labels, pattern = _short(layers)
    experts = max(use.experts for use in table)
    width = experts * (_WIDE if experts <= _WRITTEN else _NARROW)
    columns = max(1, min(len(panels), int(_WIDTH / (width + 0.3))))
    rows = math.ceil(len(panels) / columns)
    margin = 0.08 * max(map(len, labels)) + 1.7
    high = min(_HIGH, (_HEIGHT / rows - 0.45) / len(layers))
    size = (max(4.5, columns * (width + 0.3) + margin), rows * (len(layers) * high + 0.45) + 0.7)
    figure = Picture(figsize=(size[0], max(2.4, size[1])), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False, subplot_kw={"axes_class": Panel})
    scale = Normalize(0, max(max(_values(use, value)) for use in table))
    for ax, (title, uses) in zip(grid.flat, panels.items(), strict=False):
        image = _panel(ax, uses, layers, experts, value, scale, written=experts <= _WRITTEN and high == _HIGH)
        ax.set_title(textwrap.fill(title, max(12, int(11 * width))).replace("$", r"\$"), fontsize=10)
    for ax in grid.flat[len(panels) :]:
        ax.set_axis_off()
    for ax in grid.flat[max(0, len(panels) - columns) : len(panels)]:
        ax.tick_params(labelbottom=True)  # also above a place without a panel
    every = math.ceil(_LABEL / high)
    grid[0, 0].set_yticks(range(0, len(layers), every), labels[::every], fontsize=8)
    grid[0, 0].xaxis.set_major_locator(MaxNLocator(12, integer=True, min_n_ticks=1))
    figure.supxlabel("expert", fontsize=10)
    figure.supylabel(f"layer: {pattern}", fontsize=10)
    shares = sorted({_equal_share(use, value) for use in table})
    height = min(figure.get_figheight() - 1, _BAR)
    bar = figure.colorbar(
        image,
        ax=grid,
        label=f"{VALUES[value]}\n(line: an equal share, {' or '.join(f'{share:.3g}' for share in shares)})",
        shrink=height / (figure.get_figheight() - 1),
        aspect=height / 0.16,
        anchor=(0, 1),
    )
    for share in shares:
        bar.ax.axhline(share, color="#d55e00", linewidth=2)
    return figure


def _panel(
    ax: Axes,
    uses: dict[str, RoutingUse],
    layers: Sequence[str],
    experts: int,
    value: str,
    scale: Normalize,
    written: bool,
) -> AxesImage:
    cells = np.full((len(layers), experts), np.nan)
    for row, layer in enumerate(layers):
        if layer in uses:
            cells[row, : uses[layer].experts] = _values(uses[layer], value)
    ax.set_facecolor("0.9")
    image = ax.imshow(np.ma.masked_invalid(cells), cmap="cividis", norm=scale, aspect="auto", interpolation="nearest")
    for row, column in np.argwhere(~np.isnan(cells)) if written else ():
        number = cells[row, column]
        text = f"{number:.2f}".removeprefix("0") if number < 0.995 else "1"
        colour = readable_on(image.cmap(scale(number)))
        ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    ax.set_xticks(np.arange(experts - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(len(layers) - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=0.8)
    ax.tick_params(which="both", length=0)
    return image


def _values(use: RoutingUse, value: str) -> tuple[float, ...]:
    return use.gates if value == "gate" else use.frequency


def _equal_share(use: RoutingUse, value: str) -> float:
    """What each expert would have if all were used equally."""
    return round(sum(_values(use, value)) / use.experts, 3)


def _short(layers: Sequence[str]) -> tuple[list[str], str]:
    """Names without the parts that all of them share, and the whole name with stars where they differ."""
    parts = [layer.split(".") for layer in layers]
    if len({len(some) for some in parts}) > 1:
        return list(layers), "name"
    differ = [len(set(place)) > 1 for place in zip(*parts, strict=True)]
    if not any(differ):
        return [parts[0][-1]], layers[0]
    labels = [".".join(part for part, kept in zip(some, differ, strict=True) if kept) for some in parts]
    return labels, ".".join("*" if kept else part for part, kept in zip(parts[0], differ, strict=True))
