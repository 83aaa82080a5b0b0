"""Twelve runs on a local Ray cluster, one of whose workers is killed in the middle, beside the same in one process.

    python experiments/benchmarks/ray_study.py [--epochs 20]

Asked: the lost run is begun again and goes on, the study finishes, and all matrices are the same.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import ray
from rich.console import Console
from rich.table import Table

from lifelong import Study
from lifelong.backends import Ray
from lifelong.config import read_config

EXPERIMENT = Path(__file__).parents[1] / "six_methods.yaml"


def study(folder: Path, epochs: int) -> Study:
    config = read_config(EXPERIMENT, {"epochs": epochs})
    return Study(config, config.pop("vary"), folder)


def kill_one(folder: Path, killed: list[str]) -> None:
    """Kill the worker of the first run that is in the middle of its stages."""
    while not killed:
        time.sleep(0.5)
        for lock in sorted(folder.glob("*/.lock")):
            if (lock.parent / "stages" / "2").is_dir() and (owner := lock.read_text()):
                os.kill(int(owner.partition('"process": ')[2].partition(",")[0]), signal.SIGKILL)
                killed.append(lock.parent.name)
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    killed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        spread = study(Path(name) / "spread", options.epochs)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        threading.Thread(target=kill_one, args=(spread.folder, killed), daemon=True).start()
        spread.run(backend=Ray())
        ray.shutdown()
        alone = study(Path(name) / "alone", options.epochs).run(quiet=True)
        pairs = [(spread.runs[run].rows, alone.runs[run].rows) for run in alone.runs]
        same = sum(one.drop(columns="seconds").equals(other.drop(columns="seconds")) for one, other in pairs)
        attempts = sum(event["event"] == "run" for event in spread.runs[killed[0]].history)
    table = Table("", "measured", "asked")
    table.add_row("killed", killed[0], "one")
    table.add_row("its attempts", str(attempts), "2")
    table.add_row("runs with the same matrix", str(same), str(len(pairs)))
    Console().print(table)


if __name__ == "__main__":
    main()
