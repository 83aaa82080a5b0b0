"""The methods of a study side by side, in the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from lifelong.comparison import Comparison
from lifelong.console import Console
from lifelong.reports.numbers import interval
from lifelong.reports.subject import repeated
from lifelong.summary import COMPARED


def show_comparison(
    comparison: Comparison, console: Console, figure: str = "average_accuracy", reference: str | None = None
) -> None:
    """A line per method, then what is known of the differences in one figure.

    Args:
        comparison: of a study.
        console: where to write.
        figure: that is tested.
        reference: the method that others are tested against; the first by default.
    """
    tested = comparison.scores(figure)  # a mistake in the name, before anything is written
    reference = reference or comparison.methods[0]
    differences = comparison.against(reference, figure) if len(comparison.methods) > 1 else []
    shown = [name for name in dict.fromkeys((figure, *COMPARED)) if comparison.has(name)]
    summaries = {name: comparison.summary(name) for name in shown}
    table = Table(title=repeated(comparison), title_justify="left", header_style="bold")
    table.add_column("method", no_wrap=True)
    table.add_column("runs", justify="right")
    for name in shown:
        words = name.split("_")
        table.add_column(" ".join(words), justify="right", min_width=max(map(len, words)))
    for method in comparison.methods:
        runs = int(tested[method].notna().sum())
        table.add_row(Text(method), str(runs), *(interval(summaries[name][method], name) for name in shown))
    console.print(table)
    if differences:
        console.print(Text(f"{figure.replace('_', ' ')}, compared with {reference}:", "bold"))
        for difference in differences:
            console.print(Text(f"  {difference.sentence}"))
        console.print(Text(comparison.ranking(figure).sentence))
