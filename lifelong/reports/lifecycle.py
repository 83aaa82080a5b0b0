"""What became of an extension, and what was done to a run, in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from lifelong.extension import Attempt


def show_attempt(attempt: Attempt, console: Console) -> None:
    """Whether a stage was kept, and what it cost and brought on the validation questions."""
    if attempt.accepted:
        console.print(Text(f"stage {attempt.stage}, {attempt.task}: kept", "bold"))
    else:
        because = "; ".join(attempt.reasons)
        console.print(Text(f"stage {attempt.stage}, {attempt.task}: taken back ({because})", "bold red"))
    if attempt.new_labels:
        console.print(f"the classifier's head has {attempt.new_labels} labels more")
    if not attempt.before:
        return
    table = Table(title="validation questions", title_justify="left", header_style="bold")
    table.add_column("task")
    for name in ("before", "after", "change"):
        table.add_column(name, justify="right")
    for task, before in attempt.before.items():
        after = attempt.after[task]
        table.add_row(Text(task, overflow="fold"), f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}")
    console.print(table)


def show_history(events: Sequence[Mapping[str, Any]], console: Console) -> None:
    """A row for each event; one that began and has no end was killed."""
    table = Table(header_style="bold")
    for name in ("when (UTC)", "event", "stage", "what"):
        table.add_column(name, no_wrap=name != "what")
    begun = None
    for entry in events:
        event = entry["event"]
        if event in ("run", "extend", "rollback"):
            if begun:
                table.add_row("", Text("killed", "red"), "", Text(f"the {begun} before has no end"))
            begun = event
        else:
            begun = None
        when = str(entry.get("at", "")).removesuffix("+00:00").replace("T", " ")
        table.add_row(Text(when), Text(event), Text(str(entry.get("stage", ""))), Text(_what(entry), overflow="fold"))
    console.print(table)


def _what(entry: Mapping[str, Any]) -> str:
    parts = [str(entry[name]) for name in ("task", "why", "reason") if entry.get(name)]
    parts += [
        f"{name.replace('_', ' ')} {entry[name]:.4g}"
        for name in ("max_forgetting", "min_gain", "forgetting", "gain", "to", "new_labels")
        if isinstance(entry.get(name), int | float)
    ]
    return ", ".join(parts)
