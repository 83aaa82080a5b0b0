"""What became of a folder of documents, in a terminal."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lifelong.documents.screen import REASONS

if TYPE_CHECKING:
    from lifelong.documents import BuildReport

SHOWN_CHARACTERS = 160  # of a question


def show_build_report(report: BuildReport, out: Path, console: Console) -> None:
    """Tasks, what was kept and dropped and why, with samples, and what to do next."""
    tasks = Table(title=escape(f"{out}: {len(report.tasks)} tasks"), title_justify="left", header_style="bold")
    tasks.add_column("task")
    tasks.add_column("questions", justify="right")
    for name, count in report.tasks.items():
        tasks.add_row(Text(name, overflow="fold"), f"{count:,}")
    console.print(tasks)
    console.print(
        f"{report.documents} documents, {report.passages} passages ({report.reused} were there before), "
        f"{report.written} pairs by {escape(report.generator)}, {report.kept} kept",
        highlight=False,
    )
    for name, reason in report.skipped.items():
        console.print(f"[yellow]left out: {escape(name)}: {escape(reason)}[/yellow]", highlight=False)
    if report.others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.others.items())
        console.print(f"[yellow]files of other kinds: {escape(kinds)}[/yellow]", highlight=False)
    if report.unreadable:
        console.print(f"[yellow]nothing that can be read about {report.unreadable} passages[/yellow]", highlight=False)
    for reason, samples in report.samples.items():
        count = report.kept if reason == "kept" else report.dropped[reason]
        label = "kept" if reason == "kept" else f"dropped as {reason} ({REASONS[reason]})"
        console.print(Text(f"{label}: {count:,}, such as", "bold"))
        for sample in samples:
            question = shorten(sample["question"], SHOWN_CHARACTERS, placeholder=" ...")
            console.print(Text(f"  {question} -> {sample['answer']}  [{sample['document']}]"))
    console.print(Text(f"Look at it: lifelong streams {out}. Learn it: stream: {out} in a configuration."))
