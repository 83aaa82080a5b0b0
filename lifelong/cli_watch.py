"""The command that follows a run while it goes on."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``watch``."""
    watch = commands.add_parser(
        "watch",
        help="follow a run or a study that is going on, in another process",
        description="Show what a run or a study is doing, until it ends; Ctrl+C leaves it alone. A folder that is not "
        "there yet is waited for. Over a pipe each change is a line.",
        epilog="Exit status: 0 where everything is done, 1 where a run ended otherwise.",
    )
    watch.add_argument("folder", type=Path, metavar="FOLDER")
    watch.set_defaults(command=_watch)


def _watch(options: argparse.Namespace) -> int:
    from lifelong.console import Console
    from lifelong.reports.watching import drawn, drawn_study, follow
    from lifelong.study import Study
    from lifelong.watching import Watched

    folder, name = options.folder, str(options.folder)
    if (folder / "study.json").is_file():
        watched = {point.folder.name: Watched(point.folder) for point in Study.load(folder).points}
    else:
        watched = {name: Watched(folder)}
    one = list(watched) == [name]
    try:
        moments = follow(watched, lambda now: drawn(name, now[name]) if one else drawn_study(name, now), Console())
    except KeyboardInterrupt:
        return 0
    return 0 if all(moment.state == "done" for moment in moments.values()) else 1
