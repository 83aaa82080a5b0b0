"""A run or a study that is going on, in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lifelong.console import Console
from lifelong.reports.terminal import matrix_table
from lifelong.watching import RUNNING, WAITING, Moment, Progress, Watched

_BARS = "▁▂▃▄▅▆▇█"
_STATES = {"done": "bold green", RUNNING: "bold", WAITING: "dim"}
_SAID_AGAIN = 10.0  # seconds after which a line tells of the same piece of work once more


def sparkline(values: tuple[float, ...]) -> str:
    """Numbers as a line of little bars, from the smallest to the largest.

    >>> sparkline((1.0, 2.0, 8.0, 8.0, 4.5)), sparkline((3.0, 3.0))
    ('▁▂██▄', '▁▁')
    """
    low, span = min(values, default=0.0), max(values, default=0.0) - min(values, default=0.0)
    return "".join(_BARS[int((value - low) / span * (len(_BARS) - 1)) if span else 0] for value in values)


def drawn(name: str, moment: Moment) -> RenderableType:
    """All that is known of a run."""
    lines: list[RenderableType] = [_heading(name, moment)]
    if moment.reason:
        lines.append(Text(moment.reason, "red"))
    if moment.progress is not None:
        lines += _doing(moment.progress)
    if moment.matrix is not None:
        lines += [Text(), matrix_table(moment.matrix, moment.matrix.name)]
    return Group(*lines)


def _heading(name: str, moment: Moment) -> Text:
    text = Text.assemble((name, "bold"), ": ", (moment.state, _STATES.get(moment.state, "bold red")))
    if moment.stages:
        text.append(f", stage {moment.stage} of {moment.stages}, {_time(moment.seconds)} of work so far")
    return text


def _doing(progress: Progress) -> list[RenderableType]:
    row = Table.grid(padding=(0, 2))
    left = "" if progress.left is None else f"about {_time(progress.left)} left"
    bar = ProgressBar(progress.total, progress.done, width=30)
    row.add_row(Text.from_markup(progress.doing), bar, f"{progress.done}/{progress.total}", left)
    lines: list[RenderableType] = [row]
    if progress.losses:
        lines.append(Text(f"loss {progress.losses[-1]:.4f}  {sparkline(progress.losses)}"))
    return lines


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def in_words(name: str, moment: Moment) -> str:
    """The same in one line."""
    text = f"{name}: {moment.state}" + (f", stage {moment.stage} of {moment.stages}" if moment.stages else "")
    if moment.reason:
        text += f": {moment.reason}"
    if moment.progress is not None:
        loss = f", loss {moment.progress.losses[-1]:.4f}" if moment.progress.losses else ""
        plain = Text.from_markup(moment.progress.doing).plain
        text += f"; {plain} {moment.progress.done}/{moment.progress.total}{loss}"
    return text


def drawn_study(name: str, moments: Mapping[str, Moment]) -> RenderableType:
    """A row for each run, and all that is known of those that are going on."""
    states = [moment.state for moment in moments.values()]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    table = Table(header_style="bold")
    for column in ("run", "state", "stage", "doing", "average so far"):
        table.add_column(column, justify="left" if column in ("run", "state", "doing") else "right")
    for run, moment in moments.items():
        progress = moment.progress
        done = "" if progress is None else f"{Text.from_markup(progress.doing).plain} {progress.done}/{progress.total}"
        stage = f"{moment.stage}/{moment.stages}" if moment.stages else ""
        state = Text(moment.state, _STATES.get(moment.state, "bold red"))
        table.add_row(Text(run, overflow="fold"), state, stage, Text(done), _average(moment))
    return Group(Text.assemble((name, "bold"), f": {counts}"), table)


def _average(moment: Moment) -> str:
    """Of the tasks that were learned so far."""
    matrix = moment.matrix
    if matrix is None or not moment.stage or matrix.stages != len(matrix.tasks):
        return ""
    value = float(matrix.matrix[moment.stage, : moment.stage].mean())
    return "" if value != value else f"{value:.3f}"


def follow(
    watched: Mapping[str, Watched],
    draw: Callable[[Mapping[str, Moment]], RenderableType],
    console: Console,
    every: float = 0.5,
) -> Mapping[str, Moment]:
    """Show runs until none of them is to be waited for any more.

    A terminal shows them as they are, again and again; what is no terminal gets a line for each change.

    Args:
        watched: by name.
        draw: all of them.
        console: where to write.
        every: seconds between two looks.

    Returns:
        The last look.
    """
    said: dict[str, tuple[object, float]] = {}

    def look() -> Mapping[str, Moment]:
        return {name: one.look() for name, one in watched.items()}

    def tell(moments: Mapping[str, Moment]) -> None:
        for name, moment in moments.items():
            news = (moment.state, moment.stage, moment.progress and moment.progress.doing)
            before, at = said.get(name, (None, 0.0))
            if news != before or (moment.progress and time.monotonic() - at >= _SAID_AGAIN):
                said[name] = (news, time.monotonic())
                console.print(in_words(name, moment), markup=False, highlight=False, soft_wrap=True)

    moments = look()
    if not console.is_terminal:
        tell(moments)
        while _goes_on(moments):
            time.sleep(every)
            moments = look()
            tell(moments)
        return moments
    with Live(draw(moments), console=console, auto_refresh=False) as live:
        while _goes_on(moments):
            time.sleep(every)
            moments = look()
            live.update(draw(moments), refresh=True)
    return moments


def _goes_on(moments: Mapping[str, Moment]) -> bool:
    return any(moment.state in (RUNNING, WAITING) for moment in moments.values())
