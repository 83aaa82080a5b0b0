"""Reports as files."""

from __future__ import annotations

from pathlib import Path

from lifelong.durable import write_text
from lifelong.errors import ConfigError, suggestion
from lifelong.reports import formats
from lifelong.reports.page import to_html
from lifelong.reports.subject import subject_of
from lifelong.run import Run
from lifelong.study import Study

FORMATS = {
    "html": to_html,
    "markdown": formats.to_markdown,
    "latex": formats.to_latex,
    "csv": formats.to_csv,
    "json": formats.to_json,
}
ENDINGS = {"html": "html", "markdown": "md", "latex": "tex", "csv": "csv", "json": "json"}


def report(target: Run | Study | str | Path, format: str = "html") -> str:
    """What is known of a run, a study, or the runs of one stream in a folder.

    Nothing that a folder names is imported or executed, and what comes from data is shown as text.

    Args:
        target: one of them, or its folder.
        format: ``"html"``: one page that needs no other file and no network. ``"markdown"``: the same in short.
            ``"latex"``: the summary as a table. ``"csv"``: a line per run. ``"json"``: every number.

    Raises:
        ConfigError: there is no such format.
        RunError: there is no run in the folder, or they were taught different streams.
    """
    if format not in FORMATS:
        raise ConfigError(f"format: there is no {format!r}{suggestion(format, FORMATS)}")
    return FORMATS[format](subject_of(target))


def write_report(target: Run | Study | str | Path, to: str | Path | None = None, format: str = "html") -> Path:
    """Write a report to a file.

    Args:
        target, format: see :func:`report`.
        to: the file; by default ``report.html``, or what belongs to the format, in the target's folder.

    Returns:
        The file.

    Raises:
        ConfigError, RunError: see :func:`report`.
    """
    text = report(target, format)
    folder = target.path if isinstance(target, Run) else target.folder if isinstance(target, Study) else Path(target)
    file = folder / f"report.{ENDINGS[format]}" if to is None else Path(to)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)
    return file
