"""Figures of runs and studies: readable by the colour-blind, in print, and on light and dark ground.

Each takes data and perhaps ``ax``, returns the axes, and says what it shows in ``ax.alternative``. ``Run.plot`` and
``Study.plot`` draw them in one line. Nothing of matplotlib's global state is touched, so that no display is needed.
"""

from lifelong.reports.figures.bars import bars, books
from lifelong.reports.figures.lines import curves, losses
from lifelong.reports.figures.methods import pareto, ranks
from lifelong.reports.figures.style import THEMES, Theme, theme

__all__ = ["THEMES", "Theme", "bars", "books", "curves", "losses", "pareto", "ranks", "theme"]
