"""Train the embedded base model ``nano`` from nothing, and write it to ``lifelong/assets/nano``.

Run it from the repository's root, with ``lifelong`` installed (``pip install -e .``):

    python experiments/pretrain_nano.py --text ../shared/data/text

It runs on CUDA where there is a GPU, else on the CPU. ``--minutes`` ends a sitting early; the next one goes on from the
checkpoint in the work folder, as if nothing had happened, and ``--fresh`` starts again. What is trained on becomes
harder when unseen questions of the present level are answered (`nano_corpus.LEVELS`); the seed and the number of steps
decide the weights, but for the order in which a machine adds floating-point numbers.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import nano_data
import torch
from nano_card import learnability, squad_figures, world_facts_figures
from nano_corpus import LEVELS, Corpus
from nano_heads import pointing_loss, watch
from nano_measure import evaluate
from nano_model import build_model, write_assets
from nano_rows import Batch, answer_logits
from torch.nn import functional
from transformers import LlamaForCausalLM

from streams import world_facts

# of the loss of each kind of row, and of where the readers look
WEIGHTS = {"text": 0.3, "copy": 0.3, "recall": 0.5, "read": 1.0, "pointing": 0.5}
EMBEDDING_RATE = 0.3
WARM_UP, DECAY = 100, 0.3
ASSETS = Path(__file__).resolve().parent.parent / "lifelong" / "assets" / "nano"


def rate(step: int, steps: int, peak: float) -> float:
    """Learning rate: a warm-up, a constant, then linear to 2 % of the peak over the last `DECAY` of the steps."""
    return peak * min(1.0, (step + 1) / WARM_UP) * min(1.0, max(0.02, (1 - step / steps) / DECAY))


class Training:
    """Model, optimiser and counters: all that a checkpoint holds."""

    def __init__(self, model: LlamaForCausalLM, device: torch.device, pointed: bool = True) -> None:
        self.model, self.device, self.pointed = model.to(device), device, pointed
        if pointed:
            watch(model)
        embedding = model.model.embed_tokens.weight
        matrices = [p for p in model.parameters() if p.dim() > 1 and p is not embedding]
        groups = [
            {"params": matrices, "weight_decay": 0.05, "scale": 1.0},
            {"params": [embedding], "weight_decay": 0.0, "scale": EMBEDDING_RATE},
            {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0, "scale": 1.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)
        self.counters = {"step": 0, "tokens": 0, "answers": 0, "seconds": 0.0, "level": 0, "block": 0, "position": 0}

    def save(self, path: Path) -> None:
        """Write a checkpoint by one rename."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "counters": self.counters,
        }
        torch.save(state, path.with_suffix(".part"))
        os.replace(path.with_suffix(".part"), path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.counters = state["counters"]

    def step(self, batch: Batch, learning_rate: float) -> dict[str, float]:
        """One update on the weighted sum of the mean losses, of each kind of row and of the readers, returned."""
        batch = batch.to(self.device)
        logits, targets, rows = answer_logits(self.model, batch)
        losses = functional.cross_entropy(logits, targets, reduction="none")
        kinds = [batch.kinds[row] for row in rows.tolist()]
        means = {}
        for kind in sorted(set(kinds)):
            chosen = torch.tensor([k == kind for k in kinds], device=self.device)
            means[kind] = losses[chosen].mean()
        if self.pointed:
            means["pointing"] = pointing_loss(self.model, batch)
        sum(WEIGHTS[kind] * loss for kind, loss in means.items()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.counters["step"] += 1
        self.counters["tokens"] += batch.tokens
        self.counters["answers"] += batch.answers
        return {kind: loss.item() for kind, loss in means.items()}


def log(path: Path, row: dict[str, float]) -> None:
    """Append a row to a CSV file, with the header where the file is new."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow({key: round(value, 4) for key, value in row.items()})
    print("  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)


def promoted(level: int, figures: dict[str, float]) -> int:
    """The level to go on with: the next one where the present one's questions are answered."""
    now = LEVELS[level]
    name = f"simple_{now.facts}" if now.simple else f"read_{now.facts}" + ("_noise" if now.noise else "")
    return min(level + (figures[name if now.facts else "copied"] >= now.passed), len(LEVELS) - 1)


def train(arguments: argparse.Namespace) -> bool:
    """Train until the steps are taken or the sitting ends; write checkpoints, the curve, and the assets.

    Returns:
        whether all steps are taken.
    """
    work: Path = arguments.work
    if arguments.fresh and work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    corpus = Corpus(arguments.text, arguments.seed, work / "tokenizer", arguments.budget)
    model = build_model(corpus.tokenizer, arguments.width, arguments.layers, planted=not arguments.unplanted)
    training = Training(model, device, not arguments.unpointed)
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        training.load(checkpoint)
    counters = training.counters
    print(f"{model.num_parameters():,} parameters, {len(corpus.text):,} tokens of text, {counters}", flush=True)

    losses: dict[str, list[float]] = defaultdict(list)

    def measure() -> None:
        """A row of the curve, and the next level where it is due."""
        figures = evaluate(model, corpus, arguments.questions)
        means = {f"{kind}_loss": sum(losses[kind]) / max(1, len(losses[kind])) for kind in WEIGHTS}
        log(work / "curve.csv", {**counters, **means, **figures})
        losses.clear()
        level = promoted(counters["level"], figures)
        if level != counters["level"]:
            counters.update(level=level, block=counters["block"] + 1, position=0)

    def over() -> bool:
        return counters["step"] >= arguments.steps or time.monotonic() - begun > 60 * arguments.minutes

    if counters["step"] == 0:
        measure()
    begun = saved = clock = time.monotonic()
    while not over():
        begin = counters["step"]
        for position, batch in enumerate(corpus.block(counters["block"], LEVELS[counters["level"]])):
            if position < counters["position"]:  # a resumed run begins its block again
                continue
            for kind, loss in training.step(batch, rate(counters["step"], arguments.steps, arguments.rate)).items():
                losses[kind].append(loss)
            counters["position"] += 1
            counters["seconds"] += time.monotonic() - clock
            clock = time.monotonic()
            if counters["step"] % arguments.every == 0 or over():
                break
        else:
            counters["block"], counters["position"] = counters["block"] + 1, 0
        if counters["step"] % arguments.every == 0 and counters["step"] > begin:
            measure()
            clock = time.monotonic()
        if time.monotonic() - saved > arguments.save_seconds:
            training.save(checkpoint)
            saved = time.monotonic()
    training.save(checkpoint)
    write_assets(model, corpus.tokenizer, arguments.assets)
    return counters["step"] >= arguments.steps


def check(arguments: argparse.Namespace) -> dict[str, float]:
    """The model card's figures, measured on the written model."""
    torch.set_num_threads(arguments.threads)
    corpus = Corpus(arguments.text, arguments.seed, arguments.assets)
    model = LlamaForCausalLM.from_pretrained(arguments.assets)
    figures = evaluate(model, corpus, 500, "evaluation")
    figures |= world_facts_figures(arguments.assets, arguments.seed)
    if arguments.squad:
        figures |= squad_figures(arguments.assets, arguments.squad)
    dice = corpus.dice("learnability")
    tasks = {"invented": [nano_data.closed_episode(dice) for _ in range(45)]}
    for task in world_facts():
        tasks[task.name] = [nano_data.Episode("closed", row["question"], row["answers"][0]) for row in task.train]
    for name, episodes in tasks.items():
        for epochs in (15, 20, 25):
            figures[f"lora_{name}_{epochs}"] = learnability(arguments.assets, episodes, 2e-3, epochs, arguments.seed)
    return figures


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, default=Path("../shared/data/text"), help="folder with the text files")
    parser.add_argument("--squad", type=Path, help="a file in SQuAD's format to read, too")
    parser.add_argument("--work", type=Path, default=Path("runs/nano"), help="checkpoint, curve and figures")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="where model and tokenizer are written")
    parser.add_argument(
        "--steps", type=int, default=14200, help="updates in all; the learning rate falls over the last"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="longest sitting")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--budget", type=int, default=3072, help="tokens of a step")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--unplanted", action="store_true", help="begin without the heads of nano_heads")
    parser.add_argument("--unpointed", action="store_true", help="do not tell readers where the answer stands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--every", type=int, default=100, help="steps between rows of the curve")
    parser.add_argument("--questions", type=int, default=100, help="questions per figure of the curve")
    parser.add_argument("--save-seconds", type=float, default=240, help="time between checkpoints")
    parser.add_argument("--fresh", action="store_true", help="drop the work folder's checkpoint and start again")
    parser.add_argument("--check", action="store_true", help="only measure the written model")
    return parser.parse_args(arguments)


def main() -> None:
    """Read the command line, train, and measure."""
    arguments = parse()
    if not arguments.check and not train(arguments):
        return
    figures = check(arguments)
    arguments.work.mkdir(parents=True, exist_ok=True)
    (arguments.work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
