"""Preparing 100,000 short rows, beside `datasets.map` with the same tokenizer; and the memory that training takes.

    python experiments/benchmarks/preparation.py [--rows 100000]

Asked: at most 1.2 times `datasets.map`; the second time from the cache; memory that does not grow with the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

COMMON = "the of and to in a is that for it as was with be by on not he his but at are this have from or had they you"
WORDS = COMMON.split()
ROUNDS = 5


def write_rows(path: Path, count: int) -> None:
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            words = " ".join(draw.choices(WORDS, k=draw.randrange(8, 24)))
            answer = " ".join(draw.choices(WORDS, k=draw.randrange(1, 4)))
            file.write(json.dumps({"question": f"{words} {number}?", "answer": answer}) + "\n")


def compare(count: int, folder: Path) -> None:
    from datasets import Dataset, disable_progress_bars
    from timing import median_seconds
    from transformers import AutoTokenizer

    from lifelong import Task
    from lifelong.cache import cache_folder
    from lifelong.encoding import PromptEncoder
    from lifelong.models import NANO
    from lifelong.preparation import prepare
    from lifelong.prompts import PromptTemplate
    from lifelong.strategies.base import labelled

    disable_progress_bars()
    write_rows(folder / "rows.jsonl", count)
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    task = Task.from_jsonl("rows", folder / "rows.jsonl", folder / "rows.jsonl")
    rows = labelled(task, task.train)
    texts = [f"Question: {row['question']}\nAnswer: {row['answers'][0]}" for row in rows]
    Dataset.from_dict({"text": texts}).save_to_disk(folder / "texts")
    written = Dataset.load_from_disk(folder / "texts")

    def with_map() -> None:
        written.map(
            lambda batch: tokenizer(batch["text"]),
            batched=True,
            remove_columns=["text"],
            load_from_cache_file=False,
            cache_file_name=str(folder / "mapped.arrow"),
        )

    def ours() -> None:
        prepare(PromptEncoder(tokenizer, PromptTemplate(), 256), rows, "closed")

    def ours_anew() -> None:
        shutil.rmtree(cache_folder("tokens"))
        ours()

    ways = {"datasets.map": with_map, "prepare": ours_anew, "prepare, from the cache": ours}
    ours()
    medians = median_seconds(ways, ROUNDS)
    print(f"\n{count} rows\n| way | seconds | of datasets.map | asked |\n|---|---|---|---|")
    for name, median in medians.items():
        asked = "at most 1.2" if name == "prepare" else ""
        print(f"| {name} | {median:.2f} | {median / medians['datasets.map']:.2f} | {asked} |")


def train(count: int, folder: Path) -> None:
    """A few steps of one stage over so many rows; prints the process's own memory in MB."""
    import psutil

    from lifelong import Task
    from lifelong.learner import Learner
    from lifelong.models import load_model
    from lifelong.strategies import Stage

    write_rows(folder / f"{count}.jsonl", count)
    write_rows(folder / "few.jsonl", 10)
    task = Task.from_jsonl("rows", folder / f"{count}.jsonl", folder / "few.jsonl")
    learner = Learner(*load_model("nano"))
    loader = iter(learner.begin_stage(Stage.of(task, 1)))
    for _ in range(50):
        for batch in next(loader):
            learner.answer_logits(batch)
    # pages of files that are mapped count as shared: they leave when memory is wanted elsewhere
    memory = psutil.Process().memory_info()
    print(f"{(memory.rss - memory.shared) / 1e6:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--train", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train, options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LIFELONG_CACHE"] = str(Path(folder) / "cache")
        compare(options.rows, Path(folder))
        print("\n| rows of the stage | private memory, MB |\n|---|---|")
        for count in (3_000, options.rows // 4, options.rows):
            command = [sys.executable, __file__, "--train", str(count), "--folder", folder]
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"| {count} | {result.stdout.strip()} |")


if __name__ == "__main__":
    main()
