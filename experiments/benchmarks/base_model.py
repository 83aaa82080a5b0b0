"""Training steps and answers of one base model beside another's, such as nano beside the one before it.

    python experiments/benchmarks/base_model.py OTHER [--model nano] [--rounds 7]

A step is one of plain fine-tuning of all weights (AdamW, gradient clipping) on 16 rows of world_facts, without a
Trainer; the questions are 200 of world_facts, closed-book, with greedy answers of at most twelve tokens. Both models
run in one process, in turn; the first round warms up, then the median counts. Asked of nano on two cores: at most 60 ms
and 3 s.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from timing import median_seconds

from lifelong import Experiment
from lifelong.folder import RunFolder
from lifelong.generation import generate
from lifelong.interruption import StopSign
from lifelong.libraries import quiet_libraries
from lifelong.loop import Loop
from lifelong.progress import Reporter
from lifelong.strategies import Naive
from streams import world_facts

STEPS, QUESTIONS, TOKENS = 20, 200, 12


def ways(model: str, folder: Path) -> tuple[int, Callable[[], None], Callable[[], list[str]]]:
    """The model's parameters, what trains it for `STEPS` steps, and what asks it."""
    experiment = Experiment("streams.world_facts", model, strategies=[Naive()])
    folder.mkdir()
    loop = Loop(experiment, RunFolder(folder), experiment.stages(), Reporter(quiet=True), StopSign())
    learner = loop.learner
    batches = [batch for step in learner.begin_stage(loop.stages[0]) for batch in step]
    optimizer = torch.optim.AdamW(learner.model.parameters(), lr=1e-5, weight_decay=0.0, fused=True)
    questions = [row for task in world_facts() for row in task.test][:QUESTIONS]
    prompts = learner.encoder.encode_prompts(questions, reserves=[TOKENS] * QUESTIONS)

    def train() -> None:
        learner.model.train()
        for number in range(STEPS):
            batch = batches[number % (len(batches) - 1)]  # the last one is smaller
            places = (batch["labels"][:, 1:] != -100).any(0).nonzero().squeeze(1)
            inputs = (batch["input_ids"], batch["attention_mask"])
            logits = learner.model(*inputs, logits_to_keep=places, use_cache=False).logits
            targets = batch["labels"][:, places + 1]
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
            torch.nn.utils.clip_grad_norm_(learner.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    def ask() -> list[str]:
        learner.eval()
        with torch.inference_mode():
            return generate(learner, prompts, TOKENS)

    return learner.model.num_parameters(), train, ask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", help="folder of the model to compare with")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, quiet_libraries():
        models = {name: ways(name, Path(folder) / str(i)) for i, name in enumerate((options.model, options.other))}
        training = median_seconds({name: train for name, (_, train, _) in models.items()}, options.rounds)
        asking = median_seconds({name: ask for name, (_, _, ask) in models.items()}, options.rounds)
    table = Table("model", "parameters", "ms per step", "of the other", f"{QUESTIONS} answers, s", "of the other")
    for name, (parameters, _, _) in models.items():
        step, answer = training[name] / STEPS, asking[name]
        ratios = (training[name] / training[options.other], answer / asking[options.other])
        cells = (f"{1000 * step:.1f}", f"{ratios[0]:.2f}", f"{answer:.2f}", f"{ratios[1]:.2f}")
        table.add_row(Path(name).name, f"{parameters:,}", *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
