"""Twelve runs as one study, beside the same runs by separate commands, one after the other.

    python experiments/benchmarks/study.py [--epochs 20] [--jobs 2]

Asked on two cores: at most .65 of the sum. The matrices need not be the same to the last digit: a separate command
computes on all cores, and sums in another order.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from lifelong import Run, Study

EXPERIMENT = Path(__file__).parents[1] / "six_methods.yaml"


def timed(*words: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "lifelong", *words, "--quiet"], check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", default="20")
    parser.add_argument("--jobs", default="2")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ("compare", str(EXPERIMENT), "--folder", str(folder / "study"), "--epochs", options.epochs)
        together = timed(*words, "--jobs", options.jobs)
        study = Study.load(folder / "study")
        apart, same = 0.0, 0
        for point in study.points:
            own = folder / point.folder.name
            settings = study.runs[point.folder.name].config
            file = folder / f"{point.folder.name}.yaml"
            file.write_text(yaml.safe_dump(settings), encoding="utf-8")
            apart += timed("run", str(file), "--folder", str(own))
            rows = [Run(path).rows.drop(columns="seconds") for path in (own, point.folder)]
            same += rows[0].equals(rows[1])
    table = Table("", "measured", "asked")
    table.add_row("one study, seconds", f"{together:.0f}", "")
    table.add_row("separate commands, seconds", f"{apart:.0f}", "")
    table.add_row("ratio", f"{together / apart:.2f}", "0.65")
    table.add_row("runs with the same matrix", f"{same} of {len(study.points)}", "")
    Console().print(table)


if __name__ == "__main__":
    main()
