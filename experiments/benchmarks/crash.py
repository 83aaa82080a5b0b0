"""The quickstart, killed again and again, beside one that was left alone: the same bytes in the end.

    python experiments/benchmarks/crash.py [--kills 8] [--seed 0]

``lifelong run`` is killed at an instant that is drawn, and so is every ``lifelong resume`` after it, as often as is
asked; then one goes to the end. Compared are all weights, strategies' states, losses and answers, byte by byte.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

EXPERIMENT = Path(__file__).parents[1] / "quickstart.yaml"
TIMED = ("costs.json", "rows.csv", "manifest.json")  # which have seconds in them, or checksums of these


def command(folder: Path) -> list[str]:
    begun = (folder / "study.json").is_file()
    what = ["resume", str(folder)] if begun else ["run", str(EXPERIMENT), "--folder", str(folder)]
    return [sys.executable, "-m", "lifelong", *what, "--quiet"]


def content(folder: Path) -> dict[str, bytes]:
    """Of the files of all stages of all runs; PEFT writes a set into its configuration, in any order."""
    files = (path for path in sorted(folder.glob("*/stages/**/*")) if path.is_file() and path.name not in TIMED)
    read = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: in_order(text) if name.endswith("adapter_config.json") else text for name, text in read.items()}


def in_order(text: bytes) -> bytes:
    config = json.loads(text)
    return json.dumps(config | {"target_modules": sorted(config["target_modules"])}).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw, table = random.Random(options.seed), Table("", "")
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        started = time.perf_counter()
        subprocess.run(command(whole), check=True)
        seconds = time.perf_counter() - started
        spent, instants = 0.0, []
        for _ in range(options.kills):
            process = subprocess.Popen(command(killed))
            wait = draw.uniform(0, 2 * seconds / options.kills)
            try:
                process.wait(wait)
                break  # it came to its end
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            spent += wait
            instants.append(round(wait))
        started = time.perf_counter()
        subprocess.run(command(killed), check=True)
        spent += time.perf_counter() - started
        same, other = content(whole), content(killed)
        table.add_row("seconds when left alone", f"{seconds:.0f}")
        table.add_row("killed after so many seconds, each time", ", ".join(map(str, instants)))
        table.add_row("seconds in all", f"{spent:.0f}")
        differing = [file for file in same | other if same.get(file) != other.get(file)]
        table.add_row("files compared, and how many differ", f"{len(same)}, {len(differing)}")
    Console().print(table)
    if differing:
        sys.exit(f"differs: {differing[0]}")


if __name__ == "__main__":
    main()
