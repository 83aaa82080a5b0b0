"""Pictures as a page holds them: for light and for dark ground, with a text for those who do not see them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.axes import Axes

from lifelong.reports.figures import theme


@dataclass(frozen=True)
class Illustration:
    """One picture.

    Args:
        title: above it.
        alternative: what it shows, in words.
        light, dark: addresses that hold an SVG themselves, ``data:image/svg+xml``.
    """

    title: str
    alternative: str
    light: str
    dark: str


def illustration(title: str, draw: Callable[[], Axes]) -> Illustration:
    """Draw a picture in both themes.

    Args:
        title: above it.
        draw: makes it in the current theme.

    Raises:
        LifelongError: what ``draw`` raises where there is nothing to draw.
    """
    made = {}
    for name in ("light", "dark"):
        with theme(name):
            ax = draw()
        made[name] = _address(ax)
    return Illustration(title, getattr(ax, "alternative", title), **made)


def _address(ax: Axes) -> str:
    drawn = io.BytesIO()
    # the same bytes each time, and letters as outlines: they look the same on every machine
    with rc_context({"svg.fonttype": "path", "svg.hashsalt": "lifelong"}):
        ax.get_figure(root=True).savefig(drawn, format="svg", bbox_inches="tight", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(drawn.getvalue()).decode('ascii')}"
