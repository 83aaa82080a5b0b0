"""Time and memory of the quickstart, as a user runs it.

    python experiments/benchmarks/quickstart.py

Asked on two CPU cores: at most 120 seconds and 2.5 GB, from the start of the process to its end.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

EXPERIMENT = Path(__file__).parents[1] / "quickstart.yaml"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "lifelong", "run", str(EXPERIMENT), "--folder", f"{folder}/quickstart"]
        started = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    table = Table("", "measured", "asked")
    table.add_row("seconds", f"{seconds:.0f}", "120")
    table.add_row("largest resident size, GB", f"{peak:.2f}", "2.5")
    Console().print(table)


if __name__ == "__main__":
    main()
