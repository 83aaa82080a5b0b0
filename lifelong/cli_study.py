"""Commands for many runs side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.errors import ConfigError

if TYPE_CHECKING:
    from lifelong.study import Study


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``compare``."""
    compare = commands.add_parser(
        "compare",
        help="run a study, and compare its methods",
        description="Compare the methods of a study: means with intervals, paired tests, and ranks. What is not "
        "finished of a YAML file's study runs first; of a study's folder, what is there is compared.",
        epilog="Any setting of the file can be replaced, as for `lifelong run`.",
        allow_abbrev=False,
    )
    compare.add_argument(
        "file", type=Path, metavar="FILE", help="a YAML file with a `vary` section, or a study's folder"
    )
    compare.add_argument("--folder", type=Path, help="where to keep the runs")
    compare.add_argument(
        "--reference", metavar="METHOD", help="that the others are tested against; by default the first"
    )
    compare.add_argument("--figure", default="average_accuracy", help="that is tested (default: average_accuracy)")
    add_running(compare)
    compare.set_defaults(command=_compare, settings_follow=True, runs=True)


def add_running(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the runs of a study are worked on."""
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes for the runs of a study")
    parser.add_argument(
        "--backend", choices=("local", "ray"), default="local", help="ray: spread a study over a cluster"
    )
    parser.add_argument("--address", help="of the Ray cluster; by default RAY_ADDRESS, or else this machine")
    parser.add_argument("--cpus", type=float, default=1.0, help="cores for a run on the cluster")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs for a run on the cluster, such as 0.25")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no tables")


def study_of(config: dict[str, Any], options: argparse.Namespace) -> Study:
    """The study that a configuration with a ``vary`` section describes."""
    from lifelong.study import Study

    vary, select = config.pop("vary"), config.pop("select", None)
    for name, value in (("vary", vary), ("select", select)):
        if not isinstance(value, dict) and not (name == "select" and value is None):
            raise ConfigError(f"{name}: expected settings with their values, got {type(value).__name__}")
    return Study(config, vary, config.pop("folder", None) or Path("runs") / options.file.stem, select=select)


def run_study(study: Study, options: argparse.Namespace) -> int:
    """Run what is not finished; the exit status is 1 when a run failed."""
    from lifelong.backends import Ray

    backend = Ray(options.address, options.cpus, options.gpus) if options.backend == "ray" else None
    study.run(options.jobs, options.quiet, backend)
    return 0 if all(run.status["state"] == "done" for run in study.runs.values()) else 1


def _compare(options: argparse.Namespace) -> int:
    from lifelong.config import parse_overrides, read_config
    from lifelong.study import Study

    status = 0
    if (options.file / "study.json").is_file():
        study = Study.load(options.file)
    else:
        config = read_config(options.file, parse_overrides(options.overrides))
        if options.folder is not None:
            config["folder"] = str(options.folder)
        if "vary" not in config:
            raise ConfigError(f"{options.file}: has no `vary` section, so there is nothing to compare")
        study = study_of(config, options)
        status = run_study(study, options)
    if not options.quiet:
        from lifelong.console import Console
        from lifelong.reports.comparing import show_comparison

        show_comparison(study.comparison(), Console(), options.figure, options.reference)
    return status
