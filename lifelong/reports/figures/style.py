"""How figures look: two themes, and colours that the colour-blind tell apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lifelong.errors import ConfigError, suggestion
from lifelong.pictures import Panel, Picture

DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Theme:
    """Colours of a figure.

    Args:
        ground: behind everything.
        ink: of text and of what matters most.
        faint: of grids, frames and what is shown beside.
        colours: of marks and lines, each with a contrast of at least 3 to the ground (WCAG 2.1). They differ in
            lightness as well as in hue, along the lines of Okabe & Ito's palette for the colour-blind.
    """

    ground: str
    ink: str
    faint: str
    colours: tuple[str, ...]


THEMES = {
    "light": Theme(
        "#ffffff", "#1a1a1a", "#767676",
        ("#0072b2", "#d55e00", "#00795a", "#a4478a", "#8a6400", "#1f8ac0", "#5b4b9a", "#333333"),
    ),
    "dark": Theme(
        "#16181d", "#ececec", "#9a9a9a",
        ("#56b4e9", "#ff8c42", "#2fc29b", "#e29bc7", "#f0e442", "#8fa8ff", "#d9a520", "#ffffff"),
    ),
}  # fmt: skip
_chosen: ContextVar[str] = ContextVar("theme", default="light")


@contextmanager
def theme(name: str) -> Iterator[Theme]:
    """A context in which figures are made in a theme, ``"light"`` or ``"dark"``; light is the default.

    Raises:
        ConfigError: there is no such theme.
    """
    if name not in THEMES:
        raise ConfigError(f"theme: there is no {name!r}{suggestion(name, THEMES)}")
    before = _chosen.set(name)
    try:
        yield THEMES[name]
    finally:
        _chosen.reset(before)


def current() -> Theme:
    """The theme that figures are made in now."""
    return THEMES[_chosen.get()]


def panel(width: float, height: float) -> Panel:
    """Axes on a figure of their own, so many inches large, in the current theme."""
    (made,) = panels(1, 1, width, height)
    return made


def panels(rows: int, columns: int, width: float, height: float) -> list[Panel]:
    """Axes beside and below each other on one figure of so many inches, row by row."""
    figure = Picture(figsize=(width, height), layout="constrained", facecolor=current().ground)
    made = [figure.add_subplot(rows, columns, number, axes_class=Panel) for number in range(1, rows * columns + 1)]
    for ax in made:
        dress(ax)
    return made


def dress(ax: Axes) -> None:
    """Give axes the colours of the theme."""
    look = current()
    ax.set_facecolor(look.ground)
    ax.tick_params(which="both", colors=look.ink, labelsize=9)
    for part in (ax.xaxis.label, ax.yaxis.label, ax.title):
        part.set_color(look.ink)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(look.faint)
    ax.set_axisbelow(True)


def recolour(figure: Figure) -> None:
    """Give a picture that was drawn for light ground, such as a heat map, the colours of the theme."""
    look = current()
    if look is THEMES["light"]:
        return
    figure.set_facecolor(look.ground)
    for ax in figure.axes:
        frames = {side: spine.get_visible() for side, spine in ax.spines.items()}
        dress(ax)
        for side, visible in frames.items():
            ax.spines[side].set_visible(visible)
        legends = [ax.get_legend()] if ax.get_legend() else []
        for text in [text for made in legends for text in made.get_texts()] + [ax.title]:
            text.set_color(look.ink)
    for text in figure.texts:
        text.set_color(look.ink)


def grid(ax: Axes, axis: str) -> None:
    """Faint lines behind the marks."""
    ax.grid(axis=axis, color=current().faint, alpha=0.3, linewidth=0.8)


def marked(number: int) -> dict[str, str]:
    """Colour, dash and marker of the so manieth line, counted from 0: no two of the first 56 are the same."""
    colours = current().colours
    return {
        "color": colours[number % len(colours)],
        "linestyle": DASHES[number // len(colours) % len(DASHES)],
        "marker": MARKERS[(number + number // len(colours)) % len(MARKERS)],
    }


def legend(ax: Axes, title: str | None = None) -> None:
    """The names of what is drawn, beside the axes, where they cover nothing."""
    names = ax.get_legend_handles_labels()[1]
    if not names:
        return
    look = current()
    made = ax.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9, labelcolor=look.ink, title=title,
        borderaxespad=0.0, ncols=1 + len(names) // 25,
    )  # fmt: skip
    made.get_title().set_color(look.ink)


def literal(text: str) -> str:
    """A text as matplotlib draws it: a dollar sign is one, and begins no formula."""
    return str(text).replace("$", r"\$")


def shortened(text: str, longest: int = 28) -> str:
    """A name that fits beside axes: long ones lose their middle, since generated names differ in the end."""
    text = str(text)
    tail = longest // 3
    return literal(text if len(text) <= longest else f"{text[: longest - tail - 1].rstrip()}…{text[-tail:].lstrip()}")


def say(ax: Axes, *sentences: str) -> Axes:
    """Keep what the figure says as its alternative text; returns the axes."""
    ax.alternative = " ".join(sentence for sentence in sentences if sentence)
    return ax


def listed(values: Sequence[str], most: int = 6) -> str:
    """Some words in a row, and how many more there are."""
    shown = ", ".join(values[:most])
    return f"{shown} and {len(values) - most} more" if len(values) > most else shown
