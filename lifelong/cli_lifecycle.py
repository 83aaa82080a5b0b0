"""Commands for a run that is there: to go on with it, extend it, take it back, and see what was done to it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong.errors import ConfigError

if TYPE_CHECKING:
    from lifelong.tasks import Task

REFUSED = 3  # exit status of an extension that was tried and not kept


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``extend``, ``rollback`` and ``history``."""
    extend = commands.add_parser(
        "extend",
        help="let a finished run learn a further task",
        description="Let a finished run learn a further task, and keep the stage only if it keeps the limits.",
        epilog="Exit status 3: the stage was tried, broke a limit, and was taken back.",
    )
    extend.add_argument("folder", type=Path, metavar="FOLDER")
    extend.add_argument(
        "--task",
        required=True,
        help="rows (.jsonl, .csv or .parquet), a saved stream's folder, a stream such as my_stream.py:function, or a "
        "folder of documents; each task of a stream becomes a stage",
    )
    extend.add_argument("--test", type=Path, help="rows to ask; by default what was taught is asked, in the same words")
    extend.add_argument("--validation", type=Path, help="rows for the limits")
    extend.add_argument("--name", help="of the task; by default the file's")
    extend.add_argument("--kind", default="knowledge", choices=("knowledge", "downstream"))
    extend.add_argument("--metric", default="exact_match", help="of the task's answers")
    extend.add_argument(
        "--max-forgetting", type=float, help="how far the earlier tasks' mean score on validation questions may fall"
    )
    extend.add_argument("--min-gain", type=float, help="how far the new task's score on them must rise")
    extend.add_argument("--trust", action="store_true", help="let code run that the folder's configuration names")
    extend.add_argument("-q", "--quiet", action="store_true", help="no progress and no report")
    extend.set_defaults(command=_extend)

    rollback = commands.add_parser("rollback", help="take a run back to a stage that it had")
    rollback.add_argument("folder", type=Path, metavar="FOLDER")
    rollback.add_argument("--to", type=int, required=True, help="the last stage that stays; 0 is the untrained model")
    rollback.set_defaults(command=_rollback)

    history = commands.add_parser("history", help="list everything that was done to a run")
    history.add_argument("folder", type=Path, metavar="FOLDER")
    history.set_defaults(command=_history)


def tasks_of(options: argparse.Namespace) -> Sequence[Task]:
    """The tasks that ``--task`` and what belongs to it describe."""
    from lifelong.registry import resolve_stream
    from lifelong.tasks import Task

    given = Path(options.task).expanduser()
    readers = {".jsonl": Task.from_jsonl, ".csv": Task.from_csv, ".parquet": Task.from_parquet}
    if given.suffix in readers:
        name = options.name or given.stem
        settings = {"kind": options.kind, "metric": options.metric}
        return [readers[given.suffix](name, given, options.test or given, options.validation, **settings)]
    for option in ("name", "test", "validation"):
        if getattr(options, option) is not None:
            raise ConfigError(f"--{option}: belongs to a file of rows, and --task is {options.task!r}")
    if given.is_dir() and not (given / "stream.json").is_file():
        return _of_documents(given)
    return resolve_stream(options.task, where="--task").learned


def _of_documents(folder: Path) -> Sequence[Task]:
    import tempfile

    from lifelong.documents import build_stream
    from lifelong.task_stream import TaskStream

    with tempfile.TemporaryDirectory() as place:
        build_stream(folder, Path(place) / "stream")
        return list(TaskStream.load(Path(place) / "stream"))


def _extend(options: argparse.Namespace) -> int:
    from lifelong.console import Console
    from lifelong.reports.lifecycle import show_attempt
    from lifelong.run import Run

    run = Run.load(options.folder)
    for task in tasks_of(options):
        attempt = run.extend(
            task,
            max_forgetting=options.max_forgetting,
            min_gain=options.min_gain,
            trust=options.trust or None,
            quiet=options.quiet,
        )
        if not options.quiet:
            show_attempt(attempt, Console())
        if not attempt.accepted:
            return REFUSED
    return 0


def _rollback(options: argparse.Namespace) -> int:
    from lifelong.rollback import roll_back

    removed = roll_back(options.folder, options.to)
    print(f"{options.folder} is at stage {options.to}; {removed} stages were removed")
    return 0


def _history(options: argparse.Namespace) -> int:
    from lifelong.console import Console
    from lifelong.reports.lifecycle import show_history
    from lifelong.run import Run

    show_history(Run.load(options.folder).history, Console())
    return 0
