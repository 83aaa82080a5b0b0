"""What Experiment and Trainer add to a training step, beside a bare PyTorch loop over the same batches.

    python experiments/benchmarks/training_step.py [--rounds 7] [--steps 40]

Both train in one process, in turn, on the same micro-batches; the first round warms up, then the median counts.
Two bare loops are shown: one computes logits only where an answer is, as lifelong does; the other is what people write,
`model(..., labels=labels).loss`, with logits everywhere. Asked: at most 1.15 (nano) and 1.05 (25 M) of the first.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightning.pytorch import Callback
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from lifelong import Experiment
from lifelong.data import Batch
from lifelong.folder import RunFolder
from lifelong.interruption import StopSign
from lifelong.learner import Learner
from lifelong.libraries import quiet_libraries
from lifelong.loop import Loop
from lifelong.models import NANO
from lifelong.progress import Reporter
from lifelong.strategies import Naive


class Clock(Callback):
    """Seconds from the end of the first step to the end of the last, loading of batches included."""

    def on_train_start(self, *_: object) -> None:
        self.times: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.times.append(time.perf_counter())

    def per_step(self) -> float:
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


def medium_model(folder: Path) -> Path:
    """A Llama of 25 million parameters with the tokenizer of nano."""
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=7,
        num_attention_heads=8,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def through_trainer(loop: Loop, epochs: int) -> float:
    """Seconds per step of one stage, as a run trains it."""
    loader = loop.learner.begin_stage(loop.stages[0])
    loop.reporter.begin("training", len(loader) * epochs)
    loop.learner.train()
    trainer = loop.trainer(epochs)
    clock = next(callback for callback in trainer.callbacks if isinstance(callback, Clock))
    trainer.fit(loop.learner, loader)
    return clock.per_step()


def bare(model: torch.nn.Module, batches: list[Batch], epochs: int, loss: Callable[[Batch], torch.Tensor]) -> float:
    """Seconds per step of the plainest loop."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    times = []
    for batch in (batch for _ in range(epochs) for batch in batches):
        loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter())
    return (times[-1] - times[0]) / (len(times) - 1)


def measure(model: str, rounds: int, steps: int, folder: Path) -> Iterator[tuple[str, float, float]]:
    experiment = Experiment("streams.world_facts", model, strategies=[Naive()], callbacks=[Clock()])
    folder.mkdir(exist_ok=True)
    with quiet_libraries():
        loop = Loop(experiment, RunFolder(folder), experiment.stages(), Reporter(quiet=True), StopSign())
        learner: Learner = loop.learner
        batches = [batch for step in learner.begin_stage(loop.stages[0]) for batch in step]
        network = learner.model

        def answers_only(batch: Batch) -> torch.Tensor:
            targets = batch["labels"]
            places = (targets[:, 1:] != -100).any(0).nonzero().squeeze(1)
            logits = network(batch["input_ids"], batch["attention_mask"], logits_to_keep=places, use_cache=False).logits
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets[:, places + 1].flatten())

        def everywhere(batch: Batch) -> torch.Tensor:
            return network(batch["input_ids"], batch["attention_mask"], labels=batch["labels"], use_cache=False).loss

        epochs = max(1, steps // len(batches))
        ways = {
            "through Experiment and Trainer": lambda: through_trainer(loop, epochs),
            "bare loop, logits of answers": lambda: bare(network, batches, epochs, answers_only),
            "bare loop, logits everywhere": lambda: bare(network, batches, epochs, everywhere),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds + 1):
            for name, run in ways.items():
                times[name].append(run())
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    for name, median in medians.items():
        yield name, median, medians["through Experiment and Trainer"] / median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    table = Table("model", "way", "ms per step", "ours / this one")
    with tempfile.TemporaryDirectory() as folder:
        for model in ("nano", str(medium_model(Path(folder) / "medium"))):
            for name, seconds, ratio in measure(model, options.rounds, options.steps, Path(folder) / "run"):
                table.add_row(Path(model).name, name, f"{1000 * seconds:.1f}", f"{ratio:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
