"""200 free answers on nano in batches, beside asking one by one with `generate`.

    python experiments/benchmarks/answering.py [--rounds 5]

Both ask the same prompts for at most eight tokens, in one process, in turn; the first round warms up, the median of the
others counts. Asked: batches take at most a third of the time.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from transformers import GenerationConfig

from lifelong import Learner
from lifelong.generation import generate
from lifelong.models import load_model
from streams import world_facts

TOKENS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    learner = Learner(*load_model("nano"))
    learner.eval()
    rows = [row for task in world_facts() for row in task.test][:200]
    prompts = [learner.encoder.encode_prompt(row, reserve=TOKENS) for row in rows]
    eos = learner.tokenizer.eos_token_id
    greedy = GenerationConfig(max_new_tokens=TOKENS, do_sample=False, eos_token_id=eos, pad_token_id=learner.pad_id)

    def one_by_one() -> list[str]:
        answers = []
        for prompt in prompts:
            ids = torch.tensor([prompt])
            output = learner.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=greedy)
            answers.append(learner.tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True).strip())
        return answers

    ways = {"in batches of 64": lambda: generate(learner, prompts, TOKENS, 64), "one by one": one_by_one}
    times: dict[str, list[float]] = {name: [] for name in ways}
    answers = {}
    with torch.inference_mode():
        for _ in range(options.rounds + 1):
            for name, ask in ways.items():
                started = time.perf_counter()
                answers[name] = ask()
                times[name].append(time.perf_counter() - started)
    equal = sum(a == b for a, b in zip(*answers.values(), strict=True))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    table = Table("way", "seconds", "of one by one")
    for name, seconds in medians.items():
        table.add_row(name, f"{seconds:.2f}", f"{seconds / medians['one by one']:.3f}")
    Console().print(table)
    print(f"{len(prompts)} questions, {equal} answers equal in both ways")


if __name__ == "__main__":
    main()
