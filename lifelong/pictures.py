"""Figures that need no display and show themselves in a notebook."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure


class Picture(Figure):
    """A matplotlib figure outside of pyplot's state; IPython shows it without any ``%matplotlib`` line."""

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        self.savefig(image, format="png", bbox_inches="tight")
        return image.getvalue()


class Panel(Axes):
    """Axes that show their picture in a notebook when they end a cell.

    Attributes:
        alternative: what the figure says, in a sentence or two, for those who do not see it.
    """

    alternative = ""

    def _repr_png_(self) -> bytes:
        return self.get_figure(root=True)._repr_png_()


def readable_on(colour: Sequence[float]) -> str:
    """``"black"`` or ``"white"``, whichever stands out more from a colour.

    Args:
        colour: red, green and blue between 0 and 1; what follows, such as opacity, is not looked at.
    """
    light = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    luminance = 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]
    # Black and white contrast equally at this luminance (WCAG 2.1: (L + .05) / .05 = 1.05 / (L + .05)).
    return "black" if luminance > 0.179 else "white"
