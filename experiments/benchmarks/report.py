"""The page of a study of 100 runs: how long it takes to write, how large it is, and how quickly it answers.

    python experiments/benchmarks/report.py [--runs 100] [--study FOLDER]

Asked: under 20 s and 15 MB. The runs are copies of those of a study, of the quickstart's by default, which takes two
minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

import yaml
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

from lifelong import Study
from lifelong.grid import methods
from lifelong.reports.writing import write_report

QUICKSTART = Path(__file__).parents[1] / "quickstart.yaml"
METHODS = 10
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
# milliseconds from a choice in a field until the answers have been drawn anew
CHOOSE = """([name, value]) => new Promise((done) => {
  const field = document.querySelector(`[name=${name}]`), started = performance.now();
  field.value = value;
  field.dispatchEvent(new Event("change", { bubbles: true }));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - started)));
})"""


def study_of_copies(folder: Path, runs: list[Path], count: int) -> None:
    """A study whose runs are some others, again and again."""
    config = yaml.safe_load((runs[0] / "config.yaml").read_text(encoding="utf-8"))
    vary = {"method": {f"method {number}": {} for number in range(METHODS)}, "seed": list(range(count // METHODS))}
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "vary": vary}), encoding="utf-8")
    (folder / "study.json").write_text(json.dumps([]), encoding="utf-8")
    for run, (_, points) in zip(cycle(runs), methods(Study.load(folder).points).items(), strict=False):
        for point in points:
            shutil.copytree(run, point.folder)


def in_browser(page_file: Path) -> dict[str, float]:
    """Seconds until the page can be used, and the median of a filter's milliseconds."""
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_page()
        started = time.perf_counter()
        page.goto(page_file.as_uri())
        page.wait_for_selector("#found:not([hidden])")
        opened = time.perf_counter() - started
        page.evaluate(CHOOSE, ["stage", ""])
        choices = [["split", ""], ["outcome", "wrong"], ["outcome", "forgotten"], ["task", "1"], ["task", ""]] * 3
        filtered = statistics.median(page.evaluate(CHOOSE, choice) for choice in choices)
        shown = page.inner_text("#count")
        browser.close()
    return {"opened": opened, "filtered": filtered, "shown": shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--study", type=Path, help="whose runs are copied")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source = options.study or Path(name) / "quickstart"
        if options.study is None:
            words = ["run", str(QUICKSTART), "--folder", str(source), "--quiet"]
            subprocess.run([sys.executable, "-m", "lifelong", *words], check=True)
        runs = [run.path for run in Study.load(source).runs.values()]
        folder = Path(name) / "study"
        study_of_copies(folder, runs, options.runs)
        write_report(runs[0], Path(name) / "warm.html")  # what is imported, and matplotlib's fonts
        started = time.perf_counter()
        page = write_report(folder)
        seconds, size = time.perf_counter() - started, page.stat().st_size / 1e6
        looked = in_browser(page)
    table = Table("", "measured", "asked")
    table.add_row(f"seconds for {options.runs} runs", f"{seconds:.1f}", "20")
    table.add_row("MB", f"{size:.1f}", "15")
    table.add_row("seconds until it can be used", f"{looked['opened']:.1f}", "")
    table.add_row("milliseconds of a filter", f"{looked['filtered']:.0f}", "")
    table.add_row("answers looked at", looked["shown"], "")
    Console().print(table)


if __name__ == "__main__":
    main()
