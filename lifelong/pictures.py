"""Figures that need no display and show themselves in a notebook."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class Picture(Figure):
    """A matplotlib figure outside of pyplot's state; IPython shows it without any ``%matplotlib`` line."""

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        self.savefig(image, format="png", bbox_inches="tight")
        return image.getvalue()
