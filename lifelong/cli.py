"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lifelong import cli_lifecycle, cli_report, cli_study, cli_watch
from lifelong._version import __version__
from lifelong.cli_study import add_running, run_study, study_of
from lifelong.errors import Interrupted, LifelongError

if TYPE_CHECKING:
    from lifelong.study import Study


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, 1 for a failed run, 2 for a mistake in what was asked, 130 for Ctrl+C, 143 for SIGTERM.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command is _ask and options.question is None and len(rest) == 1 and not rest[0].startswith("-"):
        options.question = rest.pop()  # argparse does not look for it behind options
    if rest and not getattr(options, "settings_follow", False) and not (options.command is _streams and options.name):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides = rest
    try:
        return options.command(options)
    except LifelongError as error:
        from lifelong.console import printable

        print(f"lifelong{_process()}: {printable(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except Interrupted as stopped:
        if not _process():
            print(f"lifelong: {stopped}", file=sys.stderr)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        if not _process():
            runs = getattr(options, "runs", False)
            kept = "; finished stages are kept, `lifelong resume FOLDER` goes on" if runs else ""
            print(f"lifelong: interrupted{kept}", file=sys.stderr)
        return 130


def _process() -> str:
    """Which process of a run on several devices this is, where it is not the first."""
    loaded = sys.modules.get("lifelong.distributed")  # which a mistake in what was asked does not load
    number = loaded.rank() if loaded else 0
    return f", process {number}" if number else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lifelong", description="Teach a language model a stream of tasks, and measure what it still knows."
    )
    parser.add_argument("--version", action="version", version=f"lifelong {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run an experiment, or a study, from a YAML file",
        description="Run an experiment from a YAML file, or a study when the file has a `vary` section.",
        epilog="Any setting of the file can be replaced: --epochs 3 --evaluate.books '[closed, gold]' "
        "--strategies.0.init_args.share 0.3. --print_config shows all of them.",
        allow_abbrev=False,
    )
    run.add_argument("file", type=Path, metavar="FILE")
    run.add_argument("--folder", type=Path, help="where to keep the run")
    shows = {"action": "store_true", "help": "print the resolved settings and stop"}
    run.add_argument("--print_config", "--print-config", **shows)
    run.add_argument("--dry-run", "--dry_run", action="store_true", help="check everything short of training, and stop")
    add_running(run)
    run.set_defaults(command=_run, settings_follow=True, runs=True)

    resume = commands.add_parser("resume", help="go on with a run or study after its last finished stage")
    resume.add_argument("folder", type=Path, metavar="FOLDER")
    resume.add_argument("--trust", action="store_true", help="let code run that the folder's configuration names")
    add_running(resume)
    resume.set_defaults(command=_resume, runs=True)

    cli_lifecycle.add_commands(commands)
    cli_study.add_commands(commands)
    cli_report.add_commands(commands)
    cli_watch.add_commands(commands)

    show = commands.add_parser("show", help="print the matrix and every figure of a run, or the table of a study")
    show.add_argument("folder", type=Path, metavar="FOLDER")
    show.set_defaults(command=_show)

    ask = commands.add_parser(
        "ask",
        help="ask what a run has learned, after any of its stages",
        description="Ask what a run has learned. Without a question it reads them line by line, from a pipe or as you "
        "type them, until an empty line or Ctrl+D.",
    )
    ask.add_argument("folder", type=Path, metavar="FOLDER")
    ask.add_argument("question", nargs="?", metavar="QUESTION")
    ask.add_argument(
        "--book",
        choices=("closed", "retrieved"),
        default="closed",
        help="retrieved: show it the passages that are found",
    )
    ask.add_argument("--task", metavar="NAME", help="the task that it is of, for runs that have to be told")
    _learned(ask)
    ask.set_defaults(command=_ask)

    export = commands.add_parser(
        "export",
        help="write what a run has learned as a folder for PEFT and transformers, with a model card",
        description="Write the adapter, or the model, with tokenizer, retrieval index and model card.",
    )
    export.add_argument("folder", type=Path, metavar="FOLDER")
    export.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder to write, new or empty")
    export.add_argument("--merge", action="store_true", help="add the adapter to the weights: one plain model")
    _learned(export)
    export.set_defaults(command=_export)

    streams = commands.add_parser(
        "streams",
        help="list the known task streams, or look into one",
        epilog="What follows a name are arguments of its function: streams.standard_cl --order O4 --folder PATH.",
        allow_abbrev=False,
    )
    streams.add_argument("name", nargs="?", metavar="NAME", help="such as streams.world_facts or my_stream.py:function")
    streams.set_defaults(command=_streams)

    retrieve = commands.add_parser(
        "retrieve",
        help="try how well a stream's passages are found, before any training",
        epilog="Settings of retrieval and arguments of the stream may follow: lifelong retrieve streams.world_facts "
        "--retrieval.k 5 --retrieval.hybrid true --tasks '[moons]'.",
        allow_abbrev=False,
    )
    retrieve.add_argument("name", metavar="NAME", help="a stream, or the YAML file of an experiment")
    retrieve.add_argument("--missed", type=int, default=5, help="how many questions without their passage are shown")
    retrieve.set_defaults(command=_retrieve, settings_follow=True)

    build = commands.add_parser(
        "build-stream",
        help="make a stream of question-answer tasks from a folder of documents",
        description="Make question-answer tasks of text, Markdown, HTML and PDF files, and save them as a stream.",
        epilog="Settings of lifelong.documents.build_stream may follow, and those of the generator: --tokens 200 "
        "--screen.longest_answer 8 --generator.pairs 6.",
        allow_abbrev=False,
    )
    build.add_argument("folder", type=Path, metavar="FOLDER")
    build.add_argument("--out", type=Path, required=True, help="the stream's folder")
    build.add_argument("--by", default="folder", help="what makes a task: folder (default), month, year or topic")
    build.add_argument(
        "--generator",
        default="RuleGenerator",
        help="who writes the questions: RuleGenerator (default), ModelGenerator, EndpointGenerator or a class of yours",
    )
    build.add_argument("--skip-unreadable", action="store_true", help="leave out documents that cannot be read")
    build.add_argument("-q", "--quiet", action="store_true", help="no report on the terminal")
    build.set_defaults(command=_build_stream, settings_follow=True)
    return parser


