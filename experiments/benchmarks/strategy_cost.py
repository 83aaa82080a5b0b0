"""What strategies cost beside plain fine-tuning: a step, its growth over twenty stages, a stage's end, bytes kept.

    python experiments/benchmarks/strategy_cost.py [--rounds 3] [--only EWC --only Replay]

Each round runs every strategy over the same stream of twenty small tasks, plain fine-tuning first; a step's cost is the
median of a stage's steps, beside that of the plain run of the same round. Asked: what claims to be online stays flat;
replay of half of each batch at most 2.2 times, EWC at most 1.15; O-LoRA's penalty at most 1.1 times the same without
it, which is IncrementalLoRA, at ten stages. Bytes are those of state and further adapters after the last stage.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback
from peft import LoraConfig

import lifelong.strategies as st
from lifelong import Experiment, Run, Task, TaskStream

STAGES, ROWS, BATCH = 20, 64, 16
LOOKED_AT = (2, 10, 20)
# strategies that train all weights, where a penalty on them costs most, and those that need a LoRA
FULL: dict[str, Callable[[], st.Strategy]] = {
    "Naive": st.Naive,
    "Replay": lambda: st.Replay(capacity=0.5, share=0.5),
    "EWC": lambda: st.EWC(samples=16),
    "SynapticIntelligence": st.SynapticIntelligence,
    "MAS": lambda: st.MAS(samples=16),
    "LwF": st.LwF,
    "L2Anchor": st.L2Anchor,
    "DarkReplay": lambda: st.DarkReplay(capacity=0.5, share=0.5),
    "AGEM": st.AGEM,
}
LORA: dict[str, Callable[[], st.Strategy]] = {
    "Naive": st.Naive,
    "IncrementalLoRA": st.IncrementalLoRA,
    "OrthogonalLoRA": st.OrthogonalLoRA,
    "SLAO": st.SLAO,
    "MagnitudeMask": st.MagnitudeMask,
}
ASKED = {"Replay": "at most 2.2", "EWC": "at most 1.15", "OrthogonalLoRA": "at most 1.1 of IncrementalLoRA"}


class Clock(Callback):
    """The seconds of every step, by stage; experiments take copies of callbacks, so the times are the class's."""

    seconds: ClassVar[dict[int, list[float]]] = {}

    def on_train_batch_start(self, trainer: Any, learner: Any, *batch: Any) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, learner: Any, *batch: Any) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        Clock.seconds.setdefault(learner.stage.index, []).append(time.perf_counter() - self.started)


def stream() -> TaskStream:
    """Twenty tasks of invented facts, all of one length."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnop", k=5)) for _ in range(2 * STAGES * ROWS)]
    pairs = [(f"What is the sign of {a}?", b) for a, b in zip(words[::2], words[1::2], strict=True)]
    tasks = [pairs[start : start + ROWS] for start in range(0, len(pairs), ROWS)]
    return TaskStream("signs", [Task.from_pairs(f"task{number}", some) for number, some in enumerate(tasks, start=1)])


def run(make: Callable[[], st.Strategy], adapter: LoraConfig | None, folder: Path) -> tuple[dict[int, float], Run]:
    """Median seconds of a step by stage, and the run."""
    Clock.seconds = {}
    made = Experiment(
        stream(),
        adapter=adapter,
        strategies=[make()],
        epochs=3,
        batch_size=BATCH,
        evaluate={"every": STAGES, "sample": 1, "probes": False, "max_new_tokens": 2},
        callbacks=[Clock()],
        folder=folder,
    ).run(quiet=True)
    return {stage: statistics.median(seconds) for stage, seconds in Clock.seconds.items()}, made


def measure(ways: dict[str, Callable[[], st.Strategy]], adapter: LoraConfig | None, rounds: int) -> None:
    """The table of one group of strategies."""
    seconds: dict[str, list[dict[int, float]]] = {name: [] for name in ways}
    kept: dict[str, tuple[int, float | None]] = {}
    with tempfile.TemporaryDirectory() as name:
        for number in range(rounds + 1):
            for way, make in ways.items():
                steps, made = run(make, adapter, Path(name) / f"{number}-{way}")
                if number:  # the first round warms up
                    seconds[way].append(steps)
                costs = made.costs[-1]
                said = make().traits.bytes_kept(parameters=costs["trainable_parameters"], stages=STAGES)
                kept[way] = costs["strategy_bytes"], said
    columns = ["strategy", *(f"stage {stage}" for stage in LOOKED_AT), "growth", "bytes kept", "formula", "asked"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for way, rounds_of_it in seconds.items():
        pairs = list(zip(rounds_of_it, seconds["Naive"], strict=True))
        ratios = [statistics.median(one[stage] / plain[stage] for one, plain in pairs) for stage in LOOKED_AT]
        size, formula = kept[way]
        cells = [f"{ratio:.2f}" for ratio in (*ratios, ratios[-1] / ratios[0])]
        said = "-" if formula is None else f"{formula:.0f}"
        print(f"| {way} | {' | '.join(cells)} | {size} | {said} | {ASKED.get(way, '')} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="strategies to measure; all by default")
    options = parser.parse_args()
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
    for title, ways, adapter in (("all weights of nano", FULL, None), ("LoRA of rank 8 on nano", LORA, lora)):
        chosen = {way: make for way, make in ways.items() if way == "Naive" or not options.only or way in options.only}
        if len(chosen) > 1:
            print(f"\n{title}, {STAGES} stages, times plain fine-tuning")
            measure(chosen, adapter, options.rounds)


if __name__ == "__main__":
    main()
