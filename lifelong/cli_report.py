"""The command that writes reports."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

FORMATS = ("html", "markdown", "latex", "csv", "json")


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``report``."""
    report = commands.add_parser(
        "report",
        help="write a page on a run, a study, or a folder of runs",
        description="Write all that is known of a run, a study, or the runs of one stream in a folder as one page, "
        "FOLDER/report.html, that needs no network. Other formats are printed.",
    )
    report.add_argument("folder", type=Path, metavar="FOLDER")
    report.add_argument("--format", choices=FORMATS, default="html", help="of the report (default: html)")
    report.add_argument("--to", type=Path, metavar="FILE", help="where to write it")
    report.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    from lifelong.reports.writing import report, write_report

    if options.to is None and options.format != "html":
        sys.stdout.write(report(options.folder, options.format))
        return 0
    print(f"written: {write_report(options.folder, options.to, options.format)}")
    return 0