def _learned(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stage", type=int, metavar="K", help="0 is the untrained model; by default the last one")
    parser.add_argument("--trust", action="store_true", help="let code run that the folder's configuration names")


def _run(options: argparse.Namespace) -> int:
    from lifelong.config import make_experiment, parse_overrides, read_config

    config = read_config(options.file, parse_overrides(options.overrides))
    if options.folder is not None:
        config["folder"] = str(options.folder)
    if "vary" in config:
        return _study(config, options)
    experiment = make_experiment(config)
    if options.print_config:
        return _print_config(experiment.config())
    if options.dry_run:
        return _dry_run({str(options.file): experiment})
    return _finish_run(experiment.run(options.quiet).path, options.quiet)


def _study(config: dict, options: argparse.Namespace) -> int:
    from lifelong.describe import plain

    described = plain({key: value for key, value in config.items() if key != "folder"})
    study = study_of(config, options)
    if options.print_config:
        return _print_config(described)
    if options.dry_run:
        return _dry_run(study.experiments())
    return _finish_study(study, options)


def _dry_run(experiments: dict) -> int:
    from lifelong.console import Console
    from lifelong.reports.dry_run import show_preview

    for name, experiment in experiments.items():
        found = experiment.preview()
        show_preview(found, name, Console())
        if experiment.check_resources:
            found.check()
    return 0


def _resume(options: argparse.Namespace) -> int:
    from lifelong.extension import resume
    from lifelong.inside import check_links
    from lifelong.study import Study
    from lifelong.trust import made_here

    trust = options.trust or made_here(options.folder)
    if not trust:
        check_links(options.folder)
    if (options.folder / "study.json").is_file():
        return _finish_study(Study.load(options.folder, trust), options)
    return _finish_run(resume(options.folder, trust, options.quiet).path, options.quiet)


def _show(options: argparse.Namespace) -> int:
    from lifelong.console import Console
    from lifelong.reports.terminal import show_run, show_study
    from lifelong.run import Run
    from lifelong.study import Study

    if (options.folder / "study.json").is_file():
        show_study(Study.load(options.folder), Console())
    else:
        show_run(Run.load(options.folder), Console())
    return 0


def _ask(options: argparse.Namespace) -> int:
    from lifelong.reports.asking import answer_lines, typed_lines
    from lifelong.run import Run

    run = Run.load(options.folder)
    learner = run.learner(options.stage, options.trust or None)
    questions = typed_lines() if options.question is None else [options.question]
    answer_lines(run, learner, questions, options.book, options.task)
    return 0


def _export(options: argparse.Namespace) -> int:
    from lifelong.run import Run

    run = Run.load(options.folder)
    print(f"written: {run.export(options.to, options.stage, options.merge, options.trust or None)}")
    return 0


def _streams(options: argparse.Namespace) -> int:
    from rich.table import Table

    from lifelong.console import Console
    from lifelong.registry import resolve_stream, stream_catalogue
    from lifelong.reports.terminal import show_stream

    if options.name:
        arguments = {}
        if options.overrides:
            from lifelong.config import parse_overrides  # heavier than what a stream without arguments needs

            arguments = parse_overrides(options.overrides)
        show_stream(resolve_stream({"class_path": options.name, "init_args": arguments}), Console())
        return 0
    table = Table(header_style="bold")
    table.add_column("stream", no_wrap=True)
    table.add_column("what it is")
    for name, function in stream_catalogue().items():
        table.add_row(name, (function.__doc__ or "").strip().split("\n")[0])
    Console().print(table)
    return 0


def _retrieve(options: argparse.Namespace) -> int:
    from lifelong.config import make_experiment, parse_overrides, read_config
    from lifelong.console import Console
    from lifelong.library import Retrieval
    from lifelong.registry import call, resolve_stream
    from lifelong.reports.retrieval import retrieval_trial
    from lifelong.reports.terminal import show_retrieval_trial

    overrides = parse_overrides(options.overrides)
    if Path(options.name).suffix in (".yaml", ".yml"):
        experiment = make_experiment(read_config(Path(options.name), overrides))
        tasks, settings = experiment.tasks, experiment.retrieval
    else:
        own = {key: value for key, value in overrides.items() if not key.startswith("retrieval.")}
        chosen = {key.removeprefix("retrieval."): overrides[key] for key in overrides if key not in own}
        tasks = resolve_stream({"class_path": options.name, "init_args": own})
        settings = call(Retrieval, chosen, "retrieval")
    show_retrieval_trial(*retrieval_trial(tasks, settings), settings.k, options.missed, Console())
    return 0


def _build_stream(options: argparse.Namespace) -> int:
    from lifelong.config import parse_overrides
    from lifelong.documents import Generator, Screen, build_stream
    from lifelong.registry import build, call

    settings = parse_overrides(options.overrides)
    parts: dict[str, dict] = {"generator": {}, "screen": {}}
    for key in [key for key in settings if key.partition(".")[0] in parts]:
        part, _, name = key.partition(".")
        parts[part][name] = settings.pop(key)
    generator = {"class_path": options.generator, "init_args": parts["generator"]}
    chosen = {
        "by": options.by,
        "generator": build(generator, "generator", ("lifelong.documents",), kind=Generator),
        "screen": call(Screen, parts["screen"], "screen"),
        "skip_unreadable": options.skip_unreadable,
        "quiet": options.quiet,
    }
    report = call(build_stream, {"folder": options.folder, "out": options.out} | settings | chosen, "")
    if not options.quiet:
        from lifelong.console import Console
        from lifelong.reports.documents import show_build_report

        show_build_report(report, options.out, Console())
    return 0


def _finish_run(folder: Path, quiet: bool) -> int:
    if not quiet and not _process():
        from lifelong.console import Console
        from lifelong.reports.terminal import show_run
        from lifelong.run import Run

        show_run(Run.load(folder), Console())
    return 0


def _finish_study(study: Study, options: argparse.Namespace) -> int:
    status = run_study(study, options)
    if not options.quiet:
        from lifelong.console import Console
        from lifelong.reports.terminal import show_study

        show_study(study, Console())
    return status


def _print_config(config: dict) -> int:
    import yaml

    print(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), end="")
    return 0
